"""Every family at full size on a CUDA device: speed, memory, and what happens when the memory runs out.

The weights are random numbers, so no download is needed; speed and memory are the real ones.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.denoising.loop import Loop
from pipelines.denoising.pipeline import Pipeline
from pipelines.engine.pool import PipelinePool
from pipelines.errors import OutOfMemory
from pipelines.families.registry import open_pipeline
from pipelines.messages import Drawn, Failed
from pipelines.request import Rewriting
from pipelines.weights.manifest import Manifest, load_manifest
from pipelines.weights.memory import CONTEXT_BYTES
from pipelines.weights.memory import budget_bytes as weights_budget
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
from tests.gpu.recovery import draw_many_within, drive
from tests.gpu.stages import (
    SIDES,
    Measurement,
    default_request,
    in_precision,
    is_a_picture,
    measure,
    measure_answer,
)

pytestmark = pytest.mark.gpu

GIGABYTE = 10**9
STEPS = 10


def manifest(dtype: str) -> Manifest:
    """The dummies' manifest in one precision."""
    return in_precision(load_manifest(Path(__file__).with_name("weights.yaml")), dtype)


@pytest.fixture
def device() -> Iterator[torch.device]:
    """A device with nothing of an earlier test on it, and all of its memory afterwards."""
    chosen = torch.device("cuda:0")
    gc.collect()
    torch.cuda.empty_cache()
    yield chosen
    torch.cuda.set_per_process_memory_fraction(1.0, chosen)
    gc.collect()
    torch.cuda.empty_cache()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", SIDES)
def test_a_family_draws_at_full_size_one_and_four_at_a_time(
    name: str, dtype: str, device: torch.device, table: list[tuple[str, ...]]
) -> None:
    described = manifest(dtype)
    checkpoint = Checkpoint(name, described, described.pipelines[name], Path(), device)
    pipeline = open_pipeline(checkpoint, AdapterLibrary(described, Path()))
    side = SIDES[name]
    for pictures in (1, 4):
        seeds = tuple(range(pictures))
        warm_up = default_request(name, seeds, side=side, steps=2, prompt="a first picture")
        measure(pipeline, warm_up, device)
        request = default_request(name, seeds, side=side, steps=STEPS, prompt=f"{pictures} cats")
        measured = measure(pipeline, request, device)
        table.append(row(name, dtype, pictures, measured))
        assert all(is_a_picture(image, side) for image in measured.images)
        assert len(measured.images) == pictures
        assert torch.cuda.max_memory_allocated(device) > weight_bytes(pipeline)


def weight_bytes(pipeline: Pipeline) -> int:
    return sum(parameter.nbytes for module in pipeline.modules.values() for parameter in module.parameters())


def row(name: str, dtype: str, pictures: int, measured: Measurement) -> tuple[str, ...]:
    """One line of the table of `conftest.HEADER`; what is answered at once has its seconds under decoding."""

    def seconds(*stages: str) -> str:
        return "".join(f"{measured.seconds[stage]:.3f}" for stage in stages if stage in measured.seconds)

    def step_seconds(*stages: str) -> str:
        return "".join(
            f"{measured.step_seconds(stage):.4f}" for stage in stages if stage in measured.evaluations
        )

    peak = max(measured.peak_bytes.values(), default=0) / GIGABYTE
    return (
        name,
        dtype,
        str(pictures),
        seconds("encode"),
        step_seconds("prior"),
        step_seconds("denoise", "upscale"),
        seconds("decode", "answer"),
        f"{peak:.2f}",
    )


@pytest.mark.parametrize("name", ADDITIONS)
def test_what_can_be_asked_for_beside_a_picture_is_drawn_at_full_size(
    name: str, device: torch.device, table: list[tuple[str, ...]], tmp_path: Path
) -> None:
    dtype, family = "float16", ADDITIONS[name]
    described = manifest(dtype)
    adapters = AdapterLibrary(described, tmp_path)
    pipeline = open_pipeline(
        Checkpoint(family, described, described.pipelines[family], Path(), device), adapters
    )
    if "controlnet" in name:
        entry = described.pipelines[family]
        adapters.manifest = with_controlnet(described, pipeline.modules["unet"], entry.family, tmp_path)
    side = SIDES[family]
    measure(pipeline, added_request(name, side=side, steps=2, prompt="a first picture"), device)
    request = added_request(name, side=side, steps=STEPS, prompt="a cat")
    measured = measure(pipeline, request, device)
    table.append(row(name, dtype, 1, measured))
    assert all(is_a_picture(image, *size_of(name, side)) for image in measured.images)


def test_a_picture_is_enlarged_by_a_network_of_real_size(
    device: torch.device, table: list[tuple[str, ...]], tmp_path: Path
) -> None:
    described = with_upscaler(manifest("float16"), "float16", tmp_path, filters=64, blocks=23)
    checkpoint = Checkpoint(UPSCALER, described, described.pipeline(UPSCALER), Path(), device)
    pipeline = open_pipeline(checkpoint, AdapterLibrary(described, Path()))
    for side in (256, 1024):
        measured = measure(pipeline, upscaling(side), device)
    table.append(row("upscale x4 of 1024", "float16", 1, measured))
    assert is_a_picture(measured.images[0], 4096)


