"""Files of every kind in every layout that recognition knows, written from the small checkpoints.

A layout is written beside the diffusers folder whose pictures it has to draw.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipelines.demo.checkpoints.parts import fill
from pipelines.weights.kinds import Kind
from tests.tiny.original_layout import write_controlnet, write_single_file

Tensors = dict[str, Tensor]
UNET = "model.diffusion_model."
FP8_MAX = 448


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which a kind of thing is saved as a file.

    Attributes:
        write: writes a file, given the folder of the small checkpoints; returns the folder of its reference
            where that is another one.
    """

    kind: Kind
    family: str
    write: Callable[[Path, Path], Path | None]


def _checkpoint(
    change: Callable[[Tensors], Tensors],
    small: Path,
    file: Path,
    *,
    family: str = "sd15",
    metadata: Mapping[str, str] | None = None,
    scheduler: Mapping[str, Any] | None = None,
) -> Path | None:
    path = file.with_name("original")
    cls: Any = StableDiffusionPipeline if family == "sd15" else StableDiffusionXLPipeline
    write_single_file(cls.from_pretrained(small / family), path)
    changed = {name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}
    save_file(changed, file, dict(metadata or {}))
    return _folder(small / family, file, scheduler=scheduler) if scheduler else None


def _other_unet(small: Path, file: Path, *, family: str = "sd15", **config: Any) -> Path:
    """A checkpoint whose UNet has another shape."""
    cls: Any = StableDiffusionPipeline if family == "sd15" else StableDiffusionXLPipeline
    published = json.loads((small / family / "unet/config.json").read_text())
    unet: Any = UNet2DConditionModel.from_config({**published, **config})
    fill(unet, 77)
    pipeline = cls.from_pretrained(small / family, unet=unet.eval())
    write_single_file(pipeline, file)
    folder = _folder(small / family, file, without=("unet",))
    unet.save_pretrained(folder / "unet")
    return folder


def _folder(
    checkpoint: Path, file: Path, *, without: tuple[str, ...] = (), scheduler: Mapping[str, Any] | None = None
) -> Path:
    """A copy of a checkpoint's folder beside a file, with what is changed of it."""
    folder = file.with_name("reference")
    folder.mkdir()
    for part in checkpoint.iterdir():
        if part.name not in without and (part.name != "scheduler" or not scheduler):
            (folder / part.name).symlink_to(part)
    if scheduler:
        config = json.loads((checkpoint / "scheduler/scheduler_config.json").read_text())
        (folder / "scheduler").mkdir()
        (folder / "scheduler/scheduler_config.json").write_text(json.dumps({**config, **scheduler}))
    return folder


def same(tensors: Tensors) -> Tensors:
    return tensors


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


def wrapped(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def more(**tensors: Tensor) -> Callable[[Tensors], Tensors]:
    return lambda others: {**others, **tensors}


def ema(tensors: Tensors, *, alone: bool) -> Tensors:
    """Running means of the UNet, alone or beside the last weights, where they differ."""
    unet = {name: tensor for name, tensor in tensors.items() if name.startswith(UNET)}
    means = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): tensor if alone else tensor + 1
        for name, tensor in unet.items()
    }
    counters = {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(7)}
    rest = {name: tensor for name, tensor in tensors.items() if name not in unet} if alone else tensors
    return {**rest, **means, **counters}


def _in_numbers(coarse: Callable[[str, Tensor], Tensor], small: Path, file: Path) -> Path:
    """A checkpoint in a coarser number format; its reference has the same numbers in fp32."""
    pipeline: Any = StableDiffusionPipeline.from_pretrained(small / "sd15")
    path = file.with_name("original")
    write_single_file(pipeline, path)
    tensors: Tensors = {}
    for name, tensor in load_file(path).items():
        tensors[name] = coarse(name, tensor)
        if scale := _scale(name, tensor, tensors[name]):
            tensors[name.removesuffix(".weight") + ".scale_weight"] = torch.tensor(scale)
            tensors[name.removesuffix(".weight") + ".scale_input"] = torch.tensor(1.0)
    save_file(tensors, file)
    for prefix, network in (
        (UNET, pipeline.unet),
        ("first_stage_model.", pipeline.vae),
        ("cond_stage_model.", pipeline.text_encoder),
    ):
        for parameter in network.parameters():
            name = prefix + ".weight"
            numbers = coarse(name, parameter.data)
            parameter.data = numbers.float() * (_scale(name, parameter.data, numbers) or 1.0)
    pipeline.save_pretrained(file.with_name("reference"))
    return file.with_name("reference")


