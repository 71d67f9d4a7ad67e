"""The markers of a single file reach every scheduler that callers name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from pipelines.checkpoints import single_file
from pipelines.request import SchedulerChoice
from pipelines.schedulers.sampler import make_scheduler
from tests.tiny.original_layout import write_single_file

WITH_ZERO_SNR = (
    "DDIMScheduler",
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
)
"""diffusers' schedulers that know a noise schedule which ends without any signal."""


@pytest.mark.parametrize(("markers", "signal"), [(["v_pred"], 0.0047), (["v_pred", "ztsnr"], 0.0)])
def test_markers_reach_the_schedulers(
    markers: list[str], signal: float, random_manifest_path: Path, tmp_path: Path
) -> None:
    small = random_manifest_path.parent / "sd15"
    write_single_file(StableDiffusionPipeline.from_pretrained(small), tmp_path / "whole.safetensors")
    tensors = {**load_file(tmp_path / "whole.safetensors"), **dict.fromkeys(markers, torch.zeros(0))}
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "marked.safetensors")
    config = single_file.components(
        tmp_path / "marked.safetensors", small, torch.float32, without=("unet", "vae", "text_encoder")
    )["scheduler"].config
    for name in WITH_ZERO_SNR:
        scheduler = make_scheduler(SchedulerChoice(name=name), config)
        assert scheduler.config.prediction_type == "v_prediction"
        assert float(scheduler.alphas_cumprod[-1]) == pytest.approx(signal, abs=1e-4)
