"""The settings that a command runs with, read in this one place; what is wrong with them is said in words."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from server.commands.failure import CommandFailed
from server.settings import SECRETS, Settings

PREFIX = "UNDERSTUDY_"
FILE = "_FILE"
"""The ending of the variable that names the file of a secret."""

_OF_OTHERS = re.compile(r"(SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP)\w*)")
"""What Docker and Kubernetes put into the environment of containers beside one called ``understudy``."""

_ALIKE = 0.5
"""The likeness, of 1, from which on a name may have been meant when another one was written."""


def read_settings(environment: Mapping[str, str] = os.environ, **given: object) -> Settings:
    """The settings of the environment, of the files of secrets that it names, and of a command's options.

    Args:
        given: what the command's options say; None: they do not say it.
    Raises:
        CommandFailed: a variable is no setting, or a setting cannot be what it is; one line for each.
    """
    problems = [*_unknown(environment)]
    options = {name: value for name, value in given.items() if value is not None}
    stated = dict(options)
    for name in SECRETS:
        try:
            if name not in stated and (secret := _secret_of_a_file(name, environment)) is not None:
                stated[name] = secret
        except CommandFailed as problem:
            problems.append(str(problem))
    if problems:
        raise CommandFailed("\n".join(problems))
    try:
        return Settings(**stated)  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        lines = dict.fromkeys(_in_words(problem, options) for problem in error.errors())
        raise CommandFailed("\n".join(lines)) from None
    except SettingsError as error:
        raise CommandFailed(_no_json(str(error))) from None


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def _unknown(environment: Mapping[str, str]) -> list[str]:
    """A line for each variable that looks like a setting and is none."""
    known = [name.upper() for name in Settings.model_fields]
    files = {f"{name.upper()}{FILE}" for name in SECRETS}
    problems: list[str] = []
    for written in sorted(environment):
        if not written.upper().startswith(PREFIX):
            continue
        name = written.upper().removeprefix(PREFIX)
        if name in known or name in files or _OF_OTHERS.fullmatch(name):
            continue
        if name.endswith(FILE) and name.removesuffix(FILE) in known:
            problems.append(f"{written}: only secrets can be in files; set {written.removesuffix(FILE)}")
            continue
        nearest = max([*known, *sorted(files)], key=lambda other: SequenceMatcher(None, name, other).ratio())
        alike = SequenceMatcher(None, name, nearest).ratio() >= _ALIKE
        hint = f"; did you mean {PREFIX}{nearest}?" if alike else "; server/README.md has all of them"
        problems.append(f"{written} is no setting{hint}")
    return problems


def _secret_of_a_file(name: str, environment: Mapping[str, str]) -> str | None:
    """The secret in the file that the environment names for it, without the line's end; None without one.

    Raises:
        CommandFailed: the secret is said twice, or the file cannot be read or is empty.
    """
    path = environment.get(f"{variable(name)}{FILE}")
    if not path:
        return None
    if environment.get(variable(name)):
        raise CommandFailed(f"{variable(name)} and {variable(name)}{FILE} are both set; unset one of them")
    try:
        secret = Path(path).read_text().strip()
    except OSError as error:
        raise CommandFailed(f"{variable(name)}{FILE}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandFailed(f"{variable(name)}{FILE}: {path} is no text") from None
    if not secret:
        raise CommandFailed(f"{variable(name)}{FILE}: {path} is empty")
    return secret


def _in_words(problem: ErrorDetails, options: Mapping[str, object]) -> str:
    """What is wrong with a setting, in one line with its variable and, unless it is secret, its value."""
    name = str(problem["loc"][0])
    entry = "".join(f" {part}:" for part in problem["loc"][1:] if isinstance(part, str))
    value = problem["input"]
    is_secret = name in SECRETS or isinstance(value, SecretStr)
    shown = "this" if is_secret else str(value) if isinstance(value, int | float | str) else repr(value)
    said_as = f"--{name}" if name in options else variable(name)
    return f"{said_as}:{entry} {_complaint(problem, shown or repr(value))}"


def _complaint(problem: ErrorDetails, shown: str) -> str:
    limits: dict[str, Any] = problem.get("ctx", {})
    match problem["type"]:
        case "less_than_equal":
            return f"{shown} is more than {limits['le']:g}"
        case "greater_than_equal":
            return f"{shown} is less than {limits['ge']:g}"
        case "greater_than":
            return f"{shown} is not more than {limits['gt']:g}"
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            return f"{shown} is no whole number"
        case "float_parsing" | "float_type" | "finite_number":
            return f"{shown} is no number"
        case "bool_parsing" | "bool_type":
            return f"{shown} is neither true nor false"
        case "literal_error":
            return f"{shown} is not {limits['expected'].replace(chr(39), '')}"
        case "value_error":
            return str(limits["error"])
        case _:
            return f"{shown} cannot be read: {problem['msg']}"


def _no_json(message: str) -> str:
    """The words for a setting that has to be JSON and is not; the message names it between quotes."""
    found = re.search(r'field "(\w+)"', message)
    name = found.group(1) if found else "settings"
    return f'{variable(name)} is no JSON; write it like {{"kolors": 20}}'
