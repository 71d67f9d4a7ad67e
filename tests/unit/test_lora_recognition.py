"""LoRAs and textual inversions at load: their families, what is refused by name, and what is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipelines.weights.adapter_recognition import input_width
from pipelines.weights.embedding_names import FIRST_ENCODER, SECOND_ENCODER, vectors_by_encoder
from pipelines.weights.finite import demand_finite
from pipelines.weights.header import Shapes, Unrecognised, read_header
from pipelines.weights.lora_names import read_name
from pipelines.weights.lora_settings import LoraSettings, of_config, of_header
from pipelines.weights.module_names import text_module, unet_module
from pipelines.weights.recognition import Recognised, recognise
from pipelines.weights.usable import demand_usable

CLIP_LAYER = "text_model_encoder_layers_0_mlp_fc1"
MIDDLE = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


def pair(layer: str, out: int = 320, into: int = 320, rank: int = 4) -> dict[str, tuple[int, ...]]:
    return {f"{layer}.lora_down.weight": (rank, into), f"{layer}.lora_up.weight": (out, rank)}


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        (pair(f"lora_te1_{CLIP_LAYER}", 3072, 768), "sdxl"),
        (pair(f"lora_te2_{CLIP_LAYER}", 5120, 1280), "sdxl"),
        (pair("lora_te2_text_projection", 1280, 1280), "sdxl"),
        (pair("text_encoder_2.text_projection", 1280, 1280), "sdxl"),
        (pair(f"lora_te_{CLIP_LAYER}", 3072, 768), "sd15"),
        (pair("text_encoder.text_model.encoder.layers.0.mlp.fc1", 3072, 768), None),
        (pair(f"unet.{MIDDLE}", 1280, 1280), None),
        (pair("lora_unet_up_blocks_0_attentions_0_proj_in", 1280, 1280), "sdxl"),
        (pair("lora_unet_input_blocks_1_1_proj_in"), "sd15"),
        (pair("diffusion_model.output_blocks.11.1.proj_in"), "sd15"),
        (pair("lora_unet_label_emb_0_0", 1280, 2816), "sdxl"),
        (pair("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", 640, 640), None),
        (pair("unet.down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q", 640, 640), "sdxl"),
        ({"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lokr_w1": (8, 8),
          "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lokr_w2": (160, 256)}, "sdxl"),
        ({**pair(f"lora_te1_{CLIP_LAYER}", 3072, 768), "bundle_emb.x.clip_l": (2, 768), "_extra": (3,)},
         "sdxl"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else str(value),
)  # fmt: skip
def test_the_family_of_a_lora_is_told_by_whatever_layers_it_has(shapes: Shapes, family: str | None) -> None:
    found = recognise(shapes)
    assert (found.kind, found.family) == ("lora", family)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv", "Flux"),
        ("transformer.single_transformer_blocks.0.attn.to_q", "Flux"),
        ("lora_unet_single_blocks_3_linear1", "Flux"),
        ("lora_unet_joint_blocks_0_x_block_attn_qkv", "Stable Diffusion 3"),
        ("diffusion_model.blocks.0.cross_attn.k", "Wan"),
        ("lora_unet_blocks_0_self_attn_q", "Wan"),
        ("transformer.transformer_blocks.0.attn.to_q", "transformer"),
        ("transformer_blocks.0.attn1.to_q", "transformer"),
        ("diffusion_model.layers.0.attention.qkv", "transformer"),
        ("down_blocks.0.motion_modules.0.transformer_blocks.0.attention_blocks.0.to_q", "AnimateDiff"),
        ("unet.down_blocks.0.attentions.0.add_k_proj", "Kandinsky"),
        ("lora_prior_unet_down_blocks_0_1", "a prior"),
        ("base_model.model.model.layers.0.self_attn.q_proj", "language model"),
        ("lora_unet_down_blocks_0_attentions_7_proj_in", "another network than those of SD1.5"),
        ("ip_adapter.1.to_q_lora", "IP-Adapter"),
        ("something.of.mine", "another network"),
    ],
)  # fmt: skip
def test_a_lora_of_another_family_is_refused_by_its_name(layer: str, reason: str) -> None:
    with pytest.raises(Unrecognised, match=reason):
        recognise(pair(layer))


@pytest.mark.parametrize(
    ("layer", "into"),
    [("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v", 1024),
     ("text_encoder.text_model.encoder.layers.3.self_attn.q_proj", 1024)],
)  # fmt: skip
def test_a_lora_of_stable_diffusion_2_is_refused_by_its_width(layer: str, into: int) -> None:
    with pytest.raises(Unrecognised, match="a LoRA for Stable Diffusion 2"):
        recognise(pair(layer, into=into))


@pytest.mark.parametrize("kind", ["oft_blocks", "diff", "w_norm", "a1.weight", "on_input", "boft_R", "hra_u"])
def test_a_file_of_nothing_but_other_layers_is_refused_by_their_name(kind: str) -> None:
    with pytest.raises(
        Unrecognised, match=r"it has layers of .* alone; this server has LoRA, DoRA, LoHa and LoKr"
    ):
        recognise({f"lora_unet_mid_block_attentions_0_proj_in.{kind}": (2, 2)})


# names


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("input_blocks.0.0", "conv_in"),
        ("input_blocks.1.0.in_layers.2", "down_blocks.0.resnets.0.conv1"),
        ("input_blocks.3.0.op", "down_blocks.0.downsamplers.0.conv"),
        ("input_blocks.8.1.transformer_blocks.0.attn2.to_out.0",
         "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_out.0"),
        ("middle_block.1.proj_in", "mid_block.attentions.0.proj_in"),
        ("middle_block.2.out_layers.3", "mid_block.resnets.1.conv2"),
        ("output_blocks.2.1.conv", "up_blocks.0.upsamplers.0.conv"),
        ("output_blocks.5.2.conv", "up_blocks.1.upsamplers.0.conv"),
        ("output_blocks.11.0.skip_connection", "up_blocks.3.resnets.2.conv_shortcut"),
        ("time_embed.2", "time_embedding.linear_2"),
        ("label_emb.0.2", "add_embedding.linear_2"),
        ("out.2", "conv_out"),
        ("down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj",) * 2,
        ("up_blocks.1.upsamplers.0.conv",) * 2,
        ("down_blocks.0.attentions.9.proj_in", None),
        ("double_blocks.0.img_attn.qkv", None),
    ],
)  # fmt: skip
def test_modules_of_the_unet_have_one_name_with_dots_and_without(name: str, module: str | None) -> None:
    assert unet_module(name, flat=False) == module
    assert unet_module(name.replace(".", "_"), flat=True) == module


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("text_model.encoder.layers.11.self_attn.q_proj", "encoder.layers.11.self_attn.q_proj"),
        ("transformer.resblocks.31.mlp.c_proj", "encoder.layers.31.mlp.fc2"),
        ("transformer.resblocks.0.attn.out_proj", "encoder.layers.0.self_attn.out_proj"),
        ("text_model.encoder.layers.0.self_attn.to_out", "encoder.layers.0.self_attn.out_proj"),
        ("text_projection", "text_projection"),
        ("encoder.layers.0.nothing", None),
    ],
)
def test_modules_of_text_encoders_have_one_name_too(name: str, module: str | None) -> None:
    assert text_module(name, flat=False) == module
    assert text_module(name.replace(".", "_"), flat=True) == module


@pytest.mark.parametrize(
    ("end", "part"),
    [
        ("lora_down.weight", "down"), ("lora_A.weight", "down"), ("lora_A.default.weight", "down"),
        ("lora_B.my_adapter.weight", "up"), ("lora.up.weight", "up"),
        ("lora_linear_layer.down.weight", "down"),
        ("lora_mid.weight", "mid"), ("lora_B.bias", "up.bias"), ("alpha", "alpha"),
        ("dora_scale", "magnitude"),
        ("lora_magnitude_vector", "magnitude"), ("lora_magnitude_vector.default.weight", "magnitude"),
        ("hada_w1_a", "hada_w1_a"), ("lokr_t2", "lokr_t2"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("layer", [f"unet.{MIDDLE}", f"lora_unet_{MIDDLE.replace('.', '_')}"])
def test_every_end_of_a_name_is_a_part_of_its_layer(layer: str, end: str, part: str) -> None:
    tensor = read_name(f"{layer}.{end}")
    assert tensor is not None
    assert (tensor.network, tensor.module, tensor.part) == ("unet", MIDDLE, part)


def test_the_width_that_a_layer_reads_is_told_by_any_kind_of_it() -> None:
    assert input_width({"down": (4, 320, 3, 3)}) == 2880
    assert input_width({"hada_w1_b": (4, 768)}) == 768
    assert input_width({"lokr_w1": (2, 4), "lokr_w2": (8, 192)}) == 768
    assert input_width({"up": (4, 4)}) is None


# textual inversions


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        ({"emb_params": (2, 768)}, "sd15"),
        ({"string_to_param.*": (2, 768)}, "sd15"),
        ({"*": (768,)}, "sd15"),
        ({"<cat>": (3, 768)}, "sd15"),
        ({"clip_l": (2, 768)}, "sd15"),
        *[({first: (2, 768), second: (2, 1280)}, "sdxl")
          for first, second in zip(FIRST_ENCODER, (*SECOND_ENCODER, *SECOND_ENCODER), strict=False)],
        ({"clip_l": (2, 768), "clip_g": (2, 1280), "clip_l_out": (2, 768), "clip_g_out": (2, 1280)}, "sdxl"),
        ({"first": (1280,), "second": (768,)}, "sdxl"),
    ],
    ids=str,
)  # fmt: skip
def test_the_family_of_a_textual_inversion_is_told_by_names_and_widths(shapes: Shapes, family: str) -> None:
    assert recognise(shapes) == Recognised("embedding", family)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"emb_params": (2, 1024)}, "Stable Diffusion 2"),
        ({"clip_h": (2, 1024), "emb_params": (2, 1024)}, "Stable Diffusion 2"),
        ({"clip_l": (2, 768), "t5": (2, 4096)}, "Flux or Stable Diffusion 3"),
        ({"emb_params": (2, 4096)}, "T5"),
        ({"emb_params": (2, 1280)}, "SDXL's second text encoder alone"),
        ({"clip_g": (2, 1280)}, "SDXL's second text encoder alone"),
        ({"<s1>": (1, 768), "<s2>": (1, 768)}, "the vectors of 2 words"),
        ({"emb_params": (0, 768)}, "has the shape"),
    ],
    ids=str,
)
def test_a_textual_inversion_that_is_of_no_use_is_refused_by_name(shapes: Shapes, reason: str) -> None:
    with pytest.raises(Unrecognised, match=reason):
        recognise(shapes)


def test_vectors_are_found_in_either_order() -> None:
    assert vectors_by_encoder({"text_encoders_1": (1, 4), "text_encoders_0": (1, 3)}) == {
        "clip_l": "text_encoders_0", "clip_g": "text_encoders_1",
    }  # fmt: skip


# damage


def looked_at(
    path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None
) -> str | None:
    save_file(tensors, path, metadata)
    header = read_header(path)
    return demand_usable(path, header, recognise(header.shapes).kind)


def matrices(layer: str, rank: int = 4) -> dict[str, np.ndarray]:
    shapes = pair(layer, rank=rank)
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_found_and_its_tensor_named(
    dtype: type, number: float, tmp_path: Path
) -> None:
    tensors = {name: it.astype(dtype) for name, it in matrices(f"unet.{MIDDLE}").items()}
    assert looked_at(tmp_path / "good", tensors) is None
    name = f"unet.{MIDDLE}.lora_up.weight"
    tensors[name][-1, -1] = number
    with pytest.raises(
        Unrecognised, match=rf"its tensor {name} has numbers that are infinite or none \(NaN\)"
    ):
        looked_at(tmp_path / "bad", tensors)


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [("BF16", b"\x7f\x7f", b"\xc0\x7f"), ("F8_E5M2", b"\x7b", b"\x7c"), ("F8_E4M3", b"\x7e", b"\xff")],
)
def test_short_formats_are_looked_at_by_their_bits(
    dtype: str, good: bytes, bad: bytes, tmp_path: Path
) -> None:
    import json
    import struct

    for data in (good, bad):
        header = json.dumps({"x": {"dtype": dtype, "shape": [1], "data_offsets": [0, len(data)]}}).encode()
        (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + data)
        if data == good:
            demand_finite(tmp_path / "x")
    with pytest.raises(Unrecognised, match="its tensor x has"):
        demand_finite(tmp_path / "x")


def test_matrices_of_different_ranks_are_damage(tmp_path: Path) -> None:
    layer = f"unet.{MIDDLE}"
    mixed = {**matrices(layer), f"{layer}.lora_up.weight": np.ones((320, 8), np.float32)}
    with pytest.raises(Unrecognised, match="do not have one rank"):
        looked_at(tmp_path / "x", mixed)


def test_half_a_layer_is_damage(tmp_path: Path) -> None:
    layer = f"unet.{MIDDLE}"
    half = {f"{layer}.lora_up.weight": np.ones((320, 8), np.float32)}
    with pytest.raises(Unrecognised, match=f"its layer {layer} is not whole: it has up alone"):
        looked_at(tmp_path / "x", half)


@pytest.mark.parametrize(
    ("metadata", "family"),
    [
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ({"ss_base_model_version": "sd_v1"}, "sd15"),
        ({"ss_base_model_version": "sdxl_base_v1-0", "ss_v2": "False"}, "sdxl"),
        ({}, None),
    ],
)
def test_trainers_note_the_family_where_the_layers_do_not_tell(
    metadata: dict[str, str], family: str | None, tmp_path: Path
) -> None:
    assert looked_at(tmp_path / "x", matrices(f"unet.{MIDDLE}"), metadata) == family


def test_a_note_of_stable_diffusion_2_is_believed(tmp_path: Path) -> None:
    with pytest.raises(Unrecognised, match="Stable Diffusion 2"):
        looked_at(tmp_path / "x", matrices(f"unet.{MIDDLE}"), {"ss_v2": "True"})


# settings


def test_settings_that_decide_nothing_here_are_left_alone() -> None:
    assert of_config('{"r": 4, "lora_alpha": 8, "new": {}}') == LoraSettings(alpha=8.0)
    assert of_config('{"lora_alpha": true, "alpha_pattern": {"x": "y", "z": 2}}') == LoraSettings(
        alpha_pattern={"z": 2.0}
    )
    assert of_header('{"unet": {"lora_alpha": 3}, "text_encoder.lora_alpha": 2}') == {
        "unet": LoraSettings(alpha=3.0), "text_encoder": LoraSettings(alpha=2.0),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["OFT", "BOFT", "IA3", "VERA", "ADALORA", "PROMPT_TUNING"])
def test_adapters_of_pefts_other_kinds_are_refused_by_name(kind: str) -> None:
    with pytest.raises(Unrecognised, match=f"of PEFT's kind {kind}"):
        of_config(f'{{"peft_type": "{kind}"}}')


@pytest.mark.parametrize("text", ["{", "[]", "3", '"x"'])
def test_settings_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(Unrecognised, match=r"its adapter_config\.json is no"):
        of_config(text)
