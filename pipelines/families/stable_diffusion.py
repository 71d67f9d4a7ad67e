"""The core that SD1.5 and SDXL share.

A request becomes samples, in one pass or two, and those become pictures.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from pipelines.adapters.library import AdapterLibrary
from pipelines.adapters.loras import AttachedLoras
from pipelines.adapters.vaes import Vaes
from pipelines.control.controlnets import ControlNets
from pipelines.denoising.blame import blaming
from pipelines.denoising.needs import Needs
from pipelines.denoising.pipeline import DirectAnswer, Pipeline
from pipelines.denoising.sample import Conditioning, Denoiser, Handover, Picture, Sample
from pipelines.errors import InvalidInput
from pipelines.group import GroupKey, group_key
from pipelines.images import codec
from pipelines.images.postprocess import postprocess
from pipelines.images.safety import SafetyChecker, check_safety
from pipelines.layers import highres, panorama
from pipelines.layers.first_latents import FirstLatents
from pipelines.layers.inpainting import put_back
from pipelines.layers.self_attention_guidance import SelfAttentionGuidance
from pipelines.layers.token_merging import TokenMerging, check_ratio
from pipelines.prompts.clip import PromptEncoder
from pipelines.request import CheckpointRequest, Request, SafetyCheck, TextToImage


class StableDiffusion(Pipeline):
    """One opened checkpoint whose UNet reads CLIP's text.

    A family says how its network is evaluated (`_predict`), and overrides what it does differently.

    Attributes:
        family: the manifest's name for checkpoints and adapters of this architecture.
        token_merging_depth: attentions at latents reduced by this factor, and by smaller ones, merge tokens.
    """

    family: ClassVar[str]
    token_merging_depth: ClassVar[int]

    def __init__(
        self,
        pipeline: Any,
        device: torch.device,
        adapters: AdapterLibrary,
        safety_checker: SafetyChecker | None,
    ) -> None:
        """
        Args:
            pipeline: a Stable Diffusion (XL) pipeline of diffusers. Its configurations and components are
                attributes that diffusers makes at run time.
        """
        unet, scheduler_config = pipeline.unet, pipeline.scheduler.config
        self._pipeline = pipeline
        self._device = device
        self._safety_checker = safety_checker
        self._pixels_per_latent: int = pipeline.vae_scale_factor
        self._loras = AttachedLoras(pipeline, adapters, self.family)
        self._vaes = Vaes(pipeline.vae, adapters, self.family, device)
        self._controlnets = ControlNets(unet, adapters, self.family, self._pixels_per_latent, device)
        self._token_merging = TokenMerging(unet, max_downsample=self.token_merging_depth)
        self._prompts = PromptEncoder(pipeline, device, adapters, self._loras, self.family)
        self._denoiser = Denoiser(self._predict)
        self._self_attention = SelfAttentionGuidance(unet, scheduler_config, device)
        self._first_latents = FirstLatents(
            unet, scheduler_config, self._pixels_per_latent, device, upcast=self._needs_upcast(pipeline.vae)
        )

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        own = {name: getattr(self._pipeline, name, None) for name in ("text_encoder", "text_encoder_2")}
        checker = {} if self._safety_checker is None else {"safety_checker": self._safety_checker.module}
        return {
            "unet": self._pipeline.unet,
            **{name: encoder for name, encoder in own.items() if encoder is not None},
            **self._loras.modules,
            **self._vaes.modules,
            **self._controlnets.modules,
            **checker,
        }

    def clear_cache(self) -> None:
        self._prompts.clear_cache()
        self.drop_additions()

    def drop_additions(self) -> None:
        self._loras.clear_cache()
        self._vaes.clear_cache()
        self._controlnets.clear_cache()

    def attach(self, key: GroupKey) -> None:
        with blaming("loras", [lora.name for lora in key.loras]):
            self._loras.use(key.loras)
        self._token_merging.use(key.token_merging_ratio)

    def needs(self, request: Request) -> Needs:
        checker = frozenset[str]() if self._safety_checker is None else frozenset({"safety_checker"})
        if isinstance(request, SafetyCheck):
            return Needs(finish=checker)
        if not isinstance(request, CheckpointRequest):
            return Needs()
        vae = frozenset({self._vaes.part(request.vae)})
        from_picture = frozenset[str]() if isinstance(request, TextToImage) else vae
        preparing = self._controlnets.preparing_parts(request)
        return Needs(
            encode=self._prompts.parts(request) | from_picture | preparing,
            denoise={"denoise": frozenset({"unet"}) | self._controlnets.parts(request)},
            finish=vae | (checker if request.safety_checker else frozenset()),
        )

    # 1. encode

    @torch.no_grad()
    def encode(self, request: Request) -> list[Sample] | DirectAnswer:
        if isinstance(request, SafetyCheck):
            return check_safety(request, self._safety_checker)
        if not isinstance(request, CheckpointRequest):
            raise InvalidInput("pipeline", f"{request.pipeline} does not draw {request.kind}")
        if request.safety_checker and self._safety_checker is not None:
            self._safety_checker.demand()
        if request.highres_fix:
            return highres.two_passes(request, self._encode_pass, self._native_side, self._pixels_per_latent)
        return self._encode_pass(request)

    def _encode_pass(self, request: CheckpointRequest, second_strength: float | None = None) -> list[Sample]:
        """One pass of a request, one sample per seed; see `pipelines.layers.highres.two_passes`."""
        key = group_key(request, multiple=self._pixels_per_latent)
        check_ratio(key.token_merging_ratio)
        denoiser = self._self_attention.around(self._denoiser) if request.self_attention else self._denoiser
        with blaming("vae", [request.vae] if request.vae else []):
            vae = self._vaes.get(request.vae)
        prepared = self._first_latents.prepare(request, key, vae, second_strength)
        with (
            blaming("loras", [lora.name for lora in request.loras]),
            blaming("embeddings", request.embeddings),
        ):
            prompt = self._prompts.encode(request)
        with blaming("controls", [control.name for control in request.controls]):
            controls = self._controlnets.conditioning(request, key)
        conditioning = prompt | controls | self._shared_conditioning(request, key)
        return [
            Sample(
                request=request,
                index=index,
                key=key,
                latents=first.latents,
                conditioning=conditioning | first.conditioning,
                guidance_scale=request.guidance_scale,
                generator=first.generator,
                sampler=first.sampler,
                denoiser=denoiser,
                finish=partial(self._finish, request, prompt.warnings + first.warnings),
            )
            for index, first in enumerate(prepared)
        ]

    @property
    def _native_side(self) -> int:
        """Pixels along the side of the pictures that the checkpoint was trained with."""
        return self._pipeline.unet.config.sample_size * self._pixels_per_latent

    def _shared_conditioning(self, request: CheckpointRequest, key: GroupKey) -> Conditioning:
        """The rows that do not depend on the prompt: the guidance scale for latent consistency models."""
        width = self._pipeline.unet.config.time_cond_proj_dim
        if width is None:
            return Conditioning.same_for_both({})
        embedding = self._pipeline.get_guidance_scale_embedding(
            torch.tensor(request.guidance_scale - 1).repeat(1), embedding_dim=width
        )
        rows = {"timestep_cond": embedding.to(self._device, self._pipeline.unet.dtype)}
        return Conditioning.same_for_both(rows)

    # 2. denoise

    @abstractmethod
    def _predict(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """One evaluation of the UNet, as `pipelines.denoising.sample.Denoiser.predict`."""

    # 3. decode

    def _needs_upcast(self, vae: AutoencoderKL) -> bool:
        """Whether a VAE of this architecture overflows half precision."""
        return False

    @torch.no_grad()
    def _finish(
        self, request: CheckpointRequest, warnings: tuple[str, ...], sample: Sample
    ) -> Picture | Handover:
        decode = panorama.decode if request.panorama else codec.decode
        with blaming("vae", [request.vae] if request.vae else []):
            vae = self._vaes.get(request.vae)
            decoded = decode(vae, sample.latents, upcast=self._needs_upcast(vae))
        image = put_back(codec.to_image(decoded, request.height, request.width), request)
        return postprocess(request, image, self._safety_checker, warnings)
