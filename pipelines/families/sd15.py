# pyright: basic, reportPrivateImportUsage=false
# (diffusers' pipelines carry their components and configurations untyped.)
"""Stable Diffusion 1.5 and checkpoints of its architecture: text to image, image to image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from pipelines import embeddings, highres, pixels
from pipelines.adapters import AdapterLibrary
from pipelines.checkpoints import Checkpoint
from pipelines.errors import InvalidInput
from pipelines.finish import finished
from pipelines.group import GroupKey, group_key
from pipelines.loras import AttachedLoras
from pipelines.noise_schedulers import DiffusersSampler, ineffective_options, make_scheduler
from pipelines.recent import Recent
from pipelines.request import ImageToImage, Lora, Prompted, Request, TextToImage
from pipelines.safety import SafetyChecker
from pipelines.sample import Conditioning, Denoiser, Handover, Picture, Sample
from pipelines.token_merging import TokenMerging, check_ratio
from pipelines.vaes import Vaes

FAMILY = "sd15"
PIXELS_PER_LATENT = 8
PROMPTS_KEPT = 32


@dataclass(frozen=True, slots=True)
class _Prompt:
    """All that the hidden states of the text encoder depend on."""

    positive: str
    negative: str | None
    guided: bool
    clip_skip: int = 0
    loras: tuple[Lora, ...] = ()
    embeddings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Hidden states, (1, 77, width) each; ``negative`` only with guidance."""

    positive: Tensor
    negative: Tensor | None
    warnings: tuple[str, ...]


