"""The bytes that each part of a pipeline takes, and what of a manifest fits a card. Torch-free.

Pool, doctor and the server's refusals reckon with these figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from pipelines.weights.entries import PipelineEntry
from pipelines.weights.kinds import Dtype, Quantization
from pipelines.weights.local_sizes import numbers_in_file
from pipelines.weights.manifest import Manifest
from pipelines.weights.networks import CONTROLNET_NUMBERS, GIGABYTE, HALF_BYTES, NETWORKS, Stage

CONTEXT_BYTES = 600_000_000
"""The bytes that a process takes on a CUDA device before it draws: context, kernels, workspaces."""

_SLACK = 1.2
"""Activations by what is allocated for them: convolutions' workspaces, gaps between blocks."""

_BYTES: Mapping[Dtype, int] = {"float32": 4, "float16": 2, "bfloat16": 2}


_QUANTIZED_BYTES: Mapping[Quantization, float] = {"int8": 1.001, "int4": 0.5164}
"""The bytes of a quantized number: a scale for each row of a matrix; for each 64 numbers, in eight bits."""


class Fit(StrEnum):
    """How a pipeline fits a card together with all others of its manifest."""

    resident = "resident"
    """What takes steps stays on the card; text encoders too, while nothing else needs their room."""
    on_demand = "on demand"
    """It comes when it is asked for, and others give it room."""
    never = "never"
    """Some stage of it takes more than the card has."""


def part_bytes(entry: PipelineEntry) -> dict[str, int]:
    """The bytes of each network that an entry opens, by its name in the family's ``modules``."""
    networks = NETWORKS[entry.family]
    there = [name for name in networks.numbers if networks.optional.get(name, "") in ("", *entry.parts)]
    return {name: _network_bytes(entry, name) for name in there if not entry.skips(name)}


def controlnet_bytes(manifest: Manifest, entry: PipelineEntry, name: str) -> int:
    """The bytes of a ControlNet that a request adds to an entry; none where the family takes none.

    It has the size of its files where these lie beside the manifest, else what is usual in the family.
    """
    if entry.family not in ("sd15", "sdxl"):
        return 0
    added = manifest.controlnets.get(name)
    local = added and (added.source.file or added.source.folder)
    numbers = numbers_in_file(manifest.path.parent / local, None) if local else None
    return (numbers or CONTROLNET_NUMBERS[entry.family]) * _BYTES[entry.dtype]


def stages(entry: PipelineEntry) -> dict[Stage, tuple[str, ...]]:
    """The networks that each stage of drawing needs, in the order of drawing."""
    there = part_bytes(entry)
    return {
        stage: tuple(name for name in needed if name in there)
        for stage, needed in NETWORKS[entry.family].stages.items()
    }


def activation_bytes(
    entry: PipelineEntry, stage: Stage, *, pixels: int | None = None, samples: int = 1
) -> int:
    """The bytes that a stage takes beside the weights, room for the libraries' workspaces included.

    Args:
        pixels: of one picture; None: the family's default size.
        samples: pictures that are drawn in one evaluation, each with guidance.
    """
    networks = NETWORKS[entry.family]
    taken = networks.activations[stage]
    one = taken.fixed + taken.per_pixel * (networks.default_pixels if pixels is None else pixels)
    widths = [_BYTES[entry.dtype_of(name)] for name in stages(entry)[stage]]
    return int(samples * one * max(widths, default=HALF_BYTES) / HALF_BYTES * _SLACK)


def steady(entry: PipelineEntry) -> tuple[str, ...]:
    """The networks that stay on the card for as long as a request is drawn: all but those that only read."""
    needed = stages(entry)
    kept = {name for stage, names in needed.items() if stage != "encode" for name in names}
    return tuple(name for name in part_bytes(entry) if name in kept or not kept)


def moments(entry: PipelineEntry) -> dict[Stage, tuple[str, ...]]:
    """The networks that are on the card in each stage: what reads, then all that takes steps and decodes."""
    kept = steady(entry)
    return {stage: names if stage == "encode" else kept for stage, names in stages(entry).items()}


def weights_at_once(entry: PipelineEntry) -> int:
    """The most bytes of weights that one request needs at one moment."""
    sizes = part_bytes(entry)
    return max(sum(sizes[name] for name in names) for names in moments(entry).values())


