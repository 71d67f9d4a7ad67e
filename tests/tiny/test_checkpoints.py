"""Sources other than the hub: folders, single files of the original layout, and dummies."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers import AutoencoderKL, SD3ControlNetModel, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.pipelines.kolors import ChatGLMModel

from pipelines.checkpoints import dummies
from pipelines.checkpoints.checkpoint import Checkpoint, local
from pipelines.checkpoints.tokenizers import clip_tokenizer
from pipelines.errors import CheckpointUnavailable, UnusableCheckpoint
from pipelines.weights.configs import configuration
from pipelines.weights.entries import Source
from pipelines.weights.lock import Lock, describe, write_lock
from pipelines.weights.manifest import Manifest
from tests.tiny.original_layout import write_single_file

META = torch.device("meta")
CPU = torch.device("cpu")

SIZES = {
    "stable-diffusion-v1-5": {"unet": 859.52, "text_encoder": 123.06, "vae": 83.65},
    "sdxl": {"unet": 2567.46, "text_encoder": 123.06, "text_encoder_2": 694.66, "vae": 83.65},
    "kolors": {"unet": 2579.46, "text_encoder": 6243.58, "vae": 83.65},
    "sd3-medium": {
        "transformer": 2028.33,
        "text_encoder": 123.65,
        "text_encoder_2": 694.66,
        "text_encoder_3": 4762.31,
        "vae": 83.82,
    },
    "kandinsky-2-2-prior": {"prior": 1026.23, "text_encoder": 694.66, "image_encoder": 1844.91},
    "kandinsky-2-2-decoder": {"unet": 1253.06, "movq": 67.83},
}
"""Millions of parameters of the published networks."""


def checkpoint(source: Mapping[str, object], folder: Path, dtype: str = "float32") -> Checkpoint:
    entry = {"family": "sd15", "dtype": dtype, "parts": {"pipeline": source, "vae": source}}
    described = Manifest.model_validate({"path": folder / "weights.yaml", "pipelines": {"mine": entry}})
    return Checkpoint("mine", described, described.pipelines["mine"], folder / "weights", CPU)


def open_sd15(opened: Checkpoint) -> StableDiffusionPipeline:
    return opened.pipeline(
        "pipeline",
        StableDiffusionPipeline,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def open_sdxl(opened: Checkpoint) -> StableDiffusionXLPipeline:
    return opened.pipeline("pipeline", StableDiffusionXLPipeline, add_watermarker=False)


def drawn(pipeline: Any) -> bytes:
    generator = torch.Generator().manual_seed(1)
    arguments = {"height": 64, "width": 64, "num_inference_steps": 2, "generator": generator}
    return pipeline("a red circle", **arguments).images[0].tobytes()


@pytest.fixture
def small(random_manifest: Manifest) -> Path:
    """The folder of the small SD1.5 checkpoint."""
    return local(
        random_manifest, random_manifest.pipelines["stable-diffusion-v1-5"].parts["pipeline"], Path()
    )


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("opening a checkpoint reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_a_single_file_draws_what_its_folder_draws(small: Path, tmp_path: Path) -> None:
    from_folder = open_sd15(checkpoint({"folder": str(small)}, tmp_path))
    write_single_file(from_folder, tmp_path / "mine.safetensors")
    source = {"file": "mine.safetensors", "config": str(small)}
    assert drawn(open_sd15(checkpoint(source, tmp_path))) == drawn(from_folder)


@pytest.mark.usefixtures("no_network")
def test_a_single_file_of_sdxl_draws_what_its_folder_draws(random_manifest: Manifest, tmp_path: Path) -> None:
    folder = str(random_manifest.path.parent / "sdxl")
    from_folder = open_sdxl(checkpoint({"folder": folder}, tmp_path))
    write_single_file(from_folder, tmp_path / "mine.safetensors")
    source = {"file": "mine.safetensors", "config": folder}
    assert drawn(open_sdxl(checkpoint(source, tmp_path))) == drawn(from_folder)


@pytest.mark.usefixtures("no_network")
def test_the_shipped_configuration_fits_the_names_of_a_single_file(small: Path, tmp_path: Path) -> None:
    """The shapes differ from the small checkpoint's, and that is all that it finds wrong."""
    write_single_file(open_sd15(checkpoint({"folder": str(small)}, tmp_path)), tmp_path / "mine.safetensors")
    source = {"file": "mine.safetensors", "config": "stable-diffusion-v1-5"}
    with pytest.raises(UnusableCheckpoint, match="mine cannot be drawn with: its network has another shape"):
        open_sd15(checkpoint(source, tmp_path))


def test_a_missing_folder_names_the_pipeline_and_no_path(tmp_path: Path) -> None:
    with pytest.raises(CheckpointUnavailable, match="weights of mine") as caught:
        open_sd15(checkpoint({"folder": "nowhere"}, tmp_path))
    assert str(tmp_path) not in str(caught.value)


@pytest.fixture
def loaded(tmp_path: Path) -> tuple[Path, Source]:
    """A weights folder with one file that was loaded from a URL, and its source in loaded.yaml's words."""
    path = tmp_path / "weights/loaded/mine.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"12345678")
    file = describe(path, origin="https://example.com/mine.safetensors", upstream="")
    write_lock(tmp_path / "weights", Lock(downloads={"loaded/mine.safetensors": file}))
    return tmp_path / "weights", Source(file=path)


