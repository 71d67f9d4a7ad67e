"""A face cut out of a picture as face restorers expect it, and laid back on a picture without a seam."""

from __future__ import annotations

import math

import cv2
import numpy as np

from pipelines.images.faces import TEMPLATE, Points

SIDE = 512
"""The side of a cut-out face in pixels; it is square."""

FEATHER = 64
"""The pixels at the edges of a cut-out face over which it fades into the picture."""

_FADE = np.minimum(np.arange(SIDE) + 0.5, SIDE - 0.5 - np.arange(SIDE)).clip(0, FEATHER) / FEATHER
_WEIGHT = np.outer(_FADE, _FADE).astype(np.float32)


def alignment(face: Points) -> np.ndarray:
    """The matrix (2, 3) that turns, scales and shifts a face onto `TEMPLATE` with the least squares.

    Umeyama 1991 in two dimensions and without reflections, where it is one division of complex numbers.
    """
    here, there = (points @ (1, 1j) for points in (face, TEMPLATE))
    centred = here - here.mean()
    turn = np.vdot(centred, there - there.mean()) / np.vdot(centred, centred).real
    shift = there.mean() - turn * here.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def enlarged(matrix: np.ndarray, across: float, down: float) -> np.ndarray:
    """The alignment of the same face in a picture ``across`` times as wide and ``down`` times as high."""
    # Whole numbers are the middles of pixels.
    back = np.array([[1 / across, 0, 0.5 / across - 0.5], [0, 1 / down, 0.5 / down - 0.5], [0, 0, 1]])
    return matrix @ back


def cut_out(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The face at its place in `TEMPLATE`, (512, 512, 3), 8 bits; beyond the picture it is mirrored."""
    return _warped(picture, matrix, SIDE, SIDE, cv2.BORDER_REFLECT)


def lay_on(picture: np.ndarray, face: np.ndarray, matrix: np.ndarray) -> None:
    """Draw a cut-out face (512, 512, 3) over the picture, in place.

    Args:
        matrix: the alignment with which the face could be cut out of this picture.
    """
    back = cv2.invertAffineTransform(matrix)
    corners = np.array([(0, 0, 1), (SIDE, 0, 1), (0, SIDE, 1), (SIDE, SIDE, 1)]) @ back.T
    bounds = np.array(picture.shape[1::-1])
    left, top = np.floor(corners.min(axis=0)).astype(int).clip(0, bounds)
    right, bottom = np.ceil(corners.max(axis=0) + 1).astype(int).clip(0, bounds)
    if left >= right or top >= bottom:
        return
    back[:, 2] -= (left, top)
    size = (right - left, bottom - top)
    drawn = _warped(face.astype(np.float32), back, *size, cv2.BORDER_REPLICATE)
    weight = _warped(_WEIGHT, back, *size, cv2.BORDER_CONSTANT)[..., None]
    below = picture[top:bottom, left:right]
    below[...] = np.rint(below + (drawn - below) * weight).clip(0, 255)


def _warped(source: np.ndarray, matrix: np.ndarray, width: int, height: int, border: int) -> np.ndarray:
    """The source seen through an alignment. Where it becomes smaller it is shrunk by areas first."""
    scale = math.hypot(*matrix[:, 0])
    if scale < 1:
        smaller = [max(1, round(side * scale)) for side in source.shape[1::-1]]
        across, down = (new / old for new, old in zip(smaller, source.shape[1::-1], strict=True))
        source = cv2.resize(source, smaller, interpolation=cv2.INTER_AREA)
        matrix = enlarged(matrix, across, down)
    return cv2.warpAffine(
        source, matrix, (int(width), int(height)), flags=cv2.INTER_LINEAR, borderMode=border
    )
