"""Which pipelines are resident on this device, within a budget of bytes."""

from __future__ import annotations

import gc
import itertools
import logging
from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.denoising.pipeline import Pipeline
from pipelines.errors import OutOfMemory
from pipelines.families.registry import open_pipeline
from pipelines.weights.manifest import Manifest

log = logging.getLogger(__name__)

GIGABYTE = 10**9


def module_bytes(modules: Mapping[str, torch.nn.Module]) -> int:
    """What the parameters and buffers take, each counted once however many modules share it."""
    tensors = itertools.chain.from_iterable(
        itertools.chain(module.parameters(), module.buffers()) for module in modules.values()
    )
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


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
            budget_bytes: bound of the parameters on the device, over all resident pipelines.
            host_budget_bytes: bound of evicted pipelines kept in host memory; unused on a CPU.
        """
        self._manifest = manifest
        self._weights = weights
        self._device = device
        self._budget_bytes = budget_bytes
        self._host_budget_bytes = host_budget_bytes if device.type != "cpu" else 0
        self._adapters = AdapterLibrary(manifest, weights)
        self._resident: OrderedDict[str, Pipeline] = OrderedDict()
        self._evicted: OrderedDict[str, Pipeline] = OrderedDict()
        self._bytes: dict[str, int] = {}
        self._own_bytes: dict[str, int] = {}
        self._counted: dict[str, frozenset[str]] = {}

    @property
    def resident(self) -> tuple[str, ...]:
        """Names of what is on the device, least recently used first."""
        return tuple(self._resident)

    @property
    def used_bytes(self) -> int:
        return sum(self._bytes[name] for name in self._resident)

    def pinned(self) -> tuple[str, ...]:
        """Names that the manifest wants resident from the start."""
        return tuple(name for name, entry in self._manifest.openable().items() if entry.resident)

    def can_open(self, name: str, in_use: Collection[str]) -> bool:
        """Whether `open` would succeed without evicting what is in use, as far as sizes are known."""
        if name in self._resident:
            return True
        immovable = {*in_use, *self.pinned()}
        kept = sum(
            (self._bytes if other in in_use else self._own_bytes)[other]
            for other in self._resident
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
            self._count(name, pipeline)
            self._own_bytes[name] = self._bytes[name]
            self._make_room(self._bytes[name], in_use)
            self._resident[name] = pipeline
            log.info("%s is resident, %.2f GB", name, self._bytes[name] / GIGABYTE)
        self._resident.move_to_end(name)
        if self._recount(name):
            self._shrink(self._budget_bytes, {*in_use, name})
        return self._resident[name]

    def relieve(self, in_use: Collection[str]) -> bool:
        """Drop and evict everything that may leave; True when something did. For use after an out-of-memory
        error."""
        left = self._shrink(0, in_use)
        _empty_caches(self._device)
        return left

    def clear_cache(self) -> None:
        """Drop what is kept only to save time: encoded prompts, files of adapters, evicted weights."""
        self._adapters.clear_cache()
        self._evicted.clear()
        for name, pipeline in self._resident.items():
            pipeline.clear_cache()
            self._recount(name)
        _empty_caches(self._device)

    def reload(self, manifest: Manifest) -> None:
        """Draw with what this manifest names from now on.

        What it does not name any more, or names differently, is dropped: nothing may be in use of it.
        """
        before, self._manifest = self._manifest, manifest
        self._adapters.manifest = manifest
        if _keeps(before, manifest):
            return
        self.clear_cache()
        for name in {*self._resident, *self._bytes}:
            if before.pipelines.get(name) != manifest.pipelines.get(name):
                for known in (self._resident, self._bytes, self._own_bytes):
                    known.pop(name, None)
        _empty_caches(self._device)

    def _count(self, name: str, pipeline: Pipeline) -> None:
        self._bytes[name] = module_bytes(pipeline.modules)
        self._counted[name] = frozenset(pipeline.modules)

    def _recount(self, name: str) -> bool:
        """What requests add (LoRAs, VAEs, ControlNets) comes and goes; whether it did."""
        pipeline = self._resident[name]
        changed = self._counted[name] != pipeline.modules.keys()
        if changed:
            self._count(name, pipeline)
        return changed

    def _load_or_none(self, name: str) -> Pipeline | None:
        """None: memory ran out. The error, whose traceback holds what was loaded so far, is gone by then."""
        try:
            return self._load(name)
        except torch.OutOfMemoryError:
            return None

    def _load(self, name: str) -> Pipeline:
        if name in self._evicted:
            pipeline = self._evicted.pop(name)
            _move(pipeline, self._device)
            return pipeline
        entry = self._manifest.pipeline(name)
        checkpoint = Checkpoint(name, self._manifest, entry, self._weights, self._device)
        return open_pipeline(checkpoint, self._adapters)

    def _expected_bytes(self, name: str) -> int:
        """Measured when it was open before, else the manifest's figure, else zero."""
        entry = self._manifest.pipeline(name)
        return self._own_bytes.get(name, int((entry.vram_gb or 0) * GIGABYTE))

    def _evictable(self, in_use: Collection[str]) -> list[str]:
        immovable = {*in_use, *self.pinned()}
        return [name for name in self._resident if name not in immovable]

    def _make_room(self, needed_bytes: int, in_use: Collection[str]) -> None:
        self._shrink(self._budget_bytes - needed_bytes, in_use)
        if self.used_bytes + needed_bytes > self._budget_bytes:
            raise OutOfMemory("the pipeline does not fit into this device's memory budget")

    def _shrink(self, most_bytes: int, in_use: Collection[str]) -> bool:
        """Get down to so many bytes, as far as what may leave allows: first what was added, then pipelines.

        Returns:
            whether anything left.
        """
        for name in self._resident:
            self._recount(name)
        before = self.used_bytes
        for name, pipeline in self._resident.items():
            added = self._bytes[name] > self._own_bytes[name]
            if added and name not in in_use and self.used_bytes > most_bytes:
                pipeline.clear_cache()
                self._recount(name)
        for name in self._evictable(in_use):
            if self.used_bytes > most_bytes:
                self._evict(name)
        return self.used_bytes < before

    def _evict(self, name: str) -> None:
        pipeline = self._resident.pop(name)
        log.info("%s is evicted", name)
        kept = sum(self._bytes[other] for other in self._evicted)
        while self._evicted and kept + self._bytes[name] > self._host_budget_bytes:
            kept -= self._bytes[self._evicted.popitem(last=False)[0]]
        if kept + self._bytes[name] <= self._host_budget_bytes:
            _move(pipeline, torch.device("cpu"))
            self._evicted[name] = pipeline
        del pipeline
        _empty_caches(self._device)


def _keeps(before: Manifest, after: Manifest) -> bool:
    """Whether all that the one manifest names means the same in the other."""
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
