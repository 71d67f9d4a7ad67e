"""LoRAs of SDXL's several networks: each alone, with ranks of its own, and in half precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file
from torch import Tensor

from pipelines.errors import UnknownAdapter
from pipelines.request import Lora
from pipelines.weights.entries import AdapterEntry, Source
from pipelines.weights.header import Unrecognised
from pipelines.weights.inspection import inspect_file
from pipelines.weights.manifest import Manifest
from tests.drawing import open_family, reference, small_request
from tests.tiny.lycoris_files import numbers

REQUEST = small_request(pipeline="sdxl")
PREFIXES = {
    "unet": "lora_unet_",
    "text_encoder": "lora_te1_text_model_",
    "text_encoder_2": "lora_te2_text_model_",
}


class Loader:
    """The small SDXL, which takes a file as a load would and encodes the prompt with it."""

    def __init__(self, manifest: Manifest, folder: Any) -> None:
        self.manifest, self.folder = manifest, folder
        self.family = open_family(manifest, "sdxl")
        self.plain = reference(StableDiffusionXLPipeline, manifest, "sdxl")

    def encoded(
        self, tensors: dict[str, Tensor], *, load: bool = True
    ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        path = self.folder / "x.safetensors"
        save_file(tensors, path)
        if load:
            assert inspect_file(path, self.manifest.path).family == "sdxl"
        self.family.clear_cache()
        library = self.family._loras._adapters
        library.clear_cache()
        entry = AdapterEntry(source=Source(file=path), family="sdxl")
        library.manifest = self.manifest.model_copy(update={"loras": {"x": entry}})
        found = self.family._prompts.encode(replace(REQUEST, loras=(Lora(name="x"),)))
        return dict(found.positive), found.warnings


@pytest.fixture(scope="module")
def loader(random_manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Loader:
    return Loader(random_manifest, tmp_path_factory.mktemp("sdxl"))


def layer(network: str, module: str, plain: Any, rank: int, strength: float = 1.0) -> dict[str, Tensor]:
    weight = getattr(plain, network).get_submodule(module).weight
    name = "lora_te2_" if module == "text_projection" else PREFIXES[network]
    stem = name + module.removeprefix("text_model.").replace(".", "_")
    return {
        f"{stem}.lora_down.weight": numbers(rank, weight.shape[1], seed=rank),
        f"{stem}.lora_up.weight": strength * numbers(weight.shape[0], rank, seed=rank + 1),
        f"{stem}.alpha": torch.tensor(float(rank)),
    }


def modules(plain: Any, network: str) -> list[str]:
    ends = {"unet": ("to_q", "time_embedding.linear_1", "add_embedding.linear_1", "conv_in", "conv_out")}
    return [
        name
        for name, _ in getattr(plain, network).named_modules()
        if name.endswith(ends.get(network, ("q_proj", "fc1")))
    ]


def test_the_projection_may_have_another_rank_than_the_layers(loader: Loader) -> None:
    """Other ranks than elsewhere, in a list of layers that diffusers' loader does not look at."""
    plain = loader.plain
    file = layer("text_encoder_2", "text_projection", plain, 7)
    for at, name in enumerate(modules(plain, "text_encoder_2")):
        file |= layer("text_encoder_2", name, plain, 2 + at % 3)
    found, warnings = loader.encoded(file)
    assert not [warning for warning in warnings if "LoRA" in warning]
    for name in {key.partition(".")[0] for key in file}:
        parts = {part: file[f"{name}.{part}"] for part in ("lora_up.weight", "lora_down.weight")}
        target = next(
            module
            for module, _ in plain.text_encoder_2.named_modules()
            if name.removeprefix("lora_te2_").removeprefix("text_model_")
            == module.removeprefix("text_model.").replace(".", "_")
        )
        weight = plain.text_encoder_2.get_submodule(target).weight
        with torch.no_grad():
            weight += parts["lora_up.weight"] @ parts["lora_down.weight"]
    expected = plain.encode_prompt(REQUEST.prompt, device="cpu", do_classifier_free_guidance=False)
    loader.plain = reference(StableDiffusionXLPipeline, loader.manifest, "sdxl")
    assert torch.allclose(found["encoder_hidden_states"], expected[0], atol=1e-4)
    assert torch.allclose(found["text_embeds"], expected[2], atol=1e-4)


