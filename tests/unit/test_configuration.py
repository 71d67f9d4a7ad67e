"""Settings are read in one place, and what is wrong with them is a line that a person understands."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.__main__ import main
from server.commands.configuration import read_settings
from server.commands.failure import CommandFailed
from server.settings import SECRETS, Settings

SECRET = "whsec_c2l4dGVlbiBieXRlcyBhbmQgbW9yZSBvZiB0aGVt"


def refusal(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, **given: object) -> list[str]:
    """The lines by which settings are refused."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CommandFailed) as refused:
        read_settings(environment, **given)
    assert refused.value.status == 2
    return str(refused.value).splitlines()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("UNDERSTUDY_DEVICE", "UNDERSTUDY_DEVICES"),
        ("UNDERSTUDY_DATABASE", "UNDERSTUDY_DATABASE_URL"),
        ("UNDERSTUDY_PUBLICURL", "UNDERSTUDY_PUBLIC_URL"),
        ("UNDERSTUDY_STORAGE_SECRET", "UNDERSTUDY_STORAGE_SECRET_KEY"),
        ("UNDERSTUDY_MEMORY_BUDGET", "UNDERSTUDY_MEMORY_BUDGET_GB"),
        ("UNDERSTUDY_RETENTION_S", "UNDERSTUDY_OUTPUT_RETENTION_S"),
        ("understudy_prot", "UNDERSTUDY_PORT"),
    ],
)
def test_a_variable_that_is_no_setting_is_refused_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, written: str, meant: str
) -> None:
    assert refusal({written: "1"}, monkeypatch) == [f"{written} is no setting; did you mean {meant}?"]


def test_a_variable_like_no_setting_is_refused_without_a_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = refusal({"UNDERSTUDY_XYZZY": "1"}, monkeypatch)
    assert line == "UNDERSTUDY_XYZZY is no setting; server/README.md has all of them"


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve"],
        ["demo"],
        ["keys", "list"],
        ["keys", "create", "--account", "a"],
        ["keys", "import", "--account", "a"],
        ["keys", "revoke", "x"],
        ["credits", "show"],
        ["credits", "grant", "--account", "a", "1"],
        ["webhooks", "list"],
        ["webhooks", "retry", "1"],
        ["webhooks", "secret"],
        ["weights", "list"],
        ["weights", "pull"],
        ["weights", "verify"],
    ],
    ids=" ".join,
)
def test_every_command_refuses_what_is_no_setting_or_cannot_be_one(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNDERSTUDY_DEVICE", "cpu")
    assert main(arguments) == 2
    printed, complaints = capsys.readouterr()
    assert (printed, complaints) == (
        "",
        "UNDERSTUDY_DEVICE is no setting; did you mean UNDERSTUDY_DEVICES?\n",
    )
    monkeypatch.delenv("UNDERSTUDY_DEVICE")
    monkeypatch.setenv("UNDERSTUDY_PORT", "99999")
    assert main(arguments) == 2
    assert capsys.readouterr().err == "UNDERSTUDY_PORT: 99999 is more than 65535\n"
    assert list(tmp_path.iterdir()) == [], "nothing was begun"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PORT", "99999", "99999 is more than 65535"),
        ("PORT", "0", "0 is less than 1"),
        ("PORT", "http", "http is no whole number"),
        ("PORT", "80.5", "80.5 is no whole number"),
        ("PORT", "tcp://10.0.0.1:8000", "tcp://10.0.0.1:8000 is no whole number"),
        ("QUEUE_LIMIT", "-1", "-1 is not more than 0"),
        ("MEMORY_BUDGET_GB", "all", "all is no number"),
        ("MEMORY_BUDGET_GB", "0", "0 is not more than 0"),
        ("MAX_BODY_MB", "nan", "nan is not more than 0"),
        ("HOST_MEMORY_GB", "-3", "-3 is less than 0"),
        ("PRELOAD", "maybe", "maybe is neither true nor false"),
        ("AUTH", "none", "none is not keys or open"),
        ("ENTERPRISE_ERRORS", "new", "new is not legacy or standard"),
        ("LOG_LEVEL", "loud", "loud is not debug, info, warning or error"),
        ("DEVICES", "gpu!", "gpu! is no device; write auto, cpu, cuda:0 or a comma list"),
        ("DEVICES", "cpu,0", "0 is no device; write auto, cpu, cuda:0 or a comma list"),
        ("PUBLIC_URL", "example.com", "example.com is not like https://pictures.example.com"),
        ("PUBLIC_URL", "ftp://example.com", "ftp://example.com is not like https://pictures.example.com"),
        ("STORAGE_ENDPOINT", "store:8333", "store:8333 is not like https://pictures.example.com"),
        ("STORAGE_URL", "/pictures", "/pictures does not begin with s3://, gs:// or az:// and a bucket"),
        ("STORAGE_URL", "s3://", "s3:// does not begin with s3://, gs:// or az:// and a bucket"),
        ("PRICES_MILLICREDITS", '{"kolors": -1}', "kolors: -1 is less than 0"),
        ("PRICES_MILLICREDITS", '{"kolors": "dear"}', "kolors: dear is no whole number"),
        ("FETCH_ALLOWED_HOSTS", '["10.0.0.1', '["10.0.0.1 is no JSON; a comma list is enough'),
        ("WEBHOOK_SECRET", "guessable", "a webhook secret is whsec_ and the base64 of 24 to 64 bytes"),
    ],
)
def test_a_wrong_setting_is_one_line_in_words(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    assert refusal({f"UNDERSTUDY_{name}": value}, monkeypatch) == [f"UNDERSTUDY_{name}: {words}"]


def test_json_that_is_none_is_told_with_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = refusal({"UNDERSTUDY_PRICES_MILLICREDITS": "kolors=20"}, monkeypatch)
    assert line == 'UNDERSTUDY_PRICES_MILLICREDITS is no JSON; write it like {"kolors": 20}'


def test_everything_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"UNDERSTUDY_PORT": "0", "UNDERSTUDY_AUTH": "x", "UNDERSTUDY_PRELOAD": "?"}
    assert len(refusal(wrong, monkeypatch)) == 3


