"""Whatever load takes is drawn with: every naming and kind of LoRA goes through load and drawing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file
from torch import Tensor

from pipelines.denoising.sample import Picture
from pipelines.request import Lora
from pipelines.weights.entries import AdapterEntry, Source
from pipelines.weights.inspection import inspect_file
from pipelines.weights.lora_names import DOTTED_PREFIXES, FLAT_PREFIXES, OTHER_ENDS, WRAPPERS
from pipelines.weights.manifest import Manifest
from tests.drawing import draw, open_family, reference, small_request
from tests.tiny.lora_layouts import PEFT_ENDS, RANK, Naming, file, flat, modules, namings, processor

PIPELINES = {"sd15": "stable-diffusion-v1-5", "sdxl": "sdxl"}
REQUEST = small_request(num_inference_steps=1, guidance_scale=1.0, seeds=(7,))
NAMINGS = namings()
KOHYA = Naming("unet", lambda module: f"lora_unet_{flat(module)}")
DOTTED = Naming("unet", lambda module: f"unet.{module}", PEFT_ENDS)


class Drawer:
    """Loads files as `load_model` does and draws with them, on the small checkpoint of the family found."""

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        self.folder, self._manifest = folder, manifest
        classes = {"sd15": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
        self.plain = {family: reference(cls, manifest, family) for family, cls in classes.items()}
        self._families = {family: open_family(manifest, name) for family, name in PIPELINES.items()}
        self._without: dict[tuple[str, str], Picture] = {}
        self._count = 0

    def __call__(
        self,
        tensors: Mapping[str, Tensor],
        family: str | None = None,
        metadata: dict[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        prompt: str = REQUEST.prompt,
    ) -> tuple[bytes, tuple[str, ...]]:
        """The pixels and what is said of the LoRA."""
        self._count += 1
        name = f"lora {self._count}"
        path = self.folder / str(self._count) / "adapter_model.safetensors"
        path.parent.mkdir()
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata)
        if config is not None:
            (path.parent / "adapter_config.json").write_text(json.dumps(config))
        found = inspect_file(path, self._manifest.path)
        assert found.kind == "lora"
        assert family is None or found.family in (family, None)
        known: Any = found.family or family or "sd15"
        opened = self._families[known]
        library = opened._loras._adapters
        entry = AdapterEntry(source=Source(file=path), family=known)
        library.manifest = library.manifest.model_copy(update={"loras": {name: entry}})
        asked = replace(REQUEST, pipeline=PIPELINES[known], prompt=prompt)
        if (known, prompt) not in self._without:
            self._without[known, prompt] = draw(opened, asked)[0]
        without = self._without[known, prompt]
        opened.clear_cache()
        picture = draw(opened, replace(asked, loras=(Lora(name=name),)))[0]
        assert picture.image != without.image
        said = tuple(each for each in picture.warnings if each not in without.warnings)
        return picture.image.pixels, tuple(each.replace(name, "X") for each in said)


@pytest.fixture(scope="module")
def drawer(random_manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Drawer:
    return Drawer(random_manifest, tmp_path_factory.mktemp("layouts"))


def pixels(drawn: tuple[bytes, tuple[str, ...]]) -> Any:
    return np.frombuffer(drawn[0], np.uint8).astype(int)


@pytest.fixture(scope="module")
def expected(drawer: Drawer) -> dict[tuple[str, str], bytes]:
    """The picture of the same layers in diffusers' own names, by family and network."""
    found: dict[tuple[str, str], bytes] = {}
    for family, network in (("sd15", "unet"), ("sd15", "text_encoder"), ("sdxl", "text_encoder"),
                            ("sdxl", "text_encoder_2")):  # fmt: skip
        naming = Naming(network, lambda module, n=network: f"{n}.{module}", PEFT_ENDS)
        found[family, network], _ = drawer(file(naming, getattr(drawer.plain[family], network)), family)
    return found


