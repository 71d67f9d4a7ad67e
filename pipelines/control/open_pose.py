"""OpenPose, of controlnet_aux: the joints of people in a picture. Its code and weights are non-commercial."""

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

from pipelines.control.skeletons import Person
from pipelines.errors import CheckpointUnavailable

log = logging.getLogger(__name__)

FILES = ("body_pose_model.pth", "hand_pose_model.pth", "facenet.pth")
"""The files of lllyasviel/Annotators that the detector needs."""
DETECTION_SIDE = 512
"""The shorter side, in pixels, of the picture that the detector searches for people."""
DETECTION_PIXELS = 4 * DETECTION_SIDE**2
"""The most pixels of a long and narrow picture: the detector's maps take half a kilobyte per pixel."""


class OpenPose:
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
        if not is_open_pose(folder):
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
        return {
            "body": self._detector.body_estimation.model,
            "hand": self._detector.hand_estimation.model,
            "face": self._detector.face_estimation.model,
        }

    def find(self, picture: Image.Image) -> list[Person]:
        scale = min(
            DETECTION_SIDE / min(picture.size), math.sqrt(DETECTION_PIXELS / (picture.width * picture.height))
        )
        size = [max(16, round(side * scale)) for side in picture.size]
        found = self._detector.detect_poses(
            np.asarray(picture.resize(size, Image.Resampling.LANCZOS)), include_hand=True, include_face=True
        )
        return [_person(pose) for pose in found]


def is_open_pose(folder: Path | None) -> bool:
    """Whether all files of the detector are there."""
    return folder is not None and all((folder / name).is_file() for name in FILES)


def _person(pose: Any) -> Person:
    """A person as controlnet_aux found it, which marks missing joints by None or by a negative place."""

    def points(keypoints: Any) -> list[tuple[float, float] | None]:
        return [
            (float(point.x), float(point.y)) if point and point.x > 0 and point.y > 0 else None
            for point in keypoints or ()
        ]

    hands = [points(hand) for hand in (pose.left_hand, pose.right_hand) if hand]
    return Person(body=points(pose.body.keypoints), hands=hands, face=points(pose.face))


def _import_detector() -> Any:
    """Import controlnet_aux's detector: late, because that is slow and only photographs need it."""
    # It warns of optional dependencies.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from controlnet_aux.open_pose import OpenposeDetector
    return OpenposeDetector
