"""Kolors and Stable Diffusion 3 at full size on the meta device: names, shapes, bytes and tokenizers.

A published checkpoint has tensors of exactly these names and shapes, so it opens by the configurations that
ship.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.families.registry import open_pipeline
from pipelines.weights.configs import configuration
from pipelines.weights.layouts.clip import clip_layout
from pipelines.weights.layouts.unet import unet_layout
from pipelines.weights.layouts.vae import vae_layout
from pipelines.weights.manifest import load_manifest
from pipelines.weights.memory import part_bytes
from tests.gpu.stages import in_precision

Shapes = dict[str, tuple[int, ...]]
DUMMIES = in_precision(load_manifest(Path(__file__).parents[1] / "gpu/weights.yaml"), "bfloat16")
NAMES = ("kolors", "sd3-medium-pose")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def opened() -> Mapping[str, Any]:
    return {name: opened_on_meta(name) for name in NAMES}


def opened_on_meta(name: str) -> Any:
    checkpoint = Checkpoint(name, DUMMIES, DUMMIES.pipelines[name], Path(), torch.device("meta"))
    return open_pipeline(checkpoint, AdapterLibrary(DUMMIES, Path()))


def config(*folders: str) -> dict[str, Any]:
    return json.loads((configuration(folders[0]).joinpath(*folders[1:]) / "config.json").read_text())


def layer(name: str, out: int, read: int, *, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (out, read), **({f"{name}.bias": (out,)} if bias else {})}


def chatglm() -> Iterator[Shapes]:
    """ChatGLM3-6B: 28 layers of width 4096, two groups of keys and values, gated feed-forwards of 13696."""
    yield {"embedding.word_embeddings.weight": (65024, 4096), "rotary_pos_emb.inv_freq": (32,)}
    for index in range(28):
        block = f"encoder.layers.{index}"
        yield {f"{block}.{norm}.weight": (4096,) for norm in ("input_layernorm", "post_attention_layernorm")}
        yield layer(f"{block}.self_attention.query_key_value", 4096 + 2 * 2 * 128, 4096)
        yield layer(f"{block}.self_attention.dense", 4096, 4096, bias=False)
        yield layer(f"{block}.mlp.dense_h_to_4h", 2 * 13696, 4096, bias=False)
        yield layer(f"{block}.mlp.dense_4h_to_h", 4096, 13696, bias=False)
    yield {"encoder.final_layernorm.weight": (4096,), "output_layer.weight": (65024, 4096)}


def t5() -> Iterator[Shapes]:
    """T5 v1.1 XXL's encoder: 24 blocks of width 4096, 64 heads, gated feed-forwards of 10240."""
    yield dict.fromkeys(("shared.weight", "encoder.embed_tokens.weight"), (32128, 4096))
    yield {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (32, 64)}
    for index in range(24):
        block = f"encoder.block.{index}"
        for each in "qkvo":
            yield layer(f"{block}.layer.0.SelfAttention.{each}", 4096, 4096, bias=False)
        for each in ("wi_0", "wi_1"):
            yield layer(f"{block}.layer.1.DenseReluDense.{each}", 10240, 4096, bias=False)
        yield layer(f"{block}.layer.1.DenseReluDense.wo", 4096, 10240, bias=False)
        yield {f"{block}.layer.{part}.layer_norm.weight": (4096,) for part in (0, 1)}
    yield {"encoder.final_layer_norm.weight": (4096,)}


WIDTH = 1536


def sd3_embeddings() -> Iterator[Shapes]:
    """What Stable Diffusion 3 medium and its ControlNets make of latents, time and texts."""
    yield {"pos_embed.pos_embed": (1, 192 * 192, WIDTH), "pos_embed.proj.weight": (WIDTH, 16, 2, 2)}
    yield {"pos_embed.proj.bias": (WIDTH,)}
    for name, read in (("timestep_embedder", 256), ("text_embedder", 2048)):
        yield layer(f"time_text_embed.{name}.linear_1", WIDTH, read)
        yield layer(f"time_text_embed.{name}.linear_2", WIDTH, WIDTH)
    yield layer("context_embedder", WIDTH, 4096)


def sd3_block(index: int, *, last: bool = False) -> Iterator[Shapes]:
    """A block that attends to latents and texts; after the last one texts are not needed any more."""
    block = f"transformer_blocks.{index}"
    yield layer(f"{block}.norm1.linear", 6 * WIDTH, WIDTH)
    yield layer(f"{block}.norm1_context.linear", (2 if last else 6) * WIDTH, WIDTH)
    outwards = ["to_out.0"] if last else ["to_out.0", "to_add_out"]
    for each in ["to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", *outwards]:
        yield layer(f"{block}.attn.{each}", WIDTH, WIDTH)
    for each in ["ff"] if last else ["ff", "ff_context"]:
        yield layer(f"{block}.{each}.net.0.proj", 4 * WIDTH, WIDTH)
        yield layer(f"{block}.{each}.net.2", WIDTH, 4 * WIDTH)