def test_the_table_has_every_prefix_that_names_are_read_with() -> None:
    examples = [
        naming.name(
            "mid_block.attentions.0.proj_in" if naming.network == "unet" else "encoder.layers.0.mlp.fc1"
        )
        for naming in NAMINGS.values()
    ]
    for prefix in (*FLAT_PREFIXES, *DOTTED_PREFIXES, *WRAPPERS):
        assert any(name.startswith(prefix) for name in examples), prefix


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=[pytest.mark.slow] if "kohya's ends" in row else []) for row in NAMINGS]
)
def test_a_lora_in_any_naming_is_loaded_and_drawn_alike(
    row: str, drawer: Drawer, expected: dict[tuple[str, str], bytes]
) -> None:
    naming = NAMINGS[row]
    sd15 = naming.network == "unet" or row.startswith(
        ("lora_te_", "lycoris_te_", "cond_stage", "PEFT", "diffusers")
    )
    family = "sd15" if sd15 else "sdxl"
    network = getattr(drawer.plain[family], naming.network)
    picture, said = drawer(file(naming, network), family)
    assert picture == expected[family, naming.network]
    assert bool(said) == (not naming.whole), said
    assert all("does not say its alphas" in each for each in said)


def test_first_names_of_diffusers_processors_are_read(drawer: Drawer) -> None:
    only = ("to_q", "to_k", "to_out.0")
    network = drawer.plain["sd15"].unet
    ends = {"lora_down.weight": "down.weight", "lora_up.weight": "up.weight"}
    named = {
        prefix: {
            key: tensor
            for key, tensor in file(
                Naming("unet", lambda m, p=prefix: p + processor(m), ends), network
            ).items()
            if "_lora." in key
        }
        for prefix in ("", "unet.")
    }
    plain = {
        key: tensor
        for key, tensor in file(DOTTED, network).items()
        if key.partition(".lora_")[0].endswith(only)
    }
    assert {drawer(tensors)[0] for tensors in (*named.values(), plain)} == {drawer(plain)[0]}


@pytest.mark.parametrize("kind", ["loha", "lokr", "dora", "locon"])
def test_every_kind_is_drawn_alike_in_every_form_of_name(kind: str, drawer: Drawer) -> None:
    network = drawer.plain["sd15"].unet
    forms = (
        KOHYA,
        NAMINGS["lora_unet_, original"],
        NAMINGS["lycoris_"],
        Naming("unet", lambda module: f"unet.{module}"),
        NAMINGS["diffusion_model.original"],
    )
    pictures = {drawer(file(replace(form, ends=None), network, kind), "sd15") for form in forms}
    assert len(pictures) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("kind", ["lora", "loha"])
def test_files_of_fewer_bits_draw_nearly_the_same(kind: str, dtype: torch.dtype, drawer: Drawer) -> None:
    tensors = file(KOHYA, drawer.plain["sd15"].unet, kind)
    exact = drawer(tensors)
    fewer = drawer({key: tensor.to(dtype) for key, tensor in tensors.items()})
    assert abs(pixels(fewer) - pixels(exact)).mean() < (1 if dtype.itemsize == 2 else 12)


# alphas and other settings


PLACE = "mid_block.attentions.0.proj_in"
CONFIG = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "some_option_of_tomorrow": {"x": [1]}}


def times(tensors: Mapping[str, Tensor], strength: float, only: str = "") -> dict[str, Tensor]:
    return {
        key: strength * tensor if "lora_B" in key and only in key else tensor
        for key, tensor in tensors.items()
    }


