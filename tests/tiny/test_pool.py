"""The pipelines that are resident: real small checkpoints, a budget in bytes, weights that are collected."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipelines.checkpoints.pace import Pace
from pipelines.denoising.loop import Loop
from pipelines.denoising.needs import NOTHING
from pipelines.denoising.pipeline import Pipeline
from pipelines.engine.parts import Opened, module_bytes
from pipelines.engine.pool import PipelinePool
from pipelines.errors import OutOfMemory, UnknownPipeline
from pipelines.families import registry
from pipelines.messages import Drawn, Failed
from pipelines.request import Lora, Request, TextToImage
from pipelines.weights.manifest import Manifest

CPU = torch.device("cpu")
KOLORS, SD15, SDXL = "kolors", "stable-diffusion-v1-5", "sdxl"


def pool_of(manifest: Manifest, budget_bytes: int, *, resident: tuple[str, ...] = ()) -> PipelinePool:
    entries = {
        name: entry.model_copy(update={"resident": name in resident})
        for name, entry in manifest.pipelines.items()
    }
    changed = manifest.model_copy(update={"pipelines": entries})
    return PipelinePool(changed, manifest.path.parent, CPU, budget_bytes=budget_bytes)


@pytest.fixture(scope="module")
def sizes(random_manifest: Manifest) -> dict[str, int]:
    """Bytes of each pipeline's parameters."""
    pool = pool_of(random_manifest, 10**12)
    return {name: module_bytes(pool.open(name).modules) for name in (KOLORS, SD15, SDXL)}


def test_the_one_unused_for_longest_is_evicted_when_room_is_needed(
    random_manifest: Manifest, sizes: dict[str, int]
):
    pool = pool_of(random_manifest, sum(sizes.values()) - 1)
    pool.open(SD15)
    pool.open(KOLORS)
    pool.open(SD15)
    pool.open(SDXL)
    assert pool.resident == (SD15, SDXL)
    assert pool.used_bytes == sizes[SD15] + sizes[SDXL]


def test_an_evicted_pipeline_is_really_collected(random_manifest: Manifest, sizes: dict[str, int]):
    pool = pool_of(random_manifest, max(sizes.values()))
    gone = weakref.ref(next(iter(pool.open(SD15).modules.values())))
    pool.open(KOLORS)
    gc.collect()
    assert gone() is None


def test_many_switches_leave_no_weights_behind(random_manifest: Manifest, sizes: dict[str, int]):
    pool = pool_of(random_manifest, max(sizes.values()))

    def living_bytes() -> int:
        gc.collect()
        tensors = {
            thing.data_ptr(): thing.nbytes
            for thing in gc.get_objects()
            if isinstance(thing, torch.nn.Parameter)
        }
        return sum(tensors.values())

    pool.open(SD15)
    pool.open(KOLORS)
    before = living_bytes()
    for _ in range(3):
        pool.open(SD15)
        pool.open(KOLORS)
    assert living_bytes() == before


def test_what_is_in_use_never_leaves_and_what_is_pinned_not_before_others(
    random_manifest: Manifest, sizes: dict[str, int]
):
    pool = pool_of(random_manifest, sizes[SD15] + sizes[KOLORS], resident=(SD15,))
    pool.open(SD15)
    pool.open(KOLORS)
    with pytest.raises(OutOfMemory):
        pool.open(SDXL, in_use={KOLORS: NOTHING})
    assert set(pool.resident) == {SD15, KOLORS}
    assert pool.relieve({})
    assert pool.resident == (SD15,)


def test_what_is_pinned_leaves_when_nothing_else_can(random_manifest: Manifest, sizes: dict[str, int]):
    pool = pool_of(random_manifest, sizes[SD15] + sizes[KOLORS], resident=(SD15,))
    pool.open(SD15)
    pool.open(KOLORS)
    assert pool.relieve({KOLORS: NOTHING})
    assert pool.resident == (KOLORS,)
    assert not pool.relieve({KOLORS: NOTHING})
    pool.open(SDXL)
    assert pool.resident == (SDXL,)


def test_a_pipeline_larger_than_the_budget_is_refused(random_manifest: Manifest, sizes: dict[str, int]):
    pool = pool_of(random_manifest, sizes[SD15] - 1)
    with pytest.raises(OutOfMemory):
        pool.open(SD15)
    assert pool.resident == ()


class _ShortOfMemory(PipelinePool):
    """Runs out of memory once, when a pipeline is loaded already."""

    error: Callable[[], Exception]
    loaded: weakref.ref[torch.nn.Module] | None = None
    left_over = True

    def read(self, name: str, pace: Pace | None = None) -> Opened:
        if self.loaded is not None:
            self.left_over = self.loaded() is not None
            return super().read(name, pace)
        opened = super().read(name, pace)
        self.loaded = weakref.ref(opened.pipeline.modules["unet"])
        raise self.error()


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError, partial(RuntimeError, "DefaultCPUAllocator: can't allocate memory")],
    ids=["CUDA", "CPU"],
)
def test_a_load_that_ran_out_of_memory_leaves_nothing_behind_for_the_second_one(
    random_manifest: Manifest, error: Callable[[], Exception]
):
    pool = _ShortOfMemory(random_manifest, Path("unused"), CPU, budget_bytes=10**12)
    pool.error = error
    pool.open(SD15)
    assert pool.resident == (SD15,)
    assert not pool.left_over


def test_an_unknown_name_is_refused(random_manifest: Manifest):
    with pytest.raises(UnknownPipeline):
        pool_of(random_manifest, 1).open("nowhere")


