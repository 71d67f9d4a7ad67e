"""`understudy keys` and `understudy credits`, as an operator types them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from server import errors
from server.__main__ import main
from server.accounts.accounts import Account, Accounts
from server.database.database import Database, database_url
from server.settings import Settings

Understudy = Callable[..., tuple[int, str, str]]


@pytest.fixture
def understudy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Understudy:
    """Runs a command in a data folder of its own: (exit status, stdout, stderr)."""
    monkeypatch.setenv("UNDERSTUDY_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("UNDERSTUDY_DATABASE_URL", raising=False)

    def understudy(*arguments: str) -> tuple[int, str, str]:
        return main(list(arguments)), *capsys.readouterr()

    return understudy


def _authenticate(api_key: str) -> Account:
    async def authenticate() -> Account:
        database = Database(database_url(Settings()))
        try:
            return await Accounts(database).authenticate(api_key)
        finally:
            await database.close()

    return asyncio.run(authenticate())


def test_a_created_key_works_and_is_the_only_thing_printed(understudy: Understudy) -> None:
    status, printed, complaints = understudy("keys", "create", "--account", "ada", "--credits", "12.5")
    assert (status, complaints) == (0, "")
    account = _authenticate(printed.strip())
    assert (account.name, account.balance, account.is_administrator) == ("ada", 12_500, False)


KEYS = [
    "SG_0123456789abcdef",
    "SG_" + "aB3" * 19,
    "a1B2" * 8,
    "x" * 60,
    "us-" + "a-_" * 10,
    "Ab.9~!#$%&'()*+/:;<=>?@[]^`{|}",
]
"""Keys of the shapes that services give out, and one of every sign."""


@pytest.mark.parametrize(
    ("api_key", "around"), list(zip(KEYS, ("", "\n", "\r\n", "  \n", "\ufeff", "\t"), strict=True))
)
def test_a_key_is_brought_along_and_never_shown(
    understudy: Understudy, monkeypatch: pytest.MonkeyPatch, api_key: str, around: str
) -> None:
    typed = f"\ufeff{api_key}" if around == "\ufeff" else f"{api_key}{around}"
    _say(monkeypatch, typed.encode())
    status, printed, complaints = understudy("keys", "import", "--account", "ada", "--label", "old")
    assert (status, complaints) == (0, "")
    account = _authenticate(api_key)
    assert (account.name, account.is_administrator, account.balance) == ("ada", False, 0)
    listed = understudy("keys", "list")[1]
    assert "old" in listed
    stored = Settings().data.joinpath("understudy.db").read_bytes()
    for text in (printed, listed, stored.decode("latin-1")):
        assert api_key not in text
        assert api_key[len(api_key) // 4 + 1 :] not in text


def test_a_key_is_brought_along_for_an_administrator_or_an_account_that_is_there(
    understudy: Understudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    _say(monkeypatch, KEYS[0].encode())
    assert understudy("keys", "import", "--account", "root", "--admin")[0] == 0
    assert _authenticate(KEYS[0]).is_administrator
    understudy("keys", "create", "--account", "ada", "--credits", "2")
    _say(monkeypatch, KEYS[1].encode())
    assert understudy("keys", "import", "--account", "ada")[0] == 0
    assert _authenticate(KEYS[1]).balance == 2000
    _say(monkeypatch, KEYS[2].encode())
    status, _, complaints = understudy("keys", "import", "--account", "ada", "--admin")
    assert (status, "no administrator's" in complaints) == (2, True)


def test_a_key_that_was_brought_along_is_revoked_like_any_other(
    understudy: Understudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    _say(monkeypatch, KEYS[0].encode())
    understudy("keys", "import", "--account", "ada")
    prefix = understudy("keys", "list")[1].splitlines()[1].split()[1].removesuffix("...")
    assert understudy("keys", "revoke", prefix)[0] == 0
    with pytest.raises(errors.InvalidKey):
        _authenticate(KEYS[0])
    _say(monkeypatch, KEYS[0].encode())
    status, _, complaints = understudy("keys", "import", "--account", "bob")
    assert (status, complaints) == (
        2,
        "this key exists already: it belongs to the account ada, and was revoked\n",
    )


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (b"", "no key"),
        (b" \n\r\n", "no key"),
        (b"SG_short", "16 to 512 characters, this one 8"),
        (b"x" * 513, "16 to 512 characters"),
        (b"SG_0123456789abcdef SG_0123456789abcdff", "without blanks"),
        (b"SG_0123456789abcdef\nSG_0123456789abcdff\n", "without blanks"),
        (b"SG_0123456789\tabcdef", "without blanks"),
        (b"SG_0123456789\x00abcdef", "without blanks"),
        ("SG_0123456789abcdéf".encode(), "ASCII"),
        (b"SG_0123456789abcd\xe9f", "ASCII"),
        ("SG_0123456789abcdef".encode("utf-16"), "ASCII"),
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(
    understudy: Understudy, monkeypatch: pytest.MonkeyPatch, typed: bytes, words: str
) -> None:
    _say(monkeypatch, typed)
    status, printed, complaints = understudy("keys", "import", "--account", "ada")
    assert (status, printed) == (2, "")
    assert words in complaints
    assert "SG_" not in complaints
    assert understudy("credits", "show")[1] == ""  # no account was created for it


def test_a_key_that_is_there_already_is_refused_in_words(
    understudy: Understudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, created, _ = understudy("keys", "create", "--account", "ada")
    _say(monkeypatch, created.encode())
    status, printed, complaints = understudy("keys", "import", "--account", "bob")
    assert (status, printed) == (2, "")
    assert complaints == "this key exists already: it belongs to the account ada\n"
    assert "bob" not in understudy("credits", "show")[1]


def _say(monkeypatch: pytest.MonkeyPatch, typed: bytes) -> None:
    """Put this on the standard input of the next command."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed)))


