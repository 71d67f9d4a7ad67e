"""Compare a picture with the figure that was asked for by their colours, however ragged it is drawn.

`pipelines.demo.judging.joints` reads poses without knowing them, and needs clear limbs for that.
"""

from __future__ import annotations

import numpy as np

from pipelines.demo.judging.joints import MIN_GROUND_DISTANCE, SIDE
from pipelines.demo.judging.judge import border, color_name, one_color, smoothed
from pipelines.demo.world.figure import Figure, render_figure
from pipelines.demo.world.palette import PALETTE, lab
from pipelines.image_io import RGBImage


def has_colors(picture: RGBImage, figure: Figure) -> bool:
    """Whether the picture's edge and the middle of the figure's head, trunk and hands have the colours."""
    looks = lab(smoothed(picture, SIDE))
    asked = lab(smoothed(render_figure(figure, (picture.width, picture.height)), SIDE))
    plain = np.linalg.norm(asked - lab(PALETTE[figure.color]), axis=-1) < MIN_GROUND_DISTANCE / 2
    ground = one_color(looks[border(looks)])
    if ground is None or color_name(ground) != figure.ground:
        return False
    return color_name(np.median(looks[plain], axis=0)) == figure.color
