"""The shape of a UNet is read from its tensors, whole or distilled, in both kinds of names."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pipelines.weights.configs import configuration
from pipelines.weights.header import Header, Shapes, Unrecognised
from pipelines.weights.layouts.checkpoint import checkpoint_networks
from pipelines.weights.layouts.clip import clip_layout
from pipelines.weights.layouts.networks import controlnet_network, vae_network
from pipelines.weights.layouts.tensors import Expected
from pipelines.weights.layouts.unet import controlnet_layout, unet_layout
from pipelines.weights.layouts.vae import vae_layout
from pipelines.weights.layouts.variants import variant

SSD_1B = {
    "mid_block_type": "UNetMidBlock2D",
    "transformer_layers_per_block": [1, [2, 2], [4, 4]],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
}
VEGA = {
    "mid_block_type": None,
    "transformer_layers_per_block": [1, [1, 1], [2, 2]],
    "reverse_transformer_layers_per_block": [[2, 2, 2], [1, 1, 1], 1],
}
KOALA = {"layers_per_block": 1, "transformer_layers_per_block": [1, 2, 6]}
SMALL_SD = {"layers_per_block": 1, "mid_block_type": None}
GUIDED = {"time_cond_proj_dim": 256}
NAMES: dict[str, Callable[[Expected], str]] = {
    "original": lambda each: each.original,
    "diffusers": lambda each: each.name,
}


def config_of(name: str, part: str = "unet") -> dict[str, Any]:
    return json.loads((configuration(name) / part / "config.json").read_text())


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize(
    ("base", "changes"),
    [
        ("sdxl", {}),
        ("sdxl", SSD_1B),
        ("sdxl", VEGA),
        ("sdxl", KOALA),
        ("sdxl", GUIDED),
        ("stable-diffusion-v1-5", {}),
        ("stable-diffusion-v1-5", SMALL_SD),
        ("stable-diffusion-v1-5", GUIDED),
    ],
)
def test_a_unet_is_told_by_its_tensors(base: str, changes: dict[str, Any], names: str) -> None:
    published = config_of(base)
    expected = list(unet_layout({**published, **changes}))
    found = variant(published, {NAMES[names](each): each.shape for each in expected})
    assert list(unet_layout(found)) == expected
    if not changes:
        assert found == published


def whole(name: str) -> dict[str, tuple[int, ...]]:
    """The shapes of a published checkpoint, in one file of the original layout."""
    unet = {f"model.diffusion_model.{each.original}": each.shape for each in unet_layout(config_of(name))}
    vae = {f"first_stage_model.{each.original}": each.shape for each in vae_layout(config_of(name, "vae"))}
    place = "cond_stage_model" if name != "sdxl" else "conditioner.embedders.0"
    clip = {
        f"{place}.transformer.text_model.{each.name}": each.shape
        for each in clip_layout(config_of(name, "text_encoder"), projected=False)
    }
    if name != "sdxl":
        return unet | vae | clip
    second = {
        f"conditioner.embedders.1.model.{each.original}": (
            (3 * each.shape[0], *each.shape[1:]) if "in_proj" in each.original else each.shape
        )
        for each in clip_layout(config_of(name, "text_encoder_2"), projected=True)
    }
    return unet | vae | clip | second


@pytest.mark.parametrize("name", ["stable-diffusion-v1-5", "sdxl"])
def test_the_published_checkpoints_open(name: str) -> None:
    found = checkpoint_networks(Header(whole(name)), configuration(name))
    assert found.unet_config == config_of(name)


def refused(shapes: Shapes, dtypes: dict[str, str] | None = None, name: str = "stable-diffusion-v1-5") -> str:
    with pytest.raises(Unrecognised) as caught:
        checkpoint_networks(Header(shapes, dtypes or {}), configuration(name))
    return str(caught.value)


def test_a_checkpoint_of_another_shape_is_refused_by_what_differs() -> None:
    shapes = whole("stable-diffusion-v1-5")
    key = "model.diffusion_model.middle_block.1.norm.weight"
    without = {name: shape for name, shape in shapes.items() if name != key}
    assert "its network has another shape" in (said := refused(without))
    assert "it lacks middle_block.1.norm.weight" in said
    assert "is 640, not 1280" in refused({**shapes, key: (640,)})
    more = {"model.diffusion_model.input_blocks.1.1.motion.weight": (1,)}
    assert "layers that are not drawn with here (1, as input_blocks.1.1.motion.weight)" in refused(
        shapes | more
    )
    vae = {name: shape for name, shape in shapes.items() if "decoder.norm_out" not in name}
    assert "its VAE has another shape" in refused(vae)
    clip = {name: shape for name, shape in shapes.items() if "final_layer_norm" not in name}
    assert "its text encoder has another shape" in refused(clip)
    assert "as its tensor edm_mean says" in refused(shapes | {"edm_mean": (4,)})


@pytest.mark.parametrize("dtype", ["I8", "U8", "F4", "F8_E8M0"])
def test_quantised_weights_are_refused_by_their_format(dtype: str) -> None:
    shapes = whole("stable-diffusion-v1-5")
    key = "model.diffusion_model.middle_block.1.proj_in.weight"
    assert f"its weights are quantised ({dtype})" in refused(shapes, {key: dtype})
    scaled = shapes | {key.removesuffix(".weight") + ".scale_weight": (1280, 40)}
    assert "a scale for each block" in refused(scaled, {key: "F8_E4M3"})


def test_a_vae_or_controlnet_of_another_shape_is_refused_by_what_differs() -> None:
    config = config_of("stable-diffusion-v1-5", "vae")
    shapes = {each.name: each.shape for each in vae_layout({**config, "layers_per_block": 1})}
    with pytest.raises(Unrecognised, match="its VAE has another shape"):
        vae_network(Header(shapes), config)
    config = config_of("stable-diffusion-v1-5")
    shapes = {each.name: each.shape for each in controlnet_layout(config)}
    assert controlnet_network(Header(shapes), config)[0].keys() == shapes.keys()
    with pytest.raises(Unrecognised, match="its ControlNet has layers that are not drawn with"):
        controlnet_network(Header({**shapes, "more.weight": (1,)}), config)
    with pytest.raises(Unrecognised, match="its ControlNet has another shape"):
        controlnet_network(Header(shapes), config_of("sdxl"))
