"""From a request to its drawing: engines are fed, come and go; callers wait, are retried, or told why not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest

from pipelines.drawing import Drawing, Timings
from pipelines.errors import EngineLost, OutOfMemory
from pipelines.image_io import RGBImage
from pipelines.messages import Absent, ClearCache, Maintenance
from pipelines.request import Request, TextToImage
from server import errors
from server.engines.dispatch import Dispatch
from server.engines.engine import EngineState
from server.engines.queue import JobQueue

pytestmark = pytest.mark.anyio

T = TypeVar("T")

DRAWING = Drawing(
    images=(RGBImage(1, 1, b"\1\2\3"),),
    flagged=None,
    timings=Timings(encode_s=0, denoise_s=0, decode_s=0),
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def soon(awaited: Awaitable[T]) -> T:
    """A test that has to wait for something which never comes fails instead."""
    return await asyncio.wait_for(awaited, 5)


class HandEngine:
    """An engine whose drawings are finished by hand, through the futures in ``drawings``."""

    def __init__(self, name: str = "hand", *, resident: str = "sd15") -> None:
        self.name, self.group_pixels = name, 4 * 512 * 512
        self.state, self.reason = EngineState.stopped, "not started"
        self.resident = frozenset(resident.split())
        self.absences: tuple[Absent, ...] = ()
        self.drawings: dict[str, asyncio.Future[Drawing]] = {}
        self.arrived: asyncio.Queue[str] = asyncio.Queue()
        self.on_change: Callable[[], None] = lambda: None
        self.restarts = 0
        self.maintenance: list[Maintenance] = []

    def watch(self, on_change: Callable[[], None]) -> None:
        self.on_change = on_change

    async def start(self) -> None:
        self.become(EngineState.ready)

    async def stop(self) -> None:
        self.become(EngineState.stopped, "stopped")

    async def restart(self) -> None:
        self.restarts += 1
        self.become(EngineState.starting, "restarting")

    async def maintain(self, maintenance: Maintenance) -> None:
        self.maintenance.append(maintenance)

    async def draw(
        self, ticket_id: str, request: Request, on_progress: Callable[[int, int], None]
    ) -> Drawing:
        self.drawings[ticket_id] = asyncio.get_running_loop().create_future()
        self.arrived.put_nowait(ticket_id)
        on_progress(1, 4)
        try:
            return await self.drawings[ticket_id]
        finally:
            del self.drawings[ticket_id]

    def become(self, state: EngineState, reason: str | None = None) -> None:
        self.state, self.reason = state, reason
        if state is not EngineState.ready:
            for drawing in self.drawings.values():
                drawing.set_exception(EngineLost("lost"))
        self.on_change()

    async def finish_next(self) -> None:
        self.drawings[await self.next_arrival()].set_result(DRAWING)

    async def next_arrival(self) -> str:
        return await soon(self.arrived.get())


def request(pipeline: str = "sd15", side: int = 512, pictures: int = 1) -> TextToImage:
    return TextToImage(
        pipeline=pipeline,
        prompt="a boat",
        width=side,
        height=side,
        num_inference_steps=4,
        guidance_scale=5.0,
        seeds=tuple(range(pictures)),
    )


def dispatch_to(*engines: HandEngine, limit: int = 100, timeout_s: float = 60) -> Dispatch:
    queue = JobQueue(limit=limit, limit_per_account=limit)
    return Dispatch(engines, queue, queue_timeout_s=timeout_s)


def draw(dispatch: Dispatch, wanted: Request | None = None, *, account_id: int = 1) -> asyncio.Task[Drawing]:
    return asyncio.create_task(
        dispatch.draw(wanted or request(), account_id=account_id, on_progress=lambda done, total: None)
    )


async def until(holds: Callable[[], bool]) -> None:
    """Let the other tasks run until it holds; everything here is in memory, so that is a matter of turns."""
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to hold")


@pytest.fixture
async def engine() -> HandEngine:
    return HandEngine()


@pytest.fixture
async def dispatch(engine: HandEngine) -> AsyncIterator[Dispatch]:
    one = dispatch_to(engine)
    await one.start()
    yield one
    await one.stop()


async def test_a_request_is_drawn_and_its_progress_and_start_are_told(
    dispatch: Dispatch, engine: HandEngine
) -> None:
    told: list[object] = []

    async def on_start() -> None:
        told.append("start")

    drawing = asyncio.create_task(
        dispatch.draw(
            request(), account_id=1, on_progress=lambda *steps: told.append(steps), on_start=on_start
        )
    )
    await engine.finish_next()
    assert await soon(drawing) == DRAWING
    assert told == ["start", (1, 4)]
    assert (dispatch.queue_length, dispatch.running) == (0, 0)


async def test_an_engine_is_fed_up_to_its_room_and_the_rest_waits(
    dispatch: Dispatch, engine: HandEngine
) -> None:
    drawings = [draw(dispatch) for _ in range(6)]
    await until(lambda: len(engine.drawings) == 4)
    assert (dispatch.running, dispatch.queue_length) == (4, 2)
    for _ in drawings:
        await engine.finish_next()
    assert await soon(asyncio.gather(*drawings)) == [DRAWING] * 6


async def test_a_request_for_another_pipeline_goes_at_once_beside_a_full_group(
    dispatch: Dispatch, engine: HandEngine
) -> None:
    backlog = [draw(dispatch, account_id=1) for _ in range(20)]
    await until(lambda: len(engine.drawings) == 4)
    other = draw(dispatch, request("kolors"), account_id=2)
    await until(lambda: len(engine.drawings) == 5)
    assert dispatch.queue_length == 16
    for task in [*backlog, other]:
        task.cancel()


async def test_thirty_callers_on_one_account_at_once_are_queued() -> None:
    engine = HandEngine()
    dispatch = Dispatch([engine], JobQueue(limit=1000, limit_per_account=200), queue_timeout_s=60)
    await dispatch.start()
    drawings = [draw(dispatch) for _ in range(30)]
    for _ in drawings:
        await engine.finish_next()
    assert await soon(asyncio.gather(*drawings)) == [DRAWING] * 30
    await dispatch.stop()


async def test_a_full_queue_refuses_and_says_so_beforehand(engine: HandEngine) -> None:
    dispatch = dispatch_to(engine, limit=1)
    await dispatch.start()
    drawings = [draw(dispatch) for _ in range(5)]
    await until(lambda: dispatch.queue_length == 1)
    with pytest.raises(errors.QueueFull):
        dispatch.refuse_if_full(1)
    with pytest.raises(errors.QueueFull):
        await soon(draw(dispatch))
    for task in drawings:
        task.cancel()


async def test_a_request_that_waits_too_long_is_told_and_the_others_go_on(engine: HandEngine) -> None:
    dispatch = dispatch_to(engine, timeout_s=0.01)
    await dispatch.start()
    drawings = [draw(dispatch) for _ in range(5)]
    with pytest.raises(errors.QueueTimeout):
        await soon(drawings.pop())
    for _ in drawings:
        await engine.finish_next()
    assert await soon(asyncio.gather(*drawings)) == [DRAWING] * 4


async def test_a_request_of_a_lost_engine_is_drawn_again_by_the_next_one() -> None:
    first, second = HandEngine("first"), HandEngine("second", resident="kolors")
    dispatch = dispatch_to(first, second)
    await dispatch.start()
    drawing = draw(dispatch)
    await until(lambda: len(first.drawings) == 1)
    first.become(EngineState.starting, "starting again")
    await second.finish_next()
    assert await soon(drawing) == DRAWING
    await dispatch.stop()


async def test_a_pipeline_that_an_engine_is_about_to_load_is_not_loaded_by_a_second_one() -> None:
    first, second = HandEngine("first"), HandEngine("second")
    dispatch = dispatch_to(first, second)
    await dispatch.start()
    drawings = [draw(dispatch, request("kolors", side=side)) for side in (512, 768)]
    await until(lambda: len(first.drawings) + len(second.drawings) == 2)
    assert (len(first.drawings), len(second.drawings)) == (2, 0)
    await dispatch.stop()
    for task in drawings:
        with pytest.raises(EngineLost):
            await soon(task)


async def test_a_retried_request_goes_before_those_that_wait(dispatch: Dispatch, engine: HandEngine) -> None:
    lost = draw(dispatch, request(pictures=4))
    await until(lambda: len(engine.drawings) == 1)
    others = [draw(dispatch, request(pictures=4)) for _ in range(3)]
    await until(lambda: dispatch.queue_length == 3)
    engine.become(EngineState.starting, "starting again")
    await until(lambda: dispatch.queue_length == 4)
    engine.become(EngineState.ready)
    await engine.next_arrival()
    await engine.finish_next()
    await until(lost.done)
    assert lost.result() == DRAWING
    assert not any(task.done() for task in others)
    for task in others:
        task.cancel()


async def test_a_request_that_lost_two_engines_fails(dispatch: Dispatch, engine: HandEngine) -> None:
    drawing, other = draw(dispatch, request(pictures=4)), draw(dispatch, request(pictures=4))
    for _ in range(2):
        await engine.next_arrival()
        engine.become(EngineState.starting, "starting again")
        await until(lambda: dispatch.running == 0)
        engine.become(EngineState.ready)
    with pytest.raises(EngineLost):
        await soon(drawing)
    await engine.finish_next()
    assert await soon(other) == DRAWING


async def test_an_engine_that_is_lost_before_it_began_costs_no_attempt(
    dispatch: Dispatch, engine: HandEngine
) -> None:
    starts = 0

    async def lose_three_times() -> None:
        nonlocal starts
        starts += 1
        if starts <= 3:
            engine.become(EngineState.starting, "starting again")

    drawing = asyncio.create_task(
        dispatch.draw(request(), account_id=1, on_progress=lambda *_: None, on_start=lose_three_times)
    )
    for lost in range(3):
        await until(lambda lost=lost: starts == lost + 1 and dispatch.queue_length == 1)
        engine.become(EngineState.ready)
    await engine.finish_next()
    assert await soon(drawing) == DRAWING


async def test_a_request_that_cannot_be_drawn_fails_alone_and_is_not_retried(
    dispatch: Dispatch, engine: HandEngine
) -> None:
    bad, good = draw(dispatch), draw(dispatch)
    engine_ticket = await engine.next_arrival()
    engine.drawings[engine_ticket].set_exception(OutOfMemory("too large"))
    with pytest.raises(OutOfMemory):
        await soon(bad)
    await engine.finish_next()
    assert await soon(good) == DRAWING


async def test_a_failing_start_gives_the_room_back(dispatch: Dispatch, engine: HandEngine) -> None:
    async def fail() -> None:
        raise errors.NotFound("no such job")

    with pytest.raises(errors.NotFound):
        await dispatch.draw(request(), account_id=1, on_progress=lambda *_: None, on_start=fail)
    assert (dispatch.queue_length, dispatch.running) == (0, 0)


async def test_cancelling_a_waiting_request_touches_no_other(dispatch: Dispatch, engine: HandEngine) -> None:
    drawings = [draw(dispatch, request(pictures=4)) for _ in range(3)]
    await until(lambda: dispatch.queue_length == 2)
    drawings[1].cancel()
    await until(lambda: dispatch.queue_length == 1)
    await engine.finish_next()
    await engine.finish_next()
    assert await soon(asyncio.gather(drawings[0], drawings[2])) == [DRAWING] * 2


async def test_cancelling_a_request_on_an_engine_withdraws_it_and_frees_its_room(
    dispatch: Dispatch, engine: HandEngine
) -> None:
    first, second = draw(dispatch, request(pictures=4)), draw(dispatch, request(pictures=4))
    withdrawn = await engine.next_arrival()
    first.cancel()
    await until(lambda: len(engine.drawings) == 1 and withdrawn not in engine.drawings)
    await engine.finish_next()
    assert await soon(second) == DRAWING
    assert dispatch.running == 0


async def test_cancelling_in_the_instant_of_being_taken_frees_the_room(engine: HandEngine) -> None:
    dispatch = dispatch_to(engine)
    await dispatch.start()
    engine.become(EngineState.starting, "loading sd15")
    drawing = draw(dispatch)
    await until(lambda: dispatch.queue_length == 1)
    engine.become(EngineState.ready)
    assert dispatch.running == 1
    drawing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(drawing)
    assert (dispatch.running, len(engine.drawings)) == (0, 0)


async def test_readiness_names_the_reason_and_requests_wait_for_it(
    dispatch: Dispatch, engine: HandEngine
) -> None:
    assert dispatch.readiness() is None
    engine.become(EngineState.starting, "loading kolors")
    assert dispatch.readiness() == "loading kolors"
    drawing = draw(dispatch)
    await until(lambda: dispatch.queue_length == 1)
    engine.become(EngineState.ready)
    await engine.finish_next()
    assert await soon(drawing) == DRAWING


async def test_one_ready_engine_is_enough_and_an_engine_joins_late() -> None:
    first, second = HandEngine("a"), HandEngine("b", resident="kolors")
    dispatch = dispatch_to(first, second)
    await dispatch.start()
    first.become(EngineState.starting, "loading sd15")
    assert dispatch.readiness() is None
    assert dispatch.resident() == ("kolors",)
    second.become(EngineState.failed, "did not start: no such weights")
    assert dispatch.readiness() == "loading sd15"
    first.become(EngineState.failed, "did not start: no device")
    expected = "no engine is running: a: did not start: no device; b: did not start: no such weights"
    assert dispatch.readiness() == expected
    await dispatch.stop()


async def test_without_hope_of_an_engine_nobody_is_left_waiting(
    dispatch: Dispatch, engine: HandEngine
) -> None:
    engine.become(EngineState.starting, "loading sd15")
    waiting = draw(dispatch)
    await until(lambda: dispatch.queue_length == 1)
    engine.become(EngineState.failed, "did not start: weights are missing")
    with pytest.raises(errors.Unavailable, match="weights are missing"):
        await soon(waiting)
    with pytest.raises(errors.Unavailable, match="weights are missing"):
        dispatch.refuse_if_full(1)
    with pytest.raises(errors.Unavailable, match="weights are missing"):
        await soon(draw(dispatch))


async def test_stopping_fails_what_waits_and_what_is_drawn(engine: HandEngine) -> None:
    dispatch = dispatch_to(engine)
    await dispatch.start()
    drawn, waiting = draw(dispatch, request(pictures=4)), draw(dispatch, request(pictures=4))
    await until(lambda: dispatch.running == 1 and dispatch.queue_length == 1)
    await dispatch.stop()
    with pytest.raises(EngineLost):
        await soon(drawn)
    with pytest.raises(errors.Unavailable, match="stopping"):
        await soon(waiting)
    assert dispatch.readiness() == "the server is stopping"


async def test_engines_of_the_same_name_are_refused() -> None:
    with pytest.raises(ValueError, match="same name"):
        dispatch_to(HandEngine("a"), HandEngine("a"))


async def test_a_restart_lets_what_is_drawn_finish_and_keeps_what_waits(
    dispatch: Dispatch, engine: HandEngine
) -> None:
    drawn, waiting = draw(dispatch, request(pictures=4)), draw(dispatch, request(pictures=4))
    await until(lambda: len(engine.drawings) == 1 and dispatch.queue_length == 1)
    dispatch.restart()
    small = draw(dispatch, request("kolors"))  # would fit beside the one that is drawn
    await until(lambda: dispatch.queue_length == 2)
    assert engine.restarts == 0
    await engine.finish_next()
    assert await soon(drawn) == DRAWING
    await until(lambda: engine.restarts == 1)
    assert (dispatch.running, dispatch.queue_length) == (0, 2)
    engine.become(EngineState.ready)
    await engine.finish_next()
    await engine.finish_next()
    assert await soon(asyncio.gather(waiting, small)) == [DRAWING] * 2


async def test_engines_are_restarted_one_after_the_other_and_the_others_draw_on() -> None:
    first, second = HandEngine("a"), HandEngine("b")
    dispatch = dispatch_to(first, second)
    await dispatch.start()
    dispatch.restart()
    dispatch.restart()  # while the first one is under way: nothing happens twice
    await until(lambda: first.restarts == 1)
    drawing = draw(dispatch)
    await second.finish_next()
    assert await soon(drawing) == DRAWING
    assert second.restarts == 0
    first.become(EngineState.ready)
    await until(lambda: second.restarts == 1)
    second.become(EngineState.ready)
    assert first.restarts == 1
    await dispatch.stop()


async def test_a_server_that_stops_in_the_middle_of_a_restart_waits_for_nothing() -> None:
    engine = HandEngine()
    dispatch = dispatch_to(engine)
    await dispatch.start()
    drawn = draw(dispatch)
    await engine.next_arrival()
    dispatch.restart()
    await soon(dispatch.stop())
    with pytest.raises(EngineLost):
        await soon(drawn)
    assert engine.restarts == 0


async def test_every_engine_is_told_to_forget_under_a_name_of_its_own() -> None:
    engines = HandEngine("a"), HandEngine("b")
    dispatch = dispatch_to(*engines)
    await soon(dispatch.clear_cache())
    carried_out = [each for engine in engines for each in engine.maintenance]
    assert [type(each) for each in carried_out] == [ClearCache, ClearCache]
    assert len({each.maintenance_id for each in carried_out}) == 2
