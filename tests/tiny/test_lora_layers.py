"""LoRAs, LoHas, LoKrs and DoRAs in all namings, on both families: each layer changes as computed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipelines.errors import UnknownAdapter
from pipelines.request import Lora
from pipelines.weights.entries import AdapterEntry, Source
from pipelines.weights.manifest import Manifest
from tests.drawing import array, draw, open_family, reference, seeded, small_request
from tests.tiny.original_layout import unet_key

SD15, XL = "stable-diffusion-v1-5", "sdxl"
PLAIN = {SD15: (StableDiffusionPipeline, "sd15"), XL: (StableDiffusionXLPipeline, "sdxl")}
PARTS = {SD15: ("unet", "text_encoder"), XL: ("unet", "text_encoder", "text_encoder_2")}
KOHYA = {
    SD15: {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"},
    XL: {
        "unet": "lora_unet_",
        "text_encoder": "lora_te1_text_model_",
        "text_encoder_2": "lora_te2_text_model_",
    },
}
TARGETS = ("to_q", "to_out.0", "proj_in", "resnets.0.conv1", "resnets.0.conv_shortcut", "fc1", "q_proj")
RANK, STRENGTH = 2, 0.7
REQUEST = small_request(num_inference_steps=2, guidance_scale=6.0, seeds=(7,))


def numbers(*shape: int, seed: int) -> Tensor:
    return 1.5 * torch.randn(*shape, generator=seeded(seed)) / shape[-1] ** 0.5


def factors(kind: str, weight: Tensor, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """The tensors of one layer, in kohya's names, and what they add to its weight at strength 1."""
    out, into = weight.shape[0], weight[0].numel()
    if kind == "loha":
        shapes = ((out, RANK), (RANK, into), (out, RANK), (RANK, into))
        a1, b1, a2, b2 = (numbers(*shape, seed=seed + at) for at, shape in enumerate(shapes))
        return {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2}, (a1 @ b1) * (a2 @ b2)
    if kind == "lokr":
        first, up = numbers(2, 4, seed=seed), numbers(out // 2, RANK, seed=seed + 1)
        down = numbers(RANK, into // 4, seed=seed + 2)
        return {"lokr_w1": first, "lokr_w2_a": up, "lokr_w2_b": down}, torch.kron(first, up @ down)
    up, down = numbers(out, RANK, seed=seed), numbers(RANK, into, seed=seed + 1)
    shaped = down.reshape(RANK, *weight.shape[1:])
    return {"lora_up.weight": up, "lora_down.weight": shaped}, up @ down


def layers(pipeline: str, plain: Any) -> Iterator[tuple[str, str, Any]]:
    """Network, name and layer of all that the files of this module change."""
    for part in PARTS[pipeline]:
        for name, layer in getattr(plain, part).named_modules():
            if name.endswith(TARGETS) and (layer.weight.shape[0] * layer.weight[0].numel()) % 8 == 0:
                yield part, name, layer


def made(
    pipeline: str, plain: Any, kind: str, naming: str, *, dora: bool
) -> tuple[dict[str, Tensor], dict[tuple[str, str], Tensor]]:
    """A whole file, and the weights of each layer with it at `STRENGTH`."""
    tensors: dict[str, Tensor] = {}
    merged: dict[tuple[str, str], Tensor] = {}
    for at, (part, name, layer) in enumerate(layers(pipeline, plain)):
        parts, added = factors(kind, layer.weight, seed=10 * at)
        weight = layer.weight.detach() + STRENGTH * added.reshape(layer.weight.shape)
        if dora:
            magnitude = 0.5 + torch.rand(len(weight), generator=seeded(at))
            weight = weight * (magnitude / weight.flatten(1).norm(dim=1)).reshape(
                -1, *(1,) * (weight.ndim - 1)
            )
            parts["dora_scale"] = magnitude.reshape(-1, *(1,) * (weight.ndim - 1))
        tensors |= named(pipeline, plain, part, name, parts, naming)
        merged[part, name] = weight
    return tensors, merged


def named(
    pipeline: str, plain: Any, part: str, name: str, parts: dict[str, Tensor], naming: str
) -> dict[str, Tensor]:
    if naming == "peft":
        ends = {"lora_up": "lora_B", "lora_down": "lora_A", "dora_scale": "lora_magnitude_vector"}
        renamed = {"".join(ends.get(word, word) for word in split(end)): it for end, it in parts.items()}
        return {f"{part}.{name}.{end}": flat(end, tensor) for end, tensor in renamed.items()}
    if naming == "sgm" and part == "unet":
        # kohya's scripts train SDXL's network under its original names.
        attentive = {0, 1}
        name = unet_key(f"{name}.weight", plain.unet.config.layers_per_block, attentive).removesuffix(
            ".weight"
        )
    stem = KOHYA[pipeline][part] + name.removeprefix("text_model.").replace(".", "_")
    parts = {**parts, "alpha": torch.tensor(float(RANK))}
    return {f"{stem}.{end}": tensor for end, tensor in parts.items()}


def split(end: str) -> list[str]:
    head, dot, tail = end.partition(".")
    return [head, dot, tail]


def flat(end: str, tensor: Tensor) -> Tensor:
    return tensor.flatten() if end == "lora_magnitude_vector" else tensor


def opened(manifest: Manifest, pipeline: str, **files: dict[str, Tensor]) -> Any:
    """The family, with these files as LoRAs."""
    entries: dict[str, AdapterEntry] = {}
    for name, tensors in files.items():
        path = manifest.path.parent / f"{name}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
        entries[name] = AdapterEntry(source=Source(file=path), family=manifest.pipeline(pipeline).family)
    return open_family(manifest.model_copy(update={"loras": {**manifest.loras, **entries}}), pipeline)


@pytest.fixture
def manifest(random_manifest: Manifest, tmp_path: Any) -> Manifest:
    """The demo's, of a folder that tests may write into."""
    for path in random_manifest.path.parent.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return random_manifest.model_copy(update={"path": tmp_path / "weights.yaml"})


@pytest.mark.parametrize(
    ("pipeline", "kind", "naming", "dora"),
    [
        (XL, "loha", "sgm", False),
        pytest.param(XL, "lokr", "sgm", False, marks=pytest.mark.slow),
        (SD15, "loha", "peft", False),
        pytest.param(XL, "lokr", "peft", False, marks=pytest.mark.slow),
        (SD15, "lora", "kohya", True),
        pytest.param(SD15, "lora", "peft", True, marks=pytest.mark.slow),
        (SD15, "loha", "kohya", True),
        pytest.param(XL, "lora", "sgm", True, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_it_draws_as_the_merged_weights_do(
    pipeline: str, kind: str, naming: str, dora: bool, manifest: Manifest
) -> None:
    cls, folder = PLAIN[pipeline]
    plain = reference(cls, manifest, folder)
    tensors, merged = made(pipeline, plain, kind, naming, dora=dora)
    family = opened(manifest, pipeline, mine=tensors)
    asked = replace(REQUEST, pipeline=pipeline)
    before = draw(family, asked)[0].image
    (sample,) = family.encode(replace(asked, loras=(Lora(name="mine", scale=STRENGTH),)))
    family.attach(sample.key)
    for part, name, layer in layers(pipeline, plain):
        layer.weight.data = merged[part, name]
    told = sample.conditioning.positive
    expected = plain.encode_prompt(
        asked.prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    assert torch.allclose(told["encoder_hidden_states"], expected[0], atol=1e-3)
    added = None
    if pipeline == XL:
        assert torch.allclose(told["text_embeds"], expected[2], atol=1e-3)
        added = {name: told[name] for name in ("text_embeds", "time_ids")}
    with torch.no_grad():
        inputs = (sample.latents, torch.tensor([500.0]), told["encoder_hidden_states"])
        ours = family.modules["unet"](*inputs, added_cond_kwargs=added).sample
        assert torch.allclose(ours, plain.unet(*inputs, added_cond_kwargs=added).sample, atol=1e-3)
    changed = draw(family, replace(asked, loras=(Lora(name="mine", scale=STRENGTH),)))[0]
    assert changed.image != before
    assert changed.warnings == draw(family, asked)[0].warnings
    assert draw(family, asked)[0].image == before


@pytest.mark.parametrize("dora", [False, True])
def test_a_file_in_half_precision_with_alphas_draws_nearly_the_same(dora: bool, manifest: Manifest) -> None:
    """Alphas that differ from layer to layer, in the UNet and in the text encoder."""
    plain = reference(StableDiffusionPipeline, manifest, "sd15")
    tensors, _ = made(SD15, plain, "lora", "kohya", dora=dora)
    folded: dict[str, Tensor] = {}
    for at, name in enumerate(name for name in tensors if name.endswith(".alpha")):
        alpha = 1 + at % 3
        up = name.replace(".alpha", ".lora_up.weight")
        folded |= {name: torch.tensor(float(RANK)), up: tensors[up] * alpha / RANK}
        tensors[name] = torch.tensor(float(alpha))
    half = {name: tensor.half() for name, tensor in tensors.items()}
    family = opened(manifest, SD15, folded={**tensors, **folded}, alphas=tensors, half=half)
    drawn = {}
    for name in ("folded", "alphas", "half"):
        asked = replace(REQUEST, loras=(Lora(name=name, scale=STRENGTH),))
        drawn[name] = array(draw(family, asked)[0].image).astype(int)
    assert abs(drawn["alphas"] - drawn["folded"]).max() <= 1
    assert abs(drawn["half"] - drawn["folded"]).mean() < 1


SPARE = {
    "kohya": {
        "lora_unet_down_blocks_0_attentions_7_proj_in": (16, 16),
        "lora_te2_text_model_encoder_layers_0_mlp_fc1": (64, 32),
        "lora_te_text_model_encoder_layers_0_mlp_fc2": (64, 9),
    },
    "peft": {
        "unet.nowhere": (16, 16),
        "text_encoder_2.fc1": (64, 32),
        "text_encoder.encoder.layers.0.mlp.fc2": (64, 9),
    },
}
"""Layers that SD1.5 has not: of its network, of a text encoder that it has not, of another width."""


@pytest.mark.parametrize("naming", ["kohya", "peft"])
def test_layers_without_a_place_are_counted_and_the_others_drawn(naming: str, manifest: Manifest) -> None:
    plain = reference(StableDiffusionPipeline, manifest, "sd15")
    whole, _ = made(SD15, plain, "lora", naming, dora=False)
    count = sum(key.endswith((".lora_up.weight", ".lora_B.weight")) for key in whole)
    ends = ("lora_up", "lora_down") if naming == "kohya" else ("lora_B", "lora_A")
    more = {
        f"{stem}.{end}.weight": torch.ones(*shape)
        for stem, (out, into) in SPARE[naming].items()
        for end, shape in zip(ends, ((out, RANK), (RANK, into)), strict=True)
    }
    family = opened(manifest, SD15, whole=whole, partly={**whole, **more})
    expected = draw(family, replace(REQUEST, loras=(Lora(name="whole"),)))[0]
    asked = replace(REQUEST, loras=(Lora(name="partly"),))
    text = (
        f"3 of the {count + 3} layers of the LoRA partly found no place in this checkpoint and had no effect"
    )
    for _ in range(2):  # the second time the prompt is remembered
        picture = draw(family, asked)[0]
        assert picture.image == expected.image
        assert [warning for warning in picture.warnings if warning not in expected.warnings] == [text]
    assert not any("found no place" in warning for warning in draw(family, REQUEST)[0].warnings)


def test_a_text_encoder_of_another_width_has_no_place_for_its_part(manifest: Manifest) -> None:
    """What was trained with SD1.5's text encoder, beside a network of SDXL."""
    tensors, _ = made(XL, reference(StableDiffusionXLPipeline, manifest, "sdxl"), "lora", "peft", dora=False)
    unet = {key: tensor for key, tensor in tensors.items() if key.startswith("unet.")}
    other, _ = made(SD15, reference(StableDiffusionPipeline, manifest, "sd15"), "lora", "peft", dora=False)
    text = {key: tensor for key, tensor in other.items() if key.startswith("text_encoder.")}
    family = opened(manifest, XL, unet=unet, both={**unet, **text}, text=text)
    asked = replace(REQUEST, pipeline=XL)
    picture = draw(family, replace(asked, loras=(Lora(name="both"),)))[0]
    assert picture.image == draw(family, replace(asked, loras=(Lora(name="unet"),)))[0].image
    count = len({key.partition(".lora")[0] for key in text})
    assert any(f"{count} of the" in warning and "LoRA both" in warning for warning in picture.warnings)
    with pytest.raises(UnknownAdapter, match="loras: text does not fit this checkpoint"):
        family.encode(replace(asked, loras=(Lora(name="text"),)))


def test_what_peft_saved_itself_names_no_network(manifest: Manifest) -> None:
    plain = reference(StableDiffusionPipeline, manifest, "sd15")
    tensors, _ = made(SD15, plain, "lora", "peft", dora=True)
    unet = {key: tensor for key, tensor in tensors.items() if key.startswith("unet.")}
    saved = {key.replace("unet.", "base_model.model.", 1): tensor for key, tensor in unet.items()}
    family = opened(manifest, SD15, unet=unet, saved=saved)
    pictures = [draw(family, replace(REQUEST, loras=(Lora(name=name),)))[0] for name in ("unet", "saved")]
    assert pictures[0].image == pictures[1].image
    assert any("LoRA saved does not say its alphas" in warning for warning in pictures[1].warnings)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"lora_unet_x.lora_E": (2, 2)}, "it is an AdaLoRA; this server has LoRA"),
        ({"lycoris_x.lokr_w1": (2, 2)}, "its layer lycoris_x is not whole: it has lokr_w1 alone"),
        ({"lora_unet_x.lora_up.weight": (2, 2)}, "its layer lora_unet_x is not whole: it has up alone"),
        ({"lora_unet_x.dora_scale": (1, 16)}, "its DoRA magnitudes are of columns"),
        ({"lora_unet_mid_block_attentions_0_proj_in.alpha": (2,)}, "has 2 numbers, and an alpha is one"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_says_why(
    more: dict[str, tuple[int, ...]], reason: str, manifest: Manifest
) -> None:
    file = load_file(manifest.path.parent / "sd15_adapters/animie.safetensors")
    file |= {name: torch.ones(*shape) for name, shape in more.items()}
    family = opened(manifest, SD15, strange=file)
    with pytest.raises(UnknownAdapter, match=f"^loras: strange cannot be used: .*{reason}"):
        family.encode(replace(REQUEST, loras=(Lora(name="strange"),)))
