"""Preprocessors, which make control images of pictures, by the names that clients have for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from pipelines.weights.entries import Preprocessor
from server.errors import FieldError

INPAINT = "inpaint"
"""The preprocessor that makes its control image of init_image and mask_image."""

PREPROCESSORS: tuple[str, ...] = tuple(name for name in get_args(Preprocessor) if name != INPAINT)
"""The preprocessors that make a control image of a picture alone."""

ALIASES: Mapping[str, str] = {
    "depth_midas": "depth",
    "depth_zoe": "zoe",
    "lineart_realistic": "lineart",
    "midas": "depth",
    "normal_bae": "normal",
    "normalbae": "normal",
    "pidinet": "pidi",
    "pose": "openpose",
    "scribble_hed": "scribble",
    "softedge": "hed",
    "softedge_hed": "hed",
    "softedge_pidinet": "pidi",
}
"""The preprocessor that clients mean by another name."""

_AS_THEY_ARE = ("ip2p", "qrcode", "tile")
"""The types of ControlNets whose control image is the picture itself."""

WITHOUT_PREPROCESSOR: Mapping[str, str] = {
    "dwpose": "its networks need packages that are not here; openpose draws the same skeletons",
    "face_detector": "it needs a package that does not go with the others here",
    "leres": "it cannot be opened inside a server; depth and zoe make such guides",
    "mediapipe_face": "it needs a package that does not go with the others here",
    "seg": "no network here finds the 150 kinds of things in whose colours its guide is painted",
    "segmentation": "no network here finds the 150 kinds of things in whose colours its guide is painted",
}
"""The types of ControlNets whose control images are not made here, and why."""


def preprocessor_for_each(
    types: list[str], names: Sequence[str], own: Sequence[str | None]
) -> list[str | None]:
    """The preprocessor of each ControlNet; None where the picture itself is its control image.

    Args:
        types: the preprocessors that the caller names: one for each ControlNet, or one, or none.
        names: the ControlNets.
        own: the preprocessor that each ControlNet was made for, used unless there are as many types.
    Raises:
        FieldError: no such control image can be made here, or there are too many or too few types.
    """
    given = _meant(types)
    if unknown := [text for text in given if text not in (*PREPROCESSORS, *_AS_THEY_ARE, INPAINT)]:
        raise FieldError("controlnet_type", _why_unknown(unknown[0]))
    if len(given) == len(own):
        return [None if text in _AS_THEY_ARE else text for text in given]
    if len(given) > 1:
        raise FieldError("controlnet_type", "must be one, or one for each controlnet_model")
    for name, preprocessor in zip(names, own, strict=True):
        if preprocessor is None and name in WITHOUT_PREPROCESSOR:
            raise FieldError("auto_hint", _why_unknown(name))
    return list(own)


def inpaint_or_nothing(types: list[str], own: Sequence[str | None]) -> list[str | None]:
    """The preprocessor of each ControlNet where the pictures are control images already: nobody can send the
    control image of inpainting, so that it is made all the same.

    Args:
        types, own: as for `preprocessor_for_each`.
    """
    given = _meant(types)
    chosen = given if len(given) == len(own) else own
    return [INPAINT if INPAINT in pair else None for pair in zip(chosen, own, strict=True)]


def _meant(types: list[str]) -> list[str]:
    return [ALIASES.get(text.lower(), text.lower()) for text in types]


def _why_unknown(controlnet_type: str) -> str:
    possible = f"{', '.join(PREPROCESSORS)}; or set auto_hint to no"
    if reason := WITHOUT_PREPROCESSOR.get(controlnet_type):
        return f"{controlnet_type} cannot be made of a picture here: {reason}. What can is {possible}"
    return f"{controlnet_type} is not one of {possible}"
