"""Parts that really leave and come back: the picture is that of a pool in which everything stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.demo.world.figure import demo_skeleton
from pipelines.denoising.loop import Loop
from pipelines.engine.parts import own_tensors
from pipelines.engine.pool import PipelinePool
from pipelines.errors import NeverFits
from pipelines.image_io import RGBImage
from pipelines.messages import Drawn, Event, Failed, Residency
from pipelines.request import Control, ImageToImage, Lora, Request, TextToImage, Upscaling
from pipelines.weights.manifest import Manifest
from tests.gpu.stages import default_request

CPU = torch.device("cpu")
SIDE = 64
KANDINSKY, KOLORS, SD3, SD15, SDXL = PAGES = (
    "kandinsky-2-2",
    "kolors",
    "sd3-medium-pose",
    "stable-diffusion-v1-5",
    "sdxl",
)


class Copies:
    """Moves numbers for real, between two memories of a CPU: what is on the host cannot be computed with."""

    def __init__(self) -> None:
        self.waiting: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.came: Counter[str] = Counter()

    def to_device(self, module: torch.nn.Module) -> None:
        self.came[type(module).__name__] += 1
        for tensor in own_tensors(module):
            if (kept := self.waiting.pop(id(tensor), None)) is not None:
                tensor.data = kept[1].clone()

    def to_host(self, module: torch.nn.Module) -> None:
        for tensor in own_tensors(module):
            # With the tensor itself: another one could have its id as soon as it is dropped.
            self.waiting[id(tensor)] = tensor, tensor.data.clone()
            if tensor.is_floating_point():
                tensor.data = torch.full_like(tensor.data, torch.nan)


def pool_of(
    manifest: Manifest, budget_bytes: int, host_budget_bytes: int = 10**9, mover: Copies | None = None
) -> PipelinePool:
    plain = {name: entry.model_copy(update={"resident": False}) for name, entry in manifest.pipelines.items()}
    return PipelinePool(
        manifest.model_copy(update={"pipelines": plain}),
        manifest.path.parent,
        CPU,
        budget_bytes=budget_bytes,
        host_budget_bytes=host_budget_bytes,
        mover=mover or Copies(),
    )


def page(name: str, prompt: str = "a cat") -> Request:
    return default_request(name, (1,), side=SIDE, steps=2, prompt=prompt)


def requests() -> Iterator[Request]:
    """The five pages, and what is added to them."""
    yield from map(page, PAGES)
    plain: Any = page(SD15)
    yield replace(plain, loras=(Lora(name="more_details"),), prompt="a dog")
    yield replace(plain, vae="sd-vae-ft-mse")
    yield replace(plain, highres_fix=True)
    yield replace(plain, safety_checker=True)
    yield replace(plain, upscaler="small-x2")
    yield replace(plain, controls=(Control(name="canny", image=picture(), preprocessor="canny"),))
    values = {name: getattr(plain, name) for name in plain.__dataclass_fields__ if name != "kind"}
    yield ImageToImage(**values, image=picture(), strength=0.6)
    yield Upscaling(pipeline="small-x2", image=picture(), width=2 * SIDE, height=2 * SIDE)
    no_negative: Any = page(KANDINSKY)
    yield replace(no_negative, negative_prompt=None)


def picture() -> RGBImage:
    return demo_skeleton(SIDE, SIDE)


def drawn(loop: Loop, asked: Request) -> tuple[bytes, list[Event]]:
    loop.submit("it", asked)
    told: list[Event] = []
    while not loop.idle:
        told += loop.turn()
    for event in told:
        assert not isinstance(event, Failed), (asked, event)
    (drawing,) = [event.drawing for event in told if isinstance(event, Drawn)]
    return drawing.images[0].pixels, told


@pytest.fixture(scope="module")
def resident(random_manifest: Manifest) -> list[bytes]:
    """Every request's picture while everything stays."""
    loop = Loop(PipelinePool(random_manifest, random_manifest.path.parent, CPU, budget_bytes=10**10), 10**6)
    return [drawn(loop, asked)[0] for asked in requests()]


def least_bytes(manifest: Manifest) -> int:
    """A little more than the most that one request needs at one moment."""
    pool = pool_of(manifest, 1)
    found = 0
    for asked in requests():
        pool.open(asked.pipeline)
        try:
            pool.can_take(asked, {})
        except NeverFits as error:
            found = max(found, error.needed_bytes)
    return found * 5 // 4