def test_a_swap_gives_the_picture_that_was_drawn_before_it(random_manifest: Manifest, sizes: dict[str, int]):
    pool = pool_of(random_manifest, max(sizes.values()))
    loop = Loop(pool, 10**6)

    first = drawn(loop, request())
    drawn(loop, request(pipeline=KOLORS))
    assert pool.resident == (KOLORS,)
    assert drawn(loop, request()) == first


def request(**changes: Any) -> TextToImage:
    values: dict[str, Any] = {
        "pipeline": SD15,
        "prompt": "a cat",
        "width": 64,
        "height": 64,
        "num_inference_steps": 2,
        "guidance_scale": 5.0,
        "seeds": (1,),
    }
    return TextToImage(**values | changes)


def with_lora(name: str = "more_details") -> TextToImage:
    return request(loras=(Lora(name=name),))


def drawn(loop: Loop, asked: Request) -> bytes:
    loop.submit("it", asked)
    while True:
        for event in loop.turn():
            assert not isinstance(event, Failed), event
            if isinstance(event, Drawn):
                return event.drawing.images[0].pixels


@pytest.fixture
def lora_bytes(random_manifest: Manifest) -> int:
    file = random_manifest.path.parent / "sd15_adapters" / "more_details.safetensors"
    return sum(tensor.nbytes for tensor in load_file(file).values())


def test_loras_that_stay_in_the_networks_are_counted(
    random_manifest: Manifest, sizes: dict[str, int], lora_bytes: int
):
    pool = pool_of(random_manifest, 10**9)
    loop = Loop(pool, 10**6)
    drawn(loop, with_lora())
    assert pool.used_bytes == sizes[SD15] + lora_bytes > sizes[SD15]
    drawn(loop, request())
    assert pool.used_bytes == sizes[SD15] + lora_bytes
    drawn(loop, with_lora("animie"))
    assert pool.used_bytes > sizes[SD15] + lora_bytes
    pool.clear_cache()
    assert pool.used_bytes == sizes[SD15]


@pytest.mark.parametrize("pinned", [(), (SD15,)], ids=["on demand", "pinned"])
def test_an_idle_pipeline_gives_up_its_loras_before_any_is_evicted(
    pinned: tuple[str, ...], random_manifest: Manifest, sizes: dict[str, int]
):
    pool = pool_of(random_manifest, sizes[SD15] + sizes[KOLORS], resident=pinned)
    loop = Loop(pool, 10**6)
    drawn(loop, request(pipeline=KOLORS))
    before, plain = drawn(loop, with_lora()), drawn(loop, request())
    assert pool.resident == (SD15,)
    assert pool.used_bytes > sizes[SD15]
    assert pool.can_open(KOLORS, {})
    drawn(loop, request(pipeline=KOLORS))
    assert set(pool.resident) == {SD15, KOLORS}
    assert pool.used_bytes == sizes[SD15] + sizes[KOLORS]
    assert drawn(loop, request()) == plain
    assert pool.resident == (KOLORS, SD15)
    assert drawn(loop, with_lora()) == before


def test_a_pipeline_with_room_for_its_loras_keeps_them(
    random_manifest: Manifest, sizes: dict[str, int], lora_bytes: int
):
    pool = pool_of(random_manifest, sizes[SD15] + sizes[KOLORS] + lora_bytes)
    loop = Loop(pool, 10**6)
    drawn(loop, with_lora())
    drawn(loop, request(pipeline=KOLORS))
    assert pool.used_bytes == sizes[SD15] + sizes[KOLORS] + lora_bytes


def test_others_make_room_for_loras_and_what_is_in_use_keeps_them(
    random_manifest: Manifest, sizes: dict[str, int], lora_bytes: int
):
    pool = pool_of(random_manifest, sizes[SD15] + sizes[KOLORS])
    loop = Loop(pool, 10**6)
    drawn(loop, request(pipeline=KOLORS))
    drawn(loop, with_lora())
    assert pool.resident == (SD15,)
    assert pool.used_bytes == sizes[SD15] + lora_bytes
    assert not pool.can_open(KOLORS, {SD15: ()})
    with pytest.raises(OutOfMemory):
        pool.open(KOLORS, {SD15: NOTHING})
    assert pool.used_bytes == sizes[SD15] + lora_bytes


def test_relief_takes_loras_that_are_kept_even_from_a_pinned_pipeline(
    random_manifest: Manifest, sizes: dict[str, int]
):
    pool = pool_of(random_manifest, 10**9, resident=(SD15,))
    loop = Loop(pool, 10**6)
    drawn(loop, with_lora())
    assert pool.relieve({})
    assert (pool.resident, pool.used_bytes) == ((SD15,), sizes[SD15])


def test_a_pool_that_learns_of_more_keeps_what_it_has_and_drops_what_is_gone(
    random_manifest: Manifest,
) -> None:
    entry = random_manifest.pipelines["stable-diffusion-v1-5"]
    more = random_manifest.model_copy(update={"pipelines": {**random_manifest.pipelines, "again": entry}})
    pool = PipelinePool(random_manifest, Path("none"), torch.device("cpu"), budget_bytes=10**9)
    first = pool.open("stable-diffusion-v1-5")
    pool.reload(more)
    assert pool.open("stable-diffusion-v1-5") is first
    gone = weakref.ref(pool.open("again"))
    used = pool.used_bytes
    pool.reload(random_manifest)
    assert pool.resident == ("stable-diffusion-v1-5",)
    assert pool.used_bytes < used
    assert gone() is None
    with pytest.raises(UnknownPipeline):
        pool.open("again")


def test_every_family_keeps_the_contract() -> None:
    for module, name in registry.FAMILIES.items():
        family = getattr(import_module(f"pipelines.families.{module}"), name)
        assert Pipeline in family.__mro__, name
        assert not family.__abstractmethods__, name
