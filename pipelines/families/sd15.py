"""Stable Diffusion 1.5 and checkpoints of its architecture: text to image, image to image, inpainting."""

from __future__ import annotations

from collections.abc import Mapping

from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.families.stable_diffusion import StableDiffusion
from pipelines.images.safety import SafetyChecker
from pipelines.layers.inpainting import with_masked_channels


class StableDiffusion15(StableDiffusion):
    """A UNet at 512 x 512 that reads one text encoder."""

    family = "sd15"
    token_merging_depth = 1

    @classmethod
    def open(cls, checkpoint: Checkpoint, adapters: AdapterLibrary) -> StableDiffusion15:
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

    def _predict(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        return self._pipeline.unet(
            with_masked_channels(latents, conditioning),
            timesteps,
            encoder_hidden_states=conditioning["encoder_hidden_states"],
            timestep_cond=conditioning.get("timestep_cond"),
            **self._controlnets.residuals(latents, timesteps, conditioning),
            return_dict=False,
        )[0]