@pytest.mark.parametrize(
    "host_bytes",
    [10**9, pytest.param(8_000_000, marks=pytest.mark.slow), 0],
    ids=["on the host", "some", "read again"],
)
def test_what_leaves_and_comes_back_draws_the_same_picture(
    random_manifest: Manifest, resident: list[bytes], host_bytes: int
) -> None:
    budget = least_bytes(random_manifest)
    pool = pool_of(random_manifest, budget, host_bytes)
    loop = Loop(pool, 10**6)
    seen: set[tuple[str, str]] = set()
    left = False
    for _ in range(2):
        for asked, whole in zip(requests(), resident, strict=True):
            pixels, told = drawn(loop, asked)
            assert pixels == whole, asked
            assert pool.used_bytes <= budget
            assert pool.host_bytes <= host_bytes
            for event in told:
                if isinstance(event, Residency):
                    there = {(part.pipeline, part.part) for part in event.parts if part.place == "device"}
                    left |= not seen <= there
                    seen |= there
    assert left


def test_pages_together_draw_what_they_draw_alone(random_manifest: Manifest, resident: list[bytes]) -> None:
    pool = pool_of(random_manifest, 2 * least_bytes(random_manifest))
    loop = Loop(pool, 10**6, patience_s=3600)
    for number, asked in enumerate(requests()):
        loop.submit(str(number), asked)
    together: dict[int, bytes] = {}
    most = 0
    while not loop.idle:
        for event in loop.turn():
            assert not isinstance(event, Failed), event
            if isinstance(event, Drawn):
                together[int(event.ticket_id)] = event.drawing.images[0].pixels
        most = max(most, pool.used_bytes)
    assert sorted(together) == list(range(len(resident)))
    for number, whole in enumerate(resident):
        differences = np.frombuffer(together[number], np.uint8).astype(int) - np.frombuffer(whole, np.uint8)
        assert abs(differences).max() <= 1  # who shares an evaluation may differ in the last bit
    assert most <= pool.budget_bytes


def test_no_text_encoder_comes_back_for_a_prompt_that_was_read(random_manifest: Manifest) -> None:
    mover = Copies()
    pool = pool_of(random_manifest, least_bytes(random_manifest), mover=mover)
    loop = Loop(pool, 10**6)
    for name in PAGES:
        drawn(loop, page(name))
    before = {cls: mover.came[cls] for cls in mover.came if "Text" in cls or "GLM" in cls or "T5" in cls}
    assert len(before) >= 4
    for _ in range(3):
        pool.relieve({})
        for name in PAGES:
            drawn(loop, page(name))
    assert {cls: mover.came[cls] for cls in before} == before
    pool.relieve({})
    drawn(loop, page(KOLORS, "a fox"))
    assert mover.came["ChatGLMModel"] == before["ChatGLMModel"] + 1


def test_a_loras_numbers_travel_with_its_network(random_manifest: Manifest) -> None:
    pool = pool_of(random_manifest, 10**9)
    loop = Loop(pool, 10**6)
    plain: TextToImage = page(SD15)  # pyright: ignore[reportAssignmentType]
    with_lora = replace(plain, loras=(Lora(name="more_details"),))
    first = drawn(loop, with_lora)[0]
    assert pool.relieve({})
    assert (pool.used_bytes, drawn(loop, with_lora)[0]) == (0, first)


def test_a_cleared_cache_disturbs_nobody_who_draws(random_manifest: Manifest) -> None:
    pool = pool_of(random_manifest, 10**9)
    loop = Loop(pool, 10**6)
    first = drawn(loop, page(SDXL))[0]
    pool.relieve({})
    loop.submit("it", page(SDXL))
    loop._admit()
    pool.clear_cache()
    assert (pool.used_bytes, pool.host_bytes) == (0, 0)
    events = [event for _ in range(5) for event in loop.turn()]
    (again,) = [event.drawing for event in events if isinstance(event, Drawn)]
    assert again.images[0].pixels == first


def test_parts_are_told_with_their_bytes_and_places(random_manifest: Manifest) -> None:
    pool = pool_of(random_manifest, 10**9)
    loop = Loop(pool, 10**6)
    told = [event for event in drawn(loop, page(SDXL))[1] if isinstance(event, Residency)]
    last = {part.part: part for part in told[-1].parts}
    assert last.keys() >= {"unet", "vae", "text_encoder", "text_encoder_2"}
    assert {part.pipeline for part in last.values()} == {SDXL}
    assert sum(part.nbytes for part in last.values() if part.place == "device") == told[-1].used_bytes
    pool.relieve({})
    (moved,) = [event for event in loop.turn() if isinstance(event, Residency)]
    assert (moved.used_bytes, {part.place for part in moved.parts}) == (0, {"host"})


def test_a_request_that_never_fits_fails_at_once_and_nothing_is_read(
    random_manifest: Manifest, tmp_path: Path
) -> None:
    pool = PipelinePool(random_manifest, tmp_path, CPU, budget_bytes=10**6, mover=Copies())
    loop = Loop(pool, 10**6)
    loop.submit("it", page(SD3))
    (failed,) = [event for event in loop.turn() if isinstance(event, Failed)]
    assert isinstance(failed.error, NeverFits)
    assert pool.resident == ()
