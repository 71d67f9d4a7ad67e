"""Pipelines that are read beside others on a card of 24 GB: who draws, and what is brought, has its room."""

from __future__ import annotations

import logging
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import torch

from pipelines.denoising.needs import NOTHING, InUse
from pipelines.engine.loader import Loader
from pipelines.engine.pool import PipelinePool
from pipelines.weights.memory import budget_bytes as weights_budget
from tests.gpu.stages import SIDES, default_request
from tests.memory_budget import CountedMoves, dummies

GIGABYTE = 10**9
KANDINSKY, KOLORS, SD3, SD15, SDXL = SIDES
SLOW = pytest.mark.slow
LATER = [pytest.param(name, marks=SLOW) for name in (SD3, SD15, SDXL)]


def asked(name: str):
    return default_request(name, (1,), side=SIDES[name], steps=4, prompt="a cat")


@pytest.fixture
def read_again(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The parts that were read from their files once more; nothing is read of networks without numbers."""
    caplog.set_level(logging.INFO, "pipelines.engine.places")
    return lambda: [record.getMessage() for record in caplog.records if "is read again" in record.msg]


def pool_of(*, host_gb: float = 64, mover: CountedMoves | None = None) -> PipelinePool:
    manifest = dummies()
    return PipelinePool(
        manifest,
        Path(),
        torch.device("meta"),
        budget_bytes=weights_budget(manifest, 24 * GIGABYTE),
        host_budget_bytes=int(host_gb * GIGABYTE),
        mover=mover or CountedMoves(),
    )


def load(pool: PipelinePool, name: str, in_use: InUse) -> None:
    """Have a pipeline read by the thread of a loader, and taken by the pool."""
    loader = Loader(pool)
    assert not loader.ready(name, in_use)
    while not (ended := loader.finished(in_use)):
        wait([loader.fileno()], 60)
    assert ended == [(name, None)]


@pytest.mark.parametrize("name", [SD15, SDXL, KANDINSKY])
def test_others_are_taken_while_a_large_one_is_read(name: str) -> None:
    """As a whole Kolors would leave no room beside it; it is never there as a whole while others draw."""
    pool = pool_of()
    running = {KOLORS: []}
    assert pool.can_open(name, running)
    assert pool.can_take(asked(name), running)


def test_what_is_read_meanwhile_moves_nothing_that_draws() -> None:
    mover = CountedMoves()
    pool = pool_of(host_gb=0, mover=mover)
    needs = pool.open(SDXL).needs(asked(SDXL))
    pool.bring(SDXL, needs.drawing, {})
    in_use = {SDXL: needs.drawing, SD15: NOTHING}
    load(pool, SD15, in_use)
    assert "unet" in {part.part for part in pool.parts if (part.pipeline, part.place) == (SDXL, "device")}
    assert not mover.left
    assert pool.used_bytes <= pool.budget_bytes


def test_what_is_preloaded_takes_only_free_room_and_is_read_once(
    read_again: Callable[[], list[str]],
) -> None:
    """The steps' networks come first; text encoders too where they fit, and nothing leaves for them."""
    mover = CountedMoves()
    pool = pool_of(host_gb=0, mover=mover)
    for name in (SDXL, KOLORS):
        pool.preload(name)
    there = {(part.pipeline, part.part) for part in pool.parts if part.place == "device"}
    assert {(SDXL, "unet"), (SDXL, "text_encoder_2"), (KOLORS, "unet"), (KOLORS, "vae")} <= there
    assert (KOLORS, "text_encoder") not in there  # 12.5 GB
    assert pool.used_bytes <= pool.budget_bytes
    assert not mover.left
    assert not read_again()


@pytest.mark.parametrize(
    "name", [KANDINSKY, KOLORS, *(pytest.param(name, marks=SLOW) for name in (SD3, SD15, SDXL))]
)
@pytest.mark.parametrize("host_gb", [0, pytest.param(4, marks=SLOW)])
def test_what_was_read_is_not_read_again_for_its_first_picture(
    name: str, host_gb: int, read_again: Callable[[], list[str]]
) -> None:
    """The host has no room for all of it; the device has for what is drawn with."""
    pool = pool_of(host_gb=host_gb)
    load(pool, name, {})
    needs = pool.open(name).needs(asked(name))
    for parts in (needs.encode, needs.drawing, needs.finish):
        pool.bring(name, parts, {name: NOTHING})
    assert not read_again()
    assert pool.host_bytes <= host_gb * GIGABYTE
    assert pool.used_bytes <= pool.budget_bytes


def test_a_load_whose_requests_are_gone_is_taken_and_leaves_for_others() -> None:
    pool = pool_of(host_gb=0)
    load(pool, KOLORS, {})
    needs = pool.open(SDXL).needs(asked(SDXL))
    for parts in (needs.encode, needs.drawing):
        pool.bring(SDXL, parts, {SDXL: needs.drawing})
    assert pool.used_bytes <= pool.budget_bytes
    assert pool.host_bytes == 0


def test_a_pipeline_that_left_altogether_comes_back_with_the_texts_that_it_has_read() -> None:
    pool = pool_of(host_gb=0)
    load(pool, SDXL, {})
    pipeline = pool.open(SDXL)
    pipeline.encode(asked(SDXL))
    assert pool.relieve({})
    assert pool.resident == ()
    load(pool, SDXL, {})
    assert pool.open(SDXL) is pipeline
    assert not [part for part in pipeline.needs(asked(SDXL)).encode if "text_encoder" in part]
