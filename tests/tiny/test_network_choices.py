"""Small checkpoints of every family, drawn with quantized text encoders, other dtypes, and without T5."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.checkpoints.quantization import is_quantized, quantize, stored_bytes
from pipelines.engine.parts import module_bytes
from pipelines.request import Lora
from pipelines.weights.entries import PipelineEntry, Source
from pipelines.weights.manifest import Manifest
from pipelines.weights.networks import NETWORKS
from tests.drawing import draw, draw_alone, open_family
from tests.gpu.stages import SIDES, default_request

SIDE = 64


def choosing(manifest: Manifest, name: str, networks: dict[str, Any]) -> Manifest:
    """The manifest with choices for single networks of one pipeline."""
    plain = manifest.pipelines[name]
    values = {**plain.model_dump(exclude={"memory"}), "networks": networks}
    entry = PipelineEntry.model_validate(values)
    return manifest.model_copy(update={"pipelines": {**manifest.pipelines, name: entry}})


def text_encoders(manifest: Manifest, name: str) -> tuple[str, ...]:
    return NETWORKS[manifest.pipelines[name].family].text_encoders


def request_of(name: str, prompt: str = "a red circle on a blue background") -> Any:
    return replace(
        default_request(name, (7,), side=SIDE, steps=4, prompt=prompt),
        negative_prompt=None,
        guidance_scale=3.0,
    )


def picture(pipeline: Any, name: str, **prompt: str) -> np.ndarray:
    (drawn,) = draw_alone(pipeline, request_of(name, **prompt))
    return drawn.astype(float)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


QUICK = [("kolors", "int8"), ("sd3-medium-pose", "int4")]
ALL = [(name, bits) for name in SIDES for bits in ("int8", "int4")]


@pytest.mark.parametrize(
    ("name", "bits"),
    [each if each in QUICK else pytest.param(*each, marks=pytest.mark.slow) for each in ALL],
)
def test_quantized_text_encoders_draw_nearly_the_same(name: str, bits: str, demo_manifest: Manifest) -> None:
    encoders = text_encoders(demo_manifest, name)
    chosen = choosing(demo_manifest, name, {encoder: {"quantize": bits} for encoder in encoders})
    plain, quantized = open_family(demo_manifest, name), open_family(chosen, name)
    for encoder in encoders:
        assert is_quantized(quantized.modules[encoder]), encoder
        assert module_bytes({"": quantized.modules[encoder]}) < module_bytes({"": plain.modules[encoder]})
    others = [module for part, module in quantized.modules.items() if part not in encoders]
    assert not any(map(is_quantized, others))
    drawn = picture(plain, name)
    rounded = difference(drawn, picture(quantized, name))
    another = difference(drawn, picture(plain, name, prompt="a yellow square on a green background"))
    assert 0 < rounded < another / 20


DTYPES = {
    "kandinsky-2-2": {"prior.prior": "bfloat16", "decoder.movq": "bfloat16"},
    "kolors": {"text_encoder": "bfloat16", "vae": "bfloat16"},
    "sd3-medium-pose": {"text_encoder_3": "bfloat16", "controlnet": "bfloat16", "vae": "bfloat16"},
    "stable-diffusion-v1-5": {"unet": "bfloat16"},
    "sdxl": {"text_encoder_2": "bfloat16", "vae": "bfloat16"},
}


@pytest.mark.parametrize(
    "name", [name if name == "sdxl" else pytest.param(name, marks=pytest.mark.slow) for name in SIDES]
)
def test_networks_of_different_dtypes_draw_nearly_the_same(name: str, demo_manifest: Manifest) -> None:
    chosen = {network: {"dtype": dtype} for network, dtype in DTYPES[name].items()}
    mixed = open_family(choosing(demo_manifest, name, chosen), name)
    dtypes = {part: next(module.parameters()).dtype for part, module in mixed.modules.items()}
    for part, dtype in dtypes.items():
        assert dtype == (torch.bfloat16 if part in chosen else torch.float32), part
    assert 0 < difference(picture(open_family(demo_manifest, name), name), picture(mixed, name)) < 6


@pytest.mark.slow
@pytest.mark.parametrize("name", SIDES)
def test_every_network_may_have_another_dtype_than_the_rest(name: str, random_manifest: Manifest) -> None:
    """Each in turn is the only one in full precision, then the only one in half."""
    for network in NETWORKS[random_manifest.pipelines[name].family].numbers:
        if network.startswith("annotator"):
            continue
        for own, rest in (("float32", "bfloat16"), ("bfloat16", "float32")):
            chosen = choosing(random_manifest, name, {network: {"dtype": own}})
            drawn = picture(open_family(chosen, name, dtype=rest), name)
            assert drawn.std() > 1, (network, own)


def test_sd3_draws_without_t5(demo_manifest: Manifest) -> None:
    name = "sd3-medium-pose"
    without = open_family(choosing(demo_manifest, name, {"text_encoder_3": "skip"}), name)
    assert "text_encoder_3" not in without.modules
    plain = picture(open_family(demo_manifest, name), name)
    assert difference(plain, picture(without, name)) > 0
    long = replace(request_of(name, "a red circle " * 60))
    (drawn,) = draw(without, long)
    assert any("is left out" in warning for warning in drawn.warnings)


def test_sd3_draws_from_a_folder_that_has_no_t5(demo_manifest: Manifest, tmp_path: Path) -> None:
    name = "sd3-medium-pose"
    whole = demo_manifest.path.parent / "sd3"
    copytree(whole, tmp_path / "sd3", ignore=ignore_patterns("text_encoder_3", "tokenizer_3"))
    parts = {**demo_manifest.pipelines[name].parts, "pipeline": Source(folder=tmp_path / "sd3")}
    entry = demo_manifest.pipelines[name].model_copy(update={"parts": parts})
    moved = demo_manifest.model_copy(update={"pipelines": {name: entry}})
    without = open_family(choosing(moved, name, {"text_encoder_3": "skip"}), name)
    beside = open_family(choosing(demo_manifest, name, {"text_encoder_3": "skip"}), name)
    assert difference(picture(without, name), picture(beside, name)) == 0


def test_a_lora_of_a_quantized_text_encoder_is_put_on_and_taken_off(random_manifest: Manifest) -> None:
    name = "stable-diffusion-v1-5"
    for bits in ("int8", "int4"):
        family = open_family(choosing(random_manifest, name, {"text_encoder": {"quantize": bits}}), name)
        plain = request_of(name)
        before, with_lora, after = (
            draw_alone(family, replace(plain, loras=loras))[0].astype(float)
            for loras in ((), (Lora(name="more_details"),), ())
        )
        assert difference(before, with_lora) > 0
        assert difference(before, after) == 0
        assert is_quantized(family.modules["text_encoder"])


def test_the_bytes_of_quantized_matrices_are_those_that_they_take() -> None:
    for bits, most in (("int8", 1.01), ("int4", 0.52)):
        network = torch.nn.Sequential(torch.nn.Linear(512, 1024, bias=False, dtype=torch.float16))
        quantize(network, bits, torch.device("cpu"))
        (weight,) = network.parameters()
        assert weight.nbytes == 2 * 512 * 1024
        assert most * 0.99 * 512 * 1024 <= stored_bytes(weight) <= most * 512 * 1024


def test_a_matrix_that_cannot_be_divided_into_blocks_stays_as_it_is() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(7, 9))
    quantize(network, "int4", torch.device("cpu"))
    assert not is_quantized(network)
    assert network(torch.zeros(1, 7)).shape == (1, 9)