def test_a_wrong_option_is_told_by_the_options_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal({}, monkeypatch, port=99999) == ["--port: 99999 is more than 65535"]


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"UNDERSTUDY_{name.upper()}", "")
    assert read_settings() == Settings.model_construct()


def test_hosts_are_a_comma_list_or_json(monkeypatch: pytest.MonkeyPatch) -> None:
    for written in ("10.0.0.1, nas.local", '["10.0.0.1", "nas.local"]'):
        monkeypatch.setenv("UNDERSTUDY_FETCH_ALLOWED_HOSTS", written)
        assert read_settings().fetch_allowed_hosts == {"10.0.0.1", "nas.local"}


def test_what_containers_are_told_of_their_neighbours_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_8000_TCP", "PORT_8000_TCP_ADDR"):
        monkeypatch.setenv(f"UNDERSTUDY_{name}", "10.0.0.1")
    assert read_settings().port == 8000


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_can_be_in_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    monkeypatch.setenv(f"UNDERSTUDY_{name.upper()}_FILE", str(tmp_path / "secret"))
    value = getattr(read_settings(), name)
    assert (value if isinstance(value, str) else value.get_secret_value()) == SECRET


def test_a_file_of_a_secret_that_is_of_no_use_is_told_without_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = "UNDERSTUDY_STORAGE_SECRET_KEY_FILE"
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00hidden")
    for file, words in (
        ("missing", "No such file or directory"),
        ("", "Is a directory"),
        ("empty", "is empty"),
        ("bytes", "is no text"),
    ):
        (line,) = refusal({variable: str(tmp_path / file)}, monkeypatch)
        assert line.startswith(f"{variable}: {tmp_path}")
        assert line.endswith(words)
        assert "hidden" not in line
    (tmp_path / "wrong").write_text("hidden")
    (line,) = refusal({"UNDERSTUDY_WEBHOOK_SECRET_FILE": str(tmp_path / "wrong")}, monkeypatch)
    assert "hidden" not in line


def test_a_secret_that_is_said_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("one")
    twice = {
        "UNDERSTUDY_DATABASE_URL": "other",
        "UNDERSTUDY_DATABASE_URL_FILE": str(tmp_path / "secret"),
    }
    (line,) = refusal(twice, monkeypatch)
    assert line == "UNDERSTUDY_DATABASE_URL and UNDERSTUDY_DATABASE_URL_FILE are both set; unset one of them"


def test_only_secrets_are_read_from_files(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = refusal({"UNDERSTUDY_PORT_FILE": "/run/port"}, monkeypatch)
    assert line == "UNDERSTUDY_PORT_FILE: only secrets can be in files; set UNDERSTUDY_PORT"
