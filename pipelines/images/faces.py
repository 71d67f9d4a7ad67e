"""Find the faces of a picture: by a network (YuNet), or without one by a cascade."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import skimage.data
from skimage.feature import Cascade

from pipelines.errors import CheckpointUnavailable

Points = np.ndarray
"""The five points of a face, (5, 2): x and y in pixels of the eyes, the tip of the nose and the corners of
the mouth. Of two eyes or corners the one further left in an upright face comes first."""

TEMPLATE: Points = np.array(
    [(192.98, 239.95), (318.90, 240.19), (256.63, 314.02), (201.26, 371.41), (313.09, 371.15)]
)
"""The points where face restorers expect them, in 512 x 512 pixels: FFHQ's alignment (Karras et al. 2019)."""

MIN_EYE_DISTANCE = 5
"""The least number of pixels between the eyes: too little is left of a smaller face to be restored."""

MAX_FACES = 64
"""The most faces that are found in a picture."""


class FaceFinder(Protocol):
    """Finds faces in a picture."""

    def find(self, picture: np.ndarray) -> list[Points]:
        """The faces of an 8-bit RGB picture (height, width, 3), the most certain first.

        There are at most `MAX_FACES`.
        """
        ...


class YuNet:
    """The network of Wu, Peng and Yu 2023; on the CPU, in some 10 ms.

    It was trained on faces of 10 to 300 pixels, so large ones are looked for in a smaller picture.
    """

    SIDE = 640
    """The side in pixels of the square that the network sees; the published file has this size fixed."""
    SHRUNK_SIDES = (SIDE, SIDE // 3)
    """The lengths in pixels to which the longer side of the picture is shrunk, one after the other."""
    MIN_SCORE = 0.7

    def __init__(self, path: Path) -> None:
        """
        Raises:
            CheckpointUnavailable: the file is not such a network.
        """
        try:
            self._network = cv2.FaceDetectorYN.create(
                str(path), "", (self.SIDE, self.SIDE), score_threshold=self.MIN_SCORE
            )
            self.find(np.zeros((16, 16, 3), np.uint8))
        except cv2.error as error:
            raise CheckpointUnavailable("the face detector is not YuNet, or is damaged") from error

    def find(self, picture: np.ndarray) -> list[Points]:
        found = [each for side in self.SHRUNK_SIDES for each in self._find(picture, side)]
        return _distinct(face for _, face in sorted(found, key=lambda each: -each[0]))

    def _find(self, picture: np.ndarray, side: int) -> Iterator[tuple[float, Points]]:
        """The score and the points of each face, as often as the network finds it."""
        small, scale = _shrunk(picture, side)
        seen = np.zeros((self.SIDE, self.SIDE, 3), np.uint8)
        seen[: small.shape[0], : small.shape[1]] = small[:, :, ::-1]
        _, rows = self._network.detect(seen)
        # A row: a box (4), five points (10), a score.
        for row in () if rows is None else rows:
            yield float(row[14]), row[4:14].reshape(5, 2) / scale


class FrontalCascade:
    """Local binary patterns in a cascade (Liao et al. 2007), which scikit-image ships.

    It finds most faces that are upright and look into the camera, each as a square, in which the points of a
    mean face are assumed.
    """

    SHRUNK_SIDE = 400
    """The length in pixels to which the longer side of the picture is shrunk."""
    MIN_SIDE = 32
    """The side in pixels of the smallest square; at 24, as it was trained, creases look like faces."""
    MIN_SQUARES = 10
    """The squares that have to agree; with scikit-image's four, half of the photographs have one too many."""
    SQUARE = (106, 129, 300)
    """The left edge, top edge and side of the square in the coordinates of `TEMPLATE`."""

    def __init__(self) -> None:
        self._cascade = Cascade(skimage.data.lbp_frontal_face_cascade_filename())

    def find(self, picture: np.ndarray) -> list[Points]:
        small, scale = _shrunk(picture, self.SHRUNK_SIDE)
        if min(small.shape[:2]) < self.MIN_SIDE:
            return []
        squares = self._cascade.detect_multi_scale(
            img=small,
            scale_factor=1.1,
            step_ratio=1,
            min_size=(self.MIN_SIDE, self.MIN_SIDE),
            max_size=small.shape[:2],
            min_neighbor_number=self.MIN_SQUARES,
        )
        left, top, side = self.SQUARE
        return _distinct(
            ((TEMPLATE - (left, top)) / side * square["width"] + (square["c"], square["r"])) / scale
            for square in sorted(squares, key=lambda square: -square["width"])
        )


def _shrunk(picture: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    """The picture with a longer side of at most ``side`` pixels, and the factor by which it was shrunk."""
    height, width = picture.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA), scale


def _distinct(faces: Iterator[Points]) -> list[Points]:
    """Each face once, the first of those in the same place, without the small ones."""
    kept: list[Points] = []
    for face in faces:
        middle = face.mean(axis=0)
        close = any(np.linalg.norm(middle - other.mean(axis=0)) < _extent(other) for other in kept)
        if not close and np.linalg.norm(face[1] - face[0]) >= MIN_EYE_DISTANCE:
            kept.append(face)
    return kept[:MAX_FACES]


def _extent(face: Points) -> float:
    """The distance in pixels from the eyes to the mouth, about half of a head's width."""
    return float(np.linalg.norm(face[:2].mean(axis=0) - face[3:].mean(axis=0)))
