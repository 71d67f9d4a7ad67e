"""The commands that documents tell exist, with their options, services and variables, in a useful order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
import yaml

from server.__main__ import main
from server.settings import SECRETS, Settings
from tests.dockerfile import ROOT, rests, stages

DOCUMENTS = ("README.md", "server/README.md", "docker-compose.yml", "Dockerfile", "pipelines/demo/README.md")
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
OPTIONS_OF_DOCKER = {
    "build": {"-t", "--target", "."},
    "run": {"--rm"},
    "up": {"--detach", "--wait"},
    "build --pull": set(),
}
VARIABLES = {f"UNDERSTUDY_{name.upper()}" for name in Settings.model_fields} | {"HF_TOKEN", "HF_ENDPOINT"}
VARIABLES |= {f"UNDERSTUDY_{name.upper()}_FILE" for name in SECRETS}


def told(document: str) -> Iterator[str]:
    """The commands of a document: indented by four blanks, or by three behind a comment's mark."""
    for line in (ROOT / document).read_text().splitlines():
        found = re.match(r"(?:    |#   )(\S.*?)(?:\s{2,}#.*)?$", line)
        if document == "Dockerfile" and not line.startswith("#"):
            continue
        for command in re.split(r"\s*(?:&&|\|)\s*", found[1]) if found else ():
            if command.startswith(("understudy ", "docker ", "export ", "echo ", "pip ")):
                yield command


COMMANDS = [(document, command) for document in DOCUMENTS for command in told(document)]


def check_ours(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command of ours exists with every option that it is given."""
    path = [word for word in words if re.fullmatch(r"[a-z]+", word)]
    path = path[: 2 if words[0] in ("keys", "credits", "weights", "webhooks", "models") else 1]
    assert main([*path, "--help"]) == 0, words
    printed = capsys.readouterr().out
    for option in (word for word in words if word.startswith("--")):
        assert option in printed, f"{' '.join(path)} has no {option}"


def check_docker(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command of Docker names services and targets that exist."""
    if words[0] == "build":
        options = words[1:]
        if "--target" in options:
            assert options[options.index("--target") + 1] in stages()
        assert {word for word in options if word.startswith("-")} <= OPTIONS_OF_DOCKER["build"]
        return
    assert words[0] == "compose"
    verb, *rest = words[1:]
    options = [word for word in rest if word.startswith("-")]
    if "understudy" in rest:
        split = rest.index("understudy")
        check_ours(rest[split + 1 :], capsys)
        options, rest = [word for word in rest[:split] if word.startswith("-")], rest[:split]
    assert set(options) <= OPTIONS_OF_DOCKER[verb], words
    for service in (word for word in rest if not word.startswith("-")):
        assert service in SERVICES, words


@pytest.mark.parametrize(("document", "command"), COMMANDS, ids=[" ".join(each) for each in COMMANDS])
def test_what_is_told_exists(document: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in shlex.split(command) if word not in ("<", ">", ">>")]
    program, *rest = words
    match program:
        case "understudy":
            check_ours(rest, capsys)
        case "docker":
            check_docker(rest, capsys)
        case "pip":
            extra = re.fullmatch(r"\.\[(\w+)\]", rest[-1])
            assert extra
            assert f"\n{extra[1]} = [" in (ROOT / "pyproject.toml").read_text()
        case _:
            name = rest[0].partition("=")[0]
            assert name in VARIABLES


def section(document: str, heading: str) -> list[str]:
    """The commands below a heading, in order."""
    text = (ROOT / document).read_text()
    start = text.index(f"\n## {heading}\n")
    lines = text[start : text.index("\n## ", start + 1)].splitlines()
    return [re.sub(r"\s{2,}#.*", "", line.strip()) for line in lines if line.startswith("    ")]


def test_the_blocks_for_a_gpu_box_are_complete_and_in_order() -> None:
    needed = [
        "pip install -e '.[engine]'",
        "export HF_TOKEN=...",
        "understudy weights pull --accept-licenses",
        "understudy keys create --account me --credits 100",
        "understudy serve",
        'echo "HF_TOKEN=..." >> .env',
        "docker compose run --rm server understudy weights pull --accept-licenses",
        "docker compose run --rm server understudy keys create --account me --credits 100",
        "docker compose up --detach --wait",
    ]
    commands = section("README.md", "Run it on a GPU box")
    assert [command for command in commands if command in needed] == needed


def test_the_first_command_is_the_one_that_shows_a_picture() -> None:
    commands = section("README.md", "Try it")
    assert commands[0] == "pip install -e '.[engine]' && understudy demo"
    assert commands[1] == "pip install -e '.[dev]' && pytest"


def test_the_token_of_gated_repositories_reaches_the_container() -> None:
    assert SERVICES["server"]["env_file"] == [{"path": ".env", "required": False}]
    for path in ("HF_TOKEN", "HF_ENDPOINT"):
        assert path in (ROOT / "server/commands/weights.py").read_text()


def test_all_that_is_told_was_found() -> None:
    assert len(COMMANDS) > 25
    assert {document for document, _ in COMMANDS} >= {"README.md", "server/README.md", "docker-compose.yml"}
    assert ("Dockerfile", "docker build -t understudy-server:api --target api .") in COMMANDS


@pytest.mark.parametrize("name", ["gpu", "api", "cpu"])
def test_every_port_that_is_told_is_the_one_that_an_image_listens_on(name: str) -> None:
    assert rests(stages()[name], "EXPOSE") == ["8000"]
    assert Settings.model_fields["port"].default == 8000
