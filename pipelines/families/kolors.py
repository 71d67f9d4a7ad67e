"""Kolors: text to image from Chinese and English prompts, read by ChatGLM."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.checkpoints.diffusers_kolors import KolorsPipeline
from pipelines.denoising.needs import NOTHING, Needs
from pipelines.denoising.pipeline import Pipeline
from pipelines.denoising.sample import Conditioning, Denoiser, Picture, Sample
from pipelines.errors import InvalidInput
from pipelines.group import GroupKey, group_key
from pipelines.images import codec
from pipelines.lru import LRUCache
from pipelines.prompts.cut_texts import cut_warnings
from pipelines.request import Request, TextToImage
from pipelines.schedulers.leftover_noise import LeftoverNoise
from pipelines.schedulers.sampler import DiffusersSampler, make_scheduler

CACHED_TEXTS = 64
"""The number of texts whose embeddings are kept: 2 MB of host memory each at full size."""
TOKENS = 256
"""The tokens of a text that ChatGLM reads; the network was trained with so many."""


class Kolors(Pipeline):
    """One opened checkpoint of Kolors."""

    def __init__(self, pipeline: KolorsPipeline, device: torch.device) -> None:
        self._pipeline = pipeline
        self._device = device
        self._denoiser = Denoiser(self._predict)
        self._leftover_noise = LeftoverNoise(pipeline.scheduler.config)
        self._texts: LRUCache[str, tuple[Tensor, Tensor]] = LRUCache(CACHED_TEXTS)

    @classmethod
    def open(cls, checkpoint: Checkpoint, adapters: AdapterLibrary) -> Kolors:
        """Open the part ``pipeline``."""
        return cls(checkpoint.pipeline("pipeline", KolorsPipeline), checkpoint.device)

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        pipeline = self._pipeline
        return {"text_encoder": pipeline.text_encoder, "unet": pipeline.unet, "vae": pipeline.vae}

    def clear_cache(self) -> None:
        self._texts.clear()

    def needs(self, request: Request) -> Needs:
        if not isinstance(request, TextToImage):
            return Needs()
        cached = all(text in self._texts for text in _read_texts(request))
        return Needs(
            encode=NOTHING if cached else frozenset({"text_encoder"}),
            denoise={"denoise": frozenset({"unet"})},
            finish=frozenset({"vae"}),
        )

    # 1. encode

    @torch.no_grad()
    def encode(self, request: Request) -> list[Sample]:
        if not isinstance(request, TextToImage):
            raise InvalidInput("kind", f"{request.kind} cannot be drawn by {request.pipeline}")
        _refuse_other_options(request)
        key = group_key(request, multiple=self._pipeline.vae_scale_factor)
        conditioning = self._condition(request, key)
        steps = request.num_inference_steps
        warnings = self._cut_warnings(request)
        warnings += self._leftover_noise.warnings(request.scheduler, steps, steps)
        samples: list[Sample] = []
        for index, seed in enumerate(request.seeds):
            generator = torch.Generator("cpu").manual_seed(seed)
            scheduler = make_scheduler(request.scheduler, self._pipeline.scheduler.config)
            sampler = DiffusersSampler(scheduler, steps, self._device)
            samples.append(
                Sample(
                    request=request,
                    index=index,
                    key=key,
                    latents=sampler.from_noise(self._noise(key, generator)),
                    conditioning=conditioning,
                    guidance_scale=request.guidance_scale,
                    generator=generator,
                    sampler=sampler,
                    denoiser=self._denoiser,
                    finish=partial(self._finish, request, warnings),
                )
            )
        return samples

    def _condition(self, request: TextToImage, key: GroupKey) -> Conditioning:
        """The texts' hidden states (1, 256, width), pooled texts (1, width) and sizes (1, 6)."""
        sizes = torch.tensor(
            [[key.height, key.width, 0, 0, key.height, key.width]],
            dtype=self._pipeline.unet.dtype,
            device=self._device,
        )
        prompt, *negative = _read_texts(request)
        return Conditioning(
            self._read(prompt, sizes),
            self._read(negative[0], sizes) if negative else None,
        )

    def _cut_warnings(self, request: TextToImage) -> tuple[str, ...]:
        negative_prompt = request.negative_prompt if request.guidance_scale > 1 else None
        texts = {"prompt": request.prompt, "negative_prompt": negative_prompt}
        return cut_warnings(texts, self._pipeline.tokenizer, TOKENS, "ChatGLM")

    def _read(self, text: str, sizes: Tensor) -> dict[str, Tensor]:
        hidden_states, pooled = self._texts.get(text, lambda: _embed(self._pipeline, self._device, text))
        return {
            "encoder_hidden_states": hidden_states.to(self._device, sizes.dtype),
            "text_embeds": pooled.to(self._device, sizes.dtype),
            # What SDXL calls original size, crop and target size: the picture that is drawn, uncropped.
            "time_ids": sizes,
        }

    def _noise(self, key: GroupKey, generator: torch.Generator) -> Tensor:
        """Latents of pure noise, (1, 4, height / 8, width / 8)."""
        unet, scale = self._pipeline.unet, self._pipeline.vae_scale_factor
        shape = (1, unet.config.in_channels, key.height // scale, key.width // scale)
        return randn_tensor(shape, generator=generator, device=self._device, dtype=unet.dtype)

    # 2. denoise

    def _predict(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        return self._pipeline.unet(
            latents,
            timesteps,
            encoder_hidden_states=conditioning["encoder_hidden_states"],
            added_cond_kwargs={name: conditioning[name] for name in ("text_embeds", "time_ids")},
            return_dict=False,
        )[0]

    # 3. decode

    @torch.no_grad()
    def _finish(self, request: TextToImage, warnings: tuple[str, ...], sample: Sample) -> Picture:
        vae = self._pipeline.vae
        decoded = codec.decode(vae, sample.latents, upcast=vae.config.force_upcast)
        return Picture(codec.to_image(decoded, request.height, request.width), warnings=warnings)


def _read_texts(request: TextToImage) -> tuple[str, ...]:
    """The texts that are read: the prompt, and with guidance the negative prompt."""
    negative = (request.negative_prompt or "",) if request.guidance_scale > 1 else ()
    return (request.prompt, *negative)


@torch.no_grad()
def _embed(pipeline: KolorsPipeline, device: torch.device, text: str) -> tuple[Tensor, Tensor]:
    """The hidden states (1, 256, width) and the pooled text (1, width) of a text.

    They are kept on the host: the device's memory is the pool's.
    """
    encoded: Any = pipeline.encode_prompt(
        text, device, do_classifier_free_guidance=False, max_sequence_length=TOKENS
    )
    hidden_states, _, pooled, _ = encoded
    return hidden_states.cpu(), pooled.cpu()


def _refuse_other_options(request: TextToImage) -> None:
    """Refuse a request that switches on an option that no Kolors checkpoint draws.

    Raises:
        InvalidInput: names the option.
    """
    switched_on = {
        "loras": request.loras,
        "embeddings": request.embeddings,
        "vae": request.vae,
        "clip_skip": request.clip_skip,
        "token_merging_ratio": request.token_merging_ratio,
        "self_attention": request.self_attention,
        "panorama": request.panorama,
    }
    for field, value in switched_on.items():
        if value:
            raise InvalidInput(field, "Kolors checkpoints are drawn without it")
