"""Engine processes that are killed, stopped, deaf, broken or abandoned: what the server makes of it."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from pipelines.drawing import Drawing, Timings
from pipelines.errors import CheckpointUnavailable, EngineLost
from pipelines.image_io import RGBImage
from pipelines.messages import Cancel, ClearCache, Draw, Drawn, EngineConfig, Loading, Progress, Ready, Stop
from pipelines.request import ImageToImage, Request, TextToImage
from server import errors
from server.engines import child, process
from server.engines.child import Target
from server.engines.dispatch import Dispatch
from server.engines.engine import EngineState
from server.engines.process import LocalEngine
from server.engines.queue import JobQueue

pytestmark = pytest.mark.anyio

PIPELINE = "stable-diffusion-v1-5"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# What the engine processes of these tests do.


def answer(connection: Connection[Any, Any], config: EngineConfig) -> None:
    """Return the request's picture at once; "for ever" never ends, "once" ends when asked a second time."""
    connection.send(Ready(config.device, (PIPELINE,)))
    while True:
        match connection.recv():
            case Draw(ticket_id, request):
                marker = config.weights / "asked before"
                hangs = request.prompt == "for ever" or (request.prompt == "once" and not marker.exists())
                marker.touch()
                connection.send(Progress(ticket_id, 1, 2))
                if not hangs:
                    connection.send(Drawn(ticket_id, drawing_of(request)))
            case Cancel():
                (config.weights / "cancelled").open("a").write("one ")
            case Stop():
                return


def be_deaf(connection: Connection[Any, Any], config: EngineConfig) -> None:
    """Get ready, then neither listen nor leave."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection.send(Ready(config.device, (PIPELINE,)))
    while True:
        signal.pause()


def hang_up_and_stay(connection: Connection[Any, Any], config: EngineConfig) -> None:
    connection.send(Ready(config.device, (PIPELINE,)))
    connection.recv()
    connection.close()
    while True:
        signal.pause()


def talk_nonsense(connection: Connection[Any, Any], config: EngineConfig) -> None:
    connection.send(Ready(config.device, (PIPELINE,)))
    connection.recv()
    connection.send_bytes(b"nonsense")
    while True:
        signal.pause()


def work_slowly(connection: Connection[Any, Any], config: EngineConfig) -> None:
    """Draw every picture in eight steps that together take twice `SILENCE_S`."""
    connection.send(Ready(config.device, (PIPELINE,)))
    while True:
        match connection.recv():
            case Draw(ticket_id, request):
                for done in range(1, 9):
                    time.sleep(SILENCE_S / 4)
                    connection.send(Progress(ticket_id, done, 8))
                connection.send(Drawn(ticket_id, drawing_of(request)))
            case Stop():
                return


def load_what_is_there(connection: Connection[Any, Any], config: EngineConfig) -> None:
    """Fail to start until a file appears."""
    connection.send(Loading("kolors"))
    if not (config.weights / "kolors").exists():
        raise CheckpointUnavailable("kolors: weights are missing")
    answer(connection, config)


def load_for_long(connection: Connection[Any, Any], config: EngineConfig) -> None:
    connection.send(Loading("kolors"))
    while True:
        signal.pause()


def die_at_once(connection: Connection[Any, Any], config: EngineConfig) -> None:
    os._exit(3)


# What the tests need.

SILENCE_S = 2.0


def drawing_of(request: Request) -> Drawing:
    if isinstance(request, ImageToImage):
        image = request.image
    else:
        image = RGBImage(request.width, request.height, b"\x80" * (request.width * request.height * 3))
    timings = Timings(encode_s=0, denoise_s=0, decode_s=0)
    return Drawing(images=(image,) * len(request.seeds), flagged=None, timings=timings)


def boat(prompt: str = "a boat", *, steps: int = 4, seed: int = 7) -> TextToImage:
    return TextToImage(
        pipeline=PIPELINE,
        prompt=prompt,
        width=128,
        height=128,
        num_inference_steps=steps,
        guidance_scale=5.0,
        seeds=(seed,),
    )


def redrawn(side: int) -> ImageToImage:
    return ImageToImage(
        pipeline=PIPELINE,
        prompt="a boat",
        image=RGBImage(side, side, os.urandom(side * side * 3)),
        strength=0.5,
        width=side,
        height=side,
        num_inference_steps=4,
        guidance_scale=5.0,
        seeds=(1,),
    )


def ignore(done: int, total: int) -> None:
    pass


def config_in(folder: Path, *, device: str = "cpu", manifest: Path = Path("none")) -> EngineConfig:
    return EngineConfig(
        device=device,
        manifest=manifest,
        weights=folder,
        budget_bytes=10**9,
        group_pixels=16 * 512 * 512,
        torch_threads=1,
        preload=False,
    )


@asynccontextmanager
async def running(*engines: LocalEngine) -> AsyncIterator[Dispatch]:
    queue = JobQueue(limit=100, limit_per_account=100)
    dispatch = Dispatch(engines, queue, queue_timeout_s=60)
    await dispatch.start()
    try:
        yield dispatch
    finally:
        await dispatch.stop()


@asynccontextmanager
async def engine_that(target: Target, folder: Path) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(config_in(folder), target=target)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def until(engine: LocalEngine, holds: Callable[[], bool]) -> None:
    """Wait for a state, however briefly it lasts."""
    seen = asyncio.Event()

    def look() -> None:
        if holds():
            seen.set()

    engine.watch(look)
    look()
    async with asyncio.timeout(60):
        await seen.wait()


async def until_ready(engine: LocalEngine) -> None:
    await until(engine, lambda: engine.state is EngineState.ready)


def kill(engine: LocalEngine) -> int:
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    return engine.pid


class Watched:
    """A request handed to the dispatch whose steps can be waited for."""

    def __init__(self, dispatch: Dispatch, request: Request) -> None:
        self.steps: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self.drawing = asyncio.create_task(
            dispatch.draw(
                request, account_id=1, on_progress=lambda done, total: self.steps.put_nowait((done, total))
            )
        )

    async def result(self) -> Drawing:
        async with asyncio.timeout(60):
            return await self.drawing

    async def step(self) -> tuple[int, int]:
        async with asyncio.timeout(60):
            return await self.steps.get()


def wait_for_end(pid: int, timeout_s: float) -> bool:
    """Whether a process, which need not be a child, has ended within the time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)


