"""The pipelines that are resident on one device, within a budget of bytes."""

from __future__ import annotations

import gc
import itertools
import logging
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.denoising.pipeline import Pipeline
from pipelines.errors import CheckpointUnavailable, GenerationError, OutOfMemory, is_out_of_memory
from pipelines.families.registry import open_pipeline
from pipelines.weights.manifest import Manifest
from pipelines.weights.memory import part_bytes

log = logging.getLogger(__name__)

GIGABYTE = 10**9
"""Bytes of a gigabyte."""


def module_bytes(modules: Mapping[str, torch.nn.Module]) -> int:
    """The bytes of all parameters and buffers, each counted once however many modules share it."""
    tensors = itertools.chain.from_iterable(
        itertools.chain(module.parameters(), module.buffers()) for module in modules.values()
    )
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


@dataclass(slots=True)
class Resident:
    """A pipeline on the device, and what it takes there.

    Attributes:
        own_bytes: bytes of the networks that it was opened with.
        total_bytes: bytes of these and of the networks that requests have added.
        counted: names of the networks in ``total_bytes``.
    """

    pipeline: Pipeline
    own_bytes: int
    total_bytes: int
    counted: frozenset[str]

    @classmethod
    def measure(cls, pipeline: Pipeline) -> Resident:
        """Count the networks of a pipeline to which no request has added anything."""
        own_bytes = module_bytes(pipeline.modules)
        return cls(pipeline, own_bytes, own_bytes, frozenset(pipeline.modules))

    def recount(self) -> bool:
        """Count again if networks that requests add (LoRAs, VAEs, ControlNets) have come or gone.

        Returns:
            whether they have.
        """
        names = frozenset(self.pipeline.modules)
        changed = names != self.counted
        if changed:
            self.total_bytes, self.counted = module_bytes(self.pipeline.modules), names
        return changed


