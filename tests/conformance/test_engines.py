"""What every engine promises, whatever it is made of: one suite over all implementations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from pipelines.drawing import Drawing, Timings
from pipelines.errors import EngineLost, UnknownPipeline
from pipelines.image_io import RGBImage
from pipelines.messages import (
    Cancel,
    ClearCache,
    Done,
    Draw,
    Drawn,
    EngineConfig,
    Failed,
    PartResidency,
    Progress,
    Ready,
    Residency,
    Stop,
)
from pipelines.request import Request, TextToImage
from server.engines.engine import Engine, EngineMemory, EngineState
from server.engines.process import LocalEngine

pytestmark = pytest.mark.anyio

PIPELINE = "stable-diffusion-v1-5"


def paint(connection: Connection[Any, Any], config: EngineConfig) -> None:
    """An engine process that speaks the messages and paints every picture grey; 50 steps never end."""
    connection.send(Ready(config.device, (PIPELINE,), config.budget_bytes))
    connection.send(Residency((PIPELINE,), 1000, (PartResidency(PIPELINE, "unet", "device", 1000),)))
    while True:
        match connection.recv():
            case Draw(ticket_id, request) if request.pipeline != PIPELINE:
                connection.send(Failed(ticket_id, UnknownPipeline(f"{request.pipeline} is unknown")))
            case Draw(ticket_id, request):
                total = request.num_inference_steps
                for done in range(1, total + 1 if total < 50 else 3):
                    connection.send(Progress(ticket_id, done, total))
                if total < 50:
                    connection.send(Drawn(ticket_id, painted(request)))
            case Cancel():
                pass
            case ClearCache(maintenance_id):
                connection.send(Done(maintenance_id))
            case Stop():
                return


def painted(request: Request) -> Drawing:
    image = RGBImage(request.width, request.height, b"\x80" * (request.width * request.height * 3))
    timings = Timings(encode_s=0, denoise_s=0, decode_s=0)
    return Drawing(images=(image,) * len(request.seeds), flagged=None, timings=timings)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def local_engine(manifest: Path | None) -> LocalEngine:
    """One that draws with the checkpoints of a manifest, or paints without any."""
    config = EngineConfig(
        device="cpu",
        manifest=manifest or Path("none"),
        weights=Path("none"),
        budget_bytes=10**9,
        group_pixels=16 * 512 * 512,
        torch_threads=1,
        preload=False,
    )
    return LocalEngine(config) if manifest else LocalEngine(config, target=paint)


@pytest.fixture(
    scope="module",
    params=["a process that paints", pytest.param("a process that draws", marks=pytest.mark.slow)],
)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    draws = request.param == "a process that draws"
    made = local_engine(request.getfixturevalue("demo_manifest_path") if draws else None)
    await made.start()
    await until_state(made, EngineState.ready)
    yield made
    await made.stop()


async def until_state(engine: Engine, state: EngineState) -> None:
    seen = asyncio.Event()

    def look() -> None:
        if engine.state is state:
            seen.set()

    engine.watch(look)
    look()
    async with asyncio.timeout(60):
        await seen.wait()


def boat(*, steps: int = 3, pictures: int = 1, pipeline: str = PIPELINE) -> TextToImage:
    return TextToImage(
        pipeline=pipeline,
        prompt="a boat",
        width=64,
        height=128,
        num_inference_steps=steps,
        guidance_scale=5.0,
        seeds=tuple(range(pictures)),
    )


def ignore(done: int, total: int) -> None:
    pass


async def begun(
    engine: Engine, ticket_id: str, request: Request, on_progress: Callable[[int, int], None] = ignore
) -> asyncio.Task[Drawing]:
    """A draw that has reported its first step."""
    first = asyncio.Event()

    def progress(done: int, total: int) -> None:
        on_progress(done, total)
        first.set()

    task = asyncio.create_task(engine.draw(ticket_id, request, progress))
    async with asyncio.timeout(60):
        await first.wait()
    return task


async def test_an_engine_tells_what_it_has_loaded_and_has_nothing_when_it_starts_anew(engine: Engine) -> None:
    await engine.draw("first", boat(), lambda done, total: None)
    memory = engine.memory
    assert (memory.device, memory.budget_bytes) == ("cpu", 10**9)
    assert {"unet"} <= {part.part for part in memory.parts if part.pipeline == PIPELINE}
    assert memory.used_bytes == sum(part.nbytes for part in memory.parts if part.place == "device") > 0
    seen: list[EngineMemory] = []
    engine.watch(lambda: seen.append(engine.memory))
    await engine.restart()
    assert EngineMemory() in seen
    await until_state(engine, EngineState.ready)
    assert engine.memory.budget_bytes == 10**9


async def test_a_ready_engine_gives_no_reason(engine: Engine) -> None:
    assert engine.state is EngineState.ready
    assert engine.reason is None


async def test_one_picture_per_seed_comes_back_in_the_size_asked_for(engine: Engine) -> None:
    drawing = await engine.draw("one", boat(pictures=3), ignore)
    assert [(image.width, image.height, len(image.pixels)) for image in drawing.images] == [
        (64, 128, 64 * 128 * 3)
    ] * 3


async def test_a_pipeline_that_has_drawn_is_resident(engine: Engine) -> None:
    await engine.draw("one", boat(), ignore)
    assert PIPELINE in engine.resident


async def test_progress_counts_every_step_up_to_the_total(engine: Engine) -> None:
    steps: list[tuple[int, int]] = []
    await engine.draw("one", boat(steps=6), lambda done, total: steps.append((done, total)))
    totals = {total for _, total in steps}
    assert len(totals) == 1
    total = totals.pop()
    assert total >= 6
    assert [done for done, _ in steps] == list(range(1, total + 1))


async def test_many_requests_are_drawn_at_the_same_time(engine: Engine) -> None:
    long = await begun(engine, "long", boat(steps=50))
    async with asyncio.timeout(60):
        drawings = await asyncio.gather(*(engine.draw(str(index), boat(), ignore) for index in range(5)))
    assert len(drawings) == 5
    assert not long.done()
    long.cancel()


async def test_cancelling_one_draw_touches_no_other(engine: Engine) -> None:
    withdrawn = await begun(engine, "withdrawn", boat(steps=50))
    other = await begun(engine, "other", boat(steps=20))
    withdrawn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await withdrawn
    assert len((await other).images) == 1


async def test_a_cancelled_ticket_id_can_be_used_again(engine: Engine) -> None:
    withdrawn = await begun(engine, "same", boat(steps=50))
    withdrawn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await withdrawn
    assert len((await engine.draw("same", boat(pictures=2), ignore)).images) == 2


async def test_a_request_that_cannot_be_drawn_fails_and_the_engine_goes_on(engine: Engine) -> None:
    with pytest.raises(UnknownPipeline):
        await engine.draw("bad", boat(pipeline="nothing"), ignore)
    assert len((await engine.draw("good", boat(), ignore)).images) == 1


async def test_a_stopped_engine_has_lost_its_work_draws_no_more_and_can_be_started_again(
    engine: Engine,
) -> None:
    running = await begun(engine, "running", boat(steps=50))
    await engine.stop()
    with pytest.raises(EngineLost):
        await running
    assert engine.state is EngineState.stopped
    assert engine.reason
    assert not engine.resident
    with pytest.raises(EngineLost):
        await engine.draw("late", boat(), ignore)
    await engine.start()
    await until_state(engine, EngineState.ready)
    assert len((await engine.draw("again", boat(), ignore)).images) == 1


async def test_an_order_is_carried_out_beside_a_drawing_that_goes_on(engine: Engine) -> None:
    drawing = await begun(engine, "long", boat(steps=20))
    async with asyncio.timeout(60):
        await asyncio.gather(engine.maintain(ClearCache("first")), engine.maintain(ClearCache("second")))
    assert len((await drawing).images) == 1


async def test_a_restarted_engine_has_lost_its_work_and_draws_again(engine: Engine) -> None:
    running = await begun(engine, "running", boat(steps=50))
    await engine.restart()
    with pytest.raises(EngineLost):
        await running
    await until_state(engine, EngineState.ready)
    assert len((await engine.draw("next", boat(), ignore)).images) == 1


async def test_a_stopped_engine_has_nothing_to_obey_and_is_not_started_by_a_restart(engine: Engine) -> None:
    await engine.stop()
    await engine.restart()
    async with asyncio.timeout(10):
        await engine.maintain(ClearCache("nobody"))
    assert engine.state is EngineState.stopped
    await engine.start()
    await until_state(engine, EngineState.ready)


async def test_nobody_waits_for_an_order_to_an_engine_that_is_stopped(engine: Engine) -> None:
    running = await begun(engine, "running", boat(steps=50))
    order = asyncio.create_task(engine.maintain(ClearCache("lost")))
    async with asyncio.timeout(60):
        await engine.stop()
        await order
    with pytest.raises(EngineLost):
        await running


async def test_a_process_that_draws_draws_refuses_obeys_and_loses_its_work_when_it_is_stopped(
    demo_manifest_path: Path,
) -> None:
    """In short what the tests above show at length: each start of such a process takes seconds."""
    engine = local_engine(demo_manifest_path)
    await engine.start()
    try:
        await until_state(engine, EngineState.ready)
        steps: list[int] = []
        drawing = await engine.draw("one", boat(), lambda done, total: steps.append(done))
        assert [(image.width, image.height) for image in drawing.images] == [(64, 128)]
        assert steps == list(range(1, len(steps) + 1))
        assert PIPELINE in engine.resident
        with pytest.raises(UnknownPipeline):
            await engine.draw("bad", boat(pipeline="nothing"), ignore)
        async with asyncio.timeout(60):
            await engine.maintain(ClearCache("order"))
        running = await begun(engine, "running", boat(steps=50))
    finally:
        await engine.stop()
    with pytest.raises(EngineLost):
        await running
    assert engine.state is EngineState.stopped