async def test_a_request_whose_engine_is_killed_is_drawn_again_with_the_same_pixels(
    demo_manifest_path: Path, tmp_path: Path
) -> None:
    engine = LocalEngine(config_in(tmp_path, manifest=demo_manifest_path))
    async with running(engine) as dispatch:
        undisturbed = Watched(dispatch, boat(steps=20))
        expected = await undisturbed.result()
        steps = [undisturbed.steps.get_nowait() for _ in range(undisturbed.steps.qsize())]
        assert [done for done, _ in steps] == list(range(1, steps[-1][1] + 1))
        disturbed = Watched(dispatch, boat(steps=20))
        await disturbed.step()
        kill(engine)
        drawing = await disturbed.result()
    assert drawing.images == expected.images
    assert drawing.timings.denoise_s > 0


@pytest.mark.slow
async def test_an_engine_that_stands_still_is_killed_and_its_request_drawn_again_with_the_same_pixels(
    demo_manifest_path: Path, tmp_path: Path
) -> None:
    # loaded before it has work: on a busy machine that takes longer than the silence that it may keep then
    config = replace(config_in(tmp_path, manifest=demo_manifest_path), preload=True)
    engine = LocalEngine(config, silence_s=6)
    async with asyncio.timeout(300), running(engine) as dispatch:
        expected = await Watched(dispatch, boat(steps=20)).drawing
        disturbed = Watched(dispatch, boat(steps=20))
        await disturbed.step()
        stopped = engine.pid
        assert stopped
        os.kill(stopped, signal.SIGSTOP)
        drawing = await disturbed.drawing
        assert wait_for_end(stopped, 0)
        assert engine.pid != stopped
    assert drawing.images == expected.images


async def test_new_work_is_no_excuse_for_silence_about_older_work(tmp_path: Path) -> None:
    engine = LocalEngine(config_in(tmp_path), target=be_deaf, silence_s=SILENCE_S)
    await engine.start()
    await until_ready(engine)
    first = asyncio.create_task(engine.draw("first", boat(), ignore))
    later: list[asyncio.Task[Drawing]] = []
    async with asyncio.timeout(60):
        while not first.done():
            later.append(asyncio.create_task(engine.draw(f"later {len(later)}", boat(), ignore)))
            await asyncio.wait({first}, timeout=SILENCE_S / 10)
    for lost in await asyncio.gather(first, *later, return_exceptions=True):
        assert isinstance(lost, EngineLost)
    assert len(later) > 2
    await engine.stop()