def test_a_loaded_file_is_opened_while_it_is_the_one_that_came(loaded: tuple[Path, Source]) -> None:
    weights, source = loaded
    path = weights / "loaded/mine.safetensors"
    assert local(Manifest(pipelines={}), source, weights) == path
    os.utime(path, (1, 1))
    assert local(Manifest(pipelines={}), source, weights) == path
    path.write_bytes(b"12345679")
    with pytest.raises(ValueError, match="differs from the file that was loaded"):
        local(Manifest(pipelines={}), source, weights)
    path.write_bytes(b"1234567")
    with pytest.raises(ValueError, match="differs from the file that was loaded"):
        local(Manifest(pipelines={}), source, weights)


def test_a_loaded_file_without_its_record_is_not_opened(loaded: tuple[Path, Source]) -> None:
    weights, source = loaded
    write_lock(weights, Lock())
    with pytest.raises(ValueError, match=r"loaded/mine\.safetensors is not in the lock"):
        local(Manifest(pipelines={}), source, weights)


def test_a_damaged_file_is_refused(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path / "copy")
    weights = tmp_path / "copy/unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointUnavailable):
        open_sd15(checkpoint({"folder": "copy"}, tmp_path))


def test_a_folder_with_a_pickle_instead_of_safetensors_is_refused(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path / "copy")
    weights = tmp_path / "copy/vae/diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(CheckpointUnavailable):
        open_sd15(checkpoint({"folder": "copy"}, tmp_path))


def test_a_configuration_that_does_not_ship_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointUnavailable):
        open_sd15(checkpoint({"file": "mine.safetensors", "config": "sd9"}, tmp_path))
    with pytest.raises(CheckpointUnavailable):
        open_sd15(checkpoint({"dummy": "sd9"}, tmp_path))


def test_the_source_of_a_dummy_is_no_place_on_disk(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no files"):
        local(Manifest(pipelines={}), Source(dummy="sdxl"), tmp_path)


def test_the_shipped_vocabulary_gives_the_published_token_ids() -> None:
    tokenizer = clip_tokenizer(configuration("stable-diffusion-v1-5") / "tokenizer")
    assert len(tokenizer) == 49408
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    second = clip_tokenizer(configuration("sdxl") / "tokenizer_2")
    assert second("hi", padding="max_length", max_length=5).input_ids == [49406, 1883, 49407, 0, 0]


@pytest.mark.parametrize("name", SIZES)
def test_dummies_are_as_large_as_the_published_networks(name: str) -> None:
    index = json.loads((configuration(name) / "model_index.json").read_text())
    counted: dict[str, float] = {}
    for part, (library, class_name) in (item for item in index.items() if isinstance(item[1], list)):
        if not (configuration(name) / part / "config.json").exists():
            continue
        known = {"diffusers": diffusers, "transformers": transformers, "kolors": diffusers.pipelines.kolors}
        cls = getattr(known[library], class_name)
        network = dummies.network(cls, configuration(name) / part, META, torch.float16)
        counted[part] = round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2)
    assert counted == SIZES[name]


def test_the_pose_controlnet_has_a_quarter_of_the_transformer() -> None:
    network = dummies.network(SD3ControlNetModel, configuration("sd3-pose-controlnet"), META, torch.float16)
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 1) == 538.8


def test_a_dummy_is_never_on_the_host_in_full_precision() -> None:
    bare = dummies.skeleton(ChatGLMModel, configuration("kolors") / "text_encoder")
    assert {parameter.device.type for parameter in bare.parameters()} == {"meta"}


def test_a_dummy_network_computes_finite_numbers_in_half_precision(tmp_path: Path) -> None:
    vae = checkpoint({"dummy": "sd-vae"}, tmp_path, "bfloat16").module("vae", AutoencoderKL)
    assert {parameter.dtype for parameter in vae.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        pixels = vae.decode(torch.randn(1, 4, 8, 8, dtype=torch.bfloat16)).sample
    assert pixels.shape == (1, 3, 64, 64)
    assert pixels.isfinite().all()
    assert 0.1 < pixels.std() < 10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("cls", "part"),
    [
        (ChatGLMModel, "kolors/text_encoder"),
        (transformers.T5EncoderModel, "sd3/text_encoder_3"),
        (transformers.CLIPTextModelWithProjection, "sd3/text_encoder_2"),
        (transformers.CLIPTextModel, "sd15/text_encoder"),
    ],
)
def test_a_dummy_text_encoder_reads_a_prompt_in_half_precision(
    cls: type[torch.nn.Module], part: str, dtype: torch.dtype, random_manifest: Manifest
) -> None:
    encoder = dummies.network(cls, random_manifest.path.parent / part, CPU, dtype)
    token_ids = torch.arange(1, 17)[None]
    arguments = {"input_ids": token_ids, "output_hidden_states": True}
    if cls is ChatGLMModel:
        arguments |= {"attention_mask": torch.ones_like(token_ids), "position_ids": token_ids - 1}
    with torch.no_grad():
        hidden = encoder(**arguments).hidden_states[-1]
    assert hidden.isfinite().all()
    assert hidden.std() > 0.1


def test_the_whole_of_a_dummy_pipeline_is_there(tmp_path: Path) -> None:
    """On the meta device: as many parts as the real one has, and tokenizers that understand text."""
    described = checkpoint({"dummy": "sd3-medium"}, tmp_path)
    parts = dummies.pipeline(
        diffusers.StableDiffusion3Pipeline, configuration("sd3-medium"), META, described.dtype, {}
    ).components
    assert all(
        value is not None
        for name, value in parts.items()
        if "image_encoder" not in name and "feature_extractor" not in name
    )
    assert len(parts["tokenizer_3"]("a cat").input_ids) == 7
    kolors = dummies.pipeline(diffusers.KolorsPipeline, configuration("kolors"), META, torch.float16, {})
    assert kolors.tokenizer("a cat", padding="max_length", max_length=16).input_ids[-1] < 65024
