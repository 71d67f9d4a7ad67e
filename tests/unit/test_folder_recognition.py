"""Repositories in diffusers' layout are known, or refused by name, before their weights come."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.weights.folder_recognition import (
    demand_drawable,
    demand_weights,
    network_kind,
    pipeline_family,
)
from pipelines.weights.header import Unrecognised
from pipelines.weights.kinds import STABLE_DIFFUSION_FAMILIES

SD15: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "PNDMScheduler"],
}
SDXL: dict[str, Any] = {
    **SD15,
    "_class_name": "StableDiffusionXLPipeline",
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
}
NONE = [None, None]


@pytest.mark.parametrize(
    ("index", "family"),
    [
        (SD15, "sd15"),
        ({**SD15, "_class_name": "LatentConsistencyModelPipeline"}, "sd15"),
        ({**SD15, "_class_name": "StableDiffusionImg2ImgPipeline"}, "sd15"),
        (SDXL, "sdxl"),
        ({**SDXL, "_class_name": "StableDiffusionXLImg2ImgPipeline"}, "sdxl"),
    ],
)
def test_a_pipeline_is_known_by_its_index(index: dict[str, Any], family: str) -> None:
    assert pipeline_family(index) == family


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ({**SD15, "_class_name": "FluxPipeline"}, "it is a FluxPipeline"),
        ({**SD15, "vae": NONE}, "without vae"),
        ({**SD15, "text_encoder": NONE}, "without text_encoder"),
        ({name: value for name, value in SD15.items() if name != "unet"}, "without unet"),
        ({**SD15, "vae": ["diffusers", "AutoencoderTiny"]}, "its vae is a AutoencoderTiny"),
        ({**SD15, "unet": ["my_network", "MyUNet"]}, "its unet is a MyUNet"),
        ({**SDXL, "text_encoder_2": NONE}, "without text_encoder_2"),
        ({**SDXL, "_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": NONE, "tokenizer": NONE},
         "the SDXL refiner"),
    ],
)  # fmt: skip
def test_a_pipeline_of_other_components_is_named(index: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unrecognised, match=reason):
        pipeline_family(index)


@pytest.mark.parametrize(
    ("file", "config", "reason"),
    [
        ("unet/config.json", {"cross_attention_dim": 1024}, "Stable Diffusion 2"),
        ("unet/config.json", {"cross_attention_dim": 1280}, "the SDXL refiner"),
        ("unet/config.json", {"in_channels": 9}, "for inpainting or editing"),
        ("unet/config.json", {"in_channels": 8}, "for inpainting or editing"),
        ("unet/config.json", {"encoder_hid_dim_type": "text_proj"}, "encoder_hid_dim_type 'text_proj'"),
        ("unet/config.json", {"class_embed_type": "projection"}, "class_embed_type 'projection'"),
        ("vae/config.json", {"latent_channels": 16}, "16 latent channels"),
        ("scheduler/scheduler_config.json", {"_class_name": "EDMEulerScheduler"}, "trained for EDM"),
        ("scheduler/scheduler_config.json", {"_class_name": "FlowMatchHeunDiscreteScheduler"}, "for Flow"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "predicts 'flow'"),
    ],
)  # fmt: skip
def test_a_component_that_is_not_drawn_with_is_named(file: str, config: dict[str, Any], reason: str) -> None:
    for family in STABLE_DIFFUSION_FAMILIES:
        unet = {"addition_embed_type": "text_time" if family == "sdxl" else None}
        configs = {"unet/config.json": unet, file: {**(unet if file.startswith("unet") else {}), **config}}
        with pytest.raises(Unrecognised, match=reason):
            demand_drawable(family, lambda name, configs=configs: configs.get(name, {}))


def test_trainings_that_are_drawn_with_pass() -> None:
    scheduler = {"_class_name": "LCMScheduler", "prediction_type": "v_prediction"}
    demand_drawable("sd15", lambda name: scheduler if name.startswith("scheduler") else {})
    guided = {"time_cond_proj_dim": 256, "addition_embed_type": "text_time", "mid_block_type": None}
    demand_drawable("sdxl", lambda name: guided if name.startswith("unet") else {})


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"_class_name": "ControlNetUnionModel"}, "it is a ControlNetUnionModel"),
        ({"_class_name": "T2IAdapter"}, "it is a T2IAdapter"),
        ({"_class_name": "AutoencoderTiny"}, "it is a AutoencoderTiny"),
        ({"architectures": ["T5EncoderModel"]}, "it is a T5EncoderModel"),
        ({}, "it is a network of another library"),
        ({"_class_name": "AutoencoderKL", "latent_channels": 16}, "16 latent channels"),
        ({"_class_name": "AutoencoderKL", "block_out_channels": [1] * 5}, "16 pixels along a latent, not 8"),
        ({"_class_name": "ControlNetModel", "conditioning_embedding_out_channels": [1] * 5}, "no picture"),
        ({"_class_name": "ControlNetModel", "cross_attention_dim": 1024}, "Stable Diffusion 2"),
        ({"_class_name": "ControlNetModel", "encoder_hid_dim_type": "text_proj"}, "another network"),
        ({"_class_name": "ControlNetModel", "conditioning_channels": 6}, "no picture"),
    ],
)
def test_a_single_network_of_another_kind_is_named(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unrecognised, match=reason):
        network_kind(config, {8})


def test_a_checkpoint_needs_the_weights_of_each_network() -> None:
    files = ["unet/diffusion_pytorch_model.safetensors", "vae/config.json"]
    demand_weights(["unet"], files)
    with pytest.raises(Unrecognised, match="its vae has no weights"):
        demand_weights(["unet", "vae"], files)