@pytest.mark.slow
async def test_who_has_no_work_may_be_silent_and_who_works_slowly_may_take_longer(tmp_path: Path) -> None:
    idle, slow, deaf = (
        LocalEngine(config_in(tmp_path), name=target.__name__, target=target, silence_s=SILENCE_S)
        for target in (answer, work_slowly, be_deaf)
    )
    for engine in (idle, slow, deaf):
        await engine.start()
        await until_ready(engine)
    pids = idle.pid, slow.pid
    async with asyncio.timeout(60):
        drawn = asyncio.create_task(slow.draw("slow", boat(), ignore))
        # an order is work as well; that it is not carried out shows that the time is over for the idle one
        await deaf.maintain(ClearCache("never"))
        await drawn
    assert (idle.pid, slow.pid) == pids
    assert idle.state is slow.state is EngineState.ready
    await asyncio.gather(*(engine.stop() for engine in (idle, slow, deaf)))


async def test_a_killed_engine_is_up_again_within_seconds_and_says_so_meanwhile(tmp_path: Path) -> None:
    engine = LocalEngine(config_in(tmp_path), target=answer)
    async with running(engine) as dispatch:
        await until_ready(engine)
        killed = kill(engine)
        started = time.monotonic()
        await until(engine, lambda: engine.state is not EngineState.ready)
        reason = dispatch.readiness()
        assert reason is not None
        assert "lost" in reason
        await until_ready(engine)
        assert time.monotonic() - started < 10
        assert dispatch.readiness() is None
        assert engine.pid != killed


async def test_a_request_that_loses_two_engines_fails_and_the_others_only_wait(tmp_path: Path) -> None:
    engine = LocalEngine(config_in(tmp_path), target=answer)
    async with running(engine) as dispatch:
        deadly = Watched(dispatch, boat("for ever"))
        await deadly.step()
        kill(engine)
        await deadly.step()
        kill(engine)
        other = Watched(dispatch, boat())
        with pytest.raises(EngineLost):
            await deadly.result()
        assert len((await other.result()).images) == 1


async def test_a_request_goes_to_the_other_engine_at_once_when_its_own_is_killed(tmp_path: Path) -> None:
    first = LocalEngine(config_in(tmp_path), name="first", target=answer)
    second = LocalEngine(config_in(tmp_path), name="second", target=answer)
    async with running(first, second) as dispatch:
        await until_ready(first)
        await until_ready(second)
        request = Watched(dispatch, boat("once"))
        await request.step()
        kill(first)
        await request.result()
        assert dispatch.readiness() is None


async def test_cancelling_reaches_the_engine_and_leaves_the_others_alone(tmp_path: Path) -> None:
    engine = LocalEngine(config_in(tmp_path), target=answer)
    async with running(engine) as dispatch:
        withdrawn, other = Watched(dispatch, boat("for ever")), Watched(dispatch, boat("for ever"))
        await withdrawn.step()
        await other.step()
        withdrawn.drawing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await withdrawn.result()
        assert dispatch.running == 1
        await Watched(dispatch, boat()).result()  # the pipe keeps the order: the cancel was read before
        assert (tmp_path / "cancelled").read_text() == "one "
        assert not other.drawing.done()
        other.drawing.cancel()


async def test_pictures_of_three_megabytes_cross_both_ways_unharmed(tmp_path: Path) -> None:
    async with engine_that(answer, tmp_path) as engine:
        await until_ready(engine)
        requests = [redrawn(1024) for _ in range(10)]
        drawings = await asyncio.gather(
            *(engine.draw(str(index), request, ignore) for index, request in enumerate(requests))
        )
    assert [drawing.images[0] for drawing in drawings] == [request.image for request in requests]


async def test_an_engine_that_does_not_listen_never_blocks_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "LEAVE_S", 0.1)
    monkeypatch.setattr(child, "TERMINATE_S", 0.1)
    async with engine_that(be_deaf, tmp_path) as engine:
        await until_ready(engine)
        drawing = asyncio.create_task(engine.draw("large", redrawn(4096), ignore))
        await asyncio.sleep(0)
        pid = engine.pid
        async with asyncio.timeout(30):
            await engine.stop()
        with pytest.raises(EngineLost):
            await drawing
    assert pid is not None
    assert wait_for_end(pid, 0)


async def test_ctrl_c_in_the_terminal_does_not_reach_an_engine(tmp_path: Path) -> None:
    async with engine_that(answer, tmp_path) as engine:
        await until_ready(engine)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGINT)
        assert len((await engine.draw("one", boat(), ignore)).images) == 1
        assert engine.state is EngineState.ready


