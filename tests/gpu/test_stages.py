"""What the measurements on a GPU are made of, tried on the small checkpoints so that it can be trusted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.denoising.loop import Loop
from pipelines.engine.pool import PipelinePool
from pipelines.families.registry import open_pipeline
from pipelines.image_io import RGBImage
from pipelines.request import Rewriting
from pipelines.weights.manifest import Manifest
from tests.gpu.additions import (
    ADDITIONS,
    TRANSLATOR,
    UPSCALER,
    added_request,
    size_of,
    upscaling,
    with_controlnet,
    with_translator,
    with_upscaler,
)
from tests.gpu.recovery import draw_many_within
from tests.gpu.stages import SIDES, default_request, in_precision, is_a_picture, measure, measure_answer
from tests.gpu.test_full_size import manifest, row

CPU = torch.device("cpu")
SIDE = 128
STEPS = 3


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", SIDES)
def test_the_stages_of_every_family_are_measured_one_and_four_at_a_time(
    name: str, dtype: str, random_manifest: Manifest
) -> None:
    described = in_precision(random_manifest, dtype)
    checkpoint = Checkpoint(name, described, described.pipelines[name], Path(), CPU)
    pipeline = open_pipeline(checkpoint, AdapterLibrary(described, Path()))
    side = SIDE if dtype == "float32" else SIDE // 2  # a CPU is slow in half precision
    for pictures in (1, 4):
        request = default_request(name, tuple(range(pictures)), side=side, steps=STEPS, prompt="a cat")
        measured = measure(pipeline, request, CPU)
        assert len(measured.images) == pictures
        assert all(is_a_picture(image, side) for image in measured.images)
        assert measured.seconds.keys() == {"encode", *measured.evaluations, "decode"}
        assert measured.evaluations.keys() == ({"prior", "denoise"} if "kandinsky" in name else {"denoise"})
        assert all(STEPS <= evaluations <= STEPS + 1 for evaluations in measured.evaluations.values())
        assert row(name, dtype, pictures, measured)[:3] == (name, dtype, str(pictures))


@pytest.mark.parametrize("name", ADDITIONS)
def test_what_can_be_asked_for_beside_a_picture_is_measured(
    name: str, random_manifest: Manifest, tmp_path: Path
) -> None:
    family, side = ADDITIONS[name], SIDE // 2
    entry = random_manifest.pipelines[family]
    adapters = AdapterLibrary(random_manifest, tmp_path)
    pipeline = open_pipeline(Checkpoint(family, random_manifest, entry, Path(), CPU), adapters)
    pipeline.modules["unet"].register_to_config(sample_size=side // 8)
    adapters.manifest = with_controlnet(random_manifest, pipeline.modules["unet"], entry.family, tmp_path)
    request = added_request(name, side=side, steps=STEPS, prompt="a cat")
    measured = measure(pipeline, request, CPU)
    assert all(is_a_picture(image, *size_of(name, side)) for image in measured.images)
    assert (len(measured.images), measured.evaluations.keys()) == (1, {"denoise"})
    second_pass = 1 if name == "highres_fix" else 0
    assert STEPS + second_pass <= measured.evaluations["denoise"] <= STEPS + 1 + 2 * second_pass
    assert any("controlnet" in part for part in pipeline.modules) == ("controlnet" in name)
    assert all(row(name, "float32", 1, measured)[index] for index in (3, 5, 6))


def test_an_enlargement_is_measured(random_manifest: Manifest, tmp_path: Path) -> None:
    described = with_upscaler(random_manifest, "float32", tmp_path, filters=8, blocks=1)
    checkpoint = Checkpoint(UPSCALER, described, described.pipeline(UPSCALER), Path(), CPU)
    pipeline = open_pipeline(checkpoint, AdapterLibrary(described, Path()))
    measured = measure(pipeline, upscaling(32), CPU)
    assert is_a_picture(measured.images[0], 128)
    assert measured.evaluations == {"upscale": 1}
    assert all(row("upscale", "float32", 1, measured)[index] for index in (3, 5, 6))


def test_a_translation_is_measured(random_manifest: Manifest, tmp_path: Path) -> None:
    described = with_translator(random_manifest, "float32", tmp_path, layers=1, width=32, heads=2, words=200)
    checkpoint = Checkpoint(TRANSLATOR, described, described.pipeline(TRANSLATOR), Path(), CPU)
    pipeline = open_pipeline(checkpoint, AdapterLibrary(described, Path()))
    text = "une église rouge sur la colline"
    measured = measure_answer(pipeline, Rewriting(pipeline=TRANSLATOR, texts=(text,)), CPU)
    assert measured.texts[0] not in ("", text)
    assert row("multi_lingual", "float32", 1, measured)[6]


def test_a_request_for_many_pictures_is_driven_to_its_end(random_manifest: Manifest) -> None:
    pool = PipelinePool(random_manifest, Path(), CPU, budget_bytes=10**9)
    loop = Loop(pool, 2 * SIDE * SIDE, device=CPU)
    drawing = draw_many_within(loop, "stable-diffusion-v1-5", SIDE, 3)
    assert len(drawing.images) == 3


def test_the_dummies_cover_every_pipeline_that_draws(random_manifest: Manifest) -> None:
    full_size = manifest("bfloat16")
    drawing = {name for name, entry in random_manifest.pipelines.items() if entry.family != "mbart50"}
    assert full_size.pipelines.keys() == drawing == SIDES.keys()
    assert {entry.dtype for entry in full_size.pipelines.values()} == {"bfloat16"}


def test_a_flat_picture_or_one_of_another_size_is_none() -> None:
    noise = bytes(range(256)) * 48
    assert is_a_picture(RGBImage(64, 64, noise), 64)
    assert not is_a_picture(RGBImage(64, 64, bytes(64 * 64 * 3)), 64)
    assert not is_a_picture(RGBImage(64, 64, noise), 32)