def to(dtype: torch.dtype) -> Callable[[str, Tensor], Tensor]:
    return lambda name, tensor: tensor.to(dtype)


def to_scaled_fp8(name: str, tensor: Tensor) -> Tensor:
    """fp8 of what is divided by a scale, where the tensor is a matrix of the UNet."""
    if not (name.startswith(UNET) and name.endswith(".weight") and tensor.ndim >= 2):
        return tensor
    return (tensor / (tensor.abs().max() / FP8_MAX)).to(torch.float8_e4m3fn)


def _scale(name: str, tensor: Tensor, numbers: Tensor) -> float | None:
    """The scale that `to_scaled_fp8` has used; None where it has used none."""
    scaled = name.startswith(UNET) and tensor.ndim >= 2 and numbers.dtype == torch.float8_e4m3fn
    return float(tensor.abs().max() / FP8_MAX) if scaled else None


def with_what_trainers_leave(tensors: Tensors) -> Tensors:
    return {
        **tensors,
        "alphas_cumprod": torch.ones(1000),
        "model_ema.decay": torch.tensor(0.9),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "cond_stage_model.logit_scale": torch.tensor(4.6),
        "first_stage_model.loss.logvar": torch.tensor(0.0),
        "safety_checker.concept_embeds": torch.zeros(17, 8),
        "embedding_manager.string_to_param_dict.*": torch.zeros(1, 8),
    }


def _vae(
    change: Callable[[Tensors], Tensors], small: Path, file: Path, *, original: bool = False
) -> Path | None:
    folder = small / "sd15_adapters/vae"
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    if original:
        path = file.with_name("whole")
        vae: Any = AutoencoderKL.from_pretrained(folder)
        write_single_file(StableDiffusionPipeline.from_pretrained(small / "sd15", vae=vae), path)
        first = "first_stage_model."
        tensors = {
            name.removeprefix(first): tensor
            for name, tensor in load_file(path).items()
            if name.startswith(first)
        }
    save_file({name: tensor.contiguous() for name, tensor in change(tensors).items()}, file)
    return None


def deprecated(tensors: Tensors) -> Tensors:
    """Attentions named as before diffusers 0.17."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    found: Tensors = {}
    for name, tensor in tensors.items():
        for layer, before in names.items():
            name = name.replace(f".{layer}.", f".{before}.")
        found[name] = tensor
    return found


def _controlnet(
    prefix: str | None,
    small: Path,
    file: Path,
    *,
    family: str = "sd15",
    change: Callable[[Tensors], Tensors] = same,
    beside_checkpoint: bool = False,
) -> Path | None:
    folder = small / "controlnets" / f"{family}_canny"
    if prefix is None:
        tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    else:
        path = file.with_name("original")
        write_controlnet(ControlNetModel.from_pretrained(folder), path, prefix)
        tensors = load_file(path)
    if beside_checkpoint:
        path = file.with_name("checkpoint")
        write_single_file(StableDiffusionPipeline.from_pretrained(small / family), path)
        tensors |= load_file(path)
    save_file({name: tensor.contiguous() for name, tensor in change(tensors).items()}, file)
    return None


def _small_controlnet(small: Path, file: Path) -> Path:
    """A ControlNet for SDXL without any attention, as diffusers' small ones are."""
    config = json.loads((small / "controlnets/sdxl_canny/config.json").read_text())
    config |= {"down_block_types": ["DownBlock2D"] * 3, "mid_block_type": "UNetMidBlock2D"}
    network: Any = ControlNetModel.from_config(config)
    fill(network, 5)
    network.save_pretrained(file.with_name("reference"))
    save_file(network.state_dict(), file)
    return file.with_name("reference")


def _copied(name: str, small: Path, file: Path) -> None:
    file.write_bytes((small / name).read_bytes())


V = {"prediction_type": "v_prediction"}
V_ZERO = {**V, "rescale_betas_zero_snr": True}
OLD_CLIP = renamed("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer.")
OLD_FIRST_CLIP = renamed("embedders.0.transformer.text_model.", "embedders.0.transformer.")
EMPTY = torch.zeros(0)


