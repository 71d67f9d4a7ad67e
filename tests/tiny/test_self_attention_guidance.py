"""Self-attention guidance on small checkpoints: the reference's picture, and nothing left on the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import tomesd
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionSAGPipeline
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from pipelines.denoising import step
from pipelines.denoising.evaluation import Evaluated
from pipelines.denoising.sample import Sample
from pipelines.errors import InvalidInput
from pipelines.layers.self_attention_guidance import SelfAttentionGuidance
from pipelines.request import Lora, SchedulerChoice, TextToImage
from pipelines.schedulers.names import NAMES
from pipelines.schedulers.sampler import DiffusersSampler, make_scheduler
from pipelines.weights.manifest import Manifest
from tests.drawing import (
    array,
    draw,
    draw_moving_group,
    drawn_plainly,
    largest_difference,
    open_family,
    reference,
    seeded,
    small_request,
)

PIPELINE = "stable-diffusion-v1-5"
REQUEST = small_request(
    negative_prompt="blurry", width=72, scheduler=SchedulerChoice(name="DDIMScheduler"), self_attention=True
)


@pytest.fixture(scope="module")
def family(manifest: Manifest) -> Any:
    return open_family(manifest, PIPELINE)


@pytest.fixture
def plain(manifest: Manifest) -> Any:
    pipeline = reference(StableDiffusionSAGPipeline, manifest, "sd15")
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    return pipeline


def one(family: Any, request: TextToImage) -> np.ndarray:
    return array(draw(family, request)[0].image)


def middle(unet: Any) -> Any:
    return unet.mid_block.attentions[0].transformer_blocks[0].attn1


@pytest.mark.parametrize(
    ("name", "guidance_scale", "heads"),
    [("DDIMScheduler", 7.5, 2), ("DDPMScheduler", 1.0, 2), ("PNDMScheduler", 7.5, 1)],
)
def test_with_the_references_attention_a_picture_has_its_bytes(
    name: str, guidance_scale: float, heads: int, manifest: Manifest, plain: Any
) -> None:
    family = open_family(manifest, PIPELINE)
    attention = middle(family.modules["unet"])
    # The reference needs the map itself, so it multiplies attention out; here it stays fused.
    attention.set_processor(AttnProcessor())
    attention.heads = middle(plain.unet).heads = heads
    plain.unet.register_to_config(attention_head_dim=heads)
    plain.scheduler = getattr(diffusers, name).from_config(plain.scheduler.config)
    request = replace(REQUEST, scheduler=SchedulerChoice(name=name), guidance_scale=guidance_scale)
    assert np.array_equal(one(family, request), drawn_plainly(plain, request))


@pytest.mark.parametrize(
    ("name", "karras"),
    [
        ("DDIMScheduler", None),
        ("DPMSolverMultistepScheduler", None),
        ("UniPCMultistepScheduler", True),
        ("DEISMultistepScheduler", True),
    ],
)
def test_a_picture_is_off_the_references_by_one_at_most(
    name: str, karras: bool | None, family: Any, plain: Any
) -> None:
    options = {"use_karras_sigmas": True} if karras else {}
    plain.scheduler = getattr(diffusers, name).from_config(plain.scheduler.config, **options)
    request = replace(REQUEST, scheduler=SchedulerChoice(name=name, use_karras_sigmas=karras))
    assert largest_difference(one(family, request), drawn_plainly(plain, request)) <= 1
    assert np.abs(one(family, request).astype(int) - one(family, unflagged(request))).mean() > 1


def unflagged(request: TextToImage) -> TextToImage:
    return replace(request, self_attention=False)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "IPNDMScheduler"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_under_every_scheduler_a_picture_that_cannot_blur_is_seen_as_before(
    name: str, prediction_type: str, family: Any
) -> None:
    """A network that knows the noise, and a picture of one colour: blurring it changes nothing."""
    config = {**family._pipeline.scheduler.config, "prediction_type": prediction_type}
    sampler = DiffusersSampler(
        make_scheduler(SchedulerChoice(name=name), config), 4, torch.device("cpu"), skip=1
    )
    guidance = SelfAttentionGuidance(family.modules["unet"], config, torch.device("cpu"))
    picture = torch.full((1, 4, 8, 8), 0.7)
    noise = torch.randn(picture.shape, generator=seeded(3))
    (sample,) = family.encode(replace(REQUEST, guidance_scale=1.0))
    sample.sampler, sample.latents = sampler, sampler.from_latents(picture, noise)

    (first,) = next(guidance(sample))
    kept, added = torch.linalg.lstsq(
        torch.stack([picture.flatten(), noise.flatten()], dim=1), first.latents.flatten()[:, None]
    ).solution
    known = {"epsilon": noise, "v_prediction": kept * noise - added * picture, "sample": picture}
    prediction = known[prediction_type]
    assert torch.allclose(degraded(guidance, sample, prediction), first.latents, atol=2e-3)
    checked = prediction + 0.1 * noise.roll(1, -1)
    assert not torch.allclose(degraded(guidance, sample, checked), first.latents, atol=2e-3)


def degraded(guidance: SelfAttentionGuidance, sample: Sample, prediction: Tensor) -> Tensor:
    """What is evaluated after a prediction whose every place was looked at."""
    step = guidance(sample)
    next(step)
    (second,) = step.send([Evaluated(prediction, torch.ones(1, 1, 2, 2, dtype=torch.bool))])
    return second.latents


def test_pictures_with_and_without_it_share_evaluations_and_are_those_drawn_alone(family: Any) -> None:
    requests = [
        REQUEST,
        replace(REQUEST, seeds=(2,), self_attention=False),
        replace(REQUEST, seeds=(3,), scheduler=SchedulerChoice(name="EulerDiscreteScheduler")),
        replace(REQUEST, seeds=(4,), guidance_scale=1.0, num_inference_steps=2),
    ]
    alone = [one(family, request) for request in requests]
    for picture, expected in zip(draw_moving_group(family, requests), alone, strict=True):
        assert largest_difference(picture, expected) <= 1

    samples = [family.encode(request)[0] for request in requests]
    batches = counted(samples)
    with torch.no_grad():
        step.advance(samples)
    assert batches == [7, 3]


def counted(samples: list[Sample]) -> list[int]:
    """The rows of each evaluation to come."""
    batches: list[int] = []
    network = samples[0].denoiser.predict

    def predict(latents: Tensor, *rest: Any) -> Tensor:
        batches.append(len(latents))
        return network(latents, *rest)

    for sample in samples:
        sample.denoiser = replace(sample.denoiser, predict=predict)
    return batches


@pytest.mark.parametrize("pipeline", [PIPELINE, "sdxl"])
def test_it_changes_the_picture_and_leaves_nothing_behind(pipeline: str, manifest: Manifest) -> None:
    family = open_family(manifest, pipeline)
    request = replace(REQUEST, pipeline=pipeline)
    before, changed = one(family, unflagged(request)), one(family, request)
    assert np.abs(before.astype(int) - changed.astype(int)).mean() > 1
    assert np.array_equal(one(family, unflagged(request)), before)
    assert np.array_equal(one(family, request), changed)


def test_a_failure_in_the_middle_leaves_nothing_behind(family: Any) -> None:
    before = one(family, unflagged(REQUEST))
    unet = family.modules["unet"]
    (sample,) = family.encode(REQUEST)
    latents = sample.latents

    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError("pretended")

    # After the middle of the network was looked into.
    with (
        unet.up_blocks[0].register_forward_pre_hook(fails),
        torch.no_grad(),
        pytest.raises(torch.OutOfMemoryError),
    ):
        step.advance([sample])
    assert sample.latents is latents
    assert sample.sampler.position == 0
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in unet.modules())
    assert np.array_equal(one(family, unflagged(REQUEST)), before)


def test_together_with_a_lora_it_draws_what_the_reference_draws(
    family: Any, plain: Any, manifest: Manifest
) -> None:
    with_lora = StableDiffusionPipeline(**plain.components, requires_safety_checker=False)
    folder = manifest.path.parent / "sd15_adapters"
    with_lora.load_lora_weights(folder, weight_name="animie.safetensors", adapter_name="animie")
    with_lora.set_adapters(["animie"], [0.9])
    request = replace(REQUEST, loras=(Lora(name="animie", scale=0.9),))
    picture = one(family, request)
    assert largest_difference(picture, drawn_plainly(plain, request)) <= 1
    assert not np.array_equal(picture, one(family, REQUEST))


@pytest.fixture
def merged(plain: Any) -> Iterator[Any]:
    tomesd.apply_patch(plain.unet, ratio=0.5, max_downsample=1, use_rand=False)
    yield plain
    tomesd.remove_patch(plain.unet)


def test_together_with_merged_tokens_it_draws_what_the_reference_draws(family: Any, merged: Any) -> None:
    request = replace(REQUEST, token_merging_ratio=0.5)
    picture = one(family, request)
    assert largest_difference(picture, drawn_plainly(merged, request)) <= 1
    assert not np.array_equal(picture, one(family, REQUEST))
    assert not np.array_equal(picture, one(family, unflagged(request)))


def test_a_network_without_attention_in_its_middle_says_so(manifest: Manifest) -> None:
    family = open_family(manifest, PIPELINE)
    family.modules["unet"].mid_block = None
    with pytest.raises(InvalidInput, match="self_attention: this checkpoint's network has no attention"):
        family.encode(REQUEST)
    assert family.encode(unflagged(REQUEST))
