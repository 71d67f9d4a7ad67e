"""Sample: one picture in the making, and what it needs from its family and its noise scheduler."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import torch
from torch import Tensor

from pipelines.drawing import Drawing
from pipelines.group import GroupKey
from pipelines.image_io import RGBImage
from pipelines.request import Request


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
class HearsUnguided(Protocol):
    """A sampler that also wants to know what the network says without the prompt (CFG++)."""

    def hear_unguided(self, prediction: Tensor) -> None:
        """Before each step of a guided sample: the prediction that guidance starts from."""
        ...


class Guidance(Protocol):
    """Joins the two predictions of classifier-free guidance."""

    def __call__(self, negative: Tensor, positive: Tensor, guidance_scale: float) -> Tensor: ...


def classifier_free_guidance(negative: Tensor, positive: Tensor, guidance_scale: float) -> Tensor:
    """Ho and Salimans 2022, equation 6, in diffusers' order of operations."""
    return negative + guidance_scale * (positive - negative)


Watch = Callable[[], AbstractContextManager[list[Tensor]]]
"""Looks into a network while it is entered: the list grows by one tensor (N, ...) for each batch of N rows
that is evaluated meanwhile. It only looks: no prediction changes by a bit."""


class Rows(Protocol):
    """Something for each row of a sample's latents: a tensor, or what makes the part that is asked for."""

    @property
    def shape(self) -> torch.Size:
        """(N, ...)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a sample wants to know of its network; it is evaluated together with those of other samples.

    Attributes:
        latents: what the network sees, (B, ...).
        timestep: zero-dimensional.
        conditioning: name -> B rows, or one row for all.
        watch: what else is wanted of these rows; all that a network's samples name are the same one.
    """

    latents: Tensor
    timestep: Tensor
    conditioning: Mapping[str, Rows]
    watch: Watch | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The answer: the network's raw prediction (B, ...) and, where it was watched, what was seen (B, ...)."""

    prediction: Tensor
    seen: Tensor | None = None


Guided = Generator[Sequence[Evaluation], Sequence[Evaluated], Tensor]
"""One step's way to a sample's guided prediction: asks for evaluations, in one round or in several."""


@dataclass(frozen=True, slots=True)
class Denoiser:
    """What a family contributes to the loop: one network.

    Attributes:
        predict: (model input (N, ...), timesteps (N,), conditioning name -> (N, ...)) -> prediction (N, ...).
        guide: how a prediction without and one with the prompt become one.
        layer: makes the guided prediction of a sample; None: classifier-free guidance and nothing else.
    """

    predict: Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
    guide: Guidance = classifier_free_guidance
    layer: Callable[[Sample], Guided] | None = None


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What a network is told besides latents and time, for one sample.

    Attributes:
        positive: name -> (1, ...), or (B, ...) where B rows are evaluated for the sample: the two embeddings
            of Kandinsky's prior, the views of a panorama.
        negative: the same for the unconditional half; None: no guidance, one evaluation row less.
    """

    positive: Mapping[str, Rows]
    negative: Mapping[str, Rows] | None


Finish: TypeAlias = "Callable[[Sample], Sample | Handover | Picture]"
"""Makes of a sample that is done the finished picture, the sample of its next stage, or work for another
pipeline."""


@dataclass(slots=True, eq=False, kw_only=True)
class Sample:
    """One picture in the making.

    Attributes:
        index: position of its seed in the request.
        key: the group it is drawn in.
        latents: (B, C, h, w), B = 1 but for Kandinsky's prior, whose two embeddings share one noise draw.
        generator: on the CPU, seeded with the picture's own seed; every random number comes from it.
        finish: called when the sampler is done: the finished picture; or the sample of the next stage
            (Kandinsky: prior -> decoder), which then joins the group of its own key; or what another pipeline
            is to do with the picture.
        evaluations_before: evaluations of earlier stages, evaluations_after: of later ones (for progress).
    """

    request: Request
    index: int
    key: GroupKey
    latents: Tensor
    conditioning: Conditioning
    guidance_scale: float
    generator: torch.Generator
    sampler: Sampler
    denoiser: Denoiser
    finish: Finish
    evaluations_before: int = 0
    evaluations_after: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished sample. ``flagged`` is the safety checker's word, None where none looked."""

    image: RGBImage
    flagged: bool | None = None
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Handover:
    """A finished sample that another pipeline goes on with.

    Attributes:
        request: for one picture, to that pipeline.
        picture: as it is handed over; what it says beside its pixels is said of the result too.
    """

    request: Request
    picture: Picture


class Pipeline(Protocol):
    """One opened checkpoint of a family, ready to draw; lives in ``pipelines/families``.

    Constructed by the family's ``open(checkpoint)`` classmethod, always on the CPU's or the device's memory
    that the checkpoint names.
    """

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """Every network by its name in the checkpoint, and what requests added, by other names: what the pool
        counts and moves. Cheap: the pool looks at each turn whether the names have changed."""
        ...

    def encode(self, request: Request) -> list[Sample]:
        """Text, picture and pose become conditioning and first latents: one Sample per seed, in order.

        Raises:
            InvalidInput: a field cannot be drawn by this checkpoint.
        """
        ...

    def forget(self) -> None:
        """Drop what is kept between requests to save time, of ``modules`` all that requests added; between
        two turns of the loop, at any moment."""
        ...

    def attach(self, key: GroupKey) -> None:
        """Put exactly the adapters and patches of ``key`` on the networks; cheap when they are there."""
        ...


@runtime_checkable
class Errands(Protocol):
    """A pipeline whose requests need no denoising: each is answered in one go, between two steps."""

    def answer(self, request: Request) -> Drawing:
        """The whole answer; its timings are filled in by the loop.

        Raises:
            InvalidInput: not a request for this pipeline, or one that it cannot answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoSteps:
    """A `Sampler` that is done before it begins."""

    total: int = 0
    position: int = 0
    done: bool = True

    @property
    def timestep(self) -> Tensor:
        raise RuntimeError("there is no next evaluation")

    def model_input(self, latents: Tensor) -> Tensor:
        return latents

    def step(self, prediction: Tensor, latents: Tensor, generator: torch.Generator) -> Tensor:
        return latents


def without_steps(request: Request, finish: Finish) -> Sample:
    """A sample that needs no denoising: ``finish`` does all of its work, at its turn."""
    return Sample(
        request=request,
        index=0,
        key=GroupKey(request.pipeline, "finish", 0, 0),
        latents=torch.empty(0),
        conditioning=Conditioning({}, None),
        guidance_scale=1.0,
        generator=torch.Generator("cpu"),
        sampler=NoSteps(),
        denoiser=Denoiser(_unchanged),
        finish=finish,
    )


def _unchanged(latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
    return latents