def test_a_prompt_is_translated_by_a_network_of_real_size(
    device: torch.device, table: list[tuple[str, ...]], tmp_path: Path
) -> None:
    sizes = {"layers": 12, "width": 1024, "heads": 16, "words": 250_054}
    described = with_translator(manifest("float16"), "float16", tmp_path, **sizes)
    checkpoint = Checkpoint(TRANSLATOR, described, described.pipeline(TRANSLATOR), Path(), device)
    pipeline = open_pipeline(checkpoint, AdapterLibrary(described, Path()))
    for text in ("un chien noir", "une église rouge sur la colline"):
        measured = measure_answer(pipeline, Rewriting(pipeline=TRANSLATOR, texts=(text,)), device)
    table.append(row("multi_lingual", "float16", 1, measured))
    assert measured.texts[0] not in ("", text)


def test_a_group_that_outgrows_the_memory_is_halved_and_drawn(
    device: torch.device, caplog: pytest.LogCaptureFixture
) -> None:
    name, side, many = "stable-diffusion-v1-5", 1024, 16
    pool = PipelinePool(manifest("float16"), Path(), device, budget_bytes=100 * GIGABYTE)
    pipeline = pool.open(name)
    pool.bring(name, frozenset(pipeline.modules), {})
    peaks: dict[int, Measurement] = {}
    for pictures in (1, many):
        request = default_request(name, tuple(range(pictures)), side=side, steps=2, prompt="a cat")
        peaks[pictures] = measure(pipeline, request, device)
    enough = max(*peaks[1].peak_bytes.values(), peaks[many].peak_bytes["decode"])
    too_much = peaks[many].peak_bytes["denoise"]
    assert too_much > 1.3 * enough, "the test needs a group that takes more than a picture alone"

    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((enough + (too_much - enough) / 2) / total, device)
    loop = Loop(pool, many * side * side, device=device)
    with caplog.at_level(logging.WARNING, "pipelines.denoising.loop"):
        drawing = draw_many_within(loop, name, side, many)
    assert len(drawing.images) == many
    assert all(is_a_picture(image, side) for image in drawing.images)
    assert "out of memory with 16 samples, going on with 8" in caplog.text


def test_a_request_that_does_not_fit_fails_alone_and_the_next_one_is_drawn(device: torch.device) -> None:
    name, side = "stable-diffusion-v1-5", 1024
    pool = PipelinePool(manifest("float16"), Path(), device, budget_bytes=100 * GIGABYTE)
    pool.preload(name)
    loop = Loop(pool, side * side, device=device)
    request = default_request(name, (1,), side=side, steps=2, prompt="a cat")

    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    tight = torch.cuda.memory_reserved(device) + 100 * 1024**2
    torch.cuda.set_per_process_memory_fraction(tight / total, device)
    (failed,) = [event for event in drive(loop, {"large": request}) if isinstance(event, Failed)]
    assert isinstance(failed.error, OutOfMemory)

    torch.cuda.set_per_process_memory_fraction(1.0, device)
    (drawn,) = [event for event in drive(loop, {"again": request}) if isinstance(event, Drawn)]
    assert is_a_picture(drawn.drawing.images[0], side)


def test_all_pages_alternate_within_24_gb_and_draw_the_same_pictures(device: torch.device) -> None:
    """Twice in turn, on a device of which no more than 24 GB may be taken."""
    described, card = manifest("float16"), 24 * GIGABYTE
    total = torch.cuda.get_device_properties(device).total_memory
    if total < card:
        pytest.skip("the device is smaller")
    torch.cuda.set_per_process_memory_fraction((card - CONTEXT_BYTES) / total, device)
    pool = PipelinePool(
        described,
        Path(),
        device,
        budget_bytes=weights_budget(described, card),
        host_budget_bytes=48 * GIGABYTE,
        device_bytes=card,
    )
    drawn: list[list[bytes]] = []
    allocated: list[int] = []
    for _ in range(2):
        pictures: list[bytes] = []
        for name, side in SIDES.items():
            loop = Loop(pool, side * side, device=device)
            request = default_request(name, (1,), side=side, steps=2, prompt="a cat")
            (event,) = [event for event in drive(loop, {"it": request}) if isinstance(event, Drawn)]
            assert is_a_picture(event.drawing.images[0], side)
            pictures.append(event.drawing.images[0].pixels)
            assert pool.used_bytes <= pool.budget_bytes
        drawn.append(pictures)
        torch.cuda.empty_cache()
        allocated.append(torch.cuda.memory_allocated(device) - pool.used_bytes)
    assert drawn[0] == drawn[1]
    assert abs(allocated[1] - allocated[0]) < GIGABYTE // 10
