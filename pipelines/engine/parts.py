"""The parts of an opened pipeline: their bytes, the place where each is, and when it was used last."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from pipelines.checkpoints.quantization import plain_tensors, stored_bytes
from pipelines.denoising.needs import NOTHING, Parts
from pipelines.denoising.pipeline import Pipeline
from pipelines.messages import PartResidency, Place

Anywhere: TypeAlias = Place | Literal["absent"]
"""The place of a part. An absent one is in its files alone; its network has shapes and no numbers."""

Reader: TypeAlias = Callable[[], torch.nn.Module]
"""Reads a network from its files once more, into the host's memory."""


_LORA = "lora:"
"""The beginning of the names in ``modules`` of what LoRAs have put on other networks."""


def own_tensors(module: torch.nn.Module) -> Iterator[Tensor]:
    """The parameters and buffers of a network, each once however often it is used."""
    both = itertools.chain(module.parameters(), module.buffers())
    return iter({id(tensor): tensor for tensor in both}.values())


def is_plain(module: torch.nn.Module) -> bool:
    """Whether its tensors are torch's own; quantised ones know themselves of what they consist."""
    return all(type(tensor.data) is Tensor for tensor in own_tensors(module))


def module_bytes(modules: Mapping[str, torch.nn.Module]) -> int:
    """The bytes of all parameters and buffers, each counted once however many modules share it."""
    return sum(bytes_by_part(modules).values())


def bytes_by_part(modules: Mapping[str, torch.nn.Module]) -> dict[str, int]:
    """The bytes of each module. What several share is counted for the first: a LoRA for its network."""
    counted: set[int] = set()
    found: dict[str, int] = {}
    for name, module in modules.items():
        found[name] = 0
        for tensor in own_tensors(module):
            mark = tensor.data_ptr() or -id(tensor)  # on the meta device nothing has an address
            if mark not in counted:
                counted.add(mark)
                found[name] += stored_bytes(tensor)
    return found


@dataclass(slots=True, eq=False)
class Part:
    """One network of an opened pipeline.

    Attributes:
        own_bytes: bytes of what its checkpoint has; zero for what a request has added.
        nbytes: bytes of these and of what requests have put on it.
        used: the tick of its last use.
        read: reads it from its files again; None: it is there only with its whole pipeline.
    """

    pipeline: str
    name: str
    module: torch.nn.Module
    place: Anywhere
    own_bytes: int
    nbytes: int
    used: int = 0
    read: Reader | None = None

    def drop(self, kept: Collection[int]) -> None:
        """Give its memory back and keep the shapes.

        Args:
            kept: ids of the tensors that no file of the checkpoint has (LoRAs).
        """
        for tensor in own_tensors(self.module):
            if id(tensor) not in kept and tensor.device.type != "meta":
                for each in plain_tensors(tensor):
                    each.data = torch.empty((), dtype=each.dtype).expand(each.shape)
        self.place = "absent"

    def restore(self) -> None:
        """Read its numbers from its files, into the host's memory."""
        assert self.read is not None
        is_there = next(own_tensors(self.module)).device.type == "meta"
        self.fill(self.module if is_there else self.read(), "host")

    def fill(self, read: torch.nn.Module, place: Anywhere) -> None:
        """Take the numbers of the same network, which was read meanwhile and is in that place."""
        if read is not self.module:
            numbers = _named(read)
            for name, tensor in _named(self.module).items():
                # The layer below a LoRA has become a part of the LoRA's.
                number = numbers.get(name.replace(".base_layer.", "."))
                if number is not None and type(tensor.data) is Tensor:
                    tensor.data = number.data
                elif number is not None:  # a quantized one stays marked with the device on which it was made
                    owner, _, attribute = name.rpartition(".")
                    setattr(self.module.get_submodule(owner), attribute, number)
        self.place = place


def _named(module: torch.nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@dataclass(slots=True, eq=False)
class Opened:
    """An opened pipeline and its parts.

    LoRAs are no parts of their own: they are counted for the networks that they are put on, and move with
    them.

    Attributes:
        counted: the names of the networks that were counted, LoRAs with them.
        drawing: the parts with which its last request was drawn; idle pipelines can do without the others.
    """

    name: str
    pipeline: Pipeline
    parts: dict[str, Part] = field(default_factory=dict[str, Part])
    counted: Parts = NOTHING
    drawing: Parts = NOTHING

    @classmethod
    def of(
        cls,
        name: str,
        pipeline: Pipeline,
        place_of: Callable[[torch.nn.Module], Anywhere],
        readers: Mapping[torch.nn.Module, Reader],
    ) -> Opened:
        """Count the parts of a pipeline to which no request has added anything.

        Args:
            place_of: where a network is.
        """
        modules = pipeline.modules
        sizes = bytes_by_part(modules)
        parts = {
            part: Part(
                name,
                part,
                module,
                place_of(module),
                sizes[part],
                sizes[part],
                read=readers.get(module),
            )
            for part, module in modules.items()
        }
        return cls(name, pipeline, parts, frozenset(modules))

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts.values())

    @property
    def own_bytes(self) -> int:
        return sum(part.own_bytes for part in self.parts.values())

    @property
    def device_bytes(self) -> int:
        return sum(part.nbytes for part in self.parts.values() if part.place == "device")

    @property
    def absent(self) -> bool:
        """Whether no part is loaded any more."""
        return all(part.place == "absent" for part in self.parts.values())

    def fill(self, other: Opened) -> None:
        """Take the parts that are not loaded from the same pipeline, which was read anew."""
        for part in self.of_names(other.parts):
            if part.place == "absent":
                part.fill(other.parts[part.name].module, other.parts[part.name].place)

    def of_names(self, names: Collection[str]) -> list[Part]:
        """The parts of these names that are there."""
        return [part for name, part in self.parts.items() if name in names]

    @property
    def has_additions(self) -> bool:
        """Whether requests have added something (LoRAs, VAEs, ControlNets)."""
        return any(part.own_bytes < part.nbytes for part in self.parts.values())

    @property
    def additions(self) -> set[int]:
        """The ids of the tensors that requests have put on the pipeline's own networks."""
        added = (module for name, module in self.pipeline.modules.items() if name.startswith(_LORA))
        return {id(tensor) for module in added for tensor in own_tensors(module)}

    def recount(self) -> bool:
        """Count again if networks that requests add (LoRAs, VAEs, ControlNets) have come or gone.

        Whoever opened what is new has put it on the device.

        Returns:
            whether they have.
        """
        modules = self.pipeline.modules
        if modules.keys() == self.counted:
            return False
        self.counted = frozenset(modules)
        sizes = bytes_by_part(modules)
        self.parts = {
            name: self.parts.get(name) or Part(self.name, name, module, "device", 0, 0)
            for name, module in modules.items()
            if not name.startswith(_LORA)
        }
        for name, part in self.parts.items():
            part.nbytes = sizes[name]
        return True

    def drop_additions(self) -> None:
        """Drop what requests have added."""
        self.pipeline.drop_additions()
        self.recount()

    def residency(self) -> Iterator[PartResidency]:
        """Where each part is that is loaded."""
        for part in self.parts.values():
            if part.place != "absent":
                yield PartResidency(self.name, part.name, part.place, part.nbytes)