def sd3_transformer() -> Iterator[Shapes]:
    yield from sd3_embeddings()
    for index in range(24):
        yield from sd3_block(index, last=index == 23)
    yield layer("norm_out.linear", 2 * WIDTH, WIDTH)
    yield layer("proj_out", 2 * 2 * 16, WIDTH)


def sd3_controlnet() -> Iterator[Shapes]:
    yield from sd3_embeddings()
    for index in range(6):
        yield from sd3_block(index)
        yield layer(f"controlnet_blocks.{index}", WIDTH, WIDTH)
    yield {"pos_embed_input.proj.weight": (WIDTH, 16, 2, 2), "pos_embed_input.proj.bias": (WIDTH,)}


def kolors_unet() -> Iterator[Shapes]:
    yield {each.name: each.shape for each in unet_layout(config("kolors", "unet"))}
    yield layer("encoder_hid_proj", 2048, 4096)


def vae(*folders: str, quantized: bool) -> Iterator[Shapes]:
    expected = {each.name: each.shape for each in vae_layout(config(*folders))}
    yield {name: shape for name, shape in expected.items() if quantized or "quant_conv" not in name}


def clip(*folders: str) -> Iterator[Shapes]:
    for each in clip_layout(config(*folders), projected=True):
        prefix = "" if each.name.startswith("text_projection") else "text_model."
        yield {prefix + each.name: each.shape}


LAYOUTS = {
    ("kolors", "text_encoder"): chatglm(),
    ("kolors", "unet"): kolors_unet(),
    ("kolors", "vae"): vae("kolors", "vae", quantized=True),
    ("sd3-medium-pose", "text_encoder"): clip("sd3-medium", "text_encoder"),
    ("sd3-medium-pose", "text_encoder_2"): clip("sd3-medium", "text_encoder_2"),
    ("sd3-medium-pose", "text_encoder_3"): t5(),
    ("sd3-medium-pose", "transformer"): sd3_transformer(),
    ("sd3-medium-pose", "controlnet"): sd3_controlnet(),
    ("sd3-medium-pose", "vae"): vae("sd3-medium", "vae", quantized=False),
}


WRITTEN = {
    place: {key: shape for shapes in layout for key, shape in shapes.items()}
    for place, layout in LAYOUTS.items()
}


def test_every_part_has_a_written_layout(opened: Mapping[str, Any]) -> None:
    assert {(name, part) for name, pipeline in opened.items() for part in pipeline.modules} == WRITTEN.keys()


@pytest.mark.parametrize(("name", "part"), WRITTEN)
def test_a_part_has_the_tensors_of_the_published_checkpoint(
    name: str, part: str, opened: Mapping[str, Any]
) -> None:
    written = WRITTEN[name, part]
    found = {key: tuple(value.shape) for key, value in opened[name].modules[part].state_dict().items()}
    assert found == written
    tied = {"encoder.embed_tokens.weight"}  # T5 has its words once
    numbers = sum(math.prod(shape) for key, shape in written.items() if key not in tied)
    assert 2 * numbers == pytest.approx(part_bytes(DUMMIES.pipelines[name])[part], rel=0.001)


@pytest.mark.parametrize("name", NAMES)
def test_the_tokenizers_fit_their_text_encoders(name: str, opened: Mapping[str, Any]) -> None:
    components = opened[name]._pipeline.components
    lengths = {"tokenizer": 77, "tokenizer_2": 77, "tokenizer_3": 256}
    if name == "kolors":
        lengths = {"tokenizer": 256}
    for tokenizer, length in lengths.items():
        encoder = components[tokenizer.replace("tokenizer", "text_encoder")]
        cut = components[tokenizer](
            "a cat, (red:1.2) 猫" * 9, padding="max_length", max_length=length, truncation=True
        )
        words = next(encoder.parameters()).shape[0]
        assert len(cut.input_ids) == length
        assert 0 <= min(cut.input_ids) <= max(cut.input_ids) < words, tokenizer


def test_clip_is_padded_as_it_was_trained(opened: Mapping[str, Any]) -> None:
    """The first CLIP of Stable Diffusion 3 with its end, the second with an exclamation mark."""
    components = opened["sd3-medium-pose"]._pipeline.components
    for tokenizer, padding in (("tokenizer", 49407), ("tokenizer_2", 0)):
        cut = components[tokenizer]("a cat", padding="max_length")
        assert (len(components[tokenizer]), cut.input_ids[0], cut.input_ids[-1]) == (49408, 49406, padding)
