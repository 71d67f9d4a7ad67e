"""What tests of meaning look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.demo.judging.judge import compare, read
from pipelines.demo.training.evaluate import PROMPTS, TARGETS
from pipelines.demo.training.local_loop import LocalLoop
from pipelines.demo.world.world import Scene
from pipelines.image_io import RGBImage
from pipelines.request import Prompted, Request

FEWER_STEPS: Mapping[str, Any] = {"num_inference_steps": 10}
"""Half of what pages draw by default, which changes little."""

TENTH = PROMPTS // 10
"""A tenth of the pictures that `pipelines.demo.training.evaluate` draws for each row of its table."""


def missed(found: Mapping[str, float]) -> dict[str, float]:
    """What misses its target: by more than one picture of ten, as a share of so few says little. Joints are
    measured, not counted."""
    assert len(found) >= 3
    within = {name: 0.1 if TARGETS[name].least else 0.0 for name in found}
    return {name: part for name, part in found.items() if not TARGETS[name].met(part, within[name])}


def pixels(image: RGBImage) -> np.ndarray:
    """(height, width, 3) integers."""
    return np.frombuffer(image.pixels, np.uint8).reshape(image.height, image.width, 3).astype(int)


def drawn(local_loop: LocalLoop, requests: Sequence[Request]) -> list[RGBImage]:
    """The first picture of each."""
    return [images[0] for images in local_loop.draw(requests)]


def prompted(request: Request) -> dict[str, Any]:
    """What a request has of the fields of `Prompted`, for one of another kind."""
    return {name: getattr(request, name) for name in Prompted.__slots__}


def apart(image: RGBImage, other: RGBImage) -> float:
    """Mean difference of their bytes."""
    return float(np.abs(pixels(image) - pixels(other)).mean())


def right(image: RGBImage, scene: Scene) -> bool:
    """Whether the picture shows ground, colours and shapes of the scene."""
    verdict = compare(read(image), scene)
    return verdict.ground and verdict.colors and verdict.shapes
