"""Names for what is found: those of its file, as its callers know them, and each given once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from server.loading.model_folders import Candidate

_FORBIDDEN = re.compile(r"[,<>:\n\r\t|]+")
"""What may not stand in a name: requests list names with commas, and prompts name LoRAs in <lora:name:1>."""

_SNAPSHOT = re.compile(r"(?:^|/)models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/[0-9a-f]+$")
"""A repository as the hub's client keeps it in its cache."""

MOST_CHARACTERS = 128


def free_name(candidate: Candidate, taken: Callable[[str], bool]) -> str:
    """The name under which a thing is drawn with: that of its file, or one that tells it from a namesake.

    A namesake is told by the folder that the file lies in, ``folder-name``, and then by a number.
    """
    names = [*_preferred(candidate)]
    for name in names:
        if not taken(name):
            return name
    number = 2
    while taken(name := f"{names[0][: MOST_CHARACTERS - 6]}-{number}"):
        number += 1
    return name


def other_names(candidate: Candidate, title: str, name: str) -> list[str]:
    """Other names of a thing: its file's with the suffix, the path, its trainer's, that in small letters."""
    stem = _stem(candidate)
    given = [candidate.path.name, candidate.within, title, stem, _slug(stem)]
    kept = [_allowed(text) for text in given]
    return [text for text in dict.fromkeys(kept) if text and text != name]


def _preferred(candidate: Candidate) -> Iterator[str]:
    stem = _allowed(_stem(candidate)) or "unnamed"
    yield stem
    if folder := _allowed(_folder(candidate)):
        yield f"{folder}-{stem}"[:MOST_CHARACTERS]


def _stem(candidate: Candidate) -> str:
    if match := _SNAPSHOT.search(candidate.path.as_posix()):
        return match["name"]
    return candidate.path.name if candidate.path.is_dir() else candidate.path.stem


def _folder(candidate: Candidate) -> str:
    if match := _SNAPSHOT.search(candidate.path.as_posix()):
        return match["owner"]
    return candidate.path.parent.name


def _allowed(text: str) -> str:
    return " ".join(_FORBIDDEN.sub(" ", text).split())[:MOST_CHARACTERS].strip()


def _slug(stem: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")


def is_name(text: str) -> bool:
    """Whether a thing may be called so: requests and files in the weights folder can have it."""
    return bool(text) and text == _allowed(text) and not text.startswith(".") and not {"/", "\\"} & set(text)
