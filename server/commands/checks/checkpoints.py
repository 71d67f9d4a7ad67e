"""The manifest and its weights: what is here, what fits, what is missing and how much of it to download."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from yaml import YAMLError

from pipelines.weights import lock
from pipelines.weights.downloads import sized
from pipelines.weights.entries import Source
from pipelines.weights.loaded import load_full_manifest
from pipelines.weights.manifest import Manifest
from pipelines.weights.memory import (
    CONTEXT_BYTES,
    Fit,
    activation_bytes,
    fits,
    needed_bytes,
    part_bytes,
    stages,
)
from pipelines.weights.repositories import Repository, repositories
from server.commands.checks.finding import Finding
from server.commands.checks.repository_sizes import Remote

NOT_DRAWING = frozenset({"upscaler", "face_restorer", "mbart50", "prompt_writer"})
"""The families that draw no picture from a prompt."""


@dataclass(frozen=True, slots=True)
class Room:
    """The memory that one kind of device has for weights and drawing.

    Attributes:
        by_part: parts of pipelines may wait elsewhere; on a CPU pipelines come and go as a whole.
    """

    nbytes: int
    by_part: bool = True


@dataclass(frozen=True, slots=True)
class PipelineReport:
    """What is known of one pipeline of the manifest.

    Attributes:
        needs: bytes of memory for one picture of the default size.
        fit: how it fits each kind of device that is to draw, by the device's name.
        state: ``here``, ``missing``, ``damaged``, or ``n of m here``.
        download: bytes to download; None: nothing, or unknown.
        licenses: those that nobody accepted yet.
    """

    name: str
    family: str
    needs: int
    fit: dict[str, Fit]
    state: str
    download: int | None
    gated: bool
    licenses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Weights:
    """The manifest with what of it is in the weights folder.

    Attributes:
        damaged: what is wrong with files that were pulled, by repository.
    """

    manifest: Manifest
    folder: Path
    locked: lock.Lock
    damaged: dict[str, list[str]]

    def missing(self) -> list[Repository]:
        """The repositories that were not pulled yet."""
        return [each for each in repositories(self.manifest) if each.key not in self.locked.repositories]

    def state(self, name: str) -> str:
        """Whether all that a pipeline is opened from is here."""
        needed = repositories(self.manifest, [name])
        if any(self.damaged.get(each.key) for each in needed):
            return "damaged"
        absent = [path for path in self._local(name) if not path.exists()]
        here = sum(each.key in self.locked.repositories for each in needed)
        if absent or (needed and not here):
            return "missing"
        return "here" if here == len(needed) else f"{here} of {len(needed)} here"

    def _local(self, name: str) -> list[Path]:
        sources: list[Source] = [*self.manifest.openable()[name].parts.values()]
        paths = [source.folder or source.file for source in sources]
        return [path for path in paths if path is not None]


def open_weights(manifest: Path, folder: Path) -> tuple[Weights | None, list[Finding]]:
    """The manifest and the lock, and what is wrong with them."""
    try:
        opened = load_full_manifest(manifest, folder)
    except FileNotFoundError:
        remedy = "Start in the folder that has it, or set UNDERSTUDY_MANIFEST."
        return None, [Finding("manifest", "problem", f"{manifest}: no such file", remedy)]
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        words = f"{manifest}: {'; '.join(lines[:3])}"
        return None, [Finding("manifest", "problem", words, "Correct it.")]
    except TypeError:
        words = f"{manifest} is no manifest: it has no `pipelines:`"
        return None, [Finding("manifest", "problem", words, "Correct it.")]
    except (OSError, ValueError, YAMLError) as error:
        words = f"{manifest}: {' '.join(str(error).split())}"
        return None, [Finding("manifest", "problem", words, "Correct it.")]
    count = len(opened.openable())
    findings = [Finding("manifest", "ok", f"{manifest} names {count} pipelines")]
    try:
        locked = lock.read_lock(folder)
    except (ValueError, OSError):
        words = f"{folder / lock.LOCK_NAME} is damaged"
        remedy = "Delete it and run: understudy weights pull (files that are right are kept)"
        return None, [*findings, Finding("weights", "problem", words, remedy)]
    damaged = {
        key: problems
        for key, each in locked.repositories.items()
        if (problems := lock.problems(folder, each, thorough=False))
    }
    return Weights(opened, folder, locked, damaged), findings


def reports(weights: Weights, rooms: dict[str, Room], remote: dict[str, Remote]) -> list[PipelineReport]:
    """Each pipeline of the manifest.

    Args:
        rooms: of each kind of device that is to draw, by its name.
        remote: what the hub says of repositories that are missing.
    """
    fit = {
        device: fits(weights.manifest, room.nbytes, by_part=room.by_part) for device, room in rooms.items()
    }
    by_part = not rooms or any(room.by_part for room in rooms.values())
    absent = {each.key: each for each in weights.missing()}
    found: list[PipelineReport] = []
    for name, entry in weights.manifest.openable().items():
        needed = [absent[each.key] for each in repositories(weights.manifest, [name]) if each.key in absent]
        found.append(
            PipelineReport(
                name=name,
                family=entry.family,
                needs=needed_bytes(entry, by_part=by_part),
                fit={device: each[name] for device, each in fit.items()},
                state=weights.state(name),
                download=_download(needed, remote, sum(part_bytes(entry).values())),
                gated=any(each.gated for each in needed),
                licenses=tuple(dict.fromkeys(text for each in needed for text in each.licenses)),
            )
        )
    return found


def _download(needed: list[Repository], remote: dict[str, Remote], computed: int) -> int | None:
    """The bytes to download: as the hub says, else as the networks take them in memory."""
    if not needed:
        return None
    sizes = [remote[each.key].size for each in needed if each.key in remote]
    known = [size for size in sizes if size is not None]
    if len(known) == len(needed):
        return sum(known)
    return max(computed, sum(known)) or None


def beside_weights(manifest: Manifest) -> int:
    """The most bytes that drawing takes on a device beside the weights."""
    entries = manifest.openable().values()
    return CONTEXT_BYTES + max(
        (activation_bytes(entry, stage) for entry in entries for stage in stages(entry)), default=0
    )


def weights_findings(
    weights: Weights, found: list[PipelineReport], free: int, *, larger: str
) -> list[Finding]:
    """What of the manifest can be drawn, and what to do about the rest.

    Args:
        free: the bytes that are free where weights go.
        larger: what to do about pipelines that need more than there is.
    """
    findings: list[Finding] = []
    for key, problems in weights.damaged.items():
        remedy = f"Delete those files and run: understudy weights pull ({key})"
        findings.append(Finding("weights", "warning", "; ".join(problems[:3]), remedy))
    drawable = [report for report in found if report.family not in NOT_DRAWING]
    fitting = [each for each in drawable if not each.fit or set(each.fit.values()) != {Fit.never}]
    ready = [each.name for each in fitting if each.state == "here"]
    missing = weights.missing()
    absent = [each.name for each in found if each.state != "here"]
    counted = Counter(each.state == "here" for each in found)
    words = f"{counted[True]} of {len(found)} pipelines are here"
    if absent:
        words += f"; not here: {', '.join(absent)}"
    if not ready:
        least = sorted(fitting, key=lambda each: (each.gated, each.download or 0))
        remedy = _pull_command([each.name for each in least][:1], licences=True)
        findings.append(Finding("weights", "problem", f"{words}. Nothing can be drawn.", remedy))
    elif absent:
        licences = any(each.licenses for each in missing)
        findings.append(Finding("weights", "warning", words, _pull_command([], licences=licences)))
    else:
        findings.append(Finding("weights", "ok", words))
    never = [
        f"{each.name} ({sized(each.needs)})"
        for each in found
        if each.fit and set(each.fit.values()) == {Fit.never}
    ]
    if never:
        words = f"never drawn by the devices of this machine: {', '.join(never)}"
        findings.append(Finding("fit", "warning", words, larger))
    return [*findings, *_room_findings(found, free)]


def _pull_command(names: list[str], *, licences: bool) -> str:
    words = ["understudy weights pull", *names, *(["--accept-licenses"] if licences else [])]
    return " ".join(words)


def _room_findings(found: list[PipelineReport], free: int) -> list[Finding]:
    wanted = sum(each.download or 0 for each in found)
    if wanted <= free:
        return []
    words = f"all that is missing takes {sized(wanted)}, the disk has {sized(free)} free"
    return [Finding("download", "warning", words, "Free some room, or pull single pipelines by name.")]


def license_findings(missing: list[Repository]) -> list[Finding]:
    """The licences that a pull will ask for."""
    asked = dict.fromkeys(text for each in missing for text in each.licenses)
    if not asked:
        return []
    words = f"not accepted yet: {'; '.join(asked)}"
    remedy = "Read them; understudy weights pull --accept-licenses accepts those of what it pulls."
    return [Finding("licences", "warning", words, remedy)]
