"""A noise scheduler in the middle of drawing one sample."""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor


class Sampler(Protocol):
    """A noise scheduler in the middle of drawing one sample. It never touches a network."""

    @property
    @abstractmethod
    def total(self) -> int:
        """The number of network evaluations from start to end, as far as known."""
        ...

    @property
    @abstractmethod
    def position(self) -> int:
        """The number of network evaluations done."""
        ...

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether the last evaluation has been used."""
        ...

    @property
    @abstractmethod
    def timestep(self) -> Tensor:
        """The time of the next evaluation, zero-dimensional."""
        ...

    @abstractmethod
    def model_input(self, latents: Tensor) -> Tensor:
        """The latents as the network sees them; their shape is the same unless the sampler says otherwise."""
        ...

    @abstractmethod
    def step(self, prediction: Tensor, latents: Tensor, generator: torch.Generator) -> Tensor:
        """Use one evaluation's guided prediction; return the latents for the next one."""
        ...


class Steps(Sampler):
    """A sampler whose number of evaluations is known from the start.

    A subclass says what the network sees and what a step does; its ``step`` moves ``_position`` on by one.
    """

    def __init__(self, times: Tensor) -> None:
        """
        Args:
            times: the time of each evaluation, (evaluations,), where the network is.
        """
        self._times = times
        self._position = 0

    @property
    def total(self) -> int:
        return len(self._times)

    @property
    def position(self) -> int:
        return self._position

    @property
    def done(self) -> bool:
        return self._position >= len(self._times)

    @property
    def timestep(self) -> Tensor:
        return self._times[self._position]


S = TypeVar("S", bound=Sampler)


class AroundSampler(Sampler, Generic[S]):
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
    """A sampler that also wants the prediction without the prompt (CFG++)."""

    def take_unconditional(self, prediction: Tensor) -> None:
        """Take the prediction that guidance starts from; called before each step of a guided sample."""
        ...
