"""SDXL on a small checkpoint: alone the plain pipeline's very bytes, among others the same picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file

from pipelines.errors import InvalidInput, UnknownAdapter
from pipelines.images import codec
from pipelines.request import SchedulerChoice
from pipelines.schedulers.names import NAMES, WITH_KARRAS_SIGMAS
from pipelines.schedulers.sampler import OWN
from pipelines.weights.entries import AdapterEntry, Source
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

REQUEST = small_request(
    pipeline="sdxl", negative_prompt="blurry", height=72, num_inference_steps=4, guidance_scale=6.0
)


@pytest.fixture(scope="module")
def family(manifest: Manifest) -> Any:
    return open_family(manifest, "sdxl")


@pytest.fixture(scope="module")
def plain(manifest: Manifest) -> Any:
    return reference(StableDiffusionXLPipeline, manifest, "sdxl")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OWN])
def test_alone_a_picture_has_the_bytes_of_the_plain_pipeline(name: str, family: Any, plain: Any) -> None:
    karras = {"use_karras_sigmas": True} if name in WITH_KARRAS_SIGMAS else {}
    request = replace(REQUEST, scheduler=SchedulerChoice(name=name, **karras))
    own = plain.scheduler
    plain.scheduler = getattr(diffusers, name).from_config(own.config, **karras)
    expected = drawn_plainly(plain, request)
    plain.scheduler = own
    assert np.array_equal(array(draw(family, request)[0].image), expected)


@pytest.mark.parametrize(
    "change",
    [{}, {"negative_prompt": None}, {"negative_prompt": ""}, {"guidance_scale": 1.0}, {"prompt": ""}],
    ids=str,
)
def test_every_way_to_leave_out_a_text_is_that_of_the_plain_pipeline(
    change: dict[str, Any], family: Any, plain: Any
) -> None:
    request = replace(REQUEST, **change)
    assert np.array_equal(array(draw(family, request)[0].image), drawn_plainly(plain, request))


@pytest.mark.parametrize("clip_skip", [1, 7])
def test_clip_skip_leaves_out_layers_as_diffusers_does(clip_skip: int, family: Any, plain: Any) -> None:
    request = replace(REQUEST, clip_skip=clip_skip)
    (picture,) = draw(family, request)
    assert np.array_equal(array(picture.image), drawn_plainly(plain, request, clip_skip=clip_skip))
    assert picture.image != draw(family, REQUEST)[0].image


def test_more_layers_than_there_are_cannot_be_skipped(family: Any) -> None:
    with pytest.raises(InvalidInput, match="clip_skip: at most 11 layers"):
        family.encode(replace(REQUEST, clip_skip=12))


def test_in_a_moving_group_no_pixel_is_off_by_more_than_one(family: Any) -> None:
    names = (
        "EulerDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "DDPMScheduler",
        "HeunDiscreteScheduler",
    )
    requests = [
        replace(
            REQUEST,
            prompt=f"picture {index}",
            seeds=(index,),
            guidance_scale=1.0 + 2 * index,
            num_inference_steps=3 + index,
            scheduler=SchedulerChoice(name=name),
        )
        for index, name in enumerate(names)
    ]
    grouped = draw_moving_group(family, requests)
    for request, picture in zip(requests, grouped, strict=True):
        assert largest_difference(picture, array(draw(family, request)[0].image)) <= 1


def test_merging_tokens_is_seen_and_leaves_nothing_behind(family: Any) -> None:
    before = draw(family, REQUEST)[0].image
    merged = draw(family, replace(REQUEST, token_merging_ratio=0.5))[0].image
    assert np.abs(array(before).astype(int) - array(merged).astype(int)).mean() > 1
    assert draw(family, REQUEST)[0].image == before


def test_an_embedding_has_vectors_for_both_text_encoders(manifest: Manifest, plain: Any) -> None:
    torch.manual_seed(2)
    vectors = {"clip_l": torch.randn(2, 32), "clip_g": torch.randn(2, 64)}
    save_file(vectors, manifest.path.parent / "both.safetensors")
    save_file({"emb_params": vectors["clip_l"]}, manifest.path.parent / "one.safetensors")
    entries = {
        name: AdapterEntry(source=Source(file=f"{name}.safetensors"), family="sdxl")
        for name in ("both", "one")
    }
    family = open_family(manifest.model_copy(update={"embeddings": entries}), "sdxl")
    request = replace(REQUEST, prompt="both, a red fox", embeddings=("both",))
    before = draw(family, REQUEST)[0].image
    picture = array(draw(family, request)[0].image)

    plain.load_textual_inversion(vectors["clip_l"], token="both")
    plain.load_textual_inversion(
        vectors["clip_g"], token="both", text_encoder=plain.text_encoder_2, tokenizer=plain.tokenizer_2
    )
    expected = drawn_plainly(plain, request)
    plain.unload_textual_inversion()
    plain.unload_textual_inversion(text_encoder=plain.text_encoder_2, tokenizer=plain.tokenizer_2)

    assert np.array_equal(picture, expected)
    assert draw(family, REQUEST)[0].image == before
    with pytest.raises(UnknownAdapter, match="embeddings: one does not fit this checkpoint"):
        family.encode(replace(request, embeddings=("one",)))


def test_a_lora_draws_what_the_plain_pipeline_draws_with_it(manifest: Manifest) -> None:
    plain = reference(StableDiffusionXLPipeline, manifest, "sdxl")
    generator = seeded(3)
    tensors: dict[str, torch.Tensor] = {}
    for part in ("unet", "text_encoder", "text_encoder_2"):
        for name, module in getattr(plain, part).named_modules():
            if name.endswith(("to_q", "to_v", "q_proj", "out_proj")):
                key = f"{part}.{name}"
                tensors[f"{key}.lora_A.weight"] = torch.randn(4, module.in_features, generator=generator) / 4
                tensors[f"{key}.lora_B.weight"] = torch.randn(module.out_features, 4, generator=generator) / 4
    path = manifest.path.parent / "lora.safetensors"
    save_file(tensors, path)
    entry = AdapterEntry(source=Source(file=path.name), family="sdxl")
    family = open_family(manifest.model_copy(update={"loras": {"lora": entry}}), "sdxl")
    from pipelines.request import Lora

    request = replace(REQUEST, loras=(Lora(name="lora", scale=0.7),))
    before = draw(family, REQUEST)[0].image
    picture = draw(family, request)[0].image
    plain.load_lora_weights(path.parent, weight_name=path.name, adapter_name="lora")
    plain.set_adapters(["lora"], [0.7])
    assert np.array_equal(array(picture), drawn_plainly(plain, request))
    assert draw(family, REQUEST)[0].image == before
    assert picture != before


def test_in_half_precision_the_vae_decodes_in_full_and_returns_to_half(manifest: Manifest) -> None:
    vae = reference(StableDiffusionXLPipeline, manifest, "sdxl").vae
    latents = torch.randn(1, 4, 8, 8, generator=seeded(1))
    with torch.no_grad():
        full = codec.decode(vae.half(), latents.half(), upcast=True)
        assert full.dtype == torch.float32
        assert vae.dtype == torch.float16
        expected = vae.float().decode(latents.half().float() / 0.13025).sample
    assert torch.allclose(full, expected, atol=1e-2)