@pytest.mark.parametrize("target", [hang_up_and_stay, talk_nonsense])
async def test_an_engine_that_cannot_be_understood_is_ended_and_replaced(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "LEAVE_S", 0.1)
    async with engine_that(target, tmp_path) as engine:
        await until_ready(engine)
        pid = engine.pid
        with pytest.raises(EngineLost):
            await engine.draw("one", boat(), ignore)
        await until(engine, lambda: engine.pid not in (pid, None))
        assert pid is not None
        assert wait_for_end(pid, 10)


async def test_a_loading_engine_says_what_it_loads_and_stops_at_once(tmp_path: Path) -> None:
    engine = LocalEngine(config_in(tmp_path), target=load_for_long)
    async with running(engine) as dispatch:
        await until(engine, lambda: dispatch.readiness() == "loading kolors")
        pid, started = engine.pid, time.monotonic()
    assert time.monotonic() - started < child.LEAVE_S
    assert pid is not None
    assert wait_for_end(pid, 0)


async def test_missing_weights_become_the_reason_and_the_engine_comes_up_when_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "FIRST_PAUSE_S", 0.1)
    engine = LocalEngine(config_in(tmp_path), target=load_what_is_there)
    async with running(engine) as dispatch:
        waiting = Watched(dispatch, boat())
        with pytest.raises(errors.Unavailable, match="kolors: weights are missing"):
            await waiting.result()
        assert dispatch.readiness() == "no engine is running: did not start: kolors: weights are missing"
        (tmp_path / "kolors").touch()
        await until_ready(engine)
        assert len((await Watched(dispatch, boat()).result()).images) == 1


async def test_an_engine_that_keeps_failing_is_tried_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "FIRST_PAUSE_S", 0.1)
    starts: list[float] = []
    ends: list[float] = []

    def note(engine: LocalEngine) -> None:
        if engine.reason == "loading kolors":
            starts.append(time.monotonic())
        elif (engine.reason or "").startswith("did not start"):
            ends.append(time.monotonic())

    async with engine_that(load_what_is_there, tmp_path) as engine:
        engine.watch(lambda: note(engine))
        await until(engine, lambda: len(starts) == 3)
    pauses = [start - end for start, end in zip(starts[1:], ends, strict=False)]
    assert [pause >= 0.1 * 2**index for index, pause in enumerate(pauses)] == [True] * 2
    told = [record.getMessage().rsplit("again in ")[-1] for record in caplog.records]
    assert told[:2] == ["0.1 s", "0.2 s"]


async def test_an_engine_that_dies_without_a_word_is_reported_with_its_exit_status(tmp_path: Path) -> None:
    async with engine_that(die_at_once, tmp_path) as engine:
        await until(engine, lambda: engine.reason == "did not start: exit status 3")


async def test_stopping_right_after_starting_leaves_no_process(tmp_path: Path) -> None:
    engine = LocalEngine(config_in(tmp_path), target=be_deaf)
    await engine.start()
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await engine.stop()
    assert engine.state is EngineState.stopped
    assert engine.pid is None


ABANDONING_PARENT = """
import asyncio
from pathlib import Path
from tests.integration.test_engine_process import {target}, config_in, until_ready
from server.engines.process import LocalEngine

async def main():
    engine = LocalEngine(config_in(Path({weights!r})), target={target})
    await engine.start()
    await until_ready(engine)
    print(engine.pid, flush=True)
    await asyncio.Event().wait()

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("target", ["answer", "be_deaf"])
def test_an_engine_ends_with_the_server_however_that_ends(target: str, tmp_path: Path) -> None:
    program = ABANDONING_PARENT.format(target=target, weights=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not wait_for_end(pid, 0)
        parent.kill()
        assert wait_for_end(pid, 10)


DRAWING_PARENT = """
import asyncio, sys
from pathlib import Path
from tests.integration.test_engine_process import answer, boat, config_in, running
from server.engines.devices import local_engines
from server.engines.process import LocalEngine
from server.settings import Settings

async def main():
    local_engines(Settings())
    async with running(LocalEngine(config_in(Path({weights!r})), target=answer)) as dispatch:
        await dispatch.draw(boat(), account_id=1, on_progress=lambda done, total: None)
    heavy = [name for name in ("torch", "diffusers", "transformers") if name in sys.modules]
    print("loaded:", *heavy)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_the_process_that_starts_engines_and_hands_out_requests_never_loads_torch(tmp_path: Path) -> None:
    program = DRAWING_PARENT.format(weights=str(tmp_path))
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ended.stdout == "loaded:\n", ended.stderr
