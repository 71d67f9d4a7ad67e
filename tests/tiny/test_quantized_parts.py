"""Parts of which some are quantized or of another dtype: dropped and read again, they are what they were."""

from __future__ import annotations

from dataclasses import replace
from multiprocessing.connection import wait
from typing import Any

import pytest
import torch

from pipelines.checkpoints.quantization import is_quantized, stored_bytes
from pipelines.denoising.loop import Loop
from pipelines.engine.loader import Loader
from pipelines.engine.mover import NoBytes
from pipelines.engine.parts import own_tensors
from pipelines.engine.pool import PipelinePool
from pipelines.messages import Drawn, Failed
from pipelines.request import Lora, Request
from pipelines.weights.manifest import Manifest, PipelineEntry
from tests.gpu.stages import default_request

KOLORS, SD3, SD15 = "kolors", "sd3-medium-pose", "stable-diffusion-v1-5"
PARTS: dict[str, dict[str, Any]] = {
    KOLORS: {"text_encoder": {"quantize": "int8"}, "vae": {"dtype": "bfloat16"}},
    SD3: {
        "text_encoder": {"quantize": "int4"},
        "text_encoder_2": {"dtype": "bfloat16"},
        "text_encoder_3": {"quantize": "int8", "dtype": "bfloat16"},
        "transformer": {"dtype": "bfloat16"},
    },
    SD15: {"text_encoder": {"quantize": "int4"}, "unet": {"dtype": "bfloat16"}},
}


def choosing(manifest: Manifest, name: str, networks: dict[str, Any]) -> Manifest:
    values = {**manifest.pipelines[name].model_dump(exclude={"memory"}), "networks": networks}
    entry = PipelineEntry.model_validate({**values, "resident": False})
    return manifest.model_copy(update={"pipelines": {name: entry}})


def pool_of(manifest: Manifest) -> PipelinePool:
    """A pool without any room in the host's memory: what leaves is read again."""
    device = torch.device("cpu")
    return PipelinePool(manifest, manifest.path.parent, device, budget_bytes=10**10, mover=NoBytes())


def asked(name: str) -> Any:
    return default_request(name, (1,), side=64, steps=2, prompt="a cat")


def drawn(loop: Loop, request: Request) -> bytes:
    """The picture's pixels."""
    loop.submit("it", request)
    pixels = b""
    while not loop.idle:
        for event in loop.turn():
            assert not isinstance(event, Failed), event
            if isinstance(event, Drawn):
                pixels = event.drawing.images[0].pixels
    return pixels


def described(pool: PipelinePool, name: str) -> dict[str, Any]:
    """The types, dtypes and bytes of all tensors of all networks."""
    return {
        part: sorted(
            (type(each).__name__, str(each.dtype), stored_bytes(each)) for each in own_tensors(module)
        )
        for part, module in pool.open(name).modules.items()
    }


@pytest.mark.parametrize("beside", [False, True], ids=["part by part", "by a loader"])
@pytest.mark.parametrize("name", PARTS)
def test_what_is_read_again_is_quantized_and_typed_as_before(
    name: str, beside: bool, random_manifest: Manifest
) -> None:
    manifest = choosing(random_manifest, name, PARTS[name])
    pool = pool_of(manifest)
    loop = Loop(pool, 10**6)
    first = drawn(loop, asked(name))
    before = described(pool, name)
    pool.relieve({name: frozenset()})
    assert (pool.used_bytes, pool.host_bytes) == (0, 0)
    assert name not in pool.resident
    if beside:
        loader = Loader(pool)
        while not loader.ready(name, {}):
            assert wait([loader.fileno()], 60)
            assert loader.finished({}) in ([], [(name, None)])
    pool.open(name).clear_cache()
    assert drawn(loop, asked(name)) == first
    assert described(pool, name) == before
    for part, module in pool.open(name).modules.items():
        assert is_quantized(module) == ("quantize" in PARTS[name].get(part, {})), part


def test_a_lora_of_a_quantized_text_encoder_outlives_its_reading_again(random_manifest: Manifest) -> None:
    manifest = choosing(random_manifest, SD15, {"text_encoder": {"quantize": "int8"}})
    pool = pool_of(manifest)
    loop = Loop(pool, 10**6)
    plain = drawn(loop, asked(SD15))
    with_lora = replace(asked(SD15), loras=(Lora(name="more_details"),))
    adorned = drawn(loop, with_lora)
    assert adorned != plain
    pool.relieve({SD15: frozenset()})
    pool.open(SD15).clear_cache()
    assert drawn(loop, with_lora) == adorned
    assert drawn(loop, asked(SD15)) == plain
    assert is_quantized(pool.open(SD15).modules["text_encoder"])
