"""Every layer of the published networks is found by its name in diffusers and in the original release."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.weights.configs import configuration
from pipelines.weights.layouts.clip import clip_layout
from pipelines.weights.layouts.tensors import Expected
from pipelines.weights.layouts.unet import unet_layout
from pipelines.weights.lora_fit import fits_somewhere
from pipelines.weights.module_names import text_module, unet_module
from pipelines.weights.recognition import recognise

FAMILIES = {"sd15": "stable-diffusion-v1-5", "sdxl": "sdxl"}


def config(family: str, part: str) -> Any:
    return json.loads((configuration(FAMILIES[family]) / part / "config.json").read_text())


def weights(layout: Any) -> list[Expected]:
    """The layers that a LoRA can change: matrices and kernels."""
    return [
        each
        for each in layout
        if each.name.endswith(".weight") and len(each.shape) > 1 and "embedding.weight" not in each.name
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_of_the_unet_is_found_by_each_of_its_names(family: str) -> None:
    layers = weights(unet_layout(config(family, "unet")))
    assert len(layers) > 200
    for each in layers:
        name = each.name.removesuffix(".weight")
        original = each.original.removesuffix(".weight")
        for written in (name, original):
            assert unet_module(written, flat=False) == name
            assert unet_module(written.replace(".", "_"), flat=True) == name


@pytest.mark.parametrize(("family", "part"), [("sd15", "text_encoder"), ("sdxl", "text_encoder_2")])
def test_every_layer_of_a_text_encoder_is_found_by_its_name(family: str, part: str) -> None:
    layers = weights(clip_layout(config(family, part), projected=part.endswith("2")))
    assert len(layers) > 60
    for each in layers:
        name = each.name.removesuffix(".weight").removeprefix("text_model.")
        for written in (name, f"text_model.{name}"):
            assert text_module(written, flat=False) == name
            assert text_module(written.replace(".", "_"), flat=True) == name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("original", [False, True])
def test_a_lora_of_full_size_is_of_its_family_and_fits_no_other(family: str, original: bool) -> None:
    shapes: dict[str, tuple[int, ...]] = {}
    for each in weights(unet_layout(config(family, "unet"))):
        name = (each.original if original else each.name).removesuffix(".weight").replace(".", "_")
        shapes[f"lora_unet_{name}.lora_down.weight"] = (4, *each.shape[1:])
        shapes[f"lora_unet_{name}.lora_up.weight"] = (each.shape[0], 4, *(1,) * (len(each.shape) - 2))
    assert recognise(shapes).family == family
    assert fits_somewhere(shapes, configuration(FAMILIES[family]))
    readers = {key: shape for key, shape in shapes.items() if "attn2_to_k" in key}
    fitting = [other for other, name in FAMILIES.items() if fits_somewhere(readers, configuration(name))]
    assert fitting == [family]
