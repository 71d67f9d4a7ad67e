"""What can be asked for beside a plain picture, and networks of random numbers for it, of any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel
from safetensors.torch import save_file
from spandrel.architectures.ESRGAN import ESRGAN
from transformers import MBart50Tokenizer, MBartConfig, MBartForConditionalGeneration

from pipelines.demo.world.figure import demo_skeleton
from pipelines.image_io import RGBImage
from pipelines.prompts.languages import CODES
from pipelines.request import Control, Inpainting, Request, Upscaling
from pipelines.weights.entries import ControlNetEntry, PipelineEntry, Source, UpscalerEntry
from pipelines.weights.manifest import Manifest
from tests.gpu.stages import default_request

CONTROLNET, UPSCALER, TRANSLATOR = "random-controlnet", "random-x4", "random-translator"

ADDITIONS = {
    "controlnet": "stable-diffusion-v1-5",
    "controlnet xl": "sdxl",
    "self_attention": "stable-diffusion-v1-5",
    "panorama": "stable-diffusion-v1-5",
    "highres_fix": "stable-diffusion-v1-5",
    "inpaint": "stable-diffusion-v1-5",
}
"""What is asked for, and the pipeline that draws it."""


def size_of(name: str, side: int) -> tuple[int, int]:
    """Width and height: a panorama is four times as wide, what highres_fix is for has twice the sides."""
    wide = {"panorama": (4, 1), "highres_fix": (2, 2)}.get(name, (1, 1))
    return wide[0] * side, wide[1] * side


def added_request(name: str, *, side: int, steps: int, prompt: str) -> Request:
    """One picture of the pipeline's page with one of `ADDITIONS`.

    Args:
        side: of the pictures that the checkpoint was trained with.
    """
    plain: Any = default_request(ADDITIONS[name], (7,), side=side, steps=steps, prompt=prompt)
    width, height = size_of(name, side)
    plain = replace(plain, width=width, height=height)
    if name == "inpaint":
        values = {field.name: getattr(plain, field.name) for field in fields(plain) if field.name != "kind"}
        lower_half = bytes(side * side * 3 // 2) + b"\xff" * (side * side * 3 // 2)
        mask = RGBImage(side, side, lower_half)
        return Inpainting(**values, image=noise(side), mask=mask, strength=1.0)
    control = Control(name=CONTROLNET, image=demo_skeleton(side, side))
    changes: Mapping[str, Any] = {
        "controlnet": {"controls": (control,)},
        "controlnet xl": {"controls": (control,)},
        "self_attention": {"self_attention": True},
        "panorama": {"panorama": True},
        "highres_fix": {"highres_fix": True},
    }[name]
    return replace(plain, **changes)


def upscaling(side: int) -> Upscaling:
    """A picture of noise, four times enlarged."""
    return Upscaling(pipeline=UPSCALER, image=noise(side), width=4 * side, height=4 * side)


def noise(side: int) -> RGBImage:
    pixels = np.random.default_rng(1).integers(0, 256, side * side * 3, dtype=np.uint8)
    return RGBImage(side, side, pixels.tobytes())


def with_controlnet(manifest: Manifest, unet: Any, family: Any, folder: Path) -> Manifest:
    """The manifest with a ControlNet for this network."""
    network: Any = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
    network.to(unet.dtype).save_pretrained(folder / CONTROLNET)
    entry = ControlNetEntry(source=Source(folder=folder / CONTROLNET), family=family)
    return manifest.model_copy(update={"controlnets": {CONTROLNET: entry}})


def with_upscaler(manifest: Manifest, dtype: Any, folder: Path, *, filters: int, blocks: int) -> Manifest:
    """The manifest with a network of ESRGAN's architecture; RealESRGAN_x4plus has 64 filters, 23 blocks."""
    network = ESRGAN(scale=4, num_filters=filters, num_blocks=blocks)
    _make_lively(network)
    save_file(network.state_dict(), folder / f"{UPSCALER}.safetensors")
    source = Source(file=folder / f"{UPSCALER}.safetensors")
    return manifest.model_copy(update={"upscalers": {UPSCALER: UpscalerEntry(source=source, dtype=dtype)}})


def with_translator(
    manifest: Manifest, dtype: Any, folder: Path, *, layers: int, width: int, heads: int, words: int
) -> Manifest:
    """The manifest with a network of mBART's architecture; mBART-50 has 12 layers of width 1024, 16 heads and
    250054 words. Its tokenizer knows single letters: a prompt has as many tokens as letters."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*special, "\u2581", *letters, *(f"\u2581{letter}" for letter in letters), *CODES, "<mask>"]
    tokenizer = MBart50Tokenizer(vocab=[(token, 0.0 if token in special else -5.0) for token in tokens])
    network: Any = MBartForConditionalGeneration(
        MBartConfig(
            vocab_size=words,
            d_model=width,
            encoder_layers=layers,
            decoder_layers=layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=4 * width,
            decoder_ffn_dim=4 * width,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=2,
            forced_eos_token_id=2,
        )
    )
    with torch.no_grad():
        # It says nothing but letters, and does not stop before it must.
        network.final_logits_bias.fill_(-1e4)
        network.final_logits_bias[0, tokens.index("a") : tokens.index("z") + 1] = 0.0
    network.to(getattr(torch, dtype)).save_pretrained(folder / TRANSLATOR)
    tokenizer.save_pretrained(folder / TRANSLATOR)
    parts = {"model": Source(folder=folder / TRANSLATOR)}
    entry = PipelineEntry(family="mbart50", parts=parts, dtype=dtype)
    return manifest.model_copy(update={"pipelines": {**manifest.pipelines, TRANSLATOR: entry}})


def _make_lively(module: torch.nn.Module) -> None:
    """Matrices of variance 1 / fan_in, so that what comes out is as varied as what goes in."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim < 2:
                parameter.zero_()
            else:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)
