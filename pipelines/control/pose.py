"""A picture -> the OpenPose skeleton in it: taken as it is when it is one, else detected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from pipelines.control.annotators import FREE_ALTERNATIVE, how_to_install
from pipelines.control.open_pose import FILES
from pipelines.control.skeletons import Person, draw_skeletons
from pipelines.errors import AnnotatorMissing, InvalidInput, PoseNotFound
from pipelines.image_io import RGBImage, to_pil

MAX_ASPECT_RATIO = 8
"""The largest longer side by shorter side; a detector sees pictures small, and a person not at all."""


class PoseDetector(Protocol):
    """Something that finds the joints of people in photographs."""

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The networks, by name."""
        ...

    def find(self, picture: Image.Image) -> list[Person]:
        """The people in a picture; none, where nobody is seen."""
        ...


def detect(image: RGBImage, detector: PoseDetector, width: int, height: int) -> RGBImage:
    """The skeletons of all people in the picture, drawn ``width`` x ``height``.

    Raises:
        PoseNotFound: no person was found in the picture.
        InvalidInput: the picture is too long and narrow for a detector.
    """
    picture = to_pil(image)
    if max(picture.size) > MAX_ASPECT_RATIO * min(picture.size):
        raise InvalidInput("image", f"may be at most {MAX_ASPECT_RATIO} times as long as it is wide")
    found = detector.find(picture)
    if not found:
        raise PoseNotFound(
            "image", "no person was found in the picture; give one that shows a person, or a skeleton"
        )
    return draw_skeletons(width, height, found)


def skeleton(image: RGBImage, detector: PoseDetector | None, width: int, height: int) -> RGBImage:
    """The skeleton in a picture: the picture itself when it is one, else one detected and drawn.

    Args:
        width, height: pixels of a skeleton that is drawn.
    Raises:
        PoseNotFound: no person was found in the picture.
        AnnotatorMissing: the picture is no skeleton, and there is no detector.
    """
    if is_skeleton(image):
        return image
    if detector is None:
        raise AnnotatorMissing(
            "image",
            "is no picture of an OpenPose skeleton, and no pose detector is installed that would find the"
            " pose in a photograph. Send a skeleton instead. "
            + how_to_install("the `parts` of this pipeline", FILES)
            + FREE_ALTERNATIVE,
        )
    return detect(image, detector, width, height)


def is_skeleton(image: RGBImage) -> bool:
    """Whether a picture is an OpenPose skeleton already.

    The test counts areas, never single pixels, so that scaling and JPEG do not matter. A skeleton is mostly
    pure black with hardly anything dim. Its lit parts are saturated, or the white of a face's points. Many of
    its saturated colours are as bright as joints (255) or limbs (153), and they have many hues. Dark
    photographs fail by their dim parts or their tones.
    """
    picture = to_pil(image)
    picture.thumbnail((1024, 1024), Image.Resampling.BOX)
    colors = np.asarray(picture, dtype=np.int16).reshape(-1, 3)
    brightest, darkest = colors.max(axis=1), colors.min(axis=1)
    lit = brightest > 96
    dim = (brightest > 24) & ~lit
    if not 0.0005 <= lit.mean() <= 0.4 or np.median(brightest[~lit]) > 6 or dim.sum() > lit.sum():
        return False
    saturated = lit & (darkest < 0.35 * brightest)
    if saturated.sum() < 0.3 * lit.sum() or (saturated | (darkest > 192)).sum() < 0.75 * lit.sum():
        return False
    tones = brightest[saturated]
    return bool(np.mean((abs(tones - 153) <= 16) | (tones >= 235)) >= 0.4) and _hues(colors[saturated]) >= 4


def _hues(colors: np.ndarray) -> int:
    """The number of the palette's 18 hues, 20 degrees apart, that at least one percent of the pixels have."""
    hues = np.asarray(Image.fromarray(colors.astype(np.uint8)[None]).convert("HSV"))[0, :, 0]
    nearest = np.rint(hues.astype(float) * 18 / 255).astype(int) % 18
    return int((np.bincount(nearest, minlength=18) >= 0.01 * len(colors)).sum())
