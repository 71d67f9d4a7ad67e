"""Movers take networks from the host's memory to the device and back; every such move goes through one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from pipelines.engine.parts import own_tensors

ALIGNMENT = 512
"""The bytes between the beginnings of two tensors in one block, at multiples of which CUDA allocates, too."""

BLOCK_BYTES = 2**30
"""The largest block of pinned memory, unless one tensor is larger. torch rounds each up to a power of two."""


class Mover(Protocol):
    """Moves whole networks, which stay the same objects."""

    def to_device(self, module: torch.nn.Module) -> None:
        """Put the network on the device."""
        ...

    def to_host(self, module: torch.nn.Module) -> None:
        """Put the network into the host's memory."""
        ...


def mover_of(device: torch.device) -> Mover | None:
    """The mover between the host's memory and this device; None for a CPU, which has no other place."""
    match device.type:
        case "cpu":
            return None
        case "meta":
            return NoBytes()
        case "cuda":
            return Pinned(device)
        case _:
            return Plain(device)


class NoBytes:
    """Moves nothing: networks on the meta device have shapes only."""

    def to_device(self, module: torch.nn.Module) -> None:
        pass

    def to_host(self, module: torch.nn.Module) -> None:
        pass


class Plain:
    """Moves networks as torch does, into ordinary memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def to_device(self, module: torch.nn.Module) -> None:
        module.to(self._device)

    def to_host(self, module: torch.nn.Module) -> None:
        module.to("cpu")


class Pinned:
    """Moves networks between a CUDA device and pinned memory, several tensors to a block.

    A copy from pinned memory is several times as fast, and the CPU goes on meanwhile: what is queued on the
    device after it finds the numbers there.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def to_device(self, module: torch.nn.Module) -> None:
        tensors = list(own_tensors(module))
        if not _are_plain(tensors):  # quantised tensors know themselves of what they consist
            module.to(self._device)
            return
        for tensor in tensors:
            tensor.data = tensor.data.to(self._device, non_blocking=True)

    def to_host(self, module: torch.nn.Module) -> None:
        tensors = list(own_tensors(module))
        if not _are_plain(tensors):
            module.to("cpu")
            return
        for tensor, place in _places(tensors):
            tensor.data = place.copy_(tensor.data, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()


def _are_plain(tensors: Iterable[Tensor]) -> bool:
    return all(type(tensor.data) is Tensor for tensor in tensors)


def _places(tensors: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """A place in pinned memory for each tensor, of its shape, type and layout."""
    left = sum(_aligned(tensor.nbytes) for tensor in tensors)
    block, used = torch.empty(0, dtype=torch.uint8), 0
    for tensor in tensors:
        size = _aligned(tensor.nbytes)
        if used + size > block.nbytes:
            block, used = _block(max(size, min(left, BLOCK_BYTES))), 0
        flat = block[used : used + tensor.nbytes].view(tensor.dtype)
        yield tensor, flat.as_strided(tensor.shape, tensor.stride())
        used, left = used + size, left - size


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _block(nbytes: int) -> Tensor:
    """Pinned memory, or ordinary memory where no more can be pinned."""
    try:
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
    except RuntimeError:
        return torch.empty(nbytes, dtype=torch.uint8)
