"""Checkpoints, ControlNets and LoRAs that are one file, loaded from a URL and drawn with over real HTTP."""

from __future__ import annotations

import base64
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import ControlNetModel, StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import load_file, save
from torch import zeros

from tests.integration.loading import LOADED, MODEL, FileServer, Offered, drawn, post, verified
from tests.running_server import RunningServer, start_server
from tests.tiny.original_layout import write_controlnet, write_single_file

CHECKPOINTS = {MODEL: (StableDiffusionPipeline, "sd15"), "sdxl": (StableDiffusionXLPipeline, "sdxl")}
CONTROLNETS = {"canny": (MODEL, "sd15_canny"), "canny-sdxl": ("sdxl", "sdxl_canny")}
LAYOUTS = {"original": "control_model.", "bare": "", "diffusers": None}
CANNY = "controlnets/sd15_canny/diffusion_pytorch_model.safetensors"
RANDOM = np.random.default_rng(3)


@pytest.fixture(scope="module")
def files() -> Iterator[FileServer]:
    with FileServer({}) as serving:
        yield serving


@pytest.fixture(scope="module")
def checkpoints(random_manifest_path: Path) -> Path:
    return random_manifest_path.parent


@pytest.fixture(scope="module")
def manifest(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random one; beside it, preferred to those that ship, small configurations of the same names."""
    folder = tmp_path_factory.mktemp("manifest")
    for path in checkpoints.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / MODEL).symlink_to(checkpoints / "sd15")
    (folder / "weights.yaml").unlink()
    return Path(shutil.copy(checkpoints / "weights.yaml", folder))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, manifest: Path) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    weights = str(folder / "weights")
    running = start_server(folder, manifest, weights=weights, preload="false", sync_wait_s="110")
    yield running
    running.stop()


def load(server: RunningServer, files: FileServer, name: str, data: bytes, model_type: str) -> None:
    files.files[name] = Offered(data)
    post(server, "load_model", url=f"{files.url}/{name}", model_id=name, model_type=model_type)
    assert verified(server, name) == LOADED


@pytest.mark.parametrize("name", [MODEL, pytest.param("sdxl", marks=pytest.mark.slow)])
def test_a_checkpoint_of_the_original_layout_draws_as_its_folder_does(
    name: str, server: RunningServer, files: FileServer, checkpoints: Path, tmp_path: Path
) -> None:
    cls, folder = CHECKPOINTS[name]
    write_single_file(cls.from_pretrained(checkpoints / folder), tmp_path / "single.safetensors")
    load(
        server, files, f"single-{folder}", (tmp_path / "single.safetensors").read_bytes(), "stable_diffusion"
    )
    fields = {"negative_prompt": "a dog", "guidance_scale": 5}
    assert drawn(server, f"single-{folder}", **fields) == drawn(server, name, **fields)


def test_a_checkpoint_with_the_names_of_old_text_encoders_draws_as_its_folder_does(
    server: RunningServer, files: FileServer, checkpoints: Path, tmp_path: Path
) -> None:
    path = tmp_path / "single.safetensors"
    write_single_file(StableDiffusionPipeline.from_pretrained(checkpoints / "sd15"), path)
    old = {name.replace(".text_model.", "."): tensor for name, tensor in load_file(path).items()}
    load(server, files, "old-names", save(old), "stable_diffusion")
    assert drawn(server, "old-names") == drawn(server, MODEL)


@pytest.mark.parametrize(
    ("tensor", "model_type", "reason"),
    [
        ("task_embedding", "controlnet", "it is a ControlNet-Union"),
        ("edm_mean", "stable_diffusion", "as its tensor edm_mean says"),
        (
            "model.diffusion_model.input_blocks.1.1.motion",
            "stable_diffusion",
            "layers that are not drawn with",
        ),
    ],
)
def test_what_would_not_open_is_refused_by_its_name_at_load(
    server: RunningServer,
    files: FileServer,
    checkpoints: Path,
    tmp_path: Path,
    tensor: str,
    model_type: str,
    reason: str,
) -> None:
    path = tmp_path / "single.safetensors"
    write_single_file(StableDiffusionPipeline.from_pretrained(checkpoints / "sd15"), path)
    whole = load_file(path if model_type == "stable_diffusion" else checkpoints / CANNY)
    files.files["strange"] = Offered(save({**whole, tensor: zeros(2)}))
    post(server, "load_model", url=f"{files.url}/strange", model_id="strange", model_type=model_type)
    assert reason in verified(server, "strange")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["canny", pytest.param("canny-sdxl", marks=pytest.mark.slow)])
def test_a_controlnet_that_is_one_file_steers_as_its_folder_does(
    name: str, layout: str, server: RunningServer, files: FileServer, checkpoints: Path, tmp_path: Path
) -> None:
    model, folder = CONTROLNETS[name]
    path, prefix = tmp_path / "control.safetensors", LAYOUTS[layout]
    if prefix is None:
        path = checkpoints / "controlnets" / folder / "diffusion_pytorch_model.safetensors"
    else:
        write_controlnet(ControlNetModel.from_pretrained(checkpoints / "controlnets" / folder), path, prefix)
    loaded = f"{layout}-{folder}"
    load(server, files, loaded, path.read_bytes(), "controlnet")
    fields: dict[str, Any] = {"operation": "controlnet", "auto_hint": "no", "control_image": noise()}
    expected = drawn(server, model, controlnet_model=name, **fields)
    assert drawn(server, model, controlnet_model=loaded, **fields) == expected
    assert drawn(server, model) != expected


def test_a_lora_of_which_a_part_fits_draws_and_says_so(
    server: RunningServer, files: FileServer, checkpoints: Path
) -> None:
    whole = load_file(checkpoints / "sd15_adapters/more_details.safetensors")
    more = {"unet.nowhere.lora_A.weight": zeros(2, 9), "unet.nowhere.lora_B.weight": zeros(9, 2)}
    load(server, files, "partly", save({**whole, **more}), "lora")
    fields = {"width": 256, "height": 256, "prompt": "a cat", "num_inference_steps": 1}
    answer = post(server, "text2img", model_id=MODEL, lora_model="partly", **fields)
    count = sum(key.endswith("lora_A.weight") for key in whole) + 1
    said = f"1 of the {count} layers of the LoRA partly found no place in this checkpoint and had no effect"
    assert said in answer["warning"]
    assert said in post(server, "fetch", request_id=answer["id"])["warning"]
    assert drawn(server, MODEL, lora_model="partly") == drawn(server, MODEL, lora_model="more_details")


@pytest.mark.slow
def test_a_loaded_file_is_verified_and_never_drawn_with_when_it_has_changed(
    server: RunningServer, files: FileServer, checkpoints: Path, manifest: Path
) -> None:
    data = (checkpoints / "sd15_adapters/more_details.safetensors").read_bytes()
    load(server, files, "precious", data, "lora")
    weights = server.log.parent / "weights"
    path = weights / "loaded/precious.safetensors"
    assert verify(manifest, weights) == (0, "")
    before = drawn(server, MODEL, lora_model="precious")
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert verify(manifest, weights) == (
        1,
        "loaded/precious.safetensors: differs from the file that was loaded\n",
    )
    post(server, "clear_cache")
    fields = {"lora_model": "precious", "width": 256, "height": 256, "prompt": "a cat"}
    answer = post(server, "text2img", model_id=MODEL, **fields)
    assert answer["message"] == (
        "precious is unavailable: its weights are missing or are not the ones that were verified. "
        "To mend it, call delete_model for precious, then load_model"
    )
    path.write_bytes(data)
    os.utime(path, (1, 1))
    assert drawn(server, MODEL, lora_model="precious") == before
    assert verify(manifest, weights) == (0, "")
    path.unlink()
    assert verify(manifest, weights) == (1, "loaded/precious.safetensors: missing\n")
    post(server, "delete_model", model_id="precious")
    assert verify(manifest, weights) == (0, "")


def noise() -> str:
    """A picture as base64 text."""
    file = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def verify(manifest: Path, weights: Path) -> tuple[int, str]:
    """Exit status and complaints of ``understudy weights verify``."""
    command = [sys.executable, "-m", "server", "weights", "verify", "--manifest", str(manifest)]
    ended = subprocess.run([*command, "--weights", str(weights)], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stderr