def _sd(change: Callable[[Tensors], Tensors], **options: Any) -> Layout:
    return Layout("checkpoint", "sd15", partial(_checkpoint, change, **options))


def _xl(change: Callable[[Tensors], Tensors], **options: Any) -> Layout:
    return Layout("checkpoint", "sdxl", partial(_checkpoint, change, family="sdxl", **options))


SSD_1B = {
    "mid_block_type": "UNetMidBlock2D",
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, [2, 1], [3, 1]],
    "reverse_transformer_layers_per_block": [[1, 1, 3], [2, 1, 1], 1],
}
DISTILLED = {"mid_block_type": None, "layers_per_block": 2}
GUIDED = {"time_cond_proj_dim": 32}

LAYOUTS: Mapping[str, Layout] = {
    "sd15": _sd(same),
    "sd15 with old CLIP names": _sd(OLD_CLIP),
    "sd15 within state_dict": _sd(wrapped("state_dict.")),
    "sd15 within a module": _sd(wrapped("model.")),
    "sd15 with running means": _sd(partial(ema, alone=False)),
    "sd15 of running means alone": _sd(partial(ema, alone=True)),
    "sd15 with what trainers leave": _sd(with_what_trainers_leave),
    "sd15 in fp16": Layout("checkpoint", "sd15", partial(_in_numbers, to(torch.float16))),
    "sd15 in bf16": Layout("checkpoint", "sd15", partial(_in_numbers, to(torch.bfloat16))),
    "sd15 in fp8 e5m2": Layout("checkpoint", "sd15", partial(_in_numbers, to(torch.float8_e5m2))),
    "sd15 in scaled fp8": Layout("checkpoint", "sd15", partial(_in_numbers, to_scaled_fp8)),
    "sd15 with the marker of v": _sd(more(v_pred=EMPTY), scheduler=V),
    "sd15 whose metadata say v": _sd(same, metadata={"modelspec.prediction_type": "v"}, scheduler=V),
    "sd15 distilled": Layout("checkpoint", "sd15", partial(_other_unet, **DISTILLED)),
    "sd15 that knows its guidance": Layout("checkpoint", "sd15", partial(_other_unet, **GUIDED)),
    "sdxl": _xl(same),
    "sdxl with old CLIP names": _xl(OLD_FIRST_CLIP),
    "sdxl with v and zero SNR": _xl(more(v_pred=EMPTY, ztsnr=EMPTY), scheduler=V_ZERO),
    "sdxl of fewer blocks": Layout("checkpoint", "sdxl", partial(_other_unet, family="sdxl", **SSD_1B)),
    "sdxl that knows its guidance": Layout(
        "checkpoint", "sdxl", partial(_other_unet, family="sdxl", **GUIDED)
    ),
    "vae": Layout("vae", "sd15", partial(_vae, same)),
    "vae with deprecated names": Layout("vae", "sd15", partial(_vae, deprecated)),
    "vae below vae": Layout("vae", "sd15", partial(_vae, wrapped("vae."))),
    "vae in original names": Layout("vae", "sd15", partial(_vae, same, original=True)),
    "vae of a checkpoint": Layout("vae", "sd15", partial(_vae, wrapped("first_stage_model."), original=True)),
    "controlnet": Layout("controlnet", "sd15", partial(_controlnet, None)),
    "controlnet with deprecated names": Layout(
        "controlnet", "sd15", partial(_controlnet, None, change=deprecated)
    ),
    "controlnet in original names": Layout("controlnet", "sd15", partial(_controlnet, "control_model.")),
    "controlnet in bare original names": Layout("controlnet", "sd15", partial(_controlnet, "")),
    "controlnet beside its checkpoint": Layout(
        "controlnet", "sd15", partial(_controlnet, "control_model.", beside_checkpoint=True)
    ),
    "controlnet for sdxl": Layout("controlnet", "sdxl", partial(_controlnet, "", family="sdxl")),
    "controlnet for sdxl without attentions": Layout("controlnet", "sdxl", _small_controlnet),
    "lora": Layout("lora", "sd15", partial(_copied, "sd15_adapters/more_details.safetensors")),
    "embedding": Layout("embedding", "sd15", partial(_copied, "sd15_adapters/night_scene.safetensors")),
}
