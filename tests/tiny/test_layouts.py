"""The written-out layouts have exactly the tensors that diffusers and transformers give the networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from pipelines.checkpoints.dummies import skeleton
from pipelines.weights.configs import configuration
from pipelines.weights.layouts.clip import clip_layout
from pipelines.weights.layouts.unet import controlnet_layout, unet_layout
from pipelines.weights.layouts.vae import vae_layout

SSD_1B = {
    "mid_block_type": "UNetMidBlock2D",
    "transformer_layers_per_block": [1, [2, 2], [4, 4]],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
}
DISTILLED = {"mid_block_type": None, "layers_per_block": 1}
LCM = {"time_cond_proj_dim": 256}
INPAINTING = {"in_channels": 9}


@pytest.fixture(params=["stable-diffusion-v1-5", "sdxl", "small sd15", "small sdxl"])
def folder(request: pytest.FixtureRequest, random_manifest_path: Path) -> Path:
    name = str(request.param)
    if name.startswith("small"):
        return random_manifest_path.parent / name.removeprefix("small ")
    return configuration(name)


def shapes(network: Any) -> dict[str, tuple[int, ...]]:
    found = {name.removeprefix("text_model."): tensor for name, tensor in network.state_dict().items()}
    return {name: tuple(tensor.shape) for name, tensor in found.items()}


def written(layout: Any) -> dict[str, tuple[int, ...]]:
    return {each.name: each.shape for each in layout}


@pytest.mark.parametrize("changes", [{}, SSD_1B, DISTILLED, LCM, INPAINTING])
def test_unets_have_these_tensors(folder: Path, changes: dict[str, Any]) -> None:
    config = json.loads((folder / "unet/config.json").read_text())
    if changes is SSD_1B and "addition_embed_type" not in config:
        changes = {"mid_block_type": "UNetMidBlock2D"}
    if changes is SSD_1B and config["layers_per_block"] == 1:
        changes = {**SSD_1B, "transformer_layers_per_block": [1, [2], [4]],
                   "reverse_transformer_layers_per_block": [[4, 10], [2, 1], 1]}  # fmt: skip
    config |= changes
    assert written(unet_layout(config)) == shapes(of_config(UNet2DConditionModel, config))


def test_controlnets_have_these_tensors(folder: Path) -> None:
    config = json.loads((folder / "unet/config.json").read_text())
    unet = of_config(UNet2DConditionModel, config)
    network = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
    assert written(controlnet_layout(config)) == shapes(network)


def test_vaes_have_these_tensors(folder: Path) -> None:
    config = json.loads((folder / "vae/config.json").read_text())
    assert written(vae_layout(config)) == shapes(skeleton(AutoencoderKL, folder / "vae"))


def test_text_encoders_have_these_tensors(folder: Path) -> None:
    config = json.loads((folder / "text_encoder/config.json").read_text())
    assert written(clip_layout(config, projected=False)) == shapes(
        skeleton(CLIPTextModel, folder / "text_encoder")
    )
    if (folder / "text_encoder_2").is_dir():
        config = json.loads((folder / "text_encoder_2/config.json").read_text())
        second = skeleton(CLIPTextModelWithProjection, folder / "text_encoder_2")
        assert written(clip_layout(config, projected=True)) == shapes(second)


def of_config(cls: Any, config: dict[str, Any]) -> Any:
    import torch

    with torch.device("meta"):
        return cls.from_config(config)
