"""Self-attention guidance: away from a picture that is blurred where the network's attention lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from pipelines.denoising.evaluation import Evaluation, EvaluationRounds
from pipelines.denoising.sample import Denoiser, Sample
from pipelines.errors import InvalidInput
from pipelines.schedulers.predictions import to_sample_and_noise

SCALE = 0.75
"""The guidance scale: the paper's s for Stable Diffusion, and diffusers' default."""

BLUR_SIDE, BLUR_SIGMA = 9, 1.0
"""The side and the deviation of the Gaussian blur, in latents."""

ATTENTION_THRESHOLD = 1.0
"""The sum of attention above which a place is blurred; each column of an even attention map adds up to 1."""


class SelfAttentionGuidance:
    """A layer around classifier-free guidance: Hong et al. 2023, algorithm 1 and equation 25.

    Each step has one more evaluation, without the prompt. Its latents' expected picture is blurred where the
    first self-attention in the network's middle is strong. The latents are those that the network sees: their
    noise level follows from the time alone, whatever the noise scheduler.

    Args:
        unet: the network; it is not changed, and no hook stays on it between two evaluations.
        scheduler_config: configuration of the checkpoint's own noise scheduler, for its noise schedule and
            prediction type.
    """

    def __init__(self, unet: Any, scheduler_config: Mapping[str, Any], device: torch.device) -> None:
        training: Any = DDPMScheduler.from_config(dict(scheduler_config))
        self._unet = unet
        self._signal = training.alphas_cumprod.to(device)
        self._prediction_type: str = training.config.prediction_type

    def around(self, denoiser: Denoiser) -> Denoiser:
        """The same denoiser, guided by this layer.

        Raises:
            InvalidInput: the network has no self-attention in its middle.
        """
        if not getattr(self._unet.mid_block, "attentions", None):
            raise InvalidInput("self_attention", "this checkpoint's network has no attention in its middle")
        return replace(denoiser, layer=self)

    def __call__(self, sample: Sample) -> EvaluationRounds:
        conditioning, denoiser = sample.conditioning, sample.denoiser
        latents, timestep = sample.sampler.model_input(sample.latents), sample.sampler.timestep
        # With classifier-free guidance the half without the prompt is the one that is degraded.
        base = conditioning.positive if conditioning.negative is None else conditioning.negative
        probed = Evaluation(latents, timestep, base, self._probe)
        if conditioning.negative is None:
            (without,) = yield [probed]
            guided = without.prediction
        else:
            without, prompted = yield [probed, Evaluation(latents, timestep, conditioning.positive)]
            guided = denoiser.guidance(without.prediction, prompted.prediction, sample.guidance_scale)
        assert without.attention is not None
        degraded = self._degraded(latents, without.prediction, timestep, without.attention)
        (blurred,) = yield [Evaluation(degraded, timestep, base)]
        return guided + SCALE * (without.prediction - blurred.prediction)

    @contextmanager
    def _probe(self) -> Iterator[list[Tensor]]:
        """Record per batch where attention in the network's middle is strong, (N, 1, h, w): 1 there, else 0.

        This is an `AttentionProbe`.
        """
        recorded: list[Tensor] = []
        size: tuple[int, int] = (0, 0)

        def note_size(_: Any, inputs: tuple[Tensor, ...]) -> None:
            nonlocal size
            size = (inputs[0].shape[-2], inputs[0].shape[-1])

        def note_attention(attention: Any, inputs: tuple[Tensor, ...]) -> None:
            # Row by row: the maps of a whole batch would outgrow everything else in the network.
            rows = [_strong_attention(attention, row) for row in inputs[0].split(1)]
            recorded.append(torch.cat(rows).reshape(-1, 1, *size))

        middle = self._unet.mid_block.attentions[0]
        with (
            middle.register_forward_pre_hook(note_size),
            middle.transformer_blocks[0].attn1.register_forward_pre_hook(note_attention),
        ):
            yield recorded

    def _degraded(self, latents: Tensor, prediction: Tensor, timestep: Tensor, attention: Tensor) -> Tensor:
        """The network's input, (B, C, h, w), with the expected picture blurred under the same noise."""
        signal = self._signal_at(timestep)
        picture, noise = to_sample_and_noise(self._prediction_type, prediction, latents, signal)
        mask = interpolate(attention.to(picture.dtype), picture.shape[-2:])
        blurred = _blur(picture) * mask + picture * (1 - mask)
        return (signal**0.5 * blurred + (1 - signal) ** 0.5 * noise).to(latents.dtype)

    def _signal_at(self, timestep: Tensor) -> Tensor:
        """alphas_cumprod at a time; between two training times the log odds are interpolated."""
        last = len(self._signal) - 1
        below = timestep.floor().long().clamp(0, last) if timestep.is_floating_point() else timestep
        part = timestep - below
        low, high = self._signal[below], self._signal[(below + 1).clamp(max=last)]
        between = torch.lerp(_log_odds(low), _log_odds(high), part.to(low.dtype)).sigmoid()
        return torch.where(part == 0, low, between)


def _log_odds(signal: Tensor) -> Tensor:
    """The log odds of signal to noise, which are -2 times the logarithm of the noise level."""
    return torch.log(signal) - torch.log1p(-signal)


def _strong_attention(attention: Any, row: Tensor) -> Tensor:
    """Whether a row's tokens (1, tokens, channels) together attend strongly to each of them, (1, tokens)."""
    query, key = (attention.head_to_batch_dim(part(row)) for part in (attention.to_q, attention.to_k))
    maps = attention.get_attention_scores(query, key)
    return maps.mean(0, keepdim=True).sum(1) > ATTENTION_THRESHOLD


def _blur(picture: Tensor) -> Tensor:
    """A picture under a Gaussian blur with reflected edges."""
    reach = BLUR_SIDE // 2
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (offsets / BLUR_SIGMA) ** 2)
    line = (weights / weights.sum()).to(picture.device, picture.dtype)
    channels = picture.shape[-3]
    kernel = torch.outer(line, line).expand(channels, 1, BLUR_SIDE, BLUR_SIDE)
    return conv2d(pad(picture, [reach] * 4, mode="reflect"), kernel, groups=channels)
