"""The pages of the real weights.yaml, networks of full size without numbers, on cards of several sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.denoising.needs import NOTHING
from pipelines.denoising.pipeline import Pipeline
from pipelines.engine import opening as opening_module
from pipelines.engine.pool import PipelinePool
from pipelines.errors import NeverFits, OutOfMemory
from pipelines.families.registry import open_pipeline
from pipelines.weights.manifest import Manifest
from pipelines.weights.memory import Fit, fits
from pipelines.weights.memory import budget_bytes as weights_budget
from tests.gpu.stages import SIDES, default_request
from tests.memory_budget import CountedMoves, Walk, dummies

GIGABYTE = 10**9
KANDINSKY, KOLORS, SD3, SD15, SDXL = SIDES
PAGES = (SD15, SDXL, KANDINSKY, KOLORS, SD3)
META = torch.device("meta")


@cache
def described() -> Manifest:
    return dummies()


@cache
def opened(name: str) -> Pipeline:
    """One pipeline for all tests: building its networks takes seconds, and no test changes them."""
    manifest = described()
    checkpoint = Checkpoint(name, manifest, manifest.pipelines[name], Path(), META)
    return open_pipeline(checkpoint, AdapterLibrary(manifest, Path()))


@pytest.fixture(autouse=True)
def _opened_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    times = Counter[str]()

    def once(checkpoint: Checkpoint, adapters: AdapterLibrary) -> Pipeline:
        pipeline = opened(checkpoint.name)
        times[checkpoint.name] += 1
        if times[checkpoint.name] > 1:
            pipeline.clear_cache()  # as one that is opened anew
        for module in pipeline.modules.values():
            checkpoint.readers[module] = lambda module=module: module
        return pipeline

    monkeypatch.setattr(opening_module, "open_pipeline", once)
    yield
    for name in SIDES:
        opened(name).clear_cache()


def asked(name: str, prompt: str = "a cat"):
    return default_request(name, (1,), side=SIDES[name], steps=4, prompt=prompt)


def walk(card_gb: float, *, host_gb: float = 64, mover: CountedMoves | None = None) -> Walk:
    budget = weights_budget(described(), int(card_gb * GIGABYTE))
    pool = PipelinePool(
        described(),
        Path(),
        META,
        budget_bytes=budget,
        host_budget_bytes=int(host_gb * GIGABYTE),
        mover=mover or CountedMoves(),
        device_bytes=int(card_gb * GIGABYTE),
    )
    return Walk(pool)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "card_gb",
    [pytest.param(8, marks=SLOW), 12, pytest.param(16, marks=SLOW), 24, pytest.param(48, marks=SLOW), 80],
)
def test_what_the_table_of_cards_promises_is_what_the_pool_does(card_gb: int) -> None:
    promised = fits(described(), card_gb * GIGABYTE)
    on_card = walk(card_gb)
    for name in (*PAGES, *PAGES):
        if promised[name] is Fit.never:
            with pytest.raises(NeverFits, match=f"{name} needs .* GB of a device's memory, and there are"):
                on_card.pool.can_take(asked(name), {})
        else:
            on_card.draw(asked(name))
    assert on_card.most_bytes <= on_card.pool.budget_bytes
    refused = {refusal.pipeline for refusal in on_card.pool.too_large()}
    assert refused == {name for name in PAGES if promised[name] is Fit.never}


def test_the_cards_that_are_promised() -> None:
    """The figures of the README: 12 GB draw three pages, 24 GB all five."""
    drawn = {card: {name for name in PAGES if _fits(card, name)} for card in (12, 24, 48)}
    assert drawn == {12: {SD15, SDXL, KANDINSKY}, 24: set(PAGES), 48: set(PAGES)}


def _fits(card_gb: int, name: str) -> bool:
    try:
        return walk(card_gb).pool.can_take(asked(name), {})
    except NeverFits:
        return False


def test_on_80_gb_everything_stays() -> None:
    mover = CountedMoves()
    on_card = walk(80, mover=mover)
    for _ in range(3):
        for name in PAGES:
            on_card.draw(asked(name))
    assert not mover.left
    assert set(mover.came.values()) == {1}


@pytest.mark.parametrize("host_gb", [pytest.param(64, marks=SLOW), 16, pytest.param(0, marks=SLOW)])
def test_on_24_gb_all_pages_alternate_50_times_in_flat_memory_and_no_text_moves(host_gb: int) -> None:
    mover = CountedMoves()
    on_card = walk(24, host_gb=host_gb, mover=mover)
    pool = on_card.pool
    after: list[tuple[int, int]] = []
    encoders = {
        module for name in PAGES for part, module in opened(name).modules.items() if "text_encoder" in part
    }
    came = 0
    for round_ in range(50):
        for name in PAGES:
            on_card.draw(asked(name))
        after.append((pool.used_bytes, pool.host_bytes))
        if round_ == 0:
            came = sum(mover.came[module] for module in encoders)
    assert on_card.most_bytes <= pool.budget_bytes
    assert on_card.most_host_bytes <= host_gb * GIGABYTE
    assert len(set(after[1:])) == 1
    assert sum(mover.came[module] for module in encoders) == came == len(encoders)


def test_text_encoders_come_back_for_new_prompts_and_leave_first() -> None:
    mover = CountedMoves()
    on_card = walk(24, mover=mover)
    for prompt in ("a cat", "a dog", "a fox"):
        for name in PAGES:
            on_card.draw(asked(name, prompt))
    assert on_card.most_bytes <= on_card.pool.budget_bytes
    glm, t5 = opened(KOLORS).modules["text_encoder"], opened(SD3).modules["text_encoder_3"]
    assert (mover.came[glm], mover.came[t5]) == (3, 3)


def test_what_runs_never_leaves() -> None:
    on_card = walk(24)
    pool = on_card.pool
    needs = {name: opened(name).needs(asked(name)) for name in PAGES}
    in_use = {}
    for name in (SDXL, SD15):
        pool.open(name)
        pool.bring(name, needs[name].drawing, in_use)
        in_use[name] = needs[name].drawing
    running = {name: [needs[name]] for name in in_use}
    assert pool.can_take(asked(KOLORS), running)
    pool.open(KOLORS, in_use)
    pool.bring(KOLORS, needs[KOLORS].encode, in_use)
    pool.relieve({**in_use, KOLORS: NOTHING})
    there = {(part.pipeline, part.part) for part in pool.parts if part.place == "device"}
    assert there == {(SDXL, "unet"), (SD15, "unet")}
    with pytest.raises(OutOfMemory):  # ChatGLM and SDXL's and SD1.5's UNets, and T5
        pool.bring(KOLORS, needs[KOLORS].encode, {**in_use, SD3: NOTHING, KANDINSKY: NOTHING} | _all_of(pool))


def _all_of(pool: PipelinePool):
    pool.open(SD3)
    everything = frozenset(opened(SD3).modules)
    pool.bring(SD3, everything - {"text_encoder_3"}, {})
    pool.bring(SD3, everything, {})
    return {SD3: everything}


def test_others_wait_that_do_not_fit_beside_what_runs() -> None:
    pool = walk(16).pool
    pool.open(SDXL)
    running = {SDXL: [opened(SDXL).needs(asked(SDXL))]}
    assert pool.can_take(asked(KOLORS), {})
    assert not pool.can_take(asked(KOLORS), running)
    assert not pool.can_open(KOLORS, running)
    assert pool.can_take(asked(SD15), running)


def test_what_is_pinned_leaves_last_and_comes_back() -> None:
    manifest = described().model_copy(
        update={
            "pipelines": {
                name: entry.model_copy(update={"resident": name == KANDINSKY})
                for name, entry in described().pipelines.items()
            }
        }
    )
    budget = weights_budget(manifest, 24 * GIGABYTE)
    pool = PipelinePool(
        manifest, Path(), META, budget_bytes=budget, host_budget_bytes=64 * GIGABYTE, mover=CountedMoves()
    )
    on_card = Walk(pool)

    def place(name: str, part: str) -> str:
        return next(each.place for each in pool.parts if (each.pipeline, each.part) == (name, part))

    on_card.draw(asked(KANDINSKY))
    on_card.draw(asked(SDXL))
    on_card.draw(asked(SD15))
    assert place(KANDINSKY, "prior.text_encoder") == "device"
    on_card.draw(asked(KOLORS))
    assert place(SDXL, "text_encoder_2") == "host"
    assert place(KANDINSKY, "prior.text_encoder") == "device"
    pool.relieve({SDXL: NOTHING})
    assert {part.pipeline for part in pool.parts if part.place == "device"} == {KANDINSKY}
    pool.relieve({SDXL: NOTHING})
    assert pool.used_bytes == 0
    on_card.draw(asked(KANDINSKY))
    assert on_card.most_bytes <= budget
