"""The command line as people meet it: help, version, lists, completion, and words in place of tracebacks."""

from __future__ import annotations

import ast
import errno
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from server.__main__ import main
from server.commands.command_line import COMMANDS
from server.commands.listing import print_table

HEAVY = ("fastapi", "sqlalchemy", "uvicorn", "pydantic_settings", "torch")

Understudy = Callable[..., tuple[int, str, str]]


@pytest.fixture
def understudy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Understudy:
    """Runs a command in a folder of its own: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNDERSTUDY_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("UNDERSTUDY_DATABASE_URL", raising=False)

    def understudy(*arguments: str) -> tuple[int, str, str]:
        return main(list(arguments)), *capsys.readouterr()

    return understudy


def program(*arguments: str) -> list[str]:
    """The command of a process of its own."""
    return [sys.executable, "-m", "server", *arguments]


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_command(understudy: Understudy, option: str) -> None:
    status, printed, complaints = understudy(option)
    assert (status, complaints) == (0, "")
    assert all(f" {name} " in printed for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_own_help(understudy: Understudy, name: str) -> None:
    status, printed, complaints = understudy(name, "--help")
    assert (status, complaints) == (0, "")
    assert f"Usage: understudy {name}" in printed


def test_asking_for_help_loads_nothing_of_what_a_server_consists_of() -> None:
    code = (
        "import sys; from server.__main__ import main; main(['--help']); print(); print(sorted(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(ast.literal_eval(shown.splitlines()[-1]))
    assert "typer" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_the_version_is_told(understudy: Understudy) -> None:
    status, printed, _ = understudy("--version")
    assert status == 0
    assert re.fullmatch(r"understudy (\d+\.\d+\.\d+|of a checkout that is not installed)\n", printed)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["kys"], "Did you mean 'keys'?"),
        (["keys", "lst"], "Did you mean 'list'?"),
        (["keys", "create"], "Missing option '--account'"),
        (["serve", "--port", "http"], "Invalid value for '--port'"),
        (["keys", "list", "--jsn"], "No such option: --jsn"),
        (["webhooks", "list", "--failed", "--pending"], "exclude each other"),
    ],
)
def test_what_was_typed_wrongly_is_told_with_the_nearest(
    understudy: Understudy, arguments: list[str], words: str
) -> None:
    status, printed, complaints = understudy(*arguments)
    assert (status, printed) == (2, "")
    assert words in complaints


def test_lists_have_a_head_and_say_the_same_as_json(understudy: Understudy) -> None:
    understudy("keys", "create", "--account", "ada", "--credits", "2.5", "--label", "laptop")
    heading, row = understudy("keys", "list")[1].splitlines()
    assert heading.split() == ["ID", "PREFIX", "ACCOUNT", "CREATED", "STATE", "ROLE", "LABEL"]
    (key,) = json.loads(understudy("keys", "list", "--json")[1])
    assert (key["account"], key["label"], key["administrator"], key["revoked_at"]) == (
        "ada",
        "laptop",
        False,
        None,
    )
    assert f"{key['prefix']}..." in row
    assert row.index("laptop") == heading.index("LABEL")
    assert json.loads(understudy("credits", "show", "--json")[1]) == [{"account": "ada", "credits": "2.5"}]
    (movement,) = json.loads(understudy("credits", "show", "--account", "ada", "--json")[1])["movements"]
    assert (movement["kind"], movement["credits"], movement["note"]) == ("grant", "2.5", "with a new key")


def test_an_empty_list_is_nothing_for_a_pipe_and_a_sentence_for_a_person(understudy: Understudy) -> None:
    for arguments in (["keys", "list"], ["credits", "show"], ["webhooks", "list"]):
        status, printed, told = understudy(*arguments)
        assert (status, printed) == (0, "")
        assert told.startswith("There is no ")
        assert json.loads(understudy(*arguments, "--json")[1]) == []


def test_the_weights_are_listed_as_json(understudy: Understudy) -> None:
    entry = {"family": "sd15", "parts": {"pipeline": {"hub": "o/n"}}, "license": "MIT"}
    Path("weights.yaml").write_text(yaml.safe_dump({"pipelines": {"sd": entry}}))
    (listed,) = json.loads(understudy("weights", "list", "--json")[1])
    assert (listed["name"], listed["state"]) == ("sd", "0 of 1 pulled")
    assert 1 < listed["gb"] < 10


def test_a_terminal_gets_colours_and_whole_words(tmp_path: Path) -> None:
    variables = os.environ | {"UNDERSTUDY_DATA": str(tmp_path), "TERM": "xterm", "COLUMNS": "120"}
    account = ["--account", "an account with a [bold]name[/bold]"]
    subprocess.run(program("keys", "create", *account), env=variables, check=True, capture_output=True)
    ours, theirs = pty.openpty()
    listing = subprocess.Popen(program("keys", "list"), env=variables, stdout=theirs)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert listing.wait(60) == 0
    assert b"\x1b[1;36mACCOUNT" in shown
    assert b"an account with a [bold]name[/bold]" in shown


def _read(terminal: int) -> bytes:
    """What a terminal shows next; nothing once its programs are gone."""
    try:
        return os.read(terminal, 4096)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def test_a_reader_that_has_enough_is_no_failure_worth_words(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    variables = os.environ | {"UNDERSTUDY_DATA": str(tmp_path)}
    for arguments in (["credits", "show", "--json"], ["--help"], ["--version"]):
        ended = subprocess.run(program(*arguments), env=variables, stdout=writing, stderr=subprocess.PIPE)
        assert ended.stderr == b"", arguments
    os.close(writing)


def test_a_shell_completes_commands_and_their_options() -> None:
    def completed(*words: str) -> str:
        variables = os.environ | {
            "_UNDERSTUDY_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }
        return subprocess.run(program(), env=variables, capture_output=True, text=True).stdout

    assert completed("understudy", "we").split() == ["weights", "webhooks"]
    assert completed("understudy", "keys", "re").split() == ["revoke"]
    assert "--accept-licenses" in completed("understudy", "weights", "pull", "--acc")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_without_permission_is_told(understudy: Understudy, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    status, printed, complaints = understudy("keys", "list")
    tmp_path.chmod(0o700)
    assert (status, printed) == (2, "")
    assert "Traceback" not in complaints


def test_a_file_in_the_place_of_a_folder_is_told(understudy: Understudy, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    status, printed, complaints = understudy("webhooks", "secret")
    assert (status, printed) == (2, "")
    assert str(tmp_path / "data") in complaints
    assert "Traceback" not in complaints


def test_what_nobody_expected_is_one_line_and_with_debug_tells_where(
    understudy: Understudy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: str) -> int:
        raise KeyError("surprise")

    monkeypatch.setattr("server.commands.credits.parse_credits", broken)
    grant = ["credits", "grant", "--account", "ada", "1"]
    status, printed, complaints = understudy(*grant)
    assert (status, printed) == (1, "")
    assert complaints == "Unexpected KeyError: 'surprise' (understudy --debug ... tells where)\n"
    assert understudy("--debug", *grant)[2].startswith("Unexpected KeyError: 'surprise'\n")
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info
    assert record.exc_info[0] is KeyError


def test_a_name_cannot_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "SIZE"), [("ev\x1b[31mil\nx, 黄色", "1 GB")])
    assert capsys.readouterr().out.splitlines()[1:] == [r"ev\x1b[31mil\nx, 黄色  1 GB"]
