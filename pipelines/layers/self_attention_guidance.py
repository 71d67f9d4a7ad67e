"""Self-attention guidance: away from the picture in which what the network looks at is blurred."""

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
"""The paper's s for Stable Diffusion, and diffusers' default."""

BLUR_SIDE, BLUR_SIGMA = 9, 1.0
"""Of the Gaussian blur, in latents."""

LOOKED_AT = 1.0
"""A place is blurred that is looked at more than evenly: the columns of an even attention map add up to 1."""


class SelfAttentionGuidance:
    """A layer around classifier-free guidance: Hong et al. 2023, algorithm 1 and equation 25.

    Per step one more evaluation, without the prompt, of latents whose expected picture is blurred where the
    first self-attention of the network's middle looks. The latents are those that the network sees: their
    noise level follows from the time alone, whatever the noise scheduler.

    Args:
        unet: the network; nothing of it changes, and nothing stays on it between two evaluations.
        scheduler_config: of the checkpoint's own noise scheduler: its noise schedule and prediction type.
    """

    def __init__(self, unet: Any, scheduler_config: Mapping[str, Any], device: torch.device) -> None:
        training: Any = DDPMScheduler.from_config(dict(scheduler_config))
        self._unet = unet
        self._signal = training.alphas_cumprod.to(device)
        self._prediction_type: str = training.config.prediction_type

    def around(self, denoiser: Denoiser) -> Denoiser:
        """The same network, guided by this layer.

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
        watched = Evaluation(latents, timestep, base, self._watched)
        if conditioning.negative is None:
            (without,) = yield [watched]
            guided = without.prediction
        else:
            without, prompted = yield [watched, Evaluation(latents, timestep, conditioning.positive)]
            guided = denoiser.guidance(without.prediction, prompted.prediction, sample.guidance_scale)
        assert without.seen is not None
        degraded = self._degraded(latents, without.prediction, timestep, without.seen)
        (blurred,) = yield [Evaluation(degraded, timestep, base)]
        return guided + SCALE * (without.prediction - blurred.prediction)

    @contextmanager
    def _watched(self) -> Iterator[list[Tensor]]:
        """Where the middle of the network looks: (N, 1, h, w) per batch, 1 where it does, else 0."""
        seen: list[Tensor] = []
        size: tuple[int, int] = (0, 0)

        def note_size(_: Any, inputs: tuple[Tensor, ...]) -> None:
            nonlocal size
            size = (inputs[0].shape[-2], inputs[0].shape[-1])

        def note_attention(attention: Any, inputs: tuple[Tensor, ...]) -> None:
            # Row by row: the maps of a whole batch would outgrow everything else in the network.
            rows = [_looked_at(attention, row) for row in inputs[0].split(1)]
            seen.append(torch.cat(rows).reshape(-1, 1, *size))

        middle = self._unet.mid_block.attentions[0]
        with (
            middle.register_forward_pre_hook(note_size),
            middle.transformer_blocks[0].attn1.register_forward_pre_hook(note_attention),
        ):
            yield seen

    def _degraded(self, latents: Tensor, prediction: Tensor, timestep: Tensor, looked_at: Tensor) -> Tensor:
        """What the network sees, (B, C, h, w), with the expected picture blurred under the same noise."""
        signal = self._signal_at(timestep)
        picture, noise = to_sample_and_noise(self._prediction_type, prediction, latents, signal)
        mask = interpolate(looked_at.to(picture.dtype), picture.shape[-2:])
        blurred = _blur(picture) * mask + picture * (1 - mask)
        return (signal**0.5 * blurred + (1 - signal) ** 0.5 * noise).to(latents.dtype)

    def _signal_at(self, timestep: Tensor) -> Tensor:
        """alphas_cumprod at a training time; between two of them by the logarithm of the noise level."""
        last = len(self._signal) - 1
        below = timestep.floor().long().clamp(0, last) if timestep.is_floating_point() else timestep
        part = timestep - below
        low, high = self._signal[below], self._signal[(below + 1).clamp(max=last)]
        between = torch.lerp(_log_odds(low), _log_odds(high), part.to(low.dtype)).sigmoid()
        return torch.where(part == 0, low, between)


def _log_odds(signal: Tensor) -> Tensor:
    """Twice the negative logarithm of the noise level: of signal to noise."""
    return torch.log(signal) - torch.log1p(-signal)


def _looked_at(attention: Any, row: Tensor) -> Tensor:
    """Of one row (1, tokens, channels): the tokens that all others together look at, (1, tokens)."""
    query, key = (attention.head_to_batch_dim(part(row)) for part in (attention.to_q, attention.to_k))
    maps = attention.get_attention_scores(query, key)
    return maps.mean(0, keepdim=True).sum(1) > LOOKED_AT


def _blur(picture: Tensor) -> Tensor:
    """Gaussian, with reflected edges."""
    reach = BLUR_SIDE // 2
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (offsets / BLUR_SIGMA) ** 2)
    line = (weights / weights.sum()).to(picture.device, picture.dtype)
    channels = picture.shape[-3]
    kernel = torch.outer(line, line).expand(channels, 1, BLUR_SIDE, BLUR_SIDE)
    return conv2d(pad(picture, [reach] * 4, mode="reflect"), kernel, groups=channels)
