"""What a load accepts is drawn with: every kind, in every layout that recognition knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from pipelines.request import Control, Lora, TextToImage
from pipelines.weights.fetch_process import loaded_entry
from pipelines.weights.inspection import inspect_file
from pipelines.weights.kinds import SECTIONS, Kind
from pipelines.weights.loaded import parse
from pipelines.weights.manifest import Manifest
from tests.drawing import draw_alone, image_of, largest_difference, open_family, small_request
from tests.tiny.file_layouts import LAYOUTS, Layout

PIPELINES = {"sd15": "stable-diffusion-v1-5", "sdxl": "sdxl"}
PICTURE = image_of(np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8))
REFERENCES: dict[Kind, dict[str, str]] = {
    "lora": {"sd15": "more_details"},
    "embedding": {"sd15": "night_scene"},
    "vae": {"sd15": "sd-vae-ft-mse"},
    "controlnet": {"sd15": "canny", "sdxl": "canny-sdxl"},
}
"""What the small manifest names that is the same as a file of the table."""


ROUNDING = 2
"""The most that a pixel may differ: kernels round otherwise where a tensor lies at another address."""

SLOW = (
    "sd15 within a module",
    "sd15 in bf16",
    "sd15 in fp8 e5m2",
    "sdxl that knows its guidance",
    "vae below vae",
    "vae of a checkpoint",
    "controlnet with deprecated names",
    "controlnet in bare original names",
    "controlnet for sdxl",
)
"""The layouts that are much like another one."""


def request(kind: Kind, family: str, name: str) -> TextToImage:
    asked = small_request(pipeline=PIPELINES[family], num_inference_steps=2)
    match kind:
        case "checkpoint":
            return replace(asked, pipeline=name)
        case "lora":
            return replace(asked, loras=(Lora(name=name),))
        case "embedding":
            return replace(asked, embeddings=(name,), prompt=f"a {name}")
        case "vae":
            return replace(asked, vae=name)
        case "controlnet":
            return replace(asked, controls=(Control(name=name, image=PICTURE, scale=1.0),))


@pytest.fixture(scope="module")
def small_picture() -> Callable[[Manifest, TextToImage], np.ndarray]:
    """What draws a picture of the small manifest, by one pipeline of each family."""
    families: dict[str, Any] = {}

    def draws(manifest: Manifest, asked: TextToImage) -> np.ndarray:
        if asked.pipeline not in families:
            families[asked.pipeline] = open_family(manifest, asked.pipeline)
        return draw_alone(families[asked.pipeline], asked)[0]

    return draws


def drawn(manifest: Manifest, asked: TextToImage) -> np.ndarray:
    return draw_alone(open_family(manifest, asked.pipeline), asked)[0]


def loaded(manifest: Manifest, file: Path, name: str) -> tuple[Kind, Manifest]:
    """What a load makes of a file: its kind, and the manifest that names it."""
    found = inspect_file(file, manifest.path)
    source = {"file": str(file)} | ({} if found.config is None else {"config": found.config})
    entry = loaded_entry(found.kind, found.family or "sd15", source, on_cpu=True)
    section = SECTIONS[found.kind]
    return found.kind, manifest.with_entry(section, name, parse(section, name, entry, file.parent))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in LAYOUTS]
)
def test_a_file_that_a_load_accepts_is_drawn_with(
    name: str,
    random_manifest: Manifest,
    small_picture: Callable[[Manifest, TextToImage], np.ndarray],
    tmp_path: Path,
) -> None:
    layout = LAYOUTS[name]
    file = tmp_path / "loaded.safetensors"
    folder = layout.write(random_manifest.path.parent, file)
    kind, manifest = loaded(random_manifest, file, "loaded")
    assert kind == layout.kind
    picture = drawn(manifest, request(kind, layout.family, "loaded"))
    named, asked = reference(layout, random_manifest, folder)
    expected = small_picture(named, asked) if folder is None else drawn(named, asked)
    assert largest_difference(picture, expected) <= ROUNDING


def reference(layout: Layout, manifest: Manifest, folder: Path | None) -> tuple[Manifest, TextToImage]:
    """What draws the expected picture: the small manifest, or a folder of diffusers."""
    if folder is None and layout.kind == "checkpoint":
        return manifest, request("checkpoint", layout.family, PIPELINES[layout.family])
    if folder is None:
        return manifest, request(layout.kind, layout.family, REFERENCES[layout.kind][layout.family])
    family: Any = layout.family
    entry = loaded_entry(layout.kind, family, {"folder": str(folder)}, on_cpu=True)
    section = SECTIONS[layout.kind]
    named = manifest.with_entry(section, "reference", parse(section, "reference", entry, folder.parent))
    return named, request(layout.kind, layout.family, "reference")


def test_the_table_has_every_kind() -> None:
    assert {layout.kind for layout in LAYOUTS.values()} == set(get_args(Kind))
