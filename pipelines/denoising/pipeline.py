"""A family's contract: what the loop and the pool need of an opened checkpoint."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from pipelines.denoising.needs import Needs
from pipelines.denoising.sample import Sample
from pipelines.drawing import Drawing
from pipelines.group import GroupKey
from pipelines.request import Request


@dataclass(frozen=True, slots=True)
class DirectAnswer:
    """The answer to a request that needs no denoising: a translation, the safety checker's word on a picture.

    Attributes:
        answer: does the work and returns the whole drawing, without timings. The loop calls it when it is the
            request's turn, between two steps; a second time when memory ran out in the first.
    """

    answer: Callable[[], Drawing]


class Pipeline(Protocol):
    """One opened checkpoint of a family, ready to draw.

    Families live in ``pipelines/families`` and inherit from this class. `pipelines.families.registry` calls
    their classmethod ``open(checkpoint, adapters)``. The checkpoint says on which device the pipeline draws
    and where its networks are put when they are opened. From then on the pool moves them: to the device when
    `needs` names them, and away again. So a family holds its device, and never asks a network for it.
    """

    @property
    @abstractmethod
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The networks that the pool counts and moves: those of the checkpoint by their names in it, and
        those that requests added by other names. The pool compares the names at each turn: be cheap."""
        ...

    @abstractmethod
    def needs(self, request: Request) -> Needs:
        """The parts that the request needs in each stage, by their names in ``modules``.

        It is asked before `encode` and never raises: a request that `encode` refuses needs nothing.
        """
        ...

    @abstractmethod
    def encode(self, request: Request) -> list[Sample] | DirectAnswer:
        """Turn text, pictures and poses into conditioning and first latents.

        Returns:
            one sample per seed, in order; or the direct answer to a request that needs no denoising.
        Raises:
            InvalidInput: this checkpoint cannot draw a field of the request.
        """
        ...

    def attach(self, key: GroupKey) -> None:
        """Put exactly the adapters and patches of ``key`` on the networks; cheap when they are there.

        Called before every step of a group, since another group may have had its turn in between, or `encode`
        may have put the adapters of a new request on the networks.
        """

    def clear_cache(self) -> None:
        """Drop what is kept between requests to save time, and all that requests added to ``modules``.

        Called at any moment between two parts of the loop's turns: two evaluations, or two pictures.
        """

    def drop_additions(self) -> None:
        """Drop all that requests added to ``modules`` (LoRAs, VAEs, ControlNets), and nothing else.

        Called while nobody draws with the pipeline: texts that are encoded stay so.
        """
