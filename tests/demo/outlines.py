"""Compare the outline of a picture's figure with that of the figure that was asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.demo.judging.joints import MIN_GROUND_DISTANCE, SIDE
from pipelines.demo.judging.judge import border, one_color, smoothed
from pipelines.demo.world.figure import Figure, render_figure
from pipelines.demo.world.palette import lab
from pipelines.image_io import RGBImage


def overlap(picture: RGBImage, figure: Figure) -> float:
    """The intersection over union of both figures, 0 .. 1; 0 where the picture has no even ground."""
    rendered = render_figure(figure, (picture.width, picture.height))
    seen, asked = (_body(lab(smoothed(each, SIDE))) for each in (picture, rendered))
    return float((seen & asked).sum() / (seen | asked).sum())


def _body(looks: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The pixels that are not ground."""
    ground = one_color(looks[border(looks)])
    if ground is None:
        return np.zeros(looks.shape[:2], bool)
    return np.linalg.norm(looks - ground, axis=-1) > MIN_GROUND_DISTANCE
