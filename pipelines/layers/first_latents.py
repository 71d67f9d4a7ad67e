"""First latents of a picture: from noise, from a picture, or from a picture of which a part is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from pipelines.denoising.sample import Conditioning
from pipelines.denoising.sampler import Sampler
from pipelines.errors import InvalidInput
from pipelines.group import GroupKey
from pipelines.images import codec
from pipelines.layers import panorama
from pipelines.layers.inpainting import MaskedSampler, masked_channels, paints_masks_only
from pipelines.layers.panorama import PanoramaSampler, Views
from pipelines.request import ImageToImage, Inpainting, Prompted
from pipelines.schedulers.leftover_noise import LeftoverNoise
from pipelines.schedulers.sampler import DiffusersSampler, make_scheduler

_NO_ROWS = Conditioning.same_for_both({})


@dataclass(frozen=True, slots=True)
class Prepared:
    """The state of one sample before its first step.

    Attributes:
        latents: (1, 4, height / 8, width / 8), or whatever the VAE divides by instead of 8. Empty in a second
            pass, whose latents do not exist before the first pass is done.
        generator: seeded with the sample's own seed; the first latents' noise is drawn from it already.
        conditioning: the kept part of the picture, where the network is made for inpainting.
        warnings: sentences for the caller.
    """

    latents: Tensor
    sampler: Sampler
    generator: torch.Generator
    conditioning: Conditioning = _NO_ROWS
    warnings: tuple[str, ...] = ()


class FirstLatents:
    """Prepares the samples of one checkpoint.

    Args:
        unet: the network, of which the configuration and type are read.
        scheduler_config: configuration of the checkpoint's own noise scheduler.
        pixels_per_latent: pixels along one side of a latent.
        upcast: the checkpoint's VAE overflows half precision.
    """

    def __init__(
        self,
        unet: Any,
        scheduler_config: Mapping[str, Any],
        pixels_per_latent: int,
        device: torch.device,
        *,
        upcast: bool = False,
    ) -> None:
        self._unet = unet
        self._scheduler_config = scheduler_config
        self._pixels_per_latent = pixels_per_latent
        self._device = device
        self._upcast = upcast
        self._leftover_noise = LeftoverNoise(scheduler_config)

    def prepare(
        self, request: Prompted, key: GroupKey, vae: AutoencoderKL, second_strength: float | None = None
    ) -> list[Prepared]:
        """One prepared sample per seed, in order; noise is drawn in the order of diffusers' pipelines.

        Args:
            second_strength: the strength of a second pass over the drawn latents; None prepares the first.
        Raises:
            InvalidInput: no step is left to draw, or the checkpoint cannot draw this kind of request.
        """
        if paints_masks_only(self._unet) and not isinstance(request, Inpainting):
            raise InvalidInput(
                "pipeline", f"{request.pipeline} only repaints masked parts of pictures (inpainting)"
            )
        strength = _strength(request) if second_strength is None else second_strength
        drawn = _drawn_steps(request.num_inference_steps, strength)
        warnings = self._leftover_noise.warnings(request.scheduler, request.num_inference_steps, drawn)
        prepared = self._prepare(request, key, vae, drawn, second=second_strength is not None)
        return [replace(each, warnings=warnings) for each in prepared]

    def _prepare(
        self, request: Prompted, key: GroupKey, vae: AutoencoderKL, drawn: int, *, second: bool
    ) -> list[Prepared]:
        """The samples of one pass, of which the last ``drawn`` steps are drawn."""
        samplers = [self._sampler(request, drawn) for _ in request.seeds]
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in request.seeds]
        each = list(zip(samplers, generators, strict=True))
        if second:
            kept = self._kept_picture(request, key, vae)
            return [Prepared(torch.empty(0), sampler, generator, kept) for sampler, generator in each]
        match request:
            case ImageToImage():
                return self._from_picture(request, key, vae, each)
            case Inpainting():
                return self._from_masked_picture(request, key, vae, each)
            case _:
                return [
                    Prepared(sampler.from_noise(self._noise(key, generator)), sampler, generator)
                    for sampler, generator in each
                ]

    def _sampler(self, request: Prompted, drawn: int) -> DiffusersSampler | PanoramaSampler:
        """A new noise scheduler for one sample of a request.

        Args:
            drawn: the steps that are drawn, at the end of the schedule.
        Raises:
            InvalidInput: there is no such scheduler.
        """
        scheduler = make_scheduler(request.scheduler, self._scheduler_config)
        steps = request.num_inference_steps
        sampler = DiffusersSampler(scheduler, steps, self._device, skip=steps - drawn)
        return PanoramaSampler(sampler, self._unet.config.sample_size) if request.panorama else sampler

    def _kept_picture(self, request: Prompted, key: GroupKey, vae: AutoencoderKL) -> Conditioning:
        """The kept part of the picture as a second pass sees it, where the network is made for inpainting.

        An ordinary network redraws everything in its second pass; `put_back` restores the kept part.
        """
        if not (isinstance(request, Inpainting) and paints_masks_only(self._unet)):
            return _NO_ROWS
        mask = codec.from_mask(request.mask, key.height, key.width)
        picture = codec.from_image(request.image, key.height, key.width) * (mask < 0.5)
        kept = self._distribution(request, vae, picture).mode() * vae.config["scaling_factor"]
        return self._masked_channels(request, self._small(mask), kept.to(self._unet.dtype))

    def _masked_channels(self, request: Inpainting, mask: Tensor, kept: Tensor) -> Conditioning:
        """The mask and the kept part for a network made for inpainting, whole or view by view."""
        whole = masked_channels(mask, kept)
        if not request.panorama:
            return Conditioning.same_for_both(whole)
        window = self._unet.config.sample_size
        return Conditioning.same_for_both({name: Views(rows, window) for name, rows in whole.items()})

    def _noise(self, key: GroupKey, generator: torch.Generator) -> Tensor:
        """Noise of the first latents' shape, (1, 4, height / 8, width / 8)."""
        sides = (side // self._pixels_per_latent for side in (key.height, key.width))
        shape = (1, self._unet.config.out_channels, *sides)
        return randn_tensor(shape, generator=generator, device=self._device, dtype=self._unet.dtype)

    def _from_picture(
        self,
        request: ImageToImage,
        key: GroupKey,
        vae: AutoencoderKL,
        each: list[tuple[DiffusersSampler | PanoramaSampler, torch.Generator]],
    ) -> list[Prepared]:
        """The picture under the noise of the first step."""
        picture = self._draw_latents(request, vae, codec.from_image(request.image, key.height, key.width))
        prepared: list[Prepared] = []
        for sampler, generator in each:
            latents = picture(generator)
            noise = self._noise(key, generator)
            prepared.append(Prepared(sampler.from_latents(latents, noise), sampler, generator))
        return prepared

    def _from_masked_picture(
        self,
        request: Inpainting,
        key: GroupKey,
        vae: AutoencoderKL,
        each: list[tuple[DiffusersSampler | PanoramaSampler, torch.Generator]],
    ) -> list[Prepared]:
        """The picture under noise, or noise alone at full strength.

        The sampler holds the part outside of the mask, or a network made for inpainting sees it.
        """
        sees_kept_part = paints_masks_only(self._unet)
        picture = codec.from_image(request.image, key.height, key.width)
        mask = codec.from_mask(request.mask, key.height, key.width)
        whole = self._draw_latents(request, vae, picture)
        kept = self._draw_latents(request, vae, picture * (mask < 0.5)) if sees_kept_part else None
        small = self._small(mask)
        prepared: list[Prepared] = []
        for sampler, generator in each:
            # In the memory layout that diffusers gives it here, which convolutions round by.
            known = whole(generator).contiguous() if not sees_kept_part or request.strength < 1 else None
            noise = self._noise(key, generator)
            noised = noise if known is None else sampler.from_latents(known, noise)
            latents = noised if request.strength < 1 else sampler.from_noise(noise)
            if kept is not None:
                channels = self._masked_channels(request, small, kept(generator))
                prepared.append(Prepared(latents, sampler, generator, channels))
                continue
            assert known is not None
            # diffusers encodes the kept part here without using it: later draws must not move.
            self._noise(key, generator)
            prepared.append(Prepared(latents, MaskedSampler(sampler, known, noise, small), generator))
        return prepared

    def _small(self, mask: Tensor) -> Tensor:
        """A mask of pixels shrunk to a mask of latents, (1, 1, height / 8, width / 8)."""
        small = torch.nn.functional.interpolate(mask, scale_factor=1 / self._pixels_per_latent)
        return small.to(self._device, self._unet.dtype)

    def _draw_latents(
        self, request: Prompted, vae: AutoencoderKL, picture: Tensor
    ) -> Callable[[torch.Generator], Tensor]:
        """A function that draws a picture's latents with the noise of a generator."""
        distribution = self._distribution(request, vae, picture)
        factor = vae.config["scaling_factor"]
        return lambda generator: factor * distribution.sample(generator).to(self._unet.dtype)

    def _distribution(
        self, request: Prompted, vae: AutoencoderKL, picture: Tensor
    ) -> DiagonalGaussianDistribution:
        encode = panorama.encode if request.panorama else codec.encode
        return encode(vae, picture, upcast=self._upcast)


def _drawn_steps(steps: int, strength: float) -> int:
    """The steps that a strength of 0 .. 1 leaves to draw.

    Raises:
        InvalidInput: there is none.
    """
    drawn = min(int(steps * strength), steps)
    if drawn < 1:
        raise InvalidInput("strength", f"leaves none of {steps} steps to draw; raise either")
    return drawn


def _strength(request: Prompted) -> float:
    """The part of the steps that a first pass draws; all of them where it starts from noise."""
    return request.strength if isinstance(request, ImageToImage | Inpainting) else 1.0
