"""What is no checkpoint, VAE or ControlNet for this server is told by its name at load, from its header."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipelines.weights.header import Header, Unrecognised, read_header
from pipelines.weights.prediction import scheduler_changes
from pipelines.weights.recognition import recognise

UNET = "model.diffusion_model"
WHOLE = {
    f"{UNET}.input_blocks.0.0.weight": (320, 4, 3, 3),
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
}
HINT = "controlnet_cond_embedding.conv_in.weight"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["task_embedding", HINT, "transformer_layes.0.attn.in_proj_weight"], "a ControlNet-Union"),
        (["control_add_embedding.linear_1.weight", HINT], "a ControlNet-Union"),
        (["lora_controlnet", "input_hint_block.0.weight"], "a Control-LoRA"),
        (["control_model.enc_zero_convs_in.0.weight", "control_model.input_hint_block.0.weight"],
         "a ControlNet-XS"),
        (["down_blocks.0.ctrl_to_base.0.weight", HINT], "a ControlNet-XS"),
        (["lllite_unet_input_blocks_4_1_attn1_to_q.down.0.weight"], "a ControlNet-LLLite"),
        (["difference", "control_model.input_hint_block.0.weight"], "difference to a checkpoint"),
        (["adapter.body.0.resnets.0.block1.weight", "adapter.conv_in.weight"], "a T2I-Adapter"),
        (["body.0.block1.weight", "body.0.in_conv.weight", "conv_in.weight"], "a T2I-Adapter"),
        (["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"], "an IP-Adapter"),
        (["id_encoder.visual_projection_2.weight"], "a PhotoMaker"),
        (["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"], "a motion module"),
        (["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight", HINT], "a SparseCtrl"),
        (["768.0.linear.0.weight", "320.1.linear.0.weight"], "a hypernetwork"),
        (["double_blocks.0.img_attn.qkv.weight"], "Flux"),
        (["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"], "Stable Diffusion 3"),
        (["blocks.0.cross_attn.q.weight", "head.modulation", "patch_embedding.weight"], "Wan"),
        ([f"{UNET}.blocks.0.self_attn.q.weight", f"{UNET}.head.modulation"], "Wan"),
        (["mlp_t5.0.weight", "text_embedding_padding"], "HunyuanDiT"),
        (["y_embedder.y_proj.fc1.weight", "t_block.1.weight"], "PixArt"),
        (["adaln_single.linear.weight", "caption_projection.linear_1.weight"], "PixArt"),
        (["clip_txt_mapper.weight", "down_blocks.0.0.channelwise.0.weight"], "Stable Cascade"),
        (["model.diffusion_model.input_blocks.1.0.time_stack.in_layers.0.weight"], "Stable Video Diffusion"),
        (["encoder_hid_proj.weight", "conv_in.weight"], "Kolors"),
        (["model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"], "an upscaler"),
        (["body.0.weight", "body.1.weight"], "an upscaler"),
        (["conv_first.weight", "body.0.rdb1.conv1.weight"], "an upscaler"),
        (["stylegan_decoder.style_conv1.weight"], "a face restorer"),
        (["1.weight", "3.conv.0.weight", "3.conv.2.weight"], "a TAESD"),
        (["encoder.layers.0.weight", "encoder.layers.1.conv.0.weight"], "a TAESD"),
        (["taesd_decoder.1.weight", "taesd_decoder.3.conv.0.weight"], "a TAESD"),
        (["quantize.embedding.weight", "encoder.conv_in.weight"], "a codebook"),
        (["decoder.middle.0.residual.0.gamma"], "a VAE of another family"),
        (["encoder.conv_in.weight"], "a VAE without its decoder"),
        (["decoder.conv_in.weight"], "a VAE without its encoder"),
        (["optimizer.state.0.exp_avg"], "a state of training"),
        (["text_model.encoder.layers.0.self_attn.k_proj.weight"], "a text encoder alone"),
        (["encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"], "a T5 text encoder"),
        (["vision_model.embeddings.patch_embedding.weight"], "an image encoder"),
        (["concept_embeds", "vision_model.encoder.x"], "a safety checker"),
        (["model.embed_tokens.weight", "lm_head.weight"], "a language model"),
    ],
)  # fmt: skip
def test_a_network_of_another_kind_is_named(names: list[str], reason: str) -> None:
    with pytest.raises(Unrecognised, match=reason):
        recognise(dict.fromkeys(names, (4, 4, 4)))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"cond_stage_model.model.ln_final.weight": (1024,)}, "Stable Diffusion 2"),
        ({"conditioner.embedders.0.model.ln_final.weight": (1280,)}, "the SDXL refiner"),
        ({"embedder.model.visual.x": (1,), "cond_stage_model.transformer.x": (1,)}, "unCLIP"),
        ({"conditioner.embedders.1.model.ln_final.weight": (1280,)}, "without its first text encoder"),
        ({f"{UNET}.input_blocks.0.0.weight": (320, 5, 3, 3)}, "for depth to image"),
        ({f"{UNET}.input_blocks.0.0.weight": (320, 7, 3, 3)}, "for enlarging pictures"),
        ({f"{UNET}.input_blocks.0.0.weight": (320, 8, 3, 3)}, "InstructPix2Pix"),
        ({f"{UNET}.input_blocks.0.0.weight": (320, 9, 3, 3)}, "an inpainting checkpoint"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "state_dict."])
def test_a_checkpoint_of_another_kind_is_named(
    prefix: str, more: Mapping[str, tuple[int, ...]], reason: str
) -> None:
    with pytest.raises(Unrecognised, match=reason):
        recognise({prefix + name: shape for name, shape in {**WHOLE, **more}.items()})


def test_what_lies_beside_the_network_of_a_checkpoint_does_not_name_it() -> None:
    more = {
        "cond_stage_model.transformer.text_model.x": (1,),
        "safety_checker.concept_embeds": (17, 768),
        "safety_checker.vision_model.vision_model.x": (1,),
    }
    assert recognise({**WHOLE, **more}).kind == "checkpoint"


@pytest.mark.parametrize("marker", ["edm_mean", "edm_std", "edm_vpred.sigma_max"])
def test_a_training_that_is_not_drawn_is_named_by_its_marker(marker: str) -> None:
    with pytest.raises(Unrecognised, match=f"EDM.*{marker}"):
        scheduler_changes(Header({**WHOLE, marker: ()}))


@pytest.mark.parametrize("said", ["edm", "rectified flow", "x0"])
def test_a_prediction_that_is_not_drawn_is_named(said: str) -> None:
    with pytest.raises(Unrecognised, match=said):
        scheduler_changes(Header(WHOLE, metadata={"modelspec.prediction_type": said}))


V = {"prediction_type": "v_prediction"}


@pytest.mark.parametrize(
    ("markers", "metadata", "changes"),
    [
        ([], {}, {}),
        (["v_pred"], {}, V),
        (["ztsnr"], {}, {"rescale_betas_zero_snr": True}),
        (["v_pred", "ztsnr"], {}, {**V, "rescale_betas_zero_snr": True}),
        (["state_dict.v_pred"], {}, V),
        (["v_pred"], {"modelspec.prediction_type": "epsilon"}, V),
        ([], {"modelspec.prediction_type": "epsilon"}, {}),
        ([], {"modelspec.prediction_type": "v"}, V),
        ([], {"modelspec.predict_type": "V-Prediction"}, V),
        ([], {"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"},
         {**V, "rescale_betas_zero_snr": True}),
        ([], {"ss_v_parameterization": "False", "ss_zero_terminal_snr": "False"}, {}),
    ],
)  # fmt: skip
def test_what_a_checkpoint_says_of_its_training_is_heard(
    markers: list[str], metadata: dict[str, str], changes: dict[str, object]
) -> None:
    shapes = {**WHOLE, **dict.fromkeys(markers, (0,))}
    assert scheduler_changes(Header(shapes, metadata=metadata)) == changes


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"x" * 100)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.safetensors"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"GGUF\x03\0\0\0" + bytes(99), "is a GGUF file"),
        (zipped("model.safetensors"), "is a ZIP archive"),
        (tarred(), "is a tar archive"),
        (b"\x1f\x8b\x08" + bytes(99), "is compressed with gzip"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(99), "is a 7z archive"),
        (b"ftrt" + bytes(99), "is a TensorRT engine"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:" + bytes(99), "is an ONNX model"),
        (b"<!DOCTYPE html><html>" + bytes(99), "is an HTML page"),
        (b"\n\n <HTML lang=en>" + bytes(99), "is an HTML page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is an XML text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "is a pointer into"),
        (b"# xet version 0\nfilesize = 12\nhash = 'ab'\n", "is a pointer into"),
        (b'{"error": "Unauthorized"}', "is a JSON text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "is a picture"),
        (b"\x80\x02}q\0" + bytes(99), "is a pickle"),
    ],
)
def test_a_file_of_another_format_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(Unrecognised, match=rf"it is not a \.safetensors file: it {reason}"):
        read_header(tmp_path / "x")


TENSOR = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


@pytest.mark.parametrize(
    "header",
    [
        {"x": {**TENSOR, "dtype": "F99"}},
        {"x": {**TENSOR, "shape": [2, 4]}},
        {"x": {**TENSOR, "data_offsets": [8, 24]}},
        {"x": TENSOR, "y": TENSOR},
    ],
)
def test_a_header_that_no_reader_takes_is_refused(tmp_path: Path, header: object) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + bytes(24))
    with pytest.raises(Unrecognised, match="its header is damaged"):
        read_header(tmp_path / "x")
