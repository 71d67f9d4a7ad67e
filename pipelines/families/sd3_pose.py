"""Stable Diffusion 3 with a pose ControlNet: text to image in the pose of a person in a picture."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from diffusers import SD3ControlNetModel, StableDiffusion3ControlNetPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.control import pose
from pipelines.control.pose import PoseDetector
from pipelines.control.pose_detectors import installed_detector
from pipelines.denoising.needs import NOTHING, Needs
from pipelines.denoising.pipeline import Pipeline
from pipelines.denoising.sample import Conditioning, Denoiser, Picture, Sample
from pipelines.errors import CheckpointUnavailable, InvalidInput
from pipelines.group import GroupKey, group_key
from pipelines.image_io import to_pil
from pipelines.images import codec
from pipelines.lru import LRUCache
from pipelines.prompts.cut_texts import cut_warnings
from pipelines.request import PoseToImage, Request
from pipelines.schedulers.flow.leftover_noise import leftover_noise_warnings
from pipelines.schedulers.flow.sampler import make_sampler, needs_unguided

log = logging.getLogger(__name__)

CACHED_TEXTS = 32
"""The number of texts whose embeddings are kept: 2.7 MB of device memory each in half precision."""

T5_TOKENS = 256
"""The tokens of a text that T5 reads."""

Text = tuple[Tensor, Tensor]
"""An encoded text: the hidden states of all text encoders (1, 77 + 256, width) and the pooled embedding of
the two CLIPs (1, width)."""


def control_seed(seed: int) -> int:
    """The seed of the noise in a picture's encoded pose, which diffusers takes from the global generator.

    It is not the picture's own seed, whose first numbers are the latents' noise.
    """
    return seed ^ 0x9E3779B97F4A7C15


class StableDiffusion3Pose(Pipeline):
    """One opened checkpoint of Stable Diffusion 3 with a pose ControlNet."""

    def __init__(
        self,
        pipeline: StableDiffusion3ControlNetPipeline,
        device: torch.device,
        detector: PoseDetector | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._device = device
        self._detector = detector
        self._denoiser = Denoiser(self._predict)
        self._texts: LRUCache[str, Text] = LRUCache(CACHED_TEXTS)
        transformer = pipeline.transformer.config
        self._multiple = pipeline.vae_scale_factor * transformer.patch_size
        self._longest_side = self._multiple * transformer.pos_embed_max_size

    @classmethod
    def open(cls, checkpoint: Checkpoint, adapters: AdapterLibrary) -> StableDiffusion3Pose:
        """Open the parts ``pipeline``, ``controlnet`` and, where the manifest has one, a pose detector."""
        # T5 is a part of it by choice: zeros stand for what it would have read.
        t5 = ("text_encoder_3", "tokenizer_3")
        without = dict.fromkeys(t5) if checkpoint.skips("text_encoder_3") else {}
        pipeline = checkpoint.pipeline(
            "pipeline",
            StableDiffusion3ControlNetPipeline,
            controlnet=checkpoint.module("controlnet", SD3ControlNetModel),
            **without,
        )
        return cls(pipeline, checkpoint.device, _detector(checkpoint, adapters))

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        pipeline = self._pipeline
        names = ("transformer", "controlnet", "text_encoder", "text_encoder_2", "text_encoder_3", "vae")
        annotators = self._detector.modules if self._detector else {}
        return {
            **{name: getattr(pipeline, name) for name in names if getattr(pipeline, name) is not None},
            **{f"annotator_{name}": module for name, module in annotators.items()},
        }

    def clear_cache(self) -> None:
        self._texts.clear()

    def needs(self, request: Request) -> Needs:
        if not isinstance(request, PoseToImage):
            return Needs()
        cached = all(text in self._texts for text in _read_texts(request))
        encoders = frozenset(name for name in self.modules if name.startswith("text_encoder"))
        detector = frozenset(name for name in self.modules if name.startswith("annotator_"))
        return Needs(
            # The pose is encoded by the VAE. Whether it takes the detector is seen in the picture.
            encode=(NOTHING if cached else encoders) | detector | {"vae"},
            denoise={"denoise": frozenset({"transformer", "controlnet"})},
            finish=frozenset({"vae"}),
        )

    # 1. encode

    @torch.no_grad()
    def encode(self, request: Request) -> list[Sample]:
        if not isinstance(request, PoseToImage):
            raise InvalidInput("kind", f"{request.kind} cannot be drawn by {request.pipeline}")
        key = group_key(request, multiple=self._multiple)
        if max(key.width, key.height) > self._longest_side:
            raise InvalidInput(
                "image", f"no side of the result may be longer than {self._longest_side} pixels"
            )
        samplers = [
            make_sampler(request.scheduler, request.num_inference_steps, self._device) for _ in request.seeds
        ]
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in request.seeds]
        warnings = self._cut_warnings(request)
        warnings += leftover_noise_warnings(request.scheduler, request.num_inference_steps)
        return [
            Sample(
                request=request,
                index=index,
                key=key,
                latents=self._noise(key, generator),
                conditioning=conditioning,
                guidance_scale=request.guidance_scale,
                generator=generator,
                sampler=sampler,
                denoiser=self._denoiser,
                finish=partial(self._finish, request, warnings),
            )
            for index, (sampler, generator, conditioning) in enumerate(
                zip(samplers, generators, self._condition(request, key), strict=True)
            )
        ]

    def _condition(self, request: PoseToImage, key: GroupKey) -> list[Conditioning]:
        """The conditioning of each seed: texts and pose are the same, the encoded pose's noise is not."""
        guided = _guided(request)
        poses = self._encode_pose(request, key, rows=2 if guided else 1)
        positive, *others = [self._encode_text(text) for text in _read_texts(request)]
        negative = others[0] if others else None
        scale = torch.tensor(request.controlnet_conditioning_scale, device=self._device)
        scale = scale.to(self._pipeline.controlnet.dtype).reshape(1, 1, 1)
        return [
            Conditioning(
                _conditioning(positive, control[-1:], scale),
                _conditioning(negative, control[:1], scale) if negative else None,
            )
            for control in poses
        ]

    def _cut_warnings(self, request: PoseToImage) -> tuple[str, ...]:
        pipeline = self._pipeline
        texts = {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt if _guided(request) else None,
        }
        # Both CLIPs cut a text alike; T5, where the checkpoint has it, reads on.
        with_t5 = pipeline.text_encoder_3 is not None
        clip = pipeline.tokenizer
        fate = "is left to T5" if with_t5 else "is left out"
        warnings = cut_warnings(texts, clip, clip.model_max_length, "CLIP", fate)
        if with_t5:
            warnings += cut_warnings(texts, pipeline.tokenizer_3, T5_TOKENS, "T5")
        return warnings

    def _encode_text(self, text: str) -> Text:
        """The embeddings of one text, cached.

        diffusers encodes prompt and negative prompt separately and alike, so one cache serves both.
        """

        def encode() -> Text:
            encoded: Any = self._pipeline.encode_prompt(
                text,
                text,
                text,
                device=self._device,
                do_classifier_free_guidance=False,
                max_sequence_length=T5_TOKENS,
            )
            hidden, _, pooled, _ = encoded
            # The text encoders may have dtypes of their own.
            dtype = self._pipeline.transformer.dtype
            return hidden.to(dtype), pooled.to(dtype)

        return self._texts.get(text, encode)

    def _encode_pose(self, request: PoseToImage, key: GroupKey, rows: int) -> list[Tensor]:
        """The latents of the skeleton for each seed, (rows, 16, height / 8, width / 8).

        As in diffusers the negative and the positive row have noise of their own. The picture is encoded as
        often as there are rows, because a network's last bits depend on the batch.
        """
        pipeline = self._pipeline
        skeleton = pose.skeleton(request.image, self._detector, key.width, key.height)
        picture = pipeline.prepare_image(
            to_pil(skeleton),
            key.width,
            key.height,
            rows,
            1,
            self._device,
            pipeline.vae.dtype,
        )
        distribution = pipeline.vae.encode(picture).latent_dist
        vae = pipeline.vae.config
        # InstantX trained its ControlNets without the shift.
        shift = 0 if pipeline.controlnet.config.force_zeros_for_pooled_projection else vae.shift_factor
        generators = [torch.Generator("cpu").manual_seed(control_seed(seed)) for seed in request.seeds]
        drawn = [(distribution.sample(generator) - shift) * vae.scaling_factor for generator in generators]
        return [latents.to(pipeline.controlnet.dtype) for latents in drawn]

    def _noise(self, key: GroupKey, generator: torch.Generator) -> Tensor:
        """Latents of pure noise, (1, 16, height / 8, width / 8)."""
        pipeline = self._pipeline
        height, width = key.height // pipeline.vae_scale_factor, key.width // pipeline.vae_scale_factor
        return randn_tensor(
            (1, pipeline.transformer.config.in_channels, height, width),
            generator=generator,
            device=self._device,
            dtype=pipeline.transformer.dtype,
        )

    # 2. denoise

    @torch.no_grad()
    def _predict(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """The velocity, same shape as the latents."""
        controlnet = self._pipeline.controlnet
        hidden, pooled = conditioning["prompt_embeds"], conditioning["pooled_prompt_embeds"]
        zeros = controlnet.config.force_zeros_for_pooled_projection
        dtype = controlnet.dtype
        residuals = controlnet(
            hidden_states=latents.to(dtype),
            timestep=timesteps,
            encoder_hidden_states=hidden.to(dtype),
            pooled_projections=(torch.zeros_like(pooled) if zeros else pooled).to(dtype),
            controlnet_cond=conditioning["control"],
            conditioning_scale=conditioning["conditioning_scale"],
            return_dict=False,
        )[0]
        return self._pipeline.transformer(
            hidden_states=latents,
            timestep=timesteps,
            encoder_hidden_states=hidden,
            pooled_projections=pooled,
            block_controlnet_hidden_states=[residual.to(latents.dtype) for residual in residuals],
            return_dict=False,
        )[0]

    # 3. decode

    @torch.no_grad()
    def _finish(self, request: PoseToImage, warnings: tuple[str, ...], sample: Sample) -> Picture:
        vae = self._pipeline.vae
        latents = sample.latents / vae.config.scaling_factor + vae.config.shift_factor
        decoded = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
        return Picture(codec.to_image(decoded, request.height, request.width), warnings=warnings)


def _guided(request: PoseToImage) -> bool:
    """Whether the network is evaluated with the negative prompt, too."""
    return request.guidance_scale > 1 or needs_unguided(request.scheduler.name)


def _read_texts(request: PoseToImage) -> tuple[str, ...]:
    """The texts that are read: the prompt, and with guidance the negative prompt."""
    return (request.prompt, request.negative_prompt or "") if _guided(request) else (request.prompt,)


def _detector(checkpoint: Checkpoint, adapters: AdapterLibrary) -> PoseDetector | None:
    """The pose detector, where it is installed; None leaves pictures of skeletons, which need none."""
    try:
        return installed_detector(adapters, checkpoint.entry.parts.get("annotator"), checkpoint.device)
    except CheckpointUnavailable as error:
        log.error("%s draws without its pose detector: %s", checkpoint.name, error)
        return None


def _conditioning(text: Text, control: Tensor, scale: Tensor) -> dict[str, Tensor]:
    hidden, pooled = text
    return {
        "prompt_embeds": hidden,
        "pooled_prompt_embeds": pooled,
        "control": control,
        "conditioning_scale": scale,
    }
