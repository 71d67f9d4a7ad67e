"""A noise scheduler in the middle of drawing one sample."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor


class Sampler(Protocol):
    """A noise scheduler in the middle of drawing one sample. It never touches a network."""

    @property
    def total(self) -> int:
        """Network evaluations from start to end, as far as known."""
        ...

    @property
    def position(self) -> int:
        """Network evaluations done."""
        ...

    @property
    def done(self) -> bool: ...

    @property
    def timestep(self) -> Tensor:
        """Zero-dimensional: the time at which the next evaluation happens."""
        ...

    def model_input(self, latents: Tensor) -> Tensor:
        """What the network sees, same shape as the latents."""
        ...

    def step(self, prediction: Tensor, latents: Tensor, generator: torch.Generator) -> Tensor:
        """Use one evaluation's guided prediction; return the latents for the next one."""
        ...


S = TypeVar("S", bound=Sampler)


class AroundSampler(Generic[S]):
    """A sampler that goes at the pace of another one, whose latents it treats in its own way."""

    def __init__(self, inner: S) -> None:
        self._inner = inner

    @property
    def total(self) -> int:
        return self._inner.total

    @property
    def position(self) -> int:
        return self._inner.position

    @property
    def done(self) -> bool:
        return self._inner.done

    @property
    def timestep(self) -> Tensor:
        return self._inner.timestep


@runtime_checkable
class NeedsUnconditional(Protocol):
    """A sampler that also wants to know what the network says without the prompt (CFG++)."""

    def take_unconditional(self, prediction: Tensor) -> None:
        """Before each step of a guided sample: the prediction that guidance starts from."""
        ...
