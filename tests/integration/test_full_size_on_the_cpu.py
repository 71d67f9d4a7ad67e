"""Full-size networks of random numbers in bfloat16 draw one small picture each, two of three through HTTP.

One server after the other: two of them would not fit a small machine. Kolors and Stable Diffusion 3 do not
fit it at all; `tests/tiny/test_layouts_of_dummies.py` has them on the meta device.
"""

from __future__ import annotations

import io
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image

from pipelines.engine.process import serve
from pipelines.messages import Draw, Drawn, EngineConfig, Event, Failed
from pipelines.weights.manifest import load_manifest
from pipelines.weights.memory import part_bytes
from tests.gpu.stages import default_request
from tests.running_server import RunningServer, start_server

SPARE_BYTES = 3_000_000_000
"""The bytes that stay free for the rest of the machine."""

DUMMIES = Path(__file__).parents[1] / "gpu/weights.yaml"
MOST_BYTES = 14_500_000_000
"""The most bytes that the server and its engine may allocate: they die before the machine does."""

BUDGET_BYTES = 10_500_000_000
"""The bytes of them that weights may take."""


def available_bytes() -> int:
    """The bytes of memory that new processes of this machine may take."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


@pytest.fixture(autouse=True)
def room() -> None:
    if available_bytes() < MOST_BYTES + SPARE_BYTES:
        pytest.skip(f"{(MOST_BYTES + SPARE_BYTES) / 1e9} GB of memory have to be free")


ENTERPRISE = {"width": "512", "height": "512", "samples": "1", "guidance_scale": 1, "safety_checker": "no"}


pytestmark = pytest.mark.slow


@contextmanager
def at_most(nbytes: int) -> Iterator[None]:
    """Processes that are started in the block may not allocate more than this, each."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def manifest_of(name: str, folder: Path) -> Path:
    """A manifest with one full-size dummy, which fits."""
    entry = yaml.safe_load(DUMMIES.read_text())["pipelines"][name]
    manifest = folder / "weights.yaml"
    manifest.write_text(yaml.safe_dump({"pipelines": {name: {**entry, "dtype": "bfloat16"}}}))
    assert sum(part_bytes(load_manifest(manifest).pipelines[name]).values()) < BUDGET_BYTES
    return manifest


@contextmanager
def full_size(name: str, folder: Path) -> Iterator[RunningServer]:
    """A server that draws with one full-size dummy."""
    manifest = manifest_of(name, folder)
    budget = f"{BUDGET_BYTES / 1e9}"
    with at_most(MOST_BYTES):
        server = start_server(folder, manifest, memory_budget_gb=budget, torch_threads="2", sync_wait_s="500")
    try:
        yield server
    finally:
        server.stop()


def is_drawn(content: bytes, side: int) -> bool:
    """Whether a file is a picture of that size and not one flat colour."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    return image.size == (side, side) and float(np.asarray(image, dtype=float).std()) > 5


@pytest.mark.parametrize(("name", "steps"), [("stable-diffusion-v1-5", 2), ("sdxl", 1)])
def test_a_checkpoint_of_full_size_draws_through_enterprise(name: str, steps: int, tmp_path: Path) -> None:
    with full_size(name, tmp_path) as server:
        body = {**ENTERPRISE, "key": server.key, "model_id": name, "prompt": "a cat"}
        path = f"{server.url}/api/v1/enterprise/text2img"
        answer = httpx.post(path, json={**body, "num_inference_steps": steps, "seed": 7}, timeout=550).json()
        assert answer["status"] == "success", answer
        (address,) = answer["output"]
        assert is_drawn(httpx.get(address).content, 512)
        assert server.log.read_text().count("Traceback") == 0


def test_kandinsky_of_full_size_draws_in_an_engine_process(tmp_path: Path) -> None:
    """Without HTTP: the page asks for 512 pixels and 20 steps at least, which are minutes on two cores. Here
    are 256 and two."""
    name = "kandinsky-2-2"
    manifest = manifest_of(name, tmp_path)
    config = EngineConfig(
        device="cpu",
        manifest=manifest,
        weights=tmp_path,
        budget_bytes=BUDGET_BYTES,
        group_pixels=256 * 256,
        torch_threads=2,
    )
    spawn = get_context("spawn")
    ours, its = spawn.Pipe()
    engine = spawn.Process(target=serve, args=(its, config), daemon=True)
    with at_most(MOST_BYTES):
        engine.start()
    its.close()
    try:
        ours.send(Draw("it", default_request(name, (7,), side=256, steps=2, prompt="a cat")))
        while not isinstance(event := told(ours), Drawn):
            assert not isinstance(event, Failed), event.error
        (image,) = event.drawing.images
        assert (image.width, image.height) == (256, 256)
        assert np.frombuffer(image.pixels, np.uint8).astype(float).std() > 5
    finally:
        engine.kill()
        engine.join()


def told(connection: Any) -> Event:
    """The next event of an engine, which is to come within minutes."""
    assert connection.poll(600)
    event: Event = connection.recv()
    return event