def test_a_second_key_of_an_account_shares_its_credits(understudy: Understudy) -> None:
    understudy("keys", "create", "--account", "ada", "--admin", "--credits", "1")
    _, printed, _ = understudy("keys", "create", "--account", "ada", "--credits", "0.001")
    account = _authenticate(printed.strip())
    assert (account.balance, account.is_administrator) == (1001, True)


def test_an_ordinary_account_is_not_made_an_administrators_by_a_new_key(understudy: Understudy) -> None:
    understudy("keys", "create", "--account", "ada")
    status, printed, complaints = understudy("keys", "create", "--account", "ada", "--admin")
    assert (status, printed) == (2, "")
    assert "no administrator" in complaints


def test_a_listed_prefix_revokes_its_key(understudy: Understudy) -> None:
    _, api_key, _ = understudy("keys", "create", "--account", "ada", "--label", "laptop")
    status, listed, _ = understudy("keys", "list")
    assert status == 0
    prefix = listed.splitlines()[1].split()[1].removesuffix("...")
    assert api_key.startswith(prefix)
    assert api_key.strip() not in listed
    assert all(word in listed for word in ("ada", "valid", "laptop"))

    assert understudy("keys", "revoke", prefix)[0] == 0
    assert "revoked" in understudy("keys", "list")[1]
    with pytest.raises(errors.InvalidKey):
        _authenticate(api_key.strip())


def test_credits_are_granted_taken_back_and_shown(understudy: Understudy) -> None:
    understudy("keys", "create", "--account", "ada")
    understudy("keys", "create", "--account", "bob", "--credits", "3")
    assert understudy("credits", "grant", "--account", "ada", "20", "--note", "for May")[:2] == (
        0,
        "ada  20\n",
    )
    assert understudy("credits", "grant", "--account", "ada", "-0.25")[:2] == (0, "ada  19.75\n")
    _, everybody, _ = understudy("credits", "show")
    assert [line.split() for line in everybody.splitlines()] == [
        ["ACCOUNT", "CREDITS"],
        ["ada", "19.75"],
        ["bob", "3"],
    ]
    _, of_ada, _ = understudy("credits", "show", "--account", "ada")
    assert "for May" in of_ada
    assert "-0.25" in of_ada
    assert "bob" not in of_ada


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("credits", "grant", "--account", "nobody", "1"), "no account nobody"),
        (("credits", "show", "--account", "nobody"), "no account nobody"),
        (("credits", "grant", "--account", "ada", "lots"), "lots is not a number"),
        (("credits", "grant", "--account", "ada", "0.0001"), "finer than a thousandth"),
        (("credits", "grant", "--account", "ada", "0"), "between 0.001"),
        (("credits", "grant", "--account", "ada", "nan"), "beyond"),
        (("credits", "grant", "--account", "ada", "1e400"), "beyond"),
        (("credits", "grant", "--account", "ada", "-1"), "Insufficient credits"),
        (("keys", "revoke", "us-nothing"), "no API key us-nothing"),
        (("keys", "create", "--account", " "), "needs a name"),
        (("keys", "create", "--account", "bob", "--credits", "many"), "many is not a number"),
    ],
)
def test_a_wrong_question_is_answered_in_words(
    understudy: Understudy, arguments: tuple[str, ...], words: str
) -> None:
    understudy("keys", "create", "--account", "ada")
    status, printed, complaints = understudy(*arguments)
    assert (status, printed) == (2, "")
    assert words in complaints
    shown = understudy("credits", "show")[1].splitlines()
    assert [line.split() for line in shown[1:]] == [["ada", "0"]]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("UNDERSTUDY_DATABASE_URL", "mysql://localhost/x", "mysql is not a known database"),
        ("UNDERSTUDY_DATABASE_URL", "postgresql://127.0.0.1:1/x", "cannot be reached"),
        ("UNDERSTUDY_DATA", "/dev/null/data", "cannot be reached"),
        ("UNDERSTUDY_PORT", "http", "UNDERSTUDY_PORT"),
    ],
)
def test_a_wrong_setting_is_told_in_words(
    understudy: Understudy, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)
    status, printed, complaints = understudy("keys", "list")
    assert (status, printed) == (2, "")
    assert words in complaints
    assert "Traceback" not in complaints