@pytest.mark.parametrize("only", ["text_encoder", "text_encoder_2", "projection"])
def test_a_file_for_one_text_encoder_alone_is_loaded_and_has_effect(only: str, loader: Loader) -> None:
    if only == "projection":
        file = layer("text_encoder_2", "text_projection", loader.plain, 3)
    else:
        file = {
            key: tensor
            for name in modules(loader.plain, only)
            for key, tensor in layer(only, name, loader.plain, 3).items()
        }
    found, warnings = loader.encoded(file)
    without = loader.family._prompts.encode(REQUEST).positive
    assert not [warning for warning in warnings if "LoRA" in warning]
    changed = "text_embeds" if only == "projection" else "encoder_hidden_states"
    assert not torch.equal(found[changed], without[changed])


def test_layers_outside_the_blocks_of_the_unet_have_a_place(loader: Loader) -> None:
    file: dict[str, Tensor] = {}
    for name in modules(loader.plain, "unet"):
        if not name.startswith("conv_"):
            file |= layer("unet", name, loader.plain, 2)
    _, warnings = loader.encoded(file)
    assert not [warning for warning in warnings if "LoRA" in warning]


def test_numbers_beyond_half_precision_are_an_error_with_its_own_words(
    random_manifest: Manifest, tmp_path: Any
) -> None:
    family = open_family(random_manifest, "sdxl", dtype="float16")
    plain = reference(StableDiffusionXLPipeline, random_manifest, "sdxl")
    file = layer("text_encoder", modules(plain, "text_encoder")[0], plain, 2, strength=1e30)
    save_file(file, tmp_path / "x.safetensors")
    library = family._loras._adapters
    entry = AdapterEntry(source=Source(file=tmp_path / "x.safetensors"), family="sdxl")
    library.manifest = random_manifest.model_copy(update={"loras": {"x": entry}})
    with pytest.raises(UnknownAdapter, match="loras: x times its alpha is beyond the number format"):
        family.encode(replace(REQUEST, loras=(Lora(name="x"),)))
    assert family.encode(REQUEST)


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_a_file_that_no_load_looked_at_is_refused_by_its_tensors_name(number: float, loader: Loader) -> None:
    file = layer("text_encoder_2", "text_projection", loader.plain, 3)
    file["lora_te2_text_projection.lora_up.weight"][0, 0] = number
    words = r"loras: x cannot be used: its tensor lora_te2_text_projection\.lora_up\.weight has numbers"
    with pytest.raises(UnknownAdapter, match=words):
        loader.encoded(file, load=False)


def test_a_file_that_changes_no_layer_of_any_checkpoint_is_refused_at_load(loader: Loader) -> None:
    file = layer("text_encoder_2", "text_projection", loader.plain, 3)
    file["lora_te2_text_projection.lora_down.weight"] = torch.ones(3, 9)
    with pytest.raises(Unrecognised, match="none of its layers has the shape of one of SDXL"):
        loader.encoded(file)


@pytest.mark.parametrize("layout", [("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1")])
def test_a_bundled_word_is_one_of_both_text_encoders(layout: tuple[str, str], loader: Loader) -> None:
    file = layer("text_encoder_2", "text_projection", loader.plain, 3)
    widths = (getattr(loader.plain, name).config.hidden_size for name in ("text_encoder", "text_encoder_2"))
    bundle = {
        f"bundle_emb.fox.{name}": numbers(2, width, seed=width)
        for name, width in zip(layout, widths, strict=True)
    }
    found, warnings = loader.encoded({**file, **bundle})
    plain, _ = loader.encoded(file)
    assert not torch.equal(found["encoder_hidden_states"], plain["encoder_hidden_states"])
    assert not [warning for warning in warnings if "had no effect" in warning]
