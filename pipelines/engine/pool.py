"""The pipelines that are opened on one device, whose parts come and go within a budget of bytes."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import torch

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.pace import AtOnce, Pace
from pipelines.denoising.needs import NOTHING, InUse, Parts, Running, Work
from pipelines.denoising.pipeline import Pipeline
from pipelines.engine.availability import Availability
from pipelines.engine.estimates import Estimates
from pipelines.engine.mover import Mover, mover_of
from pipelines.engine.opening import Opening
from pipelines.engine.parts import Opened
from pipelines.engine.places import Places
from pipelines.errors import (
    CheckpointUnavailable,
    NeverFits,
    OutOfMemory,
    UnusableCheckpoint,
    is_out_of_memory,
)
from pipelines.messages import Absent, PartResidency
from pipelines.request import Request, pipelines_of
from pipelines.weights.entries import PipelineEntry
from pipelines.weights.manifest import Manifest
from pipelines.weights.memory import steady
from pipelines.weights.networks import GIGABYTE

log = logging.getLogger(__name__)

NOBODY: InUse = MappingProxyType({})
"""Nothing is in use."""


class PipelinePool:
    """Opens pipelines on demand and brings the parts of each to the device that a request needs there.

    Room is made by taking away what was used least recently: first the parts that pipelines can do without
    until they read another text, then the others; those of pinned pipelines (``resident: true``) last. What
    is in use never leaves. A part that leaves waits in the host's memory while that has room, and is read
    from its files again otherwise. On a CPU, which has no other place, pipelines come and go as a whole;
    before any leaves, those that are idle drop what requests added to them (LoRAs, VAEs, ControlNets).
    """

    def __init__(
        self,
        manifest: Manifest,
        weights: Path,
        device: torch.device,
        *,
        budget_bytes: int,
        host_budget_bytes: int = 0,
        device_bytes: int | None = None,
        mover: Mover | None = None,
    ) -> None:
        """
        Args:
            weights: folder of downloaded checkpoints.
            budget_bytes: the most bytes that all parts may take on the device.
            host_budget_bytes: the most bytes of parts that wait in the host's memory; unused on a CPU.
            device_bytes: the bytes of the whole device, activations included; None: they are not known.
            mover: None: the device's own.
        """
        self._manifest = manifest
        self._weights = weights
        self._device = device
        self._adapters = AdapterLibrary(manifest, weights)
        self._availability = Availability(manifest, weights)
        self._places = Places(device, mover or mover_of(device), budget_bytes, host_budget_bytes, self.pinned)
        self._estimates = Estimates(manifest, self._places, device_bytes)
        self._opening = Opening(weights, device, self._adapters, moves=self._moves)

    @property
    def budget_bytes(self) -> int:
        """The most bytes that all parts may take on the device."""
        return self._places.budget_bytes

    @property
    def resident(self) -> tuple[str, ...]:
        """The names of the pipelines of which something is loaded, least recently used first."""
        return tuple(name for name, opened in self._places.opened.items() if not opened.absent)

    @property
    def parts(self) -> tuple[PartResidency, ...]:
        """All parts that are loaded, and where they are."""
        return tuple(part for opened in self._places.opened.values() for part in opened.residency())

    @property
    def used_bytes(self) -> int:
        """The bytes of all parts on the device, with what requests have added to them."""
        return self._places.device_bytes

    @property
    def host_bytes(self) -> int:
        """The bytes of all parts that wait in the host's memory."""
        return self._places.host_bytes

    def pinned(self) -> tuple[str, ...]:
        """The names of the pipelines that the manifest wants resident from the start."""
        return tuple(name for name, entry in self._manifest.openable().items() if entry.resident)

    @property
    def absences(self) -> tuple[Absent, ...]:
        """All that the manifest names and that cannot be drawn with now."""
        return self._availability.absences(self.resident)

    def lacks(self, name: str) -> bool:
        """Whether a pipeline is known to be missing or damaged; it may be loaded all the same."""
        return self._availability.lacks(name)

    def look(self, in_use: InUse) -> None:
        """Look whether files came or went, and forget what was opened without a part that has come."""
        for owner, part in self._availability.look():
            if part is None and owner in self._places.opened and owner not in (*self.resident, *in_use):
                self._places.forget(owner)  # it is another one by now
            for name in [name for name in self.resident if part is not None and name not in in_use]:
                if name == owner:
                    self._places.forget(name)
                else:
                    self._places.opened[name].pipeline.clear_cache()

    def can_open(self, name: str, running: Running) -> bool:
        """Whether any request to that pipeline fits beside those that run, as far as sizes are known.

        One that does not fit even when nothing else runs has no need to wait, nor has one whose weights are
        missing.

        Raises:
            UnknownPipeline: not in the manifest.
        """
        if name not in self._places.opened and self.lacks(name):
            return True
        works = [Work(name, self._estimates.expected(name))]
        most = max(self.budget_bytes, self._estimates.alone(works))
        running = {other: needs for other, needs in running.items() if needs or other != name}
        return self._estimates.beside(running, works) <= most

    def can_take(self, request: Request, running: Running) -> bool:
        """Whether the request fits beside those that run, as far as sizes are known.

        Raises:
            UnknownPipeline: it names one that is not in the manifest.
            NeverFits: it does not fit the device even when it is alone.
        """
        name, *others = pipelines_of(request)
        if name not in self._places.opened and self.lacks(name):
            return True
        estimates = self._estimates
        works = [Work(name, estimates.needs(name, request))]
        works += [Work(each, estimates.whole(each)) for each in others]
        if (refusal := estimates.refusal(name, works)) is not None:
            raise refusal
        return estimates.beside(running, works) <= self.budget_bytes

    def too_large(self) -> tuple[NeverFits, ...]:
        """The refusals of all pipelines that do not fit the device even when nothing else is there."""
        estimates = self._estimates
        works = {name: [Work(name, estimates.expected(name))] for name in self._manifest.openable()}
        found = (estimates.refusal(name, alone) for name, alone in works.items())
        return tuple(refusal for refusal in found if refusal is not None)

    def open(self, name: str, in_use: InUse = NOBODY) -> Pipeline:
        """The pipeline of that name, opened first if it is not; `bring` puts its parts on the device.

        Args:
            in_use: parts that must stay, whatever happens.
        Raises:
            UnknownPipeline: not in the manifest.
            CheckpointUnavailable: its weights are missing or differ from the verified ones.
            OutOfMemory: it does not fit beside what must stay.
        """
        places = self._places
        if name not in places.opened:
            self.prepare(name, in_use)
            opened = self._read_or_none(name)
            if opened is None:
                self.relieve(in_use)
                opened = self.read(name)
            self.adopt(opened, in_use)
        places.opened.move_to_end(name)
        opened = places.opened[name]
        if opened.recount():
            places.shrink(self.budget_bytes, {**in_use, name: in_use.get(name, NOTHING)})
        return opened.pipeline

    def prepare(self, name: str, in_use: InUse) -> None:
        """Make room for a pipeline that is about to be read.

        Raises:
            UnknownPipeline, CheckpointUnavailable, OutOfMemory: as for `open`.
        """
        self._availability.demand(name)
        expected = self._estimates.own_bytes(name)
        if self._moves:
            self._places.make_room_on_host(expected, in_use)
        else:
            self._places.make_room(expected, in_use)

    def read(self, name: str, pace: Pace | None = None) -> Opened:
        """Read a pipeline from its files; another thread than that of the pool may do it.

        Raises:
            UnknownPipeline, CheckpointUnavailable: as for `open`.
        """
        return self._opening.open(name, self._manifest, pace or AtOnce())

    def forget(self, name: str) -> None:
        """Drop a pipeline, if it is opened; the caller makes sure that nobody draws with it."""
        if name in self._places.opened:
            self._places.forget(name)

    def entry(self, name: str) -> PipelineEntry:
        """The manifest's entry of that name.

        Raises:
            UnknownPipeline: not in the manifest.
        """
        return self._manifest.pipeline(name)

    def entry_or_none(self, name: str) -> PipelineEntry | None:
        """The manifest's entry of that name; None where there is none."""
        return self._manifest.openable().get(name)

    def failed(self, name: str, error: Exception) -> None:
        """Remember that a pipeline did not open, if its files are the reason."""
        if isinstance(error, CheckpointUnavailable) and not isinstance(error, UnusableCheckpoint):
            self._availability.failed(name, error)

    def adopt(self, opened: Opened, in_use: InUse) -> None:
        """Let a pipeline that was read be one of the pool's. One whose parts had all left keeps its texts.

        Raises:
            OutOfMemory: it does not fit beside what must stay.
        """
        self._estimates.measure(opened)
        self._places.make_room(opened.device_bytes, in_use)
        if opened.name in self._places.opened:
            self._places.opened[opened.name].fill(opened)
        else:
            self._places.opened[opened.name] = opened
        log.info("%s is opened, %.2f GB", opened.name, opened.own_bytes / GIGABYTE)
        if not self._places.host_has_room:
            self._bring_into_free_room(opened.name, in_use)

    def _read_or_none(self, name: str) -> Opened | None:
        """Read the pipeline; None when memory runs out.

        By then the error is gone, whose traceback holds what was read so far.
        """
        try:
            return self.read(name)
        except Exception as error:
            if not is_out_of_memory(error):
                self.failed(name, error)
                raise
            return None

    def preload(self, name: str) -> None:
        """Open a pipeline and bring those of its parts for which there is room beside all that is there.

        Raises:
            CheckpointUnavailable, OutOfMemory: see `open`.
        """
        self.open(name)
        self._bring_into_free_room(name, NOBODY)

    def _bring_into_free_room(self, name: str, in_use: InUse) -> None:
        """Bring parts of a pipeline for which there is room, those first that take steps.

        All are brought at once: where the host has no room, what stays behind is dropped, and would have to
        be read a second time.
        """
        if not self._moves:
            return
        kept = steady(self.entry(name))
        room, chosen = self.budget_bytes - self.used_bytes, set[str]()
        parts = self._places.opened[name].parts.values()
        for part in sorted(parts, key=lambda part: part.name not in kept):
            if part.place != "device" and part.nbytes <= room:
                room -= part.nbytes
                chosen.add(part.name)
        with suppress(OutOfMemory):  # what is in use will come back into that room
            self.bring(name, frozenset(chosen), in_use)

    def bring(self, name: str, parts: Parts, in_use: InUse) -> None:
        """Put parts of an opened pipeline on the device; what is not opened yet is opened there later.

        Args:
            in_use: parts that must stay, whatever happens.
        Raises:
            OutOfMemory: they do not fit beside what must stay.
            CheckpointUnavailable: the files of one are gone meanwhile.
        """
        self._places.bring(name, parts, in_use)

    def relieve(self, in_use: InUse) -> bool:
        """Drop and take away everything that may leave, after an out-of-memory error; what is pinned only
        when nothing else has left.

        Returns:
            whether anything left.
        """
        left = self._places.shrink(0, in_use, with_pinned=False) or self._places.shrink(0, in_use)
        self._places.empty_caches()
        return left

    def clear_cache(self) -> None:
        """Drop what is kept only to save time: encoded prompts, files of adapters, weights on the host.

        Somebody may be drawing with any pipeline: none is forgotten.
        """
        self._adapters.clear_cache()
        for opened in self._places.opened.values():
            opened.pipeline.clear_cache()
            opened.recount()
            for part in opened.parts.values():
                if part.place == "host" and part.read is not None:
                    part.drop(opened.additions)
        self._places.empty_caches()

    def reload(self, manifest: Manifest) -> None:
        """Draw with what this manifest names from now on.

        Pipelines that it does not name any more, or names differently, are dropped. The caller makes sure
        that nobody draws with those.
        """
        before, self._manifest = self._manifest, manifest
        self._estimates.manifest = manifest
        self._adapters.manifest = manifest
        self._availability.replace(manifest)
        if _keeps(before, manifest):
            return
        self.clear_cache()
        was, now = before.openable(), manifest.openable()
        for name in self._estimates.measured:
            if was.get(name) != now.get(name):
                self._estimates.forget(name)
                self._places.opened.pop(name, None)
        self._places.empty_caches()

    @property
    def _moves(self) -> bool:
        """Whether parts have a place of their own, instead of coming and going with their pipeline."""
        return self._places.mover is not None


def _keeps(before: Manifest, after: Manifest) -> bool:
    """Whether every name of the one manifest means the same in the other."""
    sections = (getattr(before, name) for name in Manifest.model_fields)
    return all(
        getattr(after, field).get(name) == entry
        for field, section in zip(Manifest.model_fields, sections, strict=True)
        if isinstance(section, dict)
        for name, entry in section.items()
    )
