"""What a .safetensors file is, whatever its name or the caller says."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from pipelines.weights.header import Shapes, Unrecognised, read_header
from pipelines.weights.recognition import Recognised, recognise

UNET = "model.diffusion_model"
VAE = {"first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3)}


def first_layer(channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{UNET}.input_blocks.0.0.weight": (320, channels, 3, 3)}


CLIP = {"cond_stage_model.transformer.text_model.final_layer_norm.weight": (768,)}
OPEN_CLIP = {"cond_stage_model.model.ln_final.weight": (1024,)}
TWO_ENCODERS = {
    "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": (768,),
    "conditioner.embedders.1.model.ln_final.weight": (1280,),
}
REFINER = {"conditioner.embedders.0.model.ln_final.weight": (1280,)}
SD15_ATTENTION = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
SDXL_ATTENTION = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({**first_layer(4), **VAE, **CLIP}, Recognised("checkpoint", "sd15")),
        ({**first_layer(4), **VAE, **TWO_ENCODERS}, Recognised("checkpoint", "sdxl")),
        ({f"{SD15_ATTENTION}.lora_down.weight": (8, 768)}, Recognised("lora", "sd15")),
        ({f"{SDXL_ATTENTION}.lora_down.weight": (8, 2048)}, Recognised("lora", "sdxl")),
        ({f"{SDXL_ATTENTION}.hada_w1_a": (640, 4), f"{SDXL_ATTENTION}.hada_w1_b": (4, 2048)},
         Recognised("lora", "sdxl")),
        ({f"{SD15_ATTENTION}.lokr_w1": (8, 8), f"{SD15_ATTENTION}.lokr_w2": (40, 96)},
         Recognised("lora", "sd15")),
        ({"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 768)},
         Recognised("lora", "sd15")),
        ({f"{SD15_ATTENTION}.lora_down.weight": (8, 768), f"{SD15_ATTENTION}.dora_scale": (320, 1),
          "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (8, 768)},
         Recognised("lora", "sd15")),
        ({f"{SD15_ATTENTION}.lora_down.weight": (8, 768), f"{SD15_ATTENTION}.dora_scale": (320, 1),
          "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (8, 1280)},
         Recognised("lora", "sd15")),
        ({"base_model.model.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 2048)},
         Recognised("lora", "sdxl")),
        ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (8, 1280)},
         Recognised("lora", "sdxl")),
        ({"unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": (4, 320)}, Recognised("lora", "sd15")),
        ({"emb_params": (2, 768)}, Recognised("embedding", "sd15")),
        ({"<night>": (768,)}, Recognised("embedding", "sd15")),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, Recognised("embedding", "sdxl")),
        ({"encoder.conv_in.weight": (128, 3, 3, 3), "decoder.conv_in.weight": (512, 4, 3, 3)},
         Recognised("vae", None)),
        ({"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
          "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight": (1280, 768)},
         Recognised("controlnet", "sd15")),
    ],
)  # fmt: skip
def test_a_file_is_known_by_its_tensors(shapes: Shapes, expected: Recognised) -> None:
    assert recognise(shapes) == expected


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({}, "holds no tensors"),
        ({**first_layer(9), **VAE, **CLIP}, "an inpainting checkpoint"),
        ({**first_layer(8), **VAE, **CLIP}, "InstructPix2Pix"),
        ({**first_layer(4), **VAE, **OPEN_CLIP}, "Stable Diffusion 2"),
        ({**first_layer(4), **VAE, **REFINER}, "the SDXL refiner"),
        ({**first_layer(4), **CLIP}, "without its VAE"),
        ({**first_layer(4), **VAE}, "without its text encoder"),
        ({f"{SD15_ATTENTION}.lora_down.weight": (8, 1024)}, "a LoRA for Stable Diffusion 2"),
        ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (8, 3072)}, "Flux"),
        ({"model.diffusion_model.joint_blocks.0.x": (1,)}, "Stable Diffusion 3"),
        ({"emb_params": (2, 1024)}, "textual inversion for Stable Diffusion 2"),
        ({"encoder.conv_in.weight": (128, 3, 3, 3), "decoder.conv_in.weight": (512, 16, 3, 3)},
         "16 latent channels"),
        ({"down_blocks.0.resnets.0.conv1.weight": (1, 1, 3, 3)}, "one network of a checkpoint"),
        ({"weight": (3, 3, 3)}, "not a checkpoint, LoRA"),
        ({f"{SD15_ATTENTION}.oft_blocks": (2, 2)}, r"layers of OFT \(oft_blocks\)"),
        ({f"{SD15_ATTENTION}.lora_down.weight": (8, 768), f"{SD15_ATTENTION}.dora_scale": (1, 768)},
         "its DoRA magnitudes are of columns"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_with_is_refused_by_its_name(shapes: Shapes, reason: str) -> None:
    with pytest.raises(Unrecognised, match=reason):
        recognise(shapes)


def written(path: Path, header: object, data: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_names_and_shapes_are_read_from_the_header(tmp_path: Path) -> None:
    tensor = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    path = written(tmp_path / "x", {"__metadata__": {"format": "pt"}, "emb": tensor}, bytes(24))
    assert read_header(path).shapes == {"emb": (2, 3)}


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"<html>" * 9, struct.pack("<Q", 10**9) + b"{}"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(Unrecognised, match=r"not a \.safetensors file"):
        read_header(path)


@pytest.mark.parametrize(
    "header", [[], {"x": 1}, {"x": {"shape": 3}}, {"x": {"shape": [1], "data_offsets": 4}}]
)
def test_a_header_that_says_something_else_is_refused(tmp_path: Path, header: object) -> None:
    with pytest.raises(Unrecognised, match=r"not a \.safetensors file"):
        read_header(written(tmp_path / "x", header))


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    tensor = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    with pytest.raises(Unrecognised, match="cut off"):
        read_header(written(tmp_path / "x", {"emb": tensor}, bytes(20)))
