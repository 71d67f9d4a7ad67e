"""Seamless wide pictures: overlapping views are drawn together and agree after each step (MultiDiffusion)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor
from torch.nn.functional import interpolate

from pipelines.denoising.sampler import AroundSampler
from pipelines.images import codec
from pipelines.schedulers.sampler import DiffusersSampler

VIEWS_ACROSS_A_WINDOW = 8
"""The number of views that begin within one window: each begins an eighth of its size after the last."""

PADDING = 8
"""The latents of the opposite edge that encoder and decoder get beyond each edge."""

View = tuple[slice, tuple[slice, ...]]
"""The rows of a view, and its columns; columns beyond the right edge go on at the left one."""


class PanoramaSampler(AroundSampler[DiffusersSampler]):
    """A noise scheduler that moves overlapping views of the latents (`pipelines.denoising.sampler.Sampler`).

    Bar-Tal et al. 2023, equation 5, with the views of diffusers' StableDiffusionPanoramaPipeline and its
    ``circular_padding``: each view takes its own step, with its own past and its own noise, and the new
    latents are their mean. The network sees the views, (V, C, window, window), never the whole.

    Two things differ from diffusers: pictures no wider than the window are seamless too, and the lowest views
    end at the bottom, whatever the height.

    Args:
        inner: moves all views at once; a scheduler moves each row without regard to the others.
        window: side of a view in latents, that of the pictures that the network was trained with.
    """

    def __init__(self, inner: DiffusersSampler, window: int) -> None:
        super().__init__(inner)
        self._window = window

    def from_noise(self, noise: Tensor) -> Tensor:
        return self._inner.from_noise(noise)

    def from_latents(self, latents: Tensor, noise: Tensor) -> Tensor:
        return self._inner.from_latents(latents, noise)

    def model_input(self, latents: Tensor) -> Tensor:
        return self._inner.model_input(self._cut(latents))

    def step(self, prediction: Tensor, latents: Tensor, generator: torch.Generator) -> Tensor:
        moved = self._inner.step(prediction, self._cut(latents), generator)
        total, count = torch.zeros_like(latents), torch.zeros_like(latents)
        views = self._views(latents)
        for (rows, columns), view in zip(views, moved.split(len(latents)), strict=True):
            pieces = view.split([part.stop - part.start for part in columns], dim=-1)
            for part, piece in zip(columns, pieces, strict=True):
                total[:, :, rows, part] += piece
                count[:, :, rows, part] += 1
        return total / count

    def _views(self, latents: Tensor) -> list[View]:
        return views_of(latents.shape[-2], latents.shape[-1], self._window)

    def _cut(self, latents: Tensor) -> Tensor:
        return _cut(latents, self._views(latents))


class Views:
    """A control image or mask cut into the views of a panorama; these are `Rows`.

    A view is cut out when it is asked for: all views together have many times the pixels of the whole.

    Args:
        whole: (1, C, H, W), ``per_latent`` times as high and wide as the latents.
        window: side of a view in latents.
    """

    def __init__(self, whole: Tensor, window: int, per_latent: int = 1) -> None:
        height, width = whole.shape[-2] // per_latent, whole.shape[-1] // per_latent
        self._whole = whole
        self._per_latent = per_latent
        self._views = views_of(height, width, window)
        sides = (min(window, side) * per_latent for side in (height, width))
        self.shape = torch.Size((len(self._views), whole.shape[1], *sides))

    def __len__(self) -> int:
        return len(self._views)

    def __getitem__(self, rows: slice, /) -> Tensor:
        return _cut(self._whole, self._views[rows], self._per_latent)


def _cut(whole: Tensor, views: Sequence[View], per_latent: int = 1) -> Tensor:
    """The views (V, C, h, w) of a whole (1, C, H, W)."""

    def scaled(part: slice) -> slice:
        return slice(part.start * per_latent, part.stop * per_latent)

    return torch.cat(
        [
            torch.cat([whole[:, :, scaled(rows), scaled(part)] for part in columns], dim=-1)
            for rows, columns in views
        ]
    )


def views_of(height: int, width: int, window: int) -> list[View]:
    """The views that together cover a ring of latents, line by line."""
    stride = max(1, window // VIEWS_ACROSS_A_WINDOW)
    high, wide = min(window, height), min(window, width)
    tops = [*range(0, height - high, stride), height - high]
    lefts = range(0, max(1, width - stride + 1), stride)
    return [(slice(top, top + high), _columns(left, wide, width)) for top in tops for left in lefts]


def _columns(left: int, wide: int, width: int) -> tuple[slice, ...]:
    """``wide`` columns of a ring, in two parts where they go over its seam."""
    over = left + wide - width
    return (slice(left, left + wide),) if over <= 0 else (slice(left, width), slice(0, over))


def decode(vae: AutoencoderKL, latents: Tensor, *, upcast: bool = False) -> Tensor:
    """`pipelines.images.codec.decode` for latents whose left and right edges are neighbours.

    The decoder's own padding would show at both edges. It therefore gets some latents of the opposite edge
    beyond each, and their pixels are cut off.
    """
    padding = min(PADDING, latents.shape[-1])
    ring = torch.cat([latents[..., -padding:], latents, latents[..., :padding]], dim=-1)
    decoded = codec.decode(vae, ring, upcast=upcast)
    edge = decoded.shape[-1] // ring.shape[-1] * padding
    return decoded[..., edge:-edge]


def encode(vae: AutoencoderKL, picture: Tensor, *, upcast: bool = False) -> DiagonalGaussianDistribution:
    """`pipelines.images.codec.encode` for a picture whose left and right edges are neighbours."""
    per_latent = codec.per_latent(vae)
    padding = min(PADDING, picture.shape[-1] // per_latent)
    edge = padding * per_latent
    ring = torch.cat([picture[..., -edge:], picture, picture[..., :edge]], dim=-1)
    encoded = codec.encode(vae, ring, upcast=upcast)
    return DiagonalGaussianDistribution(encoded.parameters[..., padding:-padding])


def enlarged(latents: Tensor, size: tuple[int, int]) -> Tensor:
    """Latents (1, C, *size), enlarged from some whose left and right edges are neighbours."""
    thrice = torch.cat([latents] * 3, dim=-1)
    width = size[1]
    return interpolate(thrice, size=(size[0], 3 * width), mode="bilinear")[..., width : 2 * width]
