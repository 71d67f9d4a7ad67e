"""A random checkpoint of the shape of segmind/tiny-sd, in the files that its repository has.

The UNet's configuration is that of BK-SDM's tiny one, from its authors' repository, with fewer channels: no
middle, three levels of one layer each, attention in all of them. As published, weights are pickles in half
precision, the UNet's tensors do not lie in memory in their own order, and CLIP's have the names of an older
release.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from pipelines.demo.checkpoints.parts import byte_level_tokenizer, fill

HUB = "segmind/tiny-sd"
COMMIT = "cad0bd7495fa6c4bcca01b19a723dc91627fe84f"

UNET: dict[str, Any] = {
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280),
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "mid_block_type": None,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
    "use_linear_projection": False,
}
"""The published configuration; what it leaves out is what diffusers takes anyway."""

_CHANNELS = (32, 64, 128)
_TEXT_WIDTH = 64
_SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "clip_sample": False,
}


def pipeline() -> StableDiffusionPipeline:
    """The checkpoint with few channels, of random numbers that half precision holds exactly."""
    parts: dict[str, Any] = {
        "vae": _vae(),
        "text_encoder": _text_encoder(),
        "tokenizer": byte_level_tokenizer(),
        "unet": unet(),
        "scheduler": PNDMScheduler.from_config(_SCHEDULER),
    }
    without: dict[str, Any] = {"safety_checker": None, "feature_extractor": None}
    made = StableDiffusionPipeline(**parts, **without, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def unet() -> UNet2DConditionModel:
    """The UNet with few channels and nothing else changed."""
    small = UNET | {"block_out_channels": _CHANNELS, "cross_attention_dim": _TEXT_WIDTH}
    return _halved(UNet2DConditionModel(**small), 21)


def repository_files(folder: Path) -> dict[str, bytes]:
    """The files of the repository, by their names in it.

    Args:
        folder: a folder that may be written to.
    """
    made: Any = pipeline()
    made.save_pretrained(folder)
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    _write_tokenizer(made.tokenizer, folder / "tokenizer")
    _pickle(made.unet.state_dict(), folder / "unet" / "diffusion_pytorch_model.bin", scattered=True)
    _pickle(made.vae.state_dict(), folder / "vae" / "diffusion_pytorch_model.bin")
    text = {
        f"text_model.{name.removeprefix('text_model.')}": tensor
        for name, tensor in made.text_encoder.state_dict().items()
    }
    text["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    _pickle(text, folder / "text_encoder" / "pytorch_model.bin")
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    return files | {"README.md": b"# tiny-sd", ".gitattributes": b"*.bin filter=lfs"}


def _write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """The files in which transformers kept CLIP's tokenizer when the checkpoint was published."""
    for path in folder.iterdir():
        path.unlink()
    start, end = "<|startoftext|>", "<|endoftext|>"
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **special}
    (folder / "vocab.json").write_text(json.dumps(tokenizer.get_vocab()))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _pickle(tensors: dict[str, Tensor], path: Path, *, scattered: bool = False) -> None:
    halves = {name: each.half() if each.is_floating_point() else each for name, each in tensors.items()}
    if scattered:
        halves = {
            name: each.contiguous(memory_format=torch.channels_last) if each.ndim == 4 else each
            for name, each in halves.items()
        }
    torch.save(halves, path)


def _vae() -> AutoencoderKL:
    shape: dict[str, Any] = {
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "norm_num_groups": 8,
        "sample_size": 512,
    }
    return _halved(AutoencoderKL(**shape), 22)


def _text_encoder() -> CLIPTextModel:
    tokenizer: Any = byte_level_tokenizer()
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=_TEXT_WIDTH,
            intermediate_size=2 * _TEXT_WIDTH,
            projection_dim=_TEXT_WIDTH,
            num_hidden_layers=12,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return _halved(model, 23)


def _halved(model: Any, seed: int) -> Any:
    fill(model, seed)
    return model.half().float().eval()
