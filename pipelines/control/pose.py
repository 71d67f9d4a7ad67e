"""A picture -> the OpenPose skeleton in it: taken as it is when it is one, else detected."""

from __future__ import annotations

import logging
import math
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipelines.control.annotators import how_to_install
from pipelines.control.skeletons import Person, draw_skeletons
from pipelines.errors import AnnotatorMissing, CheckpointUnavailable, InvalidInput, PoseNotFound
from pipelines.image_io import RGBImage, to_pil

log = logging.getLogger(__name__)

FILES = ("body_pose_model.pth", "hand_pose_model.pth", "facenet.pth")
"""The files of lllyasviel/Annotators that the detector needs."""
DETECTION_SIDE = 512
"""The shorter side, in pixels, of the picture that the detector searches for people."""
DETECTION_PIXELS = 4 * DETECTION_SIDE**2
"""The most pixels of a long and narrow picture: the detector's maps take half a kilobyte per pixel."""
MAX_ASPECT_RATIO = 8
"""The largest longer side by shorter side; the detector works 184 pixels high, at whatever width."""


class PoseDetector:
    """OpenPose (Cao et al. 2019) for body, hands and faces, in full precision.

    Its code comes with a licence for non-commercial use only.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        """
        Args:
            folder: holds `FILES`. controlnet_aux reads them by torch.load, which refuses whatever is not a
                tensor.
        Raises:
            CheckpointUnavailable: a file is missing or is not such a model.
        """
        if not all((folder / name).is_file() for name in FILES):
            raise CheckpointUnavailable(f"the pose annotator needs the files {', '.join(FILES)}")
        detector = _import_detector()
        try:
            opened: Any = detector.from_pretrained(str(folder))
        except (OSError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            log.error("the pose annotator cannot be opened", exc_info=error)
            raise CheckpointUnavailable("the weights of the pose annotator are damaged") from error
        # Outside of the try: memory that runs out says nothing about the files.
        self._detector = opened.to(device)

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The networks, by name."""
        return {
            "body": self._detector.body_estimation.model,
            "hand": self._detector.hand_estimation.model,
            "face": self._detector.face_estimation.model,
        }

    def detect(self, image: RGBImage, width: int, height: int) -> RGBImage:
        """The skeletons of all people in the picture, drawn ``width`` x ``height``.

        Raises:
            PoseNotFound: no person was found in the picture.
            InvalidInput: the picture is too long and narrow for the detector.
        """
        picture = to_pil(image)
        if max(picture.size) > MAX_ASPECT_RATIO * min(picture.size):
            raise InvalidInput("image", f"may be at most {MAX_ASPECT_RATIO} times as long as it is wide")
        scale = min(
            DETECTION_SIDE / min(picture.size), math.sqrt(DETECTION_PIXELS / (picture.width * picture.height))
        )
        size = [max(16, round(side * scale)) for side in picture.size]
        found = self._detector.detect_poses(
            np.asarray(picture.resize(size, Image.Resampling.LANCZOS)), include_hand=True, include_face=True
        )
        if not found:
            raise PoseNotFound(
                "image", "no person was found in the picture; give one that shows a person, or a skeleton"
            )
        return draw_skeletons(width, height, [_person(pose) for pose in found])


def _person(pose: Any) -> Person:
    """A person as controlnet_aux found it, which marks missing joints by None or by a negative place."""

    def points(keypoints: Any) -> list[tuple[float, float] | None]:
        return [
            (float(point.x), float(point.y)) if point and point.x > 0 and point.y > 0 else None
            for point in keypoints or ()
        ]

    hands = [points(hand) for hand in (pose.left_hand, pose.right_hand) if hand]
    return Person(body=points(pose.body.keypoints), hands=hands, face=points(pose.face))


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
            + how_to_install("the `parts` of this pipeline", FILES),
        )
    return detector.detect(image, width, height)


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


def _import_detector() -> Any:
    """Import controlnet_aux's detector: late, because that is slow and only photographs need it."""
    # It warns of optional dependencies.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from controlnet_aux.open_pose import OpenposeDetector
    return OpenposeDetector
