"""Pipelines that are read beside others on a card of 24 GB: who draws, and what is brought, has its room."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from pipelines.checkpoints.pace import Pace
from pipelines.denoising.needs import NOTHING
from pipelines.engine.loader import Loader
from pipelines.engine.parts import Opened
from pipelines.engine.plan import weights_budget
from pipelines.engine.pool import PipelinePool
from pipelines.weights.manifest import Manifest
from tests.gpu.stages import SIDES, default_request
from tests.memory_budget import CountedMoves, dummies

GIGABYTE = 10**9
KANDINSKY, KOLORS, SD3, SD15, SDXL = SIDES


def asked(name: str):
    return default_request(name, (1,), side=SIDES[name], steps=4, prompt="a cat")


def pool_of(
    manifest: Manifest, *, card_gb: float = 24, host_gb: float = 64, mover: CountedMoves | None = None
) -> PipelinePool:
    return PipelinePool(
        manifest,
        Path(),
        torch.device("meta"),
        budget_bytes=weights_budget(manifest, int(card_gb * GIGABYTE)),
        host_budget_bytes=int(host_gb * GIGABYTE),
        mover=mover or CountedMoves(),
    )


@pytest.mark.parametrize("name", [SD15, SDXL, KANDINSKY])
def test_others_are_taken_while_a_large_one_is_read(name: str) -> None:
    """As a whole Kolors would leave no room beside it; it is never there as a whole while others draw."""
    pool = pool_of(dummies())
    running = {KOLORS: []}
    assert pool.can_open(name, running)
    assert pool.can_take(asked(name), running)


def test_what_is_read_meanwhile_moves_nothing_that_draws() -> None:
    mover = CountedMoves()
    pool = pool_of(dummies(), host_gb=0, mover=mover)
    needs = pool.open(SDXL).needs(asked(SDXL))
    pool.bring(SDXL, needs.drawing, {})
    in_use = {SDXL: needs.drawing, SD15: NOTHING}
    loader = Loader(pool)
    assert not loader.ready(SD15, in_use)
    while not (ended := loader.finished(in_use)):
        pass
    assert ended == [(SD15, None)]
    assert "unet" in {part.part for part in pool.parts if (part.pipeline, part.place) == (SDXL, "device")}
    assert not mover.left
    assert pool.used_bytes <= pool.budget_bytes


class _Counting(PipelinePool):
    """Counts how often each network is read again."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.again = Counter[str]()

    def read(self, name: str, pace: Pace | None = None) -> Opened:
        opened = super().read(name, pace)
        for part in opened.parts.values():
            part.read = self._counted(part.name, part.module)
        return opened

    def _counted(self, name: str, module: torch.nn.Module):
        def read() -> torch.nn.Module:
            self.again[name] += 1
            return module

        return read


def test_what_is_preloaded_takes_only_free_room_and_is_read_once() -> None:
    """The steps' networks come first; text encoders too where they fit, and nothing leaves for them."""
    mover = CountedMoves()
    pool = _Counting(
        dummies(),
        Path(),
        torch.device("meta"),
        budget_bytes=weights_budget(dummies(), 24 * GIGABYTE),
        host_budget_bytes=0,
        mover=mover,
    )
    for name in (SDXL, KOLORS):
        pool.preload(name)
    there = {(part.pipeline, part.part) for part in pool.parts if part.place == "device"}
    assert {(SDXL, "unet"), (SDXL, "text_encoder_2"), (KOLORS, "unet"), (KOLORS, "vae")} <= there
    assert (KOLORS, "text_encoder") not in there  # 12.5 GB
    assert pool.used_bytes <= pool.budget_bytes
    assert not mover.left
    assert not pool.again
