"""What tests of meaning look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.demo.judge import compare, read
from pipelines.demo.studio import Studio
from pipelines.demo.world import Scene
from pipelines.image_io import RGBImage
from pipelines.request import Request


def pixels(image: RGBImage) -> np.ndarray:
    """(height, width, 3) integers."""
    return np.frombuffer(image.pixels, np.uint8).reshape(image.height, image.width, 3).astype(int)


def drawn(studio: Studio, requests: Sequence[Request]) -> list[RGBImage]:
    """The first picture of each."""
    return [images[0] for images in studio.draw(requests)]


def right(image: RGBImage, scene: Scene) -> bool:
    """Whether the picture shows ground, colours and shapes of the scene."""
    verdict = compare(read(image), scene)
    return verdict.ground and verdict.colors and verdict.shapes
