"""Stable Diffusion XL and checkpoints of its architecture: text to image, image to image, inpainting."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from torch import Tensor

from pipelines.adapters.library import AdapterLibrary
from pipelines.adapters.loras import AttachedLoras
from pipelines.adapters.vaes import Vaes
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.control.controlnets import ControlNets, guided
from pipelines.denoising.evaluation import Rows
from pipelines.denoising.pipeline import DirectAnswer, Pipeline
from pipelines.denoising.sample import Conditioning, Denoiser, Handover, Picture, Sample
from pipelines.errors import InvalidInput
from pipelines.group import GroupKey, group_key
from pipelines.images import codec
from pipelines.images.postprocess import postprocess
from pipelines.images.safety import SafetyChecker, check_safety
from pipelines.layers import highres, panorama
from pipelines.layers.first_latents import FirstLatents
from pipelines.layers.inpainting import put_back, with_masked_channels
from pipelines.layers.self_attention_guidance import SelfAttentionGuidance
from pipelines.layers.token_merging import TokenMerging, check_ratio
from pipelines.prompts.clip import Encoded, PromptEncoder
from pipelines.request import Prompted, Request, SafetyCheck

FAMILY = "sdxl"


class StableDiffusionXL(Pipeline):
    """One opened checkpoint."""

    def __init__(
        self,
        pipeline: StableDiffusionXLPipeline,
        device: torch.device,
        adapters: AdapterLibrary,
        safety_checker: SafetyChecker | None,
    ) -> None:
        # Configurations and components are reached through attributes that diffusers makes at run time.
        self._pipeline: Any = pipeline
        self._device = device
        self._safety_checker = safety_checker
        self._multiple: int = self._pipeline.vae_scale_factor
        self._loras = AttachedLoras(pipeline, adapters, FAMILY)
        self._vaes = Vaes(self._pipeline.vae, adapters, FAMILY)
        self._controlnets = ControlNets(self._pipeline.unet, adapters, FAMILY, self._multiple, device)
        # The widest attentions of this network are at half the latents' size.
        self._token_merging = TokenMerging(self._pipeline.unet, max_downsample=2)
        self._prompts = PromptEncoder(pipeline, device, adapters, self._loras, FAMILY)
        self._denoiser = Denoiser(self._predict)
        self._self_attention = SelfAttentionGuidance(
            self._pipeline.unet, self._pipeline.scheduler.config, device
        )
        self._starts = FirstLatents(
            self._pipeline.unet,
            self._pipeline.scheduler.config,
            self._multiple,
            device,
            upcast=self._pipeline.vae.config["force_upcast"],
        )

    @classmethod
    def open(cls, checkpoint: Checkpoint, adapters: AdapterLibrary) -> StableDiffusionXL:
        """Open the part ``pipeline`` and, where the manifest gives them, ``vae`` and ``safety_checker``."""
        replaced = {"vae": checkpoint.module("vae", AutoencoderKL)} if checkpoint.has("vae") else {}
        pipeline = checkpoint.pipeline(
            "pipeline", StableDiffusionXLPipeline, add_watermarker=False, **replaced
        )
        return cls(pipeline, checkpoint.device, adapters, SafetyChecker.open(checkpoint))

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        checker = {} if self._safety_checker is None else {"safety_checker": self._safety_checker.module}
        return {
            "unet": self._pipeline.unet,
            "text_encoder": self._pipeline.text_encoder,
            "text_encoder_2": self._pipeline.text_encoder_2,
            **self._loras.modules,
            **self._vaes.modules,
            **self._controlnets.modules,
            **checker,
        }

    def clear_cache(self) -> None:
        self._prompts.clear_cache()
        self._loras.clear_cache()
        self._vaes.clear_cache()
        self._controlnets.clear_cache()

    def attach(self, key: GroupKey) -> None:
        self._loras.use(key.loras)
        self._token_merging.use(key.token_merging_ratio)

    # 1. encode

    @torch.no_grad()
    def encode(self, request: Request) -> list[Sample] | DirectAnswer:
        if isinstance(request, SafetyCheck):
            return check_safety(request, self._safety_checker)
        if not isinstance(request, Prompted):
            raise InvalidInput("pipeline", f"{request.pipeline} does not draw {request.kind}")
        first = highres.first_pass(request, self._native_side, self._multiple)
        key = group_key(first, multiple=self._multiple)
        check_ratio(key.token_merging_ratio)
        denoiser = self._self_attention.around(self._denoiser) if request.self_attention else self._denoiser
        starts = self._starts.of(first, key, self._vaes.get(request.vae))
        encoded = self._prompts.encode(request)
        guides = self._controlnets.guides(first, key)
        samples = [
            Sample(
                request=request,
                index=index,
                key=key,
                latents=start.latents,
                conditioning=guided(self._conditioning(request, key, encoded, start.conditioning), guides),
                guidance_scale=request.guidance_scale,
                generator=start.generator,
                sampler=start.sampler,
                denoiser=denoiser,
                finish=partial(self._finish, request, encoded.warnings),
            )
            for index, start in enumerate(starts)
        ]
        if not request.highres_fix:
            return samples
        return [self._drawn_again(sample, request, encoded) for sample in samples]

    def _drawn_again(self, first: Sample, request: Prompted, encoded: Encoded) -> Sample:
        key = group_key(first.request, multiple=self._multiple)
        sampler = self._starts.sampler(request, highres.strength(request))
        picture = self._starts.shown(request, key, self._vaes.get(request.vae))
        guides = self._controlnets.guides(request, key)
        conditioning = guided(self._conditioning(request, key, encoded, picture), guides)
        return highres.followed_by_second_pass(first, key, sampler, conditioning)

    @property
    def _native_side(self) -> int:
        """Pixels along the side of the pictures that the checkpoint was trained with."""
        return self._pipeline.unet.config.sample_size * self._multiple

    def _conditioning(
        self, request: Prompted, key: GroupKey, encoded: Encoded, picture: Mapping[str, Rows]
    ) -> Conditioning:
        """Text, its pooled embedding, and the picture's size: original, crop offset, target, (1, 6)."""
        size = (key.height, key.width)
        if request.panorama:
            # The network sees views, each as if it were the whole picture.
            size = (min(key.height, self._native_side), min(key.width, self._native_side))
        dtype = encoded.positive["encoder_hidden_states"].dtype
        time_ids = torch.tensor([[*size, 0, 0, *size]], dtype=dtype, device=self._device)
        shared = {"time_ids": time_ids, **picture, **self._guidance_embedding(request.guidance_scale)}
        negative = encoded.negative
        return Conditioning(
            {**encoded.positive, **shared}, None if negative is None else {**negative, **shared}
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

    # 2. denoise

    def _predict(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        return self._pipeline.unet(
            with_masked_channels(latents, conditioning),
            timesteps,
            encoder_hidden_states=conditioning["encoder_hidden_states"],
            timestep_cond=conditioning.get("timestep_cond"),
            added_cond_kwargs={
                "text_embeds": conditioning["text_embeds"],
                "time_ids": conditioning["time_ids"],
            },
            **self._controlnets.residuals(latents, timesteps, conditioning),
            return_dict=False,
        )[0]

    # 3. decode

    @torch.no_grad()
    def _finish(self, request: Prompted, warnings: tuple[str, ...], sample: Sample) -> Picture | Handover:
        vae = self._vaes.get(request.vae)
        decode = panorama.decode if request.panorama else codec.decode
        decoded = decode(vae, sample.latents, upcast=vae.config["force_upcast"])
        image = put_back(codec.to_image(decoded, request.height, request.width), request)
        return postprocess(request, image, self._safety_checker, warnings)
