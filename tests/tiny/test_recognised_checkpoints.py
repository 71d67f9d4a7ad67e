"""The small checkpoints and adapters are taken for what they are."""

from __future__ import annotations

from pathlib import Path

from diffusers import StableDiffusionPipeline

from pipelines.weights.header import read_header
from pipelines.weights.recognition import Recognised, recognise
from tests.tiny.original_layout import write_single_file


def test_the_small_adapters_and_checkpoints_are_recognised(demo_manifest_path: Path, tmp_path: Path) -> None:
    folder = demo_manifest_path.parent
    for name in ("striped", "outlined"):
        shapes = read_header(folder / f"sd15_adapters/{name}.safetensors").shapes
        assert recognise(shapes) == Recognised("lora", "sd15")
    shapes = read_header(folder / "sd15_adapters/night_scene.safetensors").shapes
    assert recognise(shapes) == Recognised("embedding", "sd15")
    vae = read_header(folder / "sd15_adapters/vae/diffusion_pytorch_model.safetensors").shapes
    assert recognise(vae) == Recognised("vae", None)
    pipeline = StableDiffusionPipeline.from_pretrained(folder / "sd15", safety_checker=None)
    write_single_file(pipeline, tmp_path / "single.safetensors")
    assert recognise(read_header(tmp_path / "single.safetensors").shapes) == Recognised("checkpoint", "sd15")
