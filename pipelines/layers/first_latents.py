"""How a latent picture begins: from noise, from a picture, or from a picture of which a part is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from pipelines.denoising.evaluation import Rows
from pipelines.denoising.sampler import Sampler
from pipelines.errors import InvalidInput
from pipelines.group import GroupKey
from pipelines.images import codec
from pipelines.layers import panorama
from pipelines.layers.inpainting import MaskedSampler, masked_channels, paints_masks_only
from pipelines.layers.panorama import PanoramaSampler, Views
from pipelines.request import ImageToImage, Inpainting, Prompted
from pipelines.schedulers.sampler import DiffusersSampler, make_scheduler


@dataclass(frozen=True, slots=True)
class Prepared:
    """The state of one sample before its first step.

    Attributes:
        latents: (1, 4, height / 8, width / 8); by whatever the VAE divides.
        generator: seeded with the sample's own seed; what the start needed is drawn from it already.
        conditioning: what the network has to see of the picture, the same with and without the prompt.
    """

    latents: Tensor
    sampler: Sampler
    generator: torch.Generator
    conditioning: Mapping[str, Rows] = field(default_factory=dict)


class FirstLatents:
    """Begins the samples of one checkpoint.

    Args:
        unet: lends its configuration, type and device.
        scheduler_config: of the checkpoint's own noise scheduler.
        pixels_per_latent: by how much its VAE divides the sides of a picture.
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

    def of(self, request: Prompted, key: GroupKey, vae: AutoencoderKL) -> list[Prepared]:
        """One start for each seed, in order; random numbers are drawn in the order of diffusers' pipelines.

        Raises:
            InvalidInput: no step is left to draw, or the checkpoint cannot begin like this.
        """
        if paints_masks_only(self._unet) and not isinstance(request, Inpainting):
            raise InvalidInput(
                "pipeline", f"{request.pipeline} only repaints masked parts of pictures (inpainting)"
            )
        samplers = [self.sampler(request) for _ in request.seeds]
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in request.seeds]
        each = list(zip(samplers, generators, strict=True))
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

    def sampler(self, request: Prompted, strength: float | None = None) -> DiffusersSampler | PanoramaSampler:
        """The noise scheduler of a request, unused.

        Args:
            strength: of a later pass over what is drawn; a request that starts from a picture brings that of
                its first.
        Raises:
            InvalidInput: there is no such scheduler, or no step left to draw.
        """
        scheduler = make_scheduler(request.scheduler, self._scheduler_config)
        steps = request.num_inference_steps
        if strength is None:
            strength = request.strength if isinstance(request, ImageToImage | Inpainting) else 1.0
        drawn = min(int(steps * strength), steps)
        if drawn < 1:
            raise InvalidInput("strength", f"leaves none of {steps} steps to draw; raise either")
        sampler = DiffusersSampler(scheduler, steps, self._device, skip=steps - drawn)
        return PanoramaSampler(sampler, self._unet.config.sample_size) if request.panorama else sampler

    def shown(self, request: Prompted, key: GroupKey, vae: AutoencoderKL) -> Mapping[str, Rows]:
        """What a later pass over the whole picture has to see of the request's own.

        An ordinary network redraws everything then; `put_back` takes care of what was not to be repainted.
        """
        if not (isinstance(request, Inpainting) and paints_masks_only(self._unet)):
            return {}
        mask = codec.from_mask(request.mask, key.height, key.width)
        picture = codec.from_image(request.image, key.height, key.width) * (mask < 0.5)
        kept = self._distribution(request, vae, picture).mode() * vae.config["scaling_factor"]
        return self._masked_channels(request, self._small(mask), kept.to(self._unet.dtype))

    def _masked_channels(self, request: Inpainting, mask: Tensor, kept: Tensor) -> Mapping[str, Rows]:
        """What a network made for inpainting sees beside the latents: all of it, or view by view."""
        whole = masked_channels(mask, kept)
        if not request.panorama:
            return whole
        return {name: Views(rows, self._unet.config.sample_size) for name, rows in whole.items()}

    def _noise(self, key: GroupKey, generator: torch.Generator) -> Tensor:
        """(1, 4, height / 8, width / 8)."""
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
        picture = self._encoded(request, vae, codec.from_image(request.image, key.height, key.width))
        starts: list[Prepared] = []
        for sampler, generator in each:
            latents = picture(generator)
            noise = self._noise(key, generator)
            starts.append(Prepared(sampler.from_latents(latents, noise), sampler, generator))
        return starts

    def _from_masked_picture(
        self,
        request: Inpainting,
        key: GroupKey,
        vae: AutoencoderKL,
        each: list[tuple[DiffusersSampler | PanoramaSampler, torch.Generator]],
    ) -> list[Prepared]:
        """The picture under noise, or noise alone at full strength; what the mask does not name is kept by
        the sampler, or shown to a network that was trained for it."""
        shown = paints_masks_only(self._unet)
        picture = codec.from_image(request.image, key.height, key.width)
        mask = codec.from_mask(request.mask, key.height, key.width)
        whole = self._encoded(request, vae, picture)
        rest = self._encoded(request, vae, picture * (mask < 0.5)) if shown else None
        small = self._small(mask)
        starts: list[Prepared] = []
        for sampler, generator in each:
            # In the memory layout that diffusers gives it here, which convolutions round by.
            known = whole(generator).contiguous() if not shown or request.strength < 1 else None
            noise = self._noise(key, generator)
            noised = noise if known is None else sampler.from_latents(known, noise)
            latents = noised if request.strength < 1 else sampler.from_noise(noise)
            if rest is not None:
                channels = self._masked_channels(request, small, rest(generator))
                starts.append(Prepared(latents, sampler, generator, channels))
                continue
            assert known is not None
            # diffusers encodes the kept part here without using it: later draws must not move.
            self._noise(key, generator)
            starts.append(Prepared(latents, MaskedSampler(sampler, known, noise, small), generator))
        return starts

    def _small(self, mask: Tensor) -> Tensor:
        """A mask of pixels as one of latents."""
        small = torch.nn.functional.interpolate(mask, scale_factor=1 / self._pixels_per_latent)
        return small.to(self._device, self._unet.dtype)

    def _encoded(self, request: Prompted, vae: AutoencoderKL, picture: Tensor) -> Any:
        """A function that draws the latents of a picture from a generator."""
        distribution = self._distribution(request, vae, picture)
        factor = vae.config["scaling_factor"]
        return lambda generator: factor * distribution.sample(generator).to(self._unet.dtype)

    def _distribution(self, request: Prompted, vae: AutoencoderKL, picture: Tensor) -> Any:
        encode = panorama.encode if request.panorama else codec.encode
        return encode(vae, picture, upcast=self._upcast)
