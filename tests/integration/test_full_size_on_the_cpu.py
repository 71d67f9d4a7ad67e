"""Full-size networks of random numbers in bfloat16 draw one small picture each, from HTTP to a picture file.

One server after the other: two of them would not fit a small machine. Kolors and Stable Diffusion 3 do not
fit it at all; `tests/tiny/test_layouts_of_dummies.py` has them on the meta device.
"""

from __future__ import annotations

import io
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image

from pipelines.weights.manifest import load_manifest
from pipelines.weights.memory import part_bytes
from tests.running_server import RunningServer, start_server

pytestmark = pytest.mark.slow

DUMMIES = Path(__file__).parents[1] / "gpu/weights.yaml"
MOST_BYTES = 12_000_000_000
"""The most bytes that the server and its engine may allocate: they die before the machine does."""

ENTERPRISE = {"width": "512", "height": "512", "samples": "1", "guidance_scale": 1, "safety_checker": "no"}


@contextmanager
def at_most(nbytes: int) -> Iterator[None]:
    """Processes that are started in the block may not allocate more than this, each."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@contextmanager
def full_size(name: str, folder: Path) -> Iterator[RunningServer]:
    """A server that draws with one full-size dummy."""
    entry = yaml.safe_load(DUMMIES.read_text())["pipelines"][name]
    manifest = folder / "weights.yaml"
    manifest.write_text(yaml.safe_dump({"pipelines": {name: {**entry, "dtype": "bfloat16"}}}))
    weights = sum(part_bytes(load_manifest(manifest).pipelines[name]).values())
    assert weights < MOST_BYTES - 1_500_000_000
    with at_most(MOST_BYTES):
        server = start_server(folder, manifest, memory_budget_gb="10.5", torch_threads="2", sync_wait_s="500")
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


def test_kandinsky_of_full_size_draws_through_segmind(tmp_path: Path) -> None:
    with full_size("kandinsky-2-2", tmp_path) as server, server.client() as client:
        body = {"prompt": "a cat", "img_width": 512, "img_height": 512, "num_inference_steps": 20}
        answer = client.post("/v1/kandinsky2.2-txt2img", json={**body, "prior_steps": 1}, timeout=550)
        assert answer.status_code == 200, answer.text
        assert is_drawn(answer.content, 512)
