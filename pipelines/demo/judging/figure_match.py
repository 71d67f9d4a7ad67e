"""Compare a picture with the figure that was asked for, by colours and outline, however ragged it is drawn.

`pipelines.demo.judging.joints` reads poses without knowing them, and needs clear limbs for that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.demo.judging.joints import MIN_GROUND_DISTANCE, SIDE
from pipelines.demo.judging.judge import border, color_name, one_color, smoothed
from pipelines.demo.world.figure import Figure, render_figure
from pipelines.demo.world.palette import PALETTE, lab
from pipelines.image_io import RGBImage


def has_colors(picture: RGBImage, figure: Figure) -> bool:
    """Whether the picture's edge and the middle of the figure's head, trunk and hands have the colours."""
    looks, asked = lab(smoothed(picture, SIDE)), _rendered(picture, figure)
    plain = np.linalg.norm(asked - lab(PALETTE[figure.color]), axis=-1) < MIN_GROUND_DISTANCE / 2
    ground = one_color(looks[border(looks)])
    if ground is None or color_name(ground) != figure.ground:
        return False
    return color_name(np.median(looks[plain], axis=0)) == figure.color


def overlap(picture: RGBImage, figure: Figure) -> float:
    """The intersection over union of both figures, 0 .. 1; 0 where the picture has no even ground."""
    seen, asked = (_body(looks) for looks in (lab(smoothed(picture, SIDE)), _rendered(picture, figure)))
    return float((seen & asked).sum() / (seen | asked).sum())


def _rendered(picture: RGBImage, figure: Figure) -> NDArray[np.float32]:
    """The figure as it should be drawn, in Lab."""
    return lab(smoothed(render_figure(figure, (picture.width, picture.height)), SIDE))


def _body(looks: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The pixels that are not ground."""
    ground = one_color(looks[border(looks)])
    if ground is None:
        return np.zeros(looks.shape[:2], bool)
    return np.linalg.norm(looks - ground, axis=-1) > MIN_GROUND_DISTANCE
