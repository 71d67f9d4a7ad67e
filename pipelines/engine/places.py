"""The places of all parts: the device and the host's memory, each with a budget of bytes."""

from __future__ import annotations

import gc
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator

import torch

from pipelines.denoising.needs import NOTHING, InUse, Parts
from pipelines.engine.mover import Mover
from pipelines.engine.parts import Opened, Part
from pipelines.errors import OutOfMemory

log = logging.getLogger(__name__)

KEPT_ABSENT = 16
"""The number of pipelines that are kept without any of their parts, for the texts that they have read."""


class Places:
    """Makes room on the device and in the host's memory, and moves parts between them.

    Attributes:
        budget_bytes: the most bytes that all parts may take on the device.
        host_budget_bytes: the most bytes of parts that wait in the host's memory.
        mover: None: the device is a CPU, and pipelines leave it as a whole.
        opened: all opened pipelines, least recently used first.

    Args:
        pinned: the pipelines whose parts leave last.
    """

    def __init__(
        self,
        device: torch.device,
        mover: Mover | None,
        budget_bytes: int,
        host_budget_bytes: int,
        pinned: Callable[[], Collection[str]],
    ) -> None:
        self.budget_bytes = budget_bytes
        self.host_budget_bytes = host_budget_bytes
        self.mover = mover
        self.opened: OrderedDict[str, Opened] = OrderedDict()
        self._device = device
        self._pinned = pinned
        self._tick = 0

    @property
    def device_bytes(self) -> int:
        """The bytes of all parts on the device, with what requests have added to them."""
        return sum(part.nbytes for part in self._parts() if part.place == "device")

    @property
    def host_bytes(self) -> int:
        """The bytes of all parts that wait in the host's memory."""
        return sum(part.nbytes for part in self._parts() if part.place == "host")

    @property
    def host_has_room(self) -> bool:
        """Whether no more waits on the host than may."""
        return self.host_bytes <= self.host_budget_bytes

    def bring(self, name: str, parts: Parts, in_use: InUse) -> None:
        """Put parts of an opened pipeline on the device.

        Args:
            in_use: parts that must stay, whatever happens.
        Raises:
            OutOfMemory: they do not fit beside what must stay.
        """
        opened = self.opened[name]
        opened.recount()
        wanted = opened.of_names(parts)
        self._tick += 1
        for part in wanted:
            part.used = self._tick
        held = {**in_use, name: in_use.get(name, NOTHING) | parts}
        missing = [part for part in wanted if part.place != "device"]
        if missing and self._bytes_of(held) > self.budget_bytes and name not in in_use:
            opened.drop_additions()
        if missing and self._bytes_of(held) > self.budget_bytes:
            raise OutOfMemory(f"{name} does not fit into this device's memory beside what is being drawn")
        self.shrink(self.budget_bytes - sum(part.nbytes for part in missing), held)
        for part in missing:
            self._fetch(part)
        self.make_room_on_host(0, held)

    def make_room(self, needed_bytes: int, in_use: InUse) -> None:
        """Make room on the device for so many bytes.

        Raises:
            OutOfMemory: there is not so much beside what must stay.
        """
        if needed_bytes and self._bytes_of(in_use) + needed_bytes > self.budget_bytes:
            raise OutOfMemory("the pipeline does not fit into this device's memory budget")
        self.shrink(self.budget_bytes - needed_bytes, in_use)

    def shrink(self, most_bytes: int, in_use: InUse, *, with_pinned: bool = True) -> bool:
        """Get the device down to ``most_bytes``, or as far down as what is in use allows.

        Args:
            with_pinned: whether pinned pipelines leave, too, when all others have.
        Returns:
            whether anything left.
        """
        for opened in self.opened.values():
            opened.recount()
        before = self.device_bytes
        if self.mover is None:
            self._drop_additions(most_bytes, in_use)
            self._forget_idle(most_bytes, in_use, with_pinned)
        else:
            for part in self._leaving(in_use, with_pinned):
                if self.device_bytes > most_bytes and part.place == "device":
                    self._leave(part, in_use)
        return self.device_bytes < before

    def make_room_on_host(self, needed_bytes: int, in_use: InUse) -> bool:
        """Drop what was used least recently of what waits on the host, until there is room for so many bytes.

        Returns:
            whether there is now.
        """
        waiting = sorted((part for part in self._parts() if part.place == "host"), key=lambda part: part.used)
        for part in waiting:
            if self.host_bytes + needed_bytes <= self.host_budget_bytes:
                break
            if part.place == "host":
                self._drop(part, in_use)
        return self.host_bytes + needed_bytes <= self.host_budget_bytes

    def forget(self, name: str) -> None:
        """Drop a whole pipeline."""
        del self.opened[name]
        log.info("%s is evicted", name)
        self.empty_caches()

    def empty_caches(self) -> None:
        """Give freed memory back: networks hold reference cycles, and CUDA's allocator keeps what it has."""
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _parts(self) -> Iterator[Part]:
        return (part for opened in list(self.opened.values()) for part in list(opened.parts.values()))

    def _bytes_of(self, held: InUse) -> int:
        """The bytes that these parts take on the device. On a CPU a pipeline stays as a whole."""
        return sum(
            part.nbytes
            for name, parts in held.items()
            if (opened := self.opened.get(name))
            for part in (opened.parts.values() if self.mover is None else opened.of_names(parts))
        )

    def _leaving(self, in_use: InUse, with_pinned: bool) -> list[Part]:
        """The parts that may leave the device, in the order in which they do."""
        pinned = self._pinned()
        return sorted(
            (
                part
                for part in self._parts()
                if part.place == "device"
                and part.name not in in_use.get(part.pipeline, NOTHING)
                and (with_pinned or part.pipeline not in pinned)
            ),
            key=lambda part: (
                part.pipeline in pinned,
                part.name in self.opened[part.pipeline].drawing,
                part.used,
            ),
        )

    def _leave(self, part: Part, in_use: InUse) -> None:
        """Take a part off the device: to the host where there is room, else away."""
        assert self.mover is not None
        fits = part.nbytes <= self.host_budget_bytes and self.make_room_on_host(part.nbytes, in_use)
        if fits and part.pipeline in self.opened:
            self.mover.to_host(part.module)
            part.place = "host"
        elif part.pipeline in self.opened:
            self._drop(part, in_use)

    def _fetch(self, part: Part) -> None:
        """Put a part on the device, from its files where it is not in the host's memory."""
        assert self.mover is not None
        if part.place == "absent":
            log.info("%s of %s is read again", part.name, part.pipeline)
            part.restore()
        try:
            self.mover.to_device(part.module)
        except Exception:
            self.mover.to_host(part.module)  # the half that had come already
            raise
        part.place = "device"

    def _drop(self, part: Part, in_use: InUse) -> None:
        """Give a part's memory back wherever it is. What cannot be read again stays while it is in use."""
        opened = self.opened[part.pipeline]
        idle = part.pipeline not in in_use
        if idle and opened.has_additions:
            opened.drop_additions()
        if part.read is not None:
            part.drop(opened.additions)
        if idle and part.read is None and opened.parts.get(part.name) is part:
            self.forget(part.pipeline)
        absent = [name for name, other in self.opened.items() if other.absent and name not in in_use]
        for name in absent[:-KEPT_ABSENT]:
            self.forget(name)

    def _drop_additions(self, most_bytes: int, in_use: InUse) -> None:
        for name, opened in self.opened.items():
            if opened.has_additions and name not in in_use and self.device_bytes > most_bytes:
                opened.drop_additions()

    def _forget_idle(self, most_bytes: int, in_use: InUse, with_pinned: bool) -> None:
        pinned = self._pinned()
        idle = [name for name in self.opened if name not in in_use and (with_pinned or name not in pinned)]
        for name in sorted(idle, key=lambda name: name in pinned):
            if self.device_bytes > most_bytes:
                self.forget(name)
