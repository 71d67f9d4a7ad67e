"""What the measurements on a GPU are made of, tried on the small checkpoints so that it can be trusted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recovery import draw_many_within
from stages import SIDES, default_request, in_precision, is_a_picture, measure
from test_full_size import manifest, row

from pipelines.adapters import AdapterLibrary
from pipelines.checkpoints import Checkpoint
from pipelines.families import open_pipeline
from pipelines.image_io import RGBImage
from pipelines.loop import Loop
from pipelines.manifest import Manifest
from pipelines.pool import PipelinePool

CPU = torch.device("cpu")
SIDE = 128
STEPS = 3


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", SIDES)
def test_the_stages_of_every_family_are_measured_one_and_four_at_a_time(
    name: str, dtype: str, demo_manifest: Manifest
) -> None:
    described = in_precision(demo_manifest, dtype)
    checkpoint = Checkpoint(described, described.pipelines[name], Path(), CPU)
    pipeline = open_pipeline(name, checkpoint, AdapterLibrary(described, Path()))
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


def test_a_request_for_many_pictures_is_driven_to_its_end(demo_manifest: Manifest) -> None:
    pool = PipelinePool(demo_manifest, Path(), CPU, budget_bytes=10**9)
    loop = Loop(pool, 2 * SIDE * SIDE, device=CPU)
    drawing = draw_many_within(loop, "stable-diffusion-v1-5", SIDE, 3)
    assert len(drawing.images) == 3


def test_the_dummies_cover_every_pipeline_that_draws(demo_manifest: Manifest) -> None:
    full_size = manifest("bfloat16")
    drawing = {name for name, entry in demo_manifest.pipelines.items() if entry.family != "mbart50"}
    assert full_size.pipelines.keys() == drawing == SIDES.keys()
    assert {entry.dtype for entry in full_size.pipelines.values()} == {"bfloat16"}


def test_a_flat_picture_or_one_of_another_size_is_none() -> None:
    noise = bytes(range(256)) * 48
    assert is_a_picture(RGBImage(64, 64, noise), 64)
    assert not is_a_picture(RGBImage(64, 64, bytes(64 * 64 * 3)), 64)
    assert not is_a_picture(RGBImage(64, 64, noise), 32)
