"""Stable Diffusion XL and checkpoints of its architecture: text to image, image to image, inpainting."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from torch import Tensor

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.denoising.sample import Conditioning
from pipelines.families.stable_diffusion import StableDiffusion
from pipelines.group import GroupKey
from pipelines.images.safety import SafetyChecker
from pipelines.layers.inpainting import with_masked_channels
from pipelines.request import CheckpointRequest


class StableDiffusionXL(StableDiffusion):
    """A UNet at 1024 x 1024 that reads two text encoders and the picture's size."""

    family = "sdxl"
    # The widest attentions of this network are at half the latents' size.
    token_merging_depth = 2

    @classmethod
    def open(cls, checkpoint: Checkpoint, adapters: AdapterLibrary) -> StableDiffusionXL:
        """Open the part ``pipeline`` and, where the manifest gives them, ``vae`` and ``safety_checker``."""
        replaced = {"vae": checkpoint.module("vae", AutoencoderKL)} if checkpoint.has("vae") else {}
        pipeline = checkpoint.pipeline(
            "pipeline", StableDiffusionXLPipeline, add_watermarker=False, **replaced
        )
        return cls(pipeline, checkpoint.device, adapters, SafetyChecker.open(checkpoint))

    def _shared_conditioning(self, request: CheckpointRequest, key: GroupKey) -> Conditioning:
        """The picture's original size, crop offset and target size, (1, 6), besides what SD1.5 has."""
        size = (key.height, key.width)
        if request.panorama:
            # The network sees views, each as if it were the whole picture.
            size = (min(key.height, self._native_side), min(key.width, self._native_side))
        dtype = self._pipeline.unet.dtype
        time_ids = torch.tensor([[*size, 0, 0, *size]], dtype=dtype, device=self._device)
        return super()._shared_conditioning(request, key) | Conditioning.same_for_both({"time_ids": time_ids})

    def _predict(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        return self._pipeline.unet(
            with_masked_channels(latents, conditioning),
            timesteps,
            encoder_hidden_states=conditioning["encoder_hidden_states"],
            timestep_cond=conditioning.get("timestep_cond"),
            added_cond_kwargs={name: conditioning[name] for name in ("text_embeds", "time_ids")},
            **self._controlnets.residuals(latents, timesteps, conditioning),
            return_dict=False,
        )[0]

    def _needs_upcast(self, vae: AutoencoderKL) -> bool:
        return vae.config["force_upcast"]