class StableDiffusion15:
    """One opened checkpoint; see `pipelines.sample.Pipeline`."""

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        device: torch.device,
        adapters: AdapterLibrary,
        safety_checker: SafetyChecker | None,
    ) -> None:
        # Configurations and components are reached through attributes that diffusers makes at run time.
        self._pipeline: Any = pipeline
        self._device = device
        self._adapters = adapters
        self._safety_checker = safety_checker
        self._loras = AttachedLoras(pipeline, adapters, FAMILY)
        self._vaes = Vaes(self._pipeline.vae, adapters, FAMILY)
        self._token_merging = TokenMerging(self._pipeline.unet, max_downsample=1)
        self._prompts: Recent[_Prompt, _Encoded] = Recent(PROMPTS_KEPT)
        self._denoiser = Denoiser(self._predict)

    @classmethod
    def open(cls, name: str, checkpoint: Checkpoint, adapters: AdapterLibrary) -> StableDiffusion15:
        """Open the part ``pipeline`` and, where the manifest gives them, ``vae`` and ``safety_checker``."""
        replaced = {"vae": checkpoint.module("vae", AutoencoderKL)} if checkpoint.has("vae") else {}
        pipeline = checkpoint.pipeline(
            "pipeline",
            StableDiffusionPipeline,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            **replaced,
        )
        return cls(pipeline, checkpoint.device, adapters, SafetyChecker.open(checkpoint))

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        checker = {} if self._safety_checker is None else {"safety_checker": self._safety_checker.module}
        return {
            "unet": self._pipeline.unet,
            "text_encoder": self._pipeline.text_encoder,
            **self._vaes.modules,
            **checker,
        }

    def forget(self) -> None:
        self._prompts.clear()
        self._loras.forget()
        self._vaes.forget()

    def attach(self, key: GroupKey) -> None:
        self._loras.use(key.loras)
        self._token_merging.use(key.token_merging_ratio)

    # 1. encode

    @torch.no_grad()
    def encode(self, request: Request) -> list[Sample]:
        if not isinstance(request, TextToImage | ImageToImage):
            raise InvalidInput("pipeline", f"{request.pipeline} does not draw {request.kind}")
        first = highres.first_pass(request, self._native_side)
        key = group_key(first, multiple=PIXELS_PER_LATENT)
        check_ratio(key.token_merging_ratio)
        self._vaes.get(request.vae)
        encoded = self._prompt(request)
        samplers = [self._sampler(request) for _ in request.seeds]
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in request.seeds]
        if isinstance(first, ImageToImage):
            starts = self._noised_picture(first, key, samplers, generators)
        else:
            starts = self._noise(key, samplers, generators)
        samples = [
            Sample(
                request=request,
                index=index,
                key=key,
                latents=latents,
                conditioning=self._conditioning(request, encoded),
                guidance_scale=request.guidance_scale,
                generator=generator,
                sampler=sampler,
                denoiser=self._denoiser,
                finish=partial(self._finish, request, encoded.warnings),
            )
            for index, (sampler, generator, latents) in enumerate(
                zip(samplers, generators, starts, strict=True)
            )
        ]
        if not request.highres_fix:
            return samples
        again = group_key(request, multiple=PIXELS_PER_LATENT)
        return [
            highres.followed_by_second_pass(sample, again, self._sampler(request, highres.strength(request)))
            for sample in samples
        ]

    @property
    def _native_side(self) -> int:
        """Pixels along the side of the pictures that the checkpoint was trained with."""
        return self._pipeline.unet.config.sample_size * PIXELS_PER_LATENT

    def _prompt(self, request: Prompted) -> _Encoded:
        guided = request.guidance_scale > 1 and self._pipeline.unet.config.time_cond_proj_dim is None
        prompt = _Prompt(
            request.prompt,
            request.negative_prompt,
            guided,
            request.clip_skip or 0,
            request.loras,
            request.embeddings,
        )
        return self._prompts.get(prompt, lambda: self._encode_prompt(prompt))

    def _encode_prompt(self, prompt: _Prompt) -> _Encoded:
        pipeline = self._pipeline
        layers = pipeline.text_encoder.config.num_hidden_layers
        if not 0 <= prompt.clip_skip <= layers:
            raise InvalidInput("clip_skip", f"the text encoder has {layers} layers")
        self._loras.use(prompt.loras)
        with embeddings.attached(pipeline, prompt.embeddings, self._adapters, FAMILY):
            skipped = self._without_last_layers(prompt) if prompt.clip_skip else None
            positive, negative = pipeline.encode_prompt(
                prompt.positive, self._device, 1, prompt.guided, prompt.negative, prompt_embeds=skipped
            )
            return _Encoded(positive, negative, self._truncations(prompt))

    def _without_last_layers(self, prompt: _Prompt) -> Tensor:
        """diffusers' ``clip_skip``; its own reaches for a module that transformers 5 no longer nests."""
        pipeline = self._pipeline
        encoder = pipeline.text_encoder
        tokens = pipeline.tokenizer(
            pipeline.maybe_convert_prompt(prompt.positive, pipeline.tokenizer),
            padding="max_length",
            max_length=pipeline.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        states = encoder(tokens.input_ids.to(self._device), output_hidden_states=True).hidden_states
        return encoder.final_layer_norm(states[-(prompt.clip_skip + 1)])

    def _truncations(self, prompt: _Prompt) -> tuple[str, ...]:
        tokenizer = self._pipeline.tokenizer
        texts = {"prompt": prompt.positive, "negative_prompt": prompt.negative if prompt.guided else None}
        return tuple(
            f"{field}: only the first {tokenizer.model_max_length} tokens were used"
            for field, text in texts.items()
            if text and len(tokenizer(text).input_ids) > tokenizer.model_max_length
        )

    def _conditioning(self, request: Prompted, encoded: _Encoded) -> Conditioning:
        shared = self._guidance_embedding(request.guidance_scale)
        negative = encoded.negative
        return Conditioning(
            {"encoder_hidden_states": encoded.positive, **shared},
            None if negative is None else {"encoder_hidden_states": negative, **shared},
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

    def _sampler(self, request: Prompted, strength: float | None = None) -> DiffusersSampler:
        """``strength``: of a later pass; an image to image request brings that of its first."""
        scheduler = make_scheduler(request.scheduler, self._pipeline.scheduler.config)
        if strength is None and isinstance(request, ImageToImage):
            strength = request.strength
        skip = 0
        if strength is not None:
            drawn = min(int(request.num_inference_steps * strength), request.num_inference_steps)
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
        """Latents of the picture under the noise of the first step; both are drawn in diffusers' order."""
        vae: Any = self._vaes.get(request.vae)
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
    def _finish(self, request: Prompted, warnings: tuple[str, ...], sample: Sample) -> Picture | Handover:
        decoded = pixels.decode(self._vaes.get(request.vae), sample.latents)
        image = pixels.to_image(decoded, request.height, request.width)
        warnings += ineffective_options(request.scheduler, self._pipeline.scheduler.config)
        return finished(request, image, self._safety_checker, warnings)