def stage_bytes(entry: PipelineEntry, *, by_part: bool = True) -> dict[Stage, int]:
    """The bytes of weights and activations that each stage of a request of the default size takes.

    Args:
        by_part: whether parts leave the device while others are needed; on a CPU they have no other place.
    """
    sizes = part_bytes(entry)
    return {
        stage: sum(sizes[name] for name in names) + activation_bytes(entry, stage)
        for stage, names in _together(entry, by_part=by_part).items()
    }


def needed_bytes(entry: PipelineEntry, *, by_part: bool = True) -> int:
    """The most that one request of the default size takes at one moment, the device's context included.

    Args:
        by_part: see `stage_bytes`.
    """
    return CONTEXT_BYTES + max(stage_bytes(entry, by_part=by_part).values())


def _together(entry: PipelineEntry, *, by_part: bool) -> dict[Stage, tuple[str, ...]]:
    """The networks that are on the device in each stage."""
    return moments(entry) if by_part else dict.fromkeys(stages(entry), tuple(part_bytes(entry)))


def budget_bytes(manifest: Manifest, card_bytes: int) -> int:
    """The bytes that weights may take on a card, where the same is left free whatever is drawn.

    What is left free is enough for the activations of everything that the card can draw, but never so much
    that the largest stage would not fit.
    """
    drawn = [entry for entry in manifest.openable().values() if needed_bytes(entry) <= card_bytes]
    activations = [activation_bytes(entry, stage) for entry in drawn for stage in stages(entry)]
    largest = max((weights_at_once(entry) for entry in drawn), default=0)
    return max(card_bytes - CONTEXT_BYTES - max(activations, default=0), largest)


def fits(manifest: Manifest, card_bytes: int, *, by_part: bool = True) -> dict[str, Fit]:
    """How each pipeline of a manifest fits a card.

    Those that the manifest wants resident come first, then the others in its order: each is resident as long
    as every stage of all that can be drawn still fits beside what stays.

    Args:
        by_part: see `stage_bytes`.
    """
    openable = manifest.openable()
    needed = {name: needed_bytes(entry, by_part=by_part) for name, entry in openable.items()}
    entries = {name: entry for name, entry in openable.items() if needed[name] <= card_bytes}
    staying = list[str]()
    for name in sorted(entries, key=lambda name: not entries[name].resident):
        if _fit_together(entries, [*staying, name], card_bytes - CONTEXT_BYTES, by_part=by_part):
            staying.append(name)
    return {
        name: Fit.resident if name in staying else Fit.on_demand if name in entries else Fit.never
        for name in openable
    }


def _fit_together(
    entries: Mapping[str, PipelineEntry], staying: Sequence[str], most_bytes: int, *, by_part: bool
) -> bool:
    """Whether every stage of every pipeline fits beside the networks that stay of these."""
    sizes = {name: part_bytes(entry) for name, entry in entries.items()}
    stay = {name: steady(entries[name]) if by_part else tuple(sizes[name]) for name in staying}
    kept = {(name, part): sizes[name][part] for name in staying for part in stay[name]}
    for name, entry in entries.items():
        for stage, parts in _together(entry, by_part=by_part).items():
            there = {**kept, **{(name, part): sizes[name][part] for part in parts}}
            if sum(there.values()) + activation_bytes(entry, stage) > most_bytes:
                return False
    return True


def _network_bytes(entry: PipelineEntry, name: str) -> int:
    networks = NETWORKS[entry.family]
    numbers = _numbers(entry, name)
    if name in networks.full:
        return numbers * _BYTES["float32"]
    dtype = entry.dtype_of(name)
    each = float(_BYTES[dtype])
    if (quantization := entry.quantization_of(name)) is not None:
        linear = networks.linear[name]
        each = _QUANTIZED_BYTES[quantization] * linear + each * (1 - linear)
    elif dtype == "float16":
        kept = networks.kept_full.get(name, 0.0)
        each = _BYTES["float32"] * kept + each * (1 - kept)
    return int(numbers * each)


def _numbers(entry: PipelineEntry, name: str) -> int:
    """How many numbers a network has: as its entry says, else as is usual in its family.

    A folder beside the manifest holds whatever somebody trained: none are counted before it is there.
    """
    if name in entry.memory:
        return round(entry.memory[name] * GIGABYTE / HALF_BYTES)
    source, _ = entry.source_of(name) or (None, None)
    return 0 if source is not None and source.folder is not None else NETWORKS[entry.family].numbers[name]
