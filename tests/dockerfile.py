"""The Dockerfile as its stages and their instructions; .dockerignore as what it lets in."""

from __future__ import annotations

import re
import shlex
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text()

Stages = dict[str, list[tuple[str, str]]]


def stages() -> Stages:
    """Stage -> its instructions in order, as (word, rest), those of the stage that it builds on first."""
    text = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#"))
    found: Stages = {}
    arguments: dict[str, str] = {}
    target = ""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "ARG" and not target:
            name, _, arguments[f"${{{name}}}"] = rest.partition("=")
        elif word == "FROM":
            ground, target = rest.split(" AS ")
            ground = arguments.get(ground, ground)
            assert ground in found or ":" in ground, f"{target} builds on {ground}, which is no earlier stage"
            found[target] = [*found.get(ground, [("FROM", ground)])]
        elif word:
            assert target, f"{word} stands before the first stage"
            found[target].append((word, rest))
    return found


def rests(stage: list[tuple[str, str]], word: str) -> list[str]:
    """What stands behind an instruction, each time that a stage has it."""
    return [rest for found, rest in stage if found == word]


def pairs(stage: list[tuple[str, str]], word: str) -> dict[str, str]:
    """The names and values of ENV or LABEL."""
    found = [pair.partition("=") for rest in rests(stage, word) for pair in shlex.split(rest)]
    return {name: value for name, _, value in found}


def mounts(rest: str) -> list[dict[str, str]]:
    """The mounts of a RUN."""
    written = re.findall(r"--mount=(\S+)", rest)
    return [dict(part.partition("=")[::2] for part in mount.split(",")) for mount in written]


def command(rest: str) -> str:
    """A RUN without its mounts."""
    return re.sub(r"--mount=\S+\s*", "", rest).strip()


def is_ignored(name: str) -> bool:
    """Whether .dockerignore keeps a path out of every build; the last line that matches counts."""
    ignored = False
    path = PurePosixPath(name)
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        nested = line.startswith("**/")
        for part in (path, *path.parents):
            if fnmatchcase(part.name if nested else part.as_posix(), pattern):
                ignored = not line.startswith("!")
    return ignored
