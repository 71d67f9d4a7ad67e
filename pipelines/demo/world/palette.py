"""The colours of the little world, and how far apart colours look."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.control.skeletons import Color

PALETTE: dict[str, Color] = {
    "red": (228, 16, 40),
    "orange": (255, 145, 0),
    "yellow": (255, 240, 50),
    "green": (0, 155, 40),
    "cyan": (40, 230, 220),
    "blue": (15, 45, 250),
    "purple": (112, 8, 142),
    "pink": (255, 135, 195),
    "brown": (108, 72, 12),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}
"""The colours by name. Any two are at least 49 apart in Lab; grey is left out, since drawings that fail
tend to it."""

COLORS = tuple(PALETTE)

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=np.float32,
)
_WHITE = np.array([0.95047, 1.0, 1.08883], dtype=np.float32)


def lab(rgb: ArrayLike) -> NDArray[np.float32]:
    """CIE L*a*b* under D65 of sRGB colours, whose values are 0 .. 255 along the last axis."""
    values = np.asarray(rgb, dtype=np.float32) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    x, y, z = np.moveaxis(linear @ _TO_XYZ.T / _WHITE, -1, 0)
    x, y, z = (
        np.where(axis > 216 / 24389, np.cbrt(axis), (24389 / 27 * axis + 16) / 116) for axis in (x, y, z)
    )
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def mix(color: Color, other: Color, share: float) -> Color:
    """A mixture of two colours; a share of 0 gives the first colour, a share of 1 the other."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(color, other, strict=True))
    return red, green, blue
