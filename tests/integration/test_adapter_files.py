"""LoRAs and textual inversions of the field, loaded from a URL and drawn with over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from tests.integration.loading import LOADED, MODEL, SMALL, FileServer, Offered, post, verified
from tests.running_server import RunningServer, start_server

WORDS = {"bundle_emb.xpaint.emb_params": torch.ones(2, 32)}


@pytest.fixture(scope="module")
def files() -> Iterator[FileServer]:
    with FileServer({}) as serving:
        yield serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, random_manifest_path: Path) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    weights = str(folder / "weights")
    running = start_server(folder, random_manifest_path, weights=weights, preload="false", sync_wait_s="110")
    yield running
    running.stop()


def offered(server: RunningServer, files: FileServer, name: str, tensors: dict[str, Tensor]) -> str:
    """What verify_model says of a file when its load has ended."""
    files.files[name] = Offered(save(tensors))
    post(server, "load_model", url=f"{files.url}/{name}", model_id=name, model_type="lora")
    return verified(server, name)


@pytest.fixture
def lora(random_manifest_path: Path) -> dict[str, Tensor]:
    return load_file(random_manifest_path.parent / "sd15_adapters/animie.safetensors")


def test_what_lies_beside_the_layers_is_named_in_the_answer(
    server: RunningServer, files: FileServer, lora: dict[str, Tensor]
) -> None:
    assert offered(server, files, "bundled", {**lora, **WORDS, "_extra": torch.ones(3)}) == LOADED
    answer = post(
        server, "text2img", model_id=MODEL, lora_model="bundled", **{**SMALL, "prompt": "a xpaint circle"}
    )
    assert answer["status"] == "success"
    assert "bundled has tensors that are no part of a layer (_extra), which had no effect" in str(
        answer["warning"]
    )


def test_a_number_that_is_none_is_told_when_the_file_comes(
    server: RunningServer, files: FileServer, lora: dict[str, Tensor]
) -> None:
    name = next(name for name in lora if name.endswith("lora_up.weight"))
    lora[name][0, 0] = torch.nan
    assert f"its tensor {name} has numbers that are infinite or none (NaN)" in offered(
        server, files, "nan", lora
    )
