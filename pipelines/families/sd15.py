# pyright: basic
# (diffusers' pipelines carry their components and configurations untyped.)
"""Stable Diffusion 1.5 and checkpoints of its architecture: text to image, image to image."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from pipelines import pixels
from pipelines.adapters import AdapterLibrary
from pipelines.checkpoints import Checkpoint
from pipelines.errors import InvalidInput
from pipelines.group import GroupKey, group_key
from pipelines.noise_schedulers import DiffusersSampler, ineffective_options, make_scheduler
from pipelines.request import ImageToImage, Request, TextToImage
from pipelines.sample import Conditioning, Denoiser, Picture, Sample

PIXELS_PER_LATENT = 8


class StableDiffusion15:
    """One opened checkpoint; see `pipelines.sample.Pipeline`."""

    def __init__(
        self, pipeline: StableDiffusionPipeline, device: torch.device, adapters: AdapterLibrary
    ) -> None:
        self._pipeline = pipeline
        self._device = device
        self._adapters = adapters
        self._denoiser = Denoiser(self._predict)

    @classmethod
    def open(cls, name: str, checkpoint: Checkpoint, adapters: AdapterLibrary) -> StableDiffusion15:
        """Open the parts ``pipeline`` and, where the manifest gives it, ``vae``."""
        replaced = {"vae": checkpoint.module("vae", AutoencoderKL)} if checkpoint.has("vae") else {}
        pipeline = checkpoint.pipeline(
            "pipeline",
            StableDiffusionPipeline,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            **replaced,
        )
        return cls(pipeline, checkpoint.device, adapters)

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        pipeline = self._pipeline
        return {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder, "vae": pipeline.vae}

    def attach(self, key: GroupKey) -> None:
        pass

    # 1. encode

    @torch.no_grad()
    def encode(self, request: Request) -> list[Sample]:
        if not isinstance(request, TextToImage | ImageToImage):
            raise InvalidInput("kind", f"{request.kind} cannot be drawn by {request.pipeline}")
        key = group_key(request, multiple=PIXELS_PER_LATENT)
        conditioning = self._condition(request)
        samplers = [self._sampler(request) for _ in request.seeds]
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in request.seeds]
        if isinstance(request, ImageToImage):
            starts = self._noised_picture(request, key, samplers, generators)
        else:
            starts = self._noise(key, samplers, generators)
        return [
            Sample(
                request=request,
                index=index,
                key=key,
                latents=latents,
                conditioning=conditioning,
                guidance_scale=request.guidance_scale,
                generator=generator,
                sampler=sampler,
                denoiser=self._denoiser,
                finish=partial(self._finish, request),
            )
            for index, (sampler, generator, latents) in enumerate(
                zip(samplers, generators, starts, strict=True)
            )
        ]

    def _condition(self, request: TextToImage | ImageToImage) -> Conditioning:
        """Hidden states of the text encoder, (1, 77, width) each; without guidance only the prompt's."""
        pipeline = self._pipeline
        guided = request.guidance_scale > 1 and pipeline.unet.config.time_cond_proj_dim is None
        positive, negative = pipeline.encode_prompt(
            request.prompt, self._device, 1, guided, request.negative_prompt
        )
        shared = self._guidance_embedding(request.guidance_scale)
        return Conditioning(
            {"encoder_hidden_states": positive, **shared},
            {"encoder_hidden_states": negative, **shared} if guided else None,
        )

    def _guidance_embedding(self, guidance_scale: float) -> dict[str, Tensor]:
        """How latent consistency models are told the guidance scale; nothing for the others."""
        width = self._pipeline.unet.config.time_cond_proj_dim
        if width is None:
            return {}
        embedding = self._pipeline.get_guidance_scale_embedding(
            torch.tensor(guidance_scale - 1).repeat(1), embedding_dim=width
        )
        return {"timestep_cond": embedding.to(self._device, self._pipeline.unet.dtype)}

    def _sampler(self, request: TextToImage | ImageToImage) -> DiffusersSampler:
        scheduler = make_scheduler(request.scheduler, self._pipeline.scheduler.config)
        skip = 0
        if isinstance(request, ImageToImage):
            drawn = min(int(request.num_inference_steps * request.strength), request.num_inference_steps)
            if drawn < 1:
                raise InvalidInput(
                    "strength", f"leaves none of {request.num_inference_steps} steps to draw; raise either"
                )
            skip = request.num_inference_steps - drawn
        return DiffusersSampler(scheduler, request.num_inference_steps, self._device, skip=skip)

    def _noise(
        self, key: GroupKey, samplers: list[DiffusersSampler], generators: list[torch.Generator]
    ) -> list[Tensor]:
        """Latents of pure noise, (1, 4, height / 8, width / 8) each."""
        unet = self._pipeline.unet
        shape = (
            1,
            unet.config.in_channels,
            key.height // PIXELS_PER_LATENT,
            key.width // PIXELS_PER_LATENT,
        )
        return [
            sampler.from_noise(
                randn_tensor(shape, generator=generator, device=self._device, dtype=unet.dtype)
            )
            for sampler, generator in zip(samplers, generators, strict=True)
        ]

    def _noised_picture(
        self,
        request: ImageToImage,
        key: GroupKey,
        samplers: list[DiffusersSampler],
        generators: list[torch.Generator],
    ) -> list[Tensor]:
        """Latents of the picture with the noise of the first step that is drawn; drawn as in diffusers' order."""
        vae = self._pipeline.vae
        picture = pixels.from_image(request.image, key.height, key.width).to(self._device, vae.dtype)
        distribution = vae.encode(picture).latent_dist
        starts: list[Tensor] = []
        for sampler, generator in zip(samplers, generators, strict=True):
            latents = vae.config.scaling_factor * distribution.sample(generator)
            noise = randn_tensor(latents.shape, generator=generator, device=self._device, dtype=latents.dtype)
            starts.append(sampler.from_latents(latents, noise))
        return starts

    # 2. denoise

    def _predict(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        return self._pipeline.unet(
            latents,
            timesteps,
            encoder_hidden_states=conditioning["encoder_hidden_states"],
            timestep_cond=conditioning.get("timestep_cond"),
            return_dict=False,
        )[0]

    # 3. decode

    @torch.no_grad()
    def _finish(self, request: TextToImage | ImageToImage, sample: Sample) -> Picture:
        decoded = pixels.decode(self._pipeline.vae, sample.latents)
        return Picture(
            pixels.to_image(decoded, request.height, request.width),
            warnings=ineffective_options(request.scheduler, self._pipeline.scheduler.config),
        )