@pytest.mark.parametrize(
    ("more", "strength", "only"),
    [
        ({}, 1.0, ""),
        ({"lora_alpha": 4 * RANK}, 4.0, ""),
        ({"lora_alpha": 2.0, "use_rslora": True}, 2.0 / RANK**0.5, ""),
        ({"alpha_pattern": {"to_q": 2 * RANK}}, 2.0, ".to_q"),
        ({"alpha_pattern": {r"^mid_block\.attentions\.0\.proj_in": 2 * RANK}}, 2.0, PLACE),
        ({"alpha_pattern": {"mid_block.attentions.0.proj_in": 2 * RANK, "((": 9}}, 2.0, PLACE),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("place", ["beside", "header"])
def test_settings_beside_the_tensors_decide_the_strength(
    more: dict[str, Any], strength: float, only: str, place: str, drawer: Drawer
) -> None:
    tensors = file(DOTTED, drawer.plain["sd15"].unet)
    wanted = drawer(times(tensors, strength, only))
    if place == "beside":
        own = {key.replace("unet.", "base_model.model."): tensor for key, tensor in tensors.items()}
        assert drawer(own, config={**CONFIG, **more}) == wanted
    else:
        header = {f"unet.{key}": value for key, value in {**CONFIG, **more}.items()}
        assert drawer(tensors, metadata={"lora_adapter_metadata": json.dumps(header)}) == wanted


def test_ranks_may_differ_from_layer_to_layer(drawer: Drawer) -> None:
    tensors = file(DOTTED, drawer.plain["sd15"].unet)
    wider = dict(tensors)
    for key in tensors:
        if ".to_q.lora_A" in key:
            other = key.replace("lora_A", "lora_B")
            wider[key] = torch.cat([tensors[key], torch.zeros_like(tensors[key])])
            wider[other] = torch.cat([tensors[other], torch.zeros_like(tensors[other])], 1)
    config = {**CONFIG, "rank_pattern": {"to_q": 2 * RANK}, "alpha_pattern": {"to_q": 2 * RANK}}
    own = {key.replace("unet.", "base_model.model."): tensor for key, tensor in wider.items()}
    assert abs(pixels(drawer(own, config=config)) - pixels(drawer(tensors))).max() <= 1


def test_lohas_of_peft_have_their_alphas_beside_them(drawer: Drawer) -> None:
    own = Naming("unet", lambda module: f"base_model.model.{module}")
    network = drawer.plain["sd15"].unet
    with_alphas = drawer(file(KOHYA, network, "loha", alpha=2.0 * RANK))
    config = {"peft_type": "LOHA", "r": RANK, "alpha": 2 * RANK}
    assert drawer(file(own, network, "loha"), config=config) == with_alphas


@pytest.mark.parametrize("shape", [(), (1,)])
def test_an_alpha_is_a_number_with_or_without_a_side(shape: tuple[int, ...], drawer: Drawer) -> None:
    tensors = file(KOHYA, drawer.plain["sd15"].unet, alpha=1.0)
    shaped = {key: it.reshape(shape) if key.endswith("alpha") else it for key, it in tensors.items()}
    assert drawer(shaped) == drawer(tensors)


@pytest.mark.parametrize(
    "header", ["{", "[]", "null", '{"unet.lora_alpha": "much"}', '{"unet.alpha_pattern": 3}', "[" * 9999]
)
def test_settings_that_cannot_be_read_leave_the_ranks(header: str, drawer: Drawer) -> None:
    tensors = file(DOTTED, drawer.plain["sd15"].unet)
    picture, said = drawer(tensors, metadata={"lora_adapter_metadata": header})
    assert picture == drawer(tensors)[0]
    assert bool(said) == (not header.startswith('{"'))


# what is no part of a layer


STRAYS = {
    "_extra": (3,),
    "metadata": (1,),
    "lora_unet_nowhere.alpha": (),
    "lora_unet_mid_block_attentions_0_proj_out.dora_scale": (64, 1),
    "unet.conv_norm_out.weight": (16,),
}


@pytest.mark.parametrize("stray", STRAYS)
def test_tensors_of_other_things_are_named_and_the_lora_is_drawn(stray: str, drawer: Drawer) -> None:
    tensors = file(KOHYA, drawer.plain["sd15"].unet)
    picture, said = drawer({**tensors, stray: torch.ones(STRAYS[stray])})
    assert picture == drawer(tensors)[0]
    assert said == (f"the LoRA X has tensors that are no part of a layer ({stray}), which had no effect",)


def test_layers_of_kinds_that_are_not_here_are_named_and_the_lora_is_drawn(drawer: Drawer) -> None:
    tensors = file(KOHYA, drawer.plain["sd15"].unet)
    ends = OTHER_ENDS.keys() - {"lora_E"}  # an AdaLoRA's other matrices are no LoRA without it
    more = {f"lora_unet_mid_block_attentions_0_proj_out.{end}": torch.ones(2, 2) for end in ends}
    picture, said = drawer({**tensors, **more})
    assert picture == drawer(tensors)[0]
    assert len(said) == 1
    assert all(f"1 layers of {OTHER_ENDS[end]} ({end})" in said[0] for end in ends)


def test_layers_with_a_bias_stand_beside_layers_without(drawer: Drawer) -> None:
    tensors = file(DOTTED, drawer.plain["sd15"].unet)
    biased = {
        key.replace("weight", "bias"): torch.full((len(it),), 0.5)
        for key, it in tensors.items()
        if "mid_block" in key and key.endswith("proj_in.lora_B.weight")
    }
    assert len(biased) == 1
    picture, said = drawer({**tensors, **biased})
    assert picture != drawer(tensors)[0]
    assert said == ()
    magnitude = {next(iter(biased)).replace("lora_B.bias", "lora_magnitude_vector"): torch.ones(64)}
    _, said = drawer({**tensors, **biased, **magnitude})
    assert said == (
        f"the LoRA X has tensors that are no part of a layer ({next(iter(biased))}), which had no effect",
    )


def test_doras_and_loras_in_one_network_are_both_drawn(drawer: Drawer) -> None:
    network = drawer.plain["sd15"].unet
    dora, lora = file(KOHYA, network, "dora"), file(KOHYA, network)
    mixed = {
        key: tensor for key, tensor in dora.items() if not ("to_q" in key and key.endswith("dora_scale"))
    }
    drawn = [drawer(each) for each in (mixed, dora, lora)]
    assert len({picture for picture, _ in drawn}) == 3
    assert not any(said for _, said in drawn)


def test_other_programs_names_may_stand_in_one_file(drawer: Drawer) -> None:
    network = drawer.plain["sd15"].unet
    half = list(modules(network))[::2]
    kohya = file(KOHYA, network)
    both = {
        key: it
        for key, it in kohya.items()
        if key.startswith(tuple(f"lora_unet_{flat(name)}." for name in half))
    }
    dotted = file(NAMINGS["diffusion_model.original"], network)
    both |= {
        key: it
        for key, it in dotted.items()
        if not key.startswith(tuple(f"{NAMINGS['diffusion_model.original'].name(name)}." for name in half))
    }
    assert drawer(both) == drawer(kohya)


def test_a_bundled_textual_inversion_is_a_word_of_its_lora(drawer: Drawer) -> None:
    plain = drawer.plain["sd15"]
    tensors = file(KOHYA, plain.unet)
    width = plain.text_encoder.config.hidden_size
    bundle = {
        "bundle_emb.xpaint.emb_params": 3 * torch.randn(2, width, generator=torch.Generator().manual_seed(1))
    }
    lora = drawer(tensors, prompt="a xpaint circle")
    with_word = drawer({**tensors, **bundle}, prompt="a xpaint circle")
    assert abs(pixels(with_word) - pixels(lora)).mean() > 0.05
    assert with_word[1] == ()
    assert drawer({**tensors, **bundle}, prompt="a circle") == drawer(tensors, prompt="a circle")
    foreign = {"bundle_emb.other.emb_params": torch.ones(2, width + 1)}
    picture, said = drawer({**tensors, **foreign}, prompt="a xpaint circle")
    assert picture == lora[0]
    assert said == (
        "the textual inversion other in the LoRA X does not fit this checkpoint and had no effect",
    )
