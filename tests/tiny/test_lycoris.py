"""LoHa and LoKr files: what they add to the weights, against PEFT's own layers and arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoHaConfig, LoKrConfig
from peft.tuners import loha, lokr
from safetensors.torch import save_file
from torch import Tensor

from pipelines.adapters.lycoris import as_lora
from pipelines.errors import UnknownAdapter
from pipelines.request import Lora
from pipelines.weights.entries import AdapterEntry, Source
from pipelines.weights.manifest import Manifest
from tests.drawing import array, draw, open_family, reference, small_request
from tests.tiny.lycoris_files import Parts, files, hadamard, kronecker, numbers, targets

PIPELINE = "stable-diffusion-v1-5"
REQUEST = small_request(seeds=(7,))


def product(parts: Parts) -> Tensor:
    """What a LoRA adds, (out, in): alpha is the rank."""
    assert parts["alpha"] == parts["lora_down.weight"].shape[0]
    return parts["lora_up.weight"] @ parts["lora_down.weight"]


def rewritten(parts: Parts) -> Parts:
    lora = as_lora({f"lora_unet_x.{name}": tensor for name, tensor in parts.items()})
    return {name.removeprefix("lora_unet_x."): tensor for name, tensor in lora.items()}


def added_by_peft(layer: Any, config: Any, parts: Parts, rank: int) -> Tensor:
    method = loha if isinstance(config, LoHaConfig) else lokr
    kind = method.layer.Linear if isinstance(layer, torch.nn.Linear) else method.layer.Conv2d
    wrapped = kind(layer, "x", config, r=rank, alpha=float(parts["alpha"]))
    for name in wrapped.adapter_layer_names:
        held = getattr(wrapped, name)
        held.clear()
        if name in parts:
            held["x"] = torch.nn.Parameter(parts[name])
    with torch.no_grad():
        return wrapped.get_delta_weight("x")


LINEAR = torch.nn.Linear(32, 24)
CONVOLUTION = torch.nn.Conv2d(8, 12, 3)
CASES: dict[str, tuple[torch.nn.Module, Any, int, Callable[[], Parts]]] = {
    "loha": (LINEAR, LoHaConfig(r=3), 3, lambda: hadamard(24, 32, 3, seed=1)),
    "loha of full rank": (LINEAR, LoHaConfig(r=6), 6, lambda: hadamard(24, 32, 6, seed=2)),
    "loha of a flat convolution": (CONVOLUTION, LoHaConfig(r=2), 2, lambda: hadamard(12, 72, 2, seed=3)),
    "loha of a convolution": (
        CONVOLUTION,
        LoHaConfig(r=2),
        2,
        lambda: {
            **{name: numbers(2, 12, seed=at) for at, name in enumerate(("hada_w1_a", "hada_w2_a"))},
            **{name: numbers(2, 8, seed=9 + at) for at, name in enumerate(("hada_w1_b", "hada_w2_b"))},
            **{name: numbers(2, 2, 3, 3, seed=5 + at) for at, name in enumerate(("hada_t1", "hada_t2"))},
        },
    ),
    "lokr": (LINEAR, LoKrConfig(r=2), 2, lambda: kronecker(24, 32, 2, seed=4)),
    "lokr of two products": (
        LINEAR,
        LoKrConfig(r=1),
        1,
        lambda: {
            "lokr_w1_a": numbers(2, 1, seed=1),
            "lokr_w1_b": numbers(1, 4, seed=2),
            "lokr_w2_a": numbers(12, 1, seed=3),
            "lokr_w2_b": numbers(1, 8, seed=4),
        },
    ),
    "lokr of a convolution": (
        CONVOLUTION,
        LoKrConfig(r=2),
        2,
        lambda: {
            "lokr_w1": numbers(2, 4, seed=6),
            "lokr_w2_a": numbers(2, 6, seed=7),
            "lokr_w2_b": numbers(2, 2, seed=8),
            "lokr_t2": numbers(2, 2, 3, 3, seed=9),
        },
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_lora_adds_what_pefts_own_layer_adds(case: Any) -> None:
    layer, config, rank, parts = case
    given = {**parts(), "alpha": torch.tensor(1.5)}
    expected = added_by_peft(layer, config, given, rank)
    assert expected.abs().mean() > 1e-3
    assert torch.allclose(product(rewritten(given)).reshape(expected.shape), expected, atol=1e-6)


def test_a_kronecker_product_of_whole_factors_has_no_scale() -> None:
    parts = {"lokr_w1": numbers(2, 4, seed=1), "lokr_w2": numbers(12, 8, seed=2), "alpha": torch.tensor(9e9)}
    assert torch.allclose(product(rewritten(parts)), torch.kron(parts["lokr_w1"], parts["lokr_w2"]))


def test_the_rank_is_no_larger_than_it_must_be() -> None:
    assert len(rewritten(hadamard(24, 32, 3, seed=1))["lora_down.weight"]) == 9
    assert len(rewritten(hadamard(24, 32, 6, seed=1))["lora_down.weight"]) == 24
    assert len(rewritten(kronecker(24, 32, 2, seed=1))["lora_down.weight"]) == 8


@pytest.mark.parametrize(
    "change",
    [
        {"hada_w2_b": None},
        {"hada_w2_b": torch.zeros(3, 31)},
        {"oft_blocks": torch.zeros(24, 1)},
    ],
    ids=["missing", "of another width", "of another kind"],
)
def test_a_file_that_no_lora_equals_is_refused(change: dict[str, Tensor | None]) -> None:
    parts = {**hadamard(24, 32, 3, seed=1), **change}
    with pytest.raises(ValueError, match=r"lora_unet_x is not whole|cannot be one LoRA"):
        rewritten({name: tensor for name, tensor in parts.items() if tensor is not None})


# whole files on the small checkpoint


@pytest.fixture(scope="module")
def manifest(manifest: Manifest) -> Manifest:
    """A manifest that names LyCORIS files, good and bad."""
    plain = reference(StableDiffusionPipeline, manifest, "sd15")
    for name, tensors in files(plain).items():
        save_file(tensors, manifest.path.parent / f"{name}.safetensors")
    broken = files(plain)["loha"]
    broken.pop(next(name for name in broken if name.endswith("hada_w2_b")))
    save_file(broken, manifest.path.parent / "broken.safetensors")
    others = {
        name.replace("attentions_0", "attentions_7"): tensor
        for name, tensor in files(plain)["loha"].items()
        if name.startswith("lora_unet_down_blocks_0_attentions_0")
    }
    save_file(others, manifest.path.parent / "elsewhere.safetensors")
    entries = {
        name: AdapterEntry(source=Source(file=f"{name}.safetensors"), family="sd15")
        for name in ("loha", "lokr", "broken", "elsewhere")
    }
    return manifest.model_copy(update={"loras": {**manifest.loras, **entries}})


@pytest.fixture(scope="module")
def family(manifest: Manifest) -> Any:
    return open_family(manifest, PIPELINE)


@pytest.mark.parametrize("kind", ["loha", "lokr"])
def test_a_file_changes_every_layer_by_its_product_and_its_strength(
    kind: str, family: Any, manifest: Manifest
) -> None:
    plain = reference(StableDiffusionPipeline, manifest, "sd15")
    parts = files(plain)[kind]
    for name, layer in targets(plain):
        one = {part: parts[f"{name}.{part}"] for part in ("alpha", *CASE_PARTS[kind])}
        if kind == "loha":
            added = (one["hada_w1_a"] @ one["hada_w1_b"]) * (one["hada_w2_a"] @ one["hada_w2_b"])
        else:
            added = torch.kron(one["lokr_w1"], one["lokr_w2_a"] @ one["lokr_w2_b"])
        with torch.no_grad():
            layer.weight += 0.7 * added.reshape(layer.weight.shape)
    (sample,) = family.encode(replace(REQUEST, loras=(Lora(name=kind, scale=0.7),)))
    told, _ = plain.encode_prompt(REQUEST.prompt, "cpu", 1, False)
    assert torch.allclose(sample.conditioning.positive["encoder_hidden_states"], told, atol=1e-4)
    family.attach(sample.key)
    with torch.no_grad():
        inputs = (sample.latents, torch.tensor([500.0]), told)
        assert torch.allclose(family.modules["unet"](*inputs).sample, plain.unet(*inputs).sample, atol=1e-3)


CASE_PARTS = {
    "loha": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "lokr": ("lokr_w1", "lokr_w2_a", "lokr_w2_b"),
}
KINDS = {
    "loha": (Lora(name="loha", scale=0.5),),
    "lokr": (Lora(name="lokr", scale=0.5),),
    "all kinds": (Lora(name="lokr"), Lora(name="animie", scale=0.5), Lora(name="loha", scale=0.3)),
}


@pytest.mark.parametrize("loras", KINDS.values(), ids=KINDS.keys())
def test_it_is_seen_in_the_picture_and_leaves_nothing_behind(loras: tuple[Lora, ...], family: Any) -> None:
    before = draw(family, REQUEST)[0].image
    changed = draw(family, replace(REQUEST, loras=loras))[0].image
    assert abs(array(before).astype(int) - array(changed).astype(int)).mean() > 1
    with pytest.raises(UnknownAdapter):
        family.encode(replace(REQUEST, loras=(*loras, Lora(name="broken"))))
    assert draw(family, REQUEST)[0].image == before
    assert draw(family, replace(REQUEST, loras=loras))[0].image == changed


@pytest.mark.parametrize(
    ("name", "message"),
    [("broken", "cannot be used: its layer .* is not whole"), ("elsewhere", "does not fit this checkpoint")],
)
def test_a_file_that_cannot_be_used_is_named(name: str, message: str, family: Any) -> None:
    with pytest.raises(UnknownAdapter, match=f"^loras: {name} {message}"):
        family.encode(replace(REQUEST, prompt="never seen", loras=(Lora(name=name),)))
