"""Whatever is wrong with a checkpoint's files, who asks for it is told which one it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.errors import CheckpointUnavailable, UnknownAdapter, UnusableCheckpoint
from pipelines.weights.entries import AdapterEntry, Source
from pipelines.weights.manifest import Manifest
from tests.drawing import draw, open_family, small_request
from tests.tiny.original_layout import write_single_file


def edited(name: str, **changes: Any) -> Callable[[Path], None]:
    """Changes a JSON file of a folder."""

    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def replaced(name: str, content: str) -> Callable[[Path], None]:
    """Replaces a file of a folder."""

    def replace(folder: Path) -> None:
        (folder / name).write_text(content)

    return replace


DAMAGES: dict[str, Callable[[Path], None]] = {
    "index is a list": replaced("model_index.json", "[]"),
    "index is no JSON": replaced("model_index.json", "{"),
    "index names no class": edited("model_index.json", unet=["diffusers", "NoSuchNetwork"]),
    "index names no library": edited("model_index.json", unet=["no_such_library", "UNet"]),
    "widths are a word": edited("unet/config.json", block_out_channels="wide"),
    "widths are nothing": edited("unet/config.json", block_out_channels=None),
    "blocks are unheard of": edited("unet/config.json", down_block_types=["Block"] * 3),
    "heads are zero": edited("unet/config.json", attention_head_dim=0),
    "scheduler is a list": replaced("scheduler/scheduler_config.json", "[]"),
    "betas are a word": edited("scheduler/scheduler_config.json", beta_start="small"),
    "text encoder is of no kind": edited("text_encoder/config.json", hidden_act="loud"),
}


def opened(source: dict[str, str], folder: Path) -> object:
    entry = {"family": "sd15", "dtype": "float32", "parts": {"pipeline": source}}
    manifest = Manifest.model_validate({"path": folder / "weights.yaml", "pipelines": {"mine": entry}})
    checkpoint = Checkpoint("mine", manifest, manifest.pipelines["mine"], folder, torch.device("cpu"))
    return checkpoint.pipeline(
        "pipeline", StableDiffusionPipeline, safety_checker=None, feature_extractor=None
    )


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_does_not_open_is_named(
    damage: str, random_manifest_path: Path, tmp_path: Path
) -> None:
    shutil.copytree(random_manifest_path.parent / "sd15", tmp_path / "copy")
    DAMAGES[damage](tmp_path / "copy")
    with pytest.raises(CheckpointUnavailable, match="the weights of mine"):
        opened({"folder": "copy"}, tmp_path)


def test_a_single_file_that_does_not_open_is_named_with_the_reason(
    random_manifest_path: Path, tmp_path: Path
) -> None:
    small = random_manifest_path.parent / "sd15"
    write_single_file(StableDiffusionPipeline.from_pretrained(small), tmp_path / "whole.safetensors")
    tensors = load_file(tmp_path / "whole.safetensors")
    del tensors["first_stage_model.decoder.norm_out.weight"]
    save_file(tensors, tmp_path / "mine.safetensors")
    source = {"file": "mine.safetensors", "config": str(small)}
    with pytest.raises(UnusableCheckpoint, match=r"mine cannot be drawn with: its VAE .* decoder\.norm_out"):
        opened(source, tmp_path)
    (tmp_path / "mine.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-5])
    with pytest.raises(UnusableCheckpoint, match="mine cannot be drawn with: it is cut off"):
        opened(source, tmp_path)


@pytest.mark.parametrize("changes", [{"block_out_channels": "wide"}, {"down_block_types": None}])
def test_a_vae_whose_folder_does_not_open_is_named(
    changes: dict[str, Any], random_manifest: Manifest, tmp_path: Path
) -> None:
    shutil.copytree(random_manifest.path.parent / "sd15_adapters/vae", tmp_path / "vae")
    edited("config.json", **changes)(tmp_path / "vae")
    entry = AdapterEntry(source=Source(folder=tmp_path / "vae"), family="sd15")
    manifest = random_manifest.with_entry("vaes", "mine", entry)
    family = open_family(manifest, "stable-diffusion-v1-5")
    with pytest.raises(UnknownAdapter, match="vae: mine cannot be read"):
        draw(family, small_request(vae="mine"))
