"""Kandinsky 2.2: a prior turns the prompt into an image embedding, a decoder turns that into a picture."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
from diffusers import KandinskyV22Pipeline, KandinskyV22PriorPipeline
from diffusers.schedulers import UnCLIPScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.denoising.evaluation import classifier_free_guidance
from pipelines.denoising.needs import NOTHING, Needs
from pipelines.denoising.pipeline import Pipeline
from pipelines.denoising.sample import Conditioning, Denoiser, Picture, Sample
from pipelines.denoising.sampler import Steps
from pipelines.errors import InvalidInput
from pipelines.group import GroupKey, group_key
from pipelines.images import codec
from pipelines.lru import LRUCache
from pipelines.prompts.cut_texts import cut_warnings
from pipelines.request import PriorTextToImage, Request, SchedulerChoice
from pipelines.schedulers.sampler import DiffusersSampler, make_scheduler

CACHED_TEXTS = 64
"""The number of prompts whose embeddings are kept, negative prompts included: 1 MB of host memory each."""

Texts: TypeAlias = "tuple[str, str | None, bool]"
"""What an encoded prompt depends on: prompt, negative prompt, and whether the prior is guided."""


class Kandinsky22(Pipeline):
    """One opened checkpoint of Kandinsky 2.2."""

    def __init__(
        self, prior: KandinskyV22PriorPipeline, decoder: KandinskyV22Pipeline, device: torch.device
    ) -> None:
        self._prior = prior
        self._decoder = decoder
        self._device = device
        self._decoder_scheduler = SchedulerChoice(name=type(decoder.scheduler).__name__)
        self._learned_variance = decoder.scheduler.config.get("variance_type") in ("learned", "learned_range")
        self._prior_denoiser = Denoiser(self._predict_embedding)
        self._denoiser = Denoiser(
            self._predict, _noise_guidance if self._learned_variance else classifier_free_guidance
        )
        self._texts: LRUCache[Texts, Mapping[str, Tensor]] = LRUCache(CACHED_TEXTS)
        # The embedding of an empty picture, (1, width), which stands for no negative prompt; on the host.
        self._zero_embedding: Tensor | None = None

    @classmethod
    def open(cls, checkpoint: Checkpoint, adapters: AdapterLibrary) -> Kandinsky22:
        """Open the parts ``prior`` and ``decoder``."""
        return cls(
            checkpoint.pipeline("prior", KandinskyV22PriorPipeline),
            checkpoint.pipeline("decoder", KandinskyV22Pipeline),
            checkpoint.device,
        )

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        return {
            "prior.text_encoder": self._prior.text_encoder,
            "prior.image_encoder": self._prior.image_encoder,
            "prior.prior": self._prior.prior,
            "decoder.unet": self._decoder.unet,
            "decoder.movq": self._decoder.movq,
        }

    def clear_cache(self) -> None:
        self._texts.clear()

    def needs(self, request: Request) -> Needs:
        if not isinstance(request, PriorTextToImage):
            return Needs()
        text_encoder = NOTHING if _texts(request) in self._texts else frozenset({"prior.text_encoder"})
        empty_picture = request.negative_prompt is None and self._zero_embedding is None
        return Needs(
            encode=text_encoder | (frozenset({"prior.image_encoder"}) if empty_picture else NOTHING),
            denoise={"prior": frozenset({"prior.prior"}), "denoise": frozenset({"decoder.unet"})},
            finish=frozenset({"decoder.movq"}),
        )

    # 1. encode

    @torch.no_grad()
    def encode(self, request: Request) -> list[Sample]:
        if not isinstance(request, PriorTextToImage):
            raise InvalidInput("kind", f"{request.kind} cannot be drawn by {request.pipeline}")
        conditioning = self._condition(request)
        if request.negative_prompt is None and self._zero_embedding is None:
            # Now, while the image encoder is on the device, and not when the prior is done.
            self._zero_embedding = self._prior.get_zero_embed(1, self._device).cpu()
        warnings = self._cut_warnings(request)
        samples: list[Sample] = []
        for index, seed in enumerate(request.seeds):
            generator = torch.Generator("cpu").manual_seed(seed)
            sampler = UnCLIPSampler(
                self._prior.scheduler.config, request.prior_num_inference_steps, self._device
            )
            # Made now, so that a number of steps it cannot do is refused before anything is drawn.
            decoder_sampler = DiffusersSampler(
                make_scheduler(self._decoder_scheduler, self._decoder.scheduler.config),
                request.num_inference_steps,
                self._device,
            )
            samples.append(
                Sample(
                    request=request,
                    index=index,
                    key=GroupKey(request.pipeline, "prior", height=0, width=0),
                    latents=self._noise_embeddings(request, generator),
                    conditioning=conditioning,
                    guidance_scale=request.prior_guidance_scale,
                    generator=generator,
                    sampler=sampler,
                    denoiser=self._prior_denoiser,
                    finish=partial(self._to_decoder, request, decoder_sampler, warnings),
                    evaluations_after=decoder_sampler.total,
                )
            )
        return samples

    def _condition(self, request: PriorTextToImage) -> Conditioning:
        """The prior's conditioning: projected text (B, width), hidden states (B, 77, width), mask (B, 77).

        With a negative prompt B is 2: the prior imagines the prompt and the negative prompt side by side, and
        guides both away from the negative prompt.
        """
        guided = request.prior_guidance_scale > 1
        texts = _texts(request)
        embedded = self._texts.get(texts, lambda: _embed(self._prior, self._device, *texts))
        on_device = {name: self._for_prior(tensor) for name, tensor in embedded.items()}
        if not guided:
            return Conditioning(on_device, None)
        halves = {name: tensor.chunk(2) for name, tensor in on_device.items()}
        return Conditioning(
            {name: positive for name, (_, positive) in halves.items()},
            {name: negative for name, (negative, _) in halves.items()},
        )

    def _for_prior(self, tensor: Tensor) -> Tensor:
        """A mask, or an encoded text in the prior's dtype, which need not be that of the text encoder."""
        dtype = self._prior.prior.dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(self._device, dtype)

    def _cut_warnings(self, request: PriorTextToImage) -> tuple[str, ...]:
        texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
        tokenizer = self._prior.tokenizer
        return cut_warnings(texts, tokenizer, tokenizer.model_max_length, "CLIP")

    def _noise_embeddings(self, request: PriorTextToImage, generator: torch.Generator) -> Tensor:
        """Embeddings of pure noise, (B, width), one draw for all B."""
        prior = self._prior.prior
        shape = (1 if request.negative_prompt is None else 2, prior.config.embedding_dim)
        return randn_tensor(shape, generator=generator, device=self._device, dtype=prior.dtype)

    # 2. denoise: first the embedding, then the picture

    def _predict_embedding(
        self, embeddings: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> Tensor:
        return self._prior.prior(embeddings, timesteps, **conditioning, return_dict=False)[0]

    @torch.no_grad()
    def _to_decoder(
        self,
        request: PriorTextToImage,
        sampler: DiffusersSampler,
        warnings: tuple[str, ...],
        sample: Sample,
    ) -> Sample:
        """The decoder's sample for a finished embedding; its noise comes from the same generator."""
        embeddings = self._prior.prior.post_process_latents(sample.latents)
        if request.negative_prompt is None:
            assert self._zero_embedding is not None
            positive, negative = embeddings, self._zero_embedding.to(self._device)
        else:
            positive, negative = embeddings.chunk(2)
        scale = self._decoder.movq_scale_factor
        key = group_key(request, multiple=scale**2)
        unet = self._decoder.unet
        positive, negative = positive.to(unet.dtype), negative.to(unet.dtype)
        noise = randn_tensor(
            (1, unet.config.in_channels, key.height // scale, key.width // scale),
            generator=sample.generator,
            device=self._device,
            dtype=unet.dtype,
        )
        return Sample(
            request=request,
            index=sample.index,
            key=key,
            latents=sampler.from_noise(noise),
            conditioning=Conditioning(
                {"image_embeds": positive},
                {"image_embeds": negative} if request.guidance_scale > 1 else None,
            ),
            guidance_scale=request.guidance_scale,
            generator=sample.generator,
            sampler=sampler,
            denoiser=self._denoiser,
            finish=partial(self._finish, request, warnings),
            evaluations_before=sample.sampler.total,
        )

    def _predict(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """The noise (N, 4, h, w), followed by the variance (4 more channels) where the scheduler wants it."""
        predicted = self._decoder.unet(
            latents,
            timesteps,
            encoder_hidden_states=None,
            added_cond_kwargs=dict(conditioning),
            return_dict=False,
        )[0]
        return predicted if self._learned_variance else predicted[:, : latents.shape[1]]

    # 3. decode

    @torch.no_grad()
    def _finish(self, request: PriorTextToImage, warnings: tuple[str, ...], sample: Sample) -> Picture:
        movq = self._decoder.movq
        latents = sample.latents.to(movq.dtype)
        decoded = movq.decode(latents, force_not_quantize=True, return_dict=False)[0]
        return Picture(codec.to_image(decoded, request.height, request.width), warnings=warnings)


def _texts(request: PriorTextToImage) -> Texts:
    return request.prompt, request.negative_prompt, request.prior_guidance_scale > 1


@torch.no_grad()
def _embed(
    prior: KandinskyV22PriorPipeline,
    device: torch.device,
    prompt: str,
    negative_prompt: str | None,
    guided: bool,
) -> dict[str, Tensor]:
    """The prior's conditioning in its own argument names, negative rows first when guided.

    It is kept on the host: the device's memory is the pool's. Texts go through the encoder in diffusers'
    batches, because the number of rows may change the last bits.
    """
    prompts, negative_prompts = [prompt], None
    if negative_prompt is not None:
        prompts, negative_prompts = [prompt, negative_prompt], [negative_prompt, negative_prompt]
    projected, hidden_states, mask = prior._encode_prompt(prompts, device, 1, guided, negative_prompts)
    return {
        "proj_embedding": projected.cpu(),
        "encoder_hidden_states": hidden_states.cpu(),
        "attention_mask": mask.cpu(),
    }


def _noise_guidance(negative: Tensor, positive: Tensor, guidance_scale: float) -> Tensor:
    """Guidance of the noise channels alone; the variance is that of the prediction with the prompt."""
    noise, variance = positive.chunk(2, dim=1)
    without, _ = negative.chunk(2, dim=1)
    return torch.cat([classifier_free_guidance(without, noise, guidance_scale), variance], dim=1)


class UnCLIPSampler(Steps):
    """The prior's noise scheduler in the middle of drawing one embedding.

    It is no `DiffusersSampler`, because UnCLIPScheduler takes the next timestep as an argument of its
    step.

    Args:
        config: the configuration of the checkpoint's own UnCLIPScheduler.
        num_inference_steps: a single step is drawn as well, though UnCLIPScheduler cannot space it:
            straight from pure noise to the predicted embedding.
        device: where the network is.
    """

    def __init__(self, config: Mapping[str, Any], num_inference_steps: int, device: torch.device) -> None:
        self._scheduler: Any = UnCLIPScheduler.from_config(dict(config))
        # On the CPU, where the scheduler's tables are: on a GPU each look-up would wait for the device.
        if num_inference_steps > 1:
            self._scheduler.set_timesteps(num_inference_steps, device="cpu")
            self._scheduler_times = self._scheduler.timesteps
            self._next_times: list[Tensor | None] = [*self._scheduler_times[1:], None]
        else:
            self._scheduler_times = self._scheduler.timesteps[:1]
            self._next_times = [torch.tensor(-1)]
        super().__init__(self._scheduler_times.to(device))

    def model_input(self, latents: Tensor) -> Tensor:
        return latents

    def step(self, prediction: Tensor, latents: Tensor, generator: torch.Generator) -> Tensor:
        time, next_time = self._scheduler_times[self._position], self._next_times[self._position]
        self._position += 1
        return self._scheduler.step(
            prediction, time, latents, prev_timestep=next_time, generator=generator, return_dict=False
        )[0]
