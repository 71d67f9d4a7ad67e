"""Walk through the folders of AUTOMATIC1111's and ComfyUI's kind: every file that may be drawn with, once.

Kinds are told by the files themselves; the name of a folder only tells where to look harder. Folder names are
those that both programs document (``models/Lora``, ``models/upscale_models``) and their forks use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from pipelines.weights.formats import PICKLES
from pipelines.weights.kinds import LocalKind

EXTRA_PATHS = ("extra_model_paths.yaml", "extra_model_paths.yml", "extra_models_config.yaml")
"""ComfyUI's files that name further folders: those beside it, and the one of its desktop program."""

SUFFIXES = (".safetensors", ".sft", ".gguf", ".onnx", *PICKLES)
"""Suffixes of the files that are looked at; others are previews, notes and settings."""

_NETWORK = re.compile(r"(diffusion_pytorch_model|model)([.-].*)?\.(safetensors|bin)")
"""The file of a network in diffusers' or transformers' layout, beside its config.json."""

_NEVER = frozenset(
    [
        "__pycache__",
        "site-packages",
        "node_modules",
        "venv",
        "outputs",
        "output",
        "input",
        "temp",
        "tmp",
        "repositories",
    ]
)
"""Names of folders that such programs have besides, and that hold nobody's checkpoints."""

_KINDS: Mapping[str, LocalKind] = {
    "checkpoints": "checkpoint",
    "stable-diffusion": "checkpoint",
    "stablediffusion": "checkpoint",
    "diffusers": "checkpoint",
    "lora": "lora",
    "loras": "lora",
    "lycoris": "lora",
    "locon": "lora",
    "embeddings": "embedding",
    "textual_inversion": "embedding",
    "vae": "vae",
    "controlnet": "controlnet",
    "esrgan": "upscaler",
    "realesrgan": "upscaler",
    "bsrgan": "upscaler",
    "swinir": "upscaler",
    "dat": "upscaler",
    "hat": "upscaler",
    "scunet": "upscaler",
    "spandrel": "upscaler",
    "upscale_models": "upscaler",
    "upscalers": "upscaler",
    "gfpgan": "face_restorer",
    "codeformer": "face_restorer",
    "facerestore_models": "face_restorer",
    "face_restorers": "face_restorer",
}
"""The kind that a folder is meant for, by its name in small letters."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file, or a folder in diffusers' or PEFT's layout, that may be drawn with.

    Attributes:
        path: its absolute path as it was found, links included.
        within: its path below the folder that was walked through, in POSIX form.
        expected: the kind that the folder it lies in is meant for; None where its name tells none.
    """

    path: Path
    within: str
    expected: LocalKind | None = None


@dataclass(slots=True)
class Walk:
    """A walk through folders.

    Attributes:
        candidates: what was found, by path in alphabetical order, each file once whatever links lead to it.
        links: (link, path) of what was found a second time.
        others: how many files of other kinds there are.
        problems: (folder, why it was not looked into).
    """

    candidates: list[Candidate] = field(default_factory=list[Candidate])
    links: list[tuple[Path, Path]] = field(default_factory=list[tuple[Path, Path]])
    others: int = 0
    problems: list[tuple[Path, str]] = field(default_factory=list[tuple[Path, str]])
    _seen: dict[tuple[int, int], Path] = field(default_factory=dict[tuple[int, int], Path])
    _folders: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])

    def through(self, root: Path, without: frozenset[Path]) -> None:
        """Walk through a folder and all below it, links followed.

        Args:
            without: folders that are left out, with all below them.
        """
        self._into(root, root, None, without)

    def _into(self, folder: Path, root: Path, kind: LocalKind | None, without: frozenset[Path]) -> None:
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: (entry.name.lower(), entry.name))
        except OSError as error:
            self.problems.append((folder, error.strerror or "it cannot be read"))
            return
        identity = (status.st_dev, status.st_ino)
        if identity in self._folders or folder in without:
            return
        self._folders.add(identity)
        kind = _KINDS[name] if (name := folder.name.lower()) in _KINDS else kind
        names = {entry.name for entry in entries}
        if _is_one_thing(names):
            self._found(folder, root, kind)
            return
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if entry.name.lower() not in _NEVER:
                    self._into(path, root, kind, without)
            elif path.suffix.lower() in SUFFIXES:
                self._found(path, root, kind)
            else:
                self.others += 1

    def _found(self, path: Path, root: Path, kind: LocalKind | None) -> None:
        try:
            status = path.stat()
        except OSError as error:
            self.problems.append((path, f"it leads nowhere: {error.strerror}"))
            return
        identity = (status.st_dev, status.st_ino)
        if identity in self._seen:
            self.links.append((path, self._seen[identity]))
            return
        self._seen[identity] = path
        within = path.relative_to(root).as_posix()
        self.candidates.append(Candidate(path, path.name if within == "." else within, kind))


def _is_one_thing(names: set[str]) -> bool:
    """Whether a folder is one checkpoint or network: diffusers' layout, or PEFT's."""
    if "model_index.json" in names or {"adapter_config.json", "adapter_model.safetensors"} <= names:
        return True
    return "config.json" in names and any(_NETWORK.fullmatch(name) for name in names)


def walk(root: Path, without: frozenset[Path] = frozenset()) -> Walk:
    """Everything below a folder that may be drawn with, and below the folders that ComfyUI's settings name.

    Args:
        root: an absolute folder, or one of ComfyUI's files that name folders.
        without: folders that are left out.
    Raises:
        ValueError: the root is a file that names no folders.
    """
    found = Walk()
    if root.is_file():
        folders = list(extra_folders(root))
        if not folders:
            raise ValueError(f"{root} names no folders")
    else:
        found.through(root, without)
        folders = [
            each for name in EXTRA_PATHS if (root / name).is_file() for each in extra_folders(root / name)
        ]
    for folder in folders:
        if folder.is_dir():
            found.through(folder, without)
        else:
            found.problems.append((folder, "it is named by ComfyUI's settings and is not there"))
    return found


def extra_folders(settings: Path) -> Iterator[Path]:
    """The folders that one of ComfyUI's files names, absolute.

    Raises:
        ValueError: it is no such file.
    """
    try:
        content: object = yaml.safe_load(settings.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{settings} is not YAML") from error
    if not isinstance(content, dict):
        raise ValueError(f"{settings} is none of ComfyUI's files that name folders")
    for section in cast("dict[Any, Any]", content).values():
        if isinstance(section, dict):
            yield from _folders_of(cast("dict[Any, Any]", section), settings.parent.absolute())


def _folders_of(section: dict[Any, Any], beside: Path) -> Iterator[Path]:
    base = beside / Path(os.path.expandvars(str(section.get("base_path") or ""))).expanduser()
    for name, value in section.items():
        if name == "base_path" or not isinstance(value, str):
            continue
        for line in value.splitlines():
            if line.strip():
                yield Path(os.path.normpath(base / Path(os.path.expandvars(line.strip())).expanduser()))
