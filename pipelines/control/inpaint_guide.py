"""The control image of ControlNets for inpainting: the picture, with -1 where it is repainted."""

from __future__ import annotations

import torch
from torch import Tensor

from pipelines.errors import InvalidInput
from pipelines.images import codec
from pipelines.request import Inpainting, Prompted

INPAINT = "inpaint"
"""The preprocessor of these ControlNets: it makes its control image of a picture and its mask."""


def inpaint_guide(request: Prompted, height: int, width: int) -> Tensor:
    """The picture of an inpainting as (1, 3, height, width) in 0 .. 1, and -1 where its mask is at least half
    bright (Zhang's ControlNet 1.1, ``inpaint``; diffusers' ``make_inpaint_condition``).

    Raises:
        InvalidInput: the request repaints nothing.
    """
    if not isinstance(request, Inpainting):
        raise InvalidInput("preprocessor", "inpaint needs a picture and the mask of what is repainted in it")
    picture = codec.control_tensor(request.image, height, width)
    mask = codec.from_mask(request.mask, height, width)
    return torch.where(mask > 0, torch.tensor(-1.0), picture)