class PipelinePool:
    """Opens pipelines on demand and evicts the one unused for longest when room is needed.

    Pinned pipelines (``resident: true``) never leave, nor does one that is in use. Before any leaves, those
    that are idle, pinned or not, drop what requests added to them (LoRAs, VAEs, ControlNets). On CUDA an
    evicted pipeline's weights stay in host memory while that has room: coming back is a copy and no load.
    """

    def __init__(
        self,
        manifest: Manifest,
        weights: Path,
        device: torch.device,
        *,
        budget_bytes: int,
        host_budget_bytes: int = 0,
    ) -> None:
        """
        Args:
            weights: folder of downloaded checkpoints.
            budget_bytes: the most bytes that all resident pipelines may take on the device.
            host_budget_bytes: the most bytes of evicted pipelines kept in host memory; unused on a CPU.
        """
        self._manifest = manifest
        self._weights = weights
        self._device = device
        self._budget_bytes = budget_bytes
        self._host_budget_bytes = host_budget_bytes if device.type != "cpu" else 0
        self._adapters = AdapterLibrary(manifest, weights)
        self._resident: OrderedDict[str, Resident] = OrderedDict()
        self._evicted: OrderedDict[str, Resident] = OrderedDict()
        self._measured_bytes: dict[str, int] = {}

    @property
    def resident(self) -> tuple[str, ...]:
        """The names of the pipelines on the device, least recently used first."""
        return tuple(self._resident)

    @property
    def used_bytes(self) -> int:
        """The bytes of all resident pipelines, with what requests have added to them."""
        return sum(resident.total_bytes for resident in self._resident.values())

    def pinned(self) -> tuple[str, ...]:
        """The names of the pipelines that the manifest wants resident from the start."""
        return tuple(name for name, entry in self._manifest.openable().items() if entry.resident)

    def can_open(self, name: str, in_use: Collection[str]) -> bool:
        """Whether `open` would succeed without evicting what is in use, as far as sizes are known."""
        if name in self._resident:
            return True
        immovable = {*in_use, *self.pinned()}
        kept = sum(
            resident.total_bytes if other in in_use else resident.own_bytes
            for other, resident in self._resident.items()
            if other in immovable
        )
        return kept + self._expected_bytes(name) <= self._budget_bytes

    def open(self, name: str, in_use: Collection[str] = ()) -> Pipeline:
        """The pipeline of that name, made resident first if it is not.

        Args:
            in_use: names that must stay, whatever happens.
        Raises:
            UnknownPipeline: not in the manifest.
            CheckpointUnavailable: its weights are missing or differ from the verified ones.
            OutOfMemory: it does not fit beside what must stay.
        """
        if name not in self._resident:
            self._make_room(self._expected_bytes(name), in_use)
            pipeline = self._load_or_none(name)
            if pipeline is None:
                self.relieve(in_use)
                pipeline = self._load(name)
            resident = Resident.measure(pipeline)
            self._measured_bytes[name] = resident.own_bytes
            self._make_room(resident.own_bytes, in_use)
            self._resident[name] = resident
            log.info("%s is resident, %.2f GB", name, resident.own_bytes / GIGABYTE)
        self._resident.move_to_end(name)
        resident = self._resident[name]
        if resident.recount():
            self._shrink(self._budget_bytes, {*in_use, name})
        return resident.pipeline

    def relieve(self, in_use: Collection[str]) -> bool:
        """Drop and evict everything that may leave, after an out-of-memory error.

        Returns:
            whether anything left.
        """
        left = self._shrink(0, in_use)
        _empty_caches(self._device)
        return left

    def clear_cache(self) -> None:
        """Drop what is kept only to save time: encoded prompts, files of adapters, evicted weights."""
        self._adapters.clear_cache()
        self._evicted.clear()
        for resident in self._resident.values():
            resident.pipeline.clear_cache()
            resident.recount()
        _empty_caches(self._device)

    def reload(self, manifest: Manifest) -> None:
        """Draw with what this manifest names from now on.

        Pipelines that it does not name any more, or names differently, are dropped. The caller makes sure
        that nobody draws with those.
        """
        before, self._manifest = self._manifest, manifest
        self._adapters.manifest = manifest
        if _keeps(before, manifest):
            return
        self.clear_cache()
        for name in list(self._measured_bytes):
            if before.pipelines.get(name) != manifest.pipelines.get(name):
                del self._measured_bytes[name]
                self._resident.pop(name, None)
        _empty_caches(self._device)

    def _load_or_none(self, name: str) -> Pipeline | None:
        """Load the pipeline; None when memory runs out.

        By then the error is gone, whose traceback holds what was loaded so far.
        """
        try:
            return self._load(name)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _load(self, name: str) -> Pipeline:
        if name in self._evicted:
            pipeline = self._evicted.pop(name).pipeline
            _move(pipeline, self._device)
            return pipeline
        entry = self._manifest.pipeline(name)
        checkpoint = Checkpoint(name, self._manifest, entry, self._weights, self._device)
        try:
            return open_pipeline(checkpoint, self._adapters)
        except (GenerationError, torch.AcceleratorError):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            log.exception("%s cannot be opened", name)
            raise CheckpointUnavailable(f"{name} cannot be opened, the log says why") from error

    def _expected_bytes(self, name: str) -> int:
        """The bytes measured when it was open before, else those that its entry says."""
        if name in self._measured_bytes:
            return self._measured_bytes[name]
        return sum(part_bytes(self._manifest.pipeline(name)).values())

    def _evictable(self, in_use: Collection[str]) -> list[str]:
        immovable = {*in_use, *self.pinned()}
        return [name for name in self._resident if name not in immovable]

    def _make_room(self, needed_bytes: int, in_use: Collection[str]) -> None:
        self._shrink(self._budget_bytes - needed_bytes, in_use)
        if self.used_bytes + needed_bytes > self._budget_bytes:
            raise OutOfMemory("the pipeline does not fit into this device's memory budget")

    def _shrink(self, most_bytes: int, in_use: Collection[str]) -> bool:
        """Get down to ``most_bytes``, or as far down as what is in use allows.

        What requests have added leaves first, then whole pipelines.

        Returns:
            whether anything left.
        """
        before = self._recounted_bytes()
        self._drop_additions(most_bytes, in_use)
        for name in self._evictable(in_use):
            if self.used_bytes > most_bytes:
                self._evict(name)
        return self.used_bytes < before

    def _recounted_bytes(self) -> int:
        for resident in self._resident.values():
            resident.recount()
        return self.used_bytes

    def _drop_additions(self, most_bytes: int, in_use: Collection[str]) -> None:
        for name, resident in self._resident.items():
            added = resident.total_bytes > resident.own_bytes
            if added and name not in in_use and self.used_bytes > most_bytes:
                resident.pipeline.clear_cache()
                resident.recount()

    def _evict(self, name: str) -> None:
        leaving = self._resident.pop(name)
        log.info("%s is evicted", name)
        kept = sum(evicted.total_bytes for evicted in self._evicted.values())
        while self._evicted and kept + leaving.total_bytes > self._host_budget_bytes:
            kept -= self._evicted.popitem(last=False)[1].total_bytes
        if kept + leaving.total_bytes <= self._host_budget_bytes:
            _move(leaving.pipeline, torch.device("cpu"))
            self._evicted[name] = leaving
        del leaving
        _empty_caches(self._device)


def _keeps(before: Manifest, after: Manifest) -> bool:
    """Whether every name of the one manifest means the same in the other."""
    sections = (getattr(before, name) for name in Manifest.model_fields)
    return all(
        getattr(after, field).get(name) == entry
        for field, section in zip(Manifest.model_fields, sections, strict=True)
        if isinstance(section, dict)
        for name, entry in section.items()
    )


def _move(pipeline: Pipeline, device: torch.device) -> None:
    for module in pipeline.modules.values():
        module.to(device)


def _empty_caches(device: torch.device) -> None:
    """Give freed memory back: networks hold reference cycles, and CUDA's allocator keeps what it has."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
