"""The fields of controlnet, and the request that they become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import get_args

from pydantic import Field

from pipelines.image_io import RGBImage
from pipelines.request import CheckpointRequest, Control, ImageToImage, Inpainting, TextToImage
from pipelines.weights.manifest import Manifest, Preprocessor
from server.endpoints.enterprise.drawing.checkpoints import checkpoint
from server.endpoints.enterprise.drawing.fields import (
    Canonical,
    PictureFields,
    check_adapters,
    listed,
    one_each,
)
from server.endpoints.enterprise.drawing.picture_fields import FORMS, refuse_too_little, url_or_none
from server.endpoints.fields import Flag, Number, PictureField, Text
from server.errors import FieldError, MissingField
from server.jobs.jobs import JSON

PREPROCESSORS: tuple[str, ...] = get_args(Preprocessor)
_ALSO: Mapping[str, str] = {
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
"""Other names that clients have for them."""

_AS_THEY_ARE = ("ip2p", "tile")
"""ControlNets whose guide is the picture itself."""

_WITHOUT_HINT: Mapping[str, str] = {
    "dwpose": "its networks need packages that are not here; openpose draws the same skeletons",
    "inpaint": "its guide is no picture; the operation inpaint repaints without it",
    "leres": "it cannot be opened inside a server; depth and zoe make such guides",
    "mediapipe_face": "it needs a package that does not go with the others here",
    "seg": "no network here finds the 150 kinds of things in whose colours its guide is painted",
    "segmentation": "no network here finds the 150 kinds of things in whose colours its guide is painted",
}
"""What ControlNets exist for, and why their guides are not made here."""

_NO_PICTURE = RGBImage(0, 0, b"")


class ControlNetFields(PictureFields):
    """The documented fields.

    What is drawn depends on the pictures: with ``mask_image`` a part of ``init_image`` is repainted; with
    ``control_image`` the whole ``init_image`` is redrawn; ``init_image`` or ``control_image`` alone is the
    guide of a picture from noise.
    """

    prompt: Text = Field("", description="What to draw; needed unless guess_mode is on.")
    controlnet_model: Text = Field(description="ControlNets of this server, a comma list: `canny,depth`.")
    controlnet_type: Text | None = Field(
        None,
        description=f"What auto_hint makes: {', '.join(PREPROCESSORS)}. A comma list, one for each"
        " ControlNet; by default, and where several ControlNets share one, what each was made for.",
    )
    auto_hint: Flag = Field(
        True, description="Make the guide of the picture (controlnet_type); no: the picture is the guide."
    )
    guess_mode: Flag = Field(False, description="Follow the guide more than the prompt, which may be empty.")
    controlnet_conditioning_scale: Text | Number | None = Field(
        None, description="How closely a guide is followed: 0 to 2 each, a comma list, or one number for all."
    )
    init_image: PictureField | None = Field(
        None,
        description="The guide where there is no control_image; with one, the picture that is redrawn, and"
        f" with a mask_image the one that is repainted. {FORMS}",
    )
    control_image: PictureField | None = Field(None, description=f"The guide. {FORMS}")
    mask_image: PictureField | None = Field(
        None, description=f"Repaint init_image where this is white, and keep the rest to the pixel. {FORMS}"
    )
    strength: Number = Field(
        0.7,
        ge=0,
        le=1,
        description="How much of init_image is redrawn where it is more than a guide; else `meta.strength` is"
        " null.",
    )

    @property
    def redraws(self) -> bool:
        """Whether init_image is more than a guide."""
        return self.init_image is not None and bool(self.mask_image or self.control_image)

    def sent(self) -> list[str]:
        """Names of the fields with a picture."""
        return [name for name in ("init_image", "control_image", "mask_image") if getattr(self, name)]

    def refuse_what_does_not_fit(self) -> None:
        """Before anything is fetched or charged.

        Raises:
            MissingField, FieldError
        """
        if not self.prompt and not self.guess_mode:
            raise MissingField("prompt")
        if self.init_image is None and (self.mask_image is not None or self.control_image is None):
            raise MissingField("init_image")
        if self.redraws:
            refuse_too_little(self.num_inference_steps, self.strength)

    def controls(self, manifest: Manifest, guide: RGBImage | None) -> tuple[Control, ...]:
        """The ControlNets with their pictures.

        Args:
            guide: already ``width`` x ``height``; None: only look whether the fields are right.
        Raises:
            FieldError: an unknown ControlNet, preprocessor or scale.
        """
        names = listed(self.controlnet_model)
        if not names:
            raise MissingField("controlnet_model")
        if len(set(names)) < len(names):
            raise FieldError("controlnet_model", "names a ControlNet twice")
        check_adapters("controlnet_model", names, manifest.controlnets, checkpoint(manifest, self.model_id))
        scales = one_each(
            "controlnet_conditioning_scale",
            self.controlnet_conditioning_scale,
            "controlnet_model",
            names,
            0,
            2,
        )
        return tuple(
            Control(name=name, image=guide or _NO_PICTURE, preprocessor=preprocessor, scale=scale)
            for name, preprocessor, scale in zip(
                names, self._preprocessors(names, manifest), scales, strict=True
            )
        )

    def to_request(
        self, canonical: Canonical, manifest: Manifest, pictures: Mapping[str, RGBImage]
    ) -> CheckpointRequest:
        """The same in canonical names.

        Args:
            pictures: those of `sent`, already ``width`` x ``height``.
        Raises:
            FieldError: as `controls`.
        """
        guide = pictures.get("control_image") or pictures["init_image"]
        controls = self.controls(manifest, guide)
        return replace(self._drawn(canonical, pictures), controls=controls, guess_mode=self.guess_mode)

    def _drawn(self, canonical: Canonical, pictures: Mapping[str, RGBImage]) -> CheckpointRequest:
        if not self.redraws:
            return TextToImage(**canonical)
        image = pictures["init_image"]
        if mask := pictures.get("mask_image"):
            return Inpainting(**canonical, image=image, mask=mask, strength=self.strength)
        return ImageToImage(**canonical, image=image, strength=self.strength)

    def own_meta(self) -> dict[str, JSON]:
        return {
            "controlnet_model": self.controlnet_model,
            "controlnet_type": self.controlnet_type,
            "init_image": url_or_none(self.init_image),
            "control_image": url_or_none(self.control_image),
            "mask_image": url_or_none(self.mask_image),
            "strength": self.strength if self.redraws else None,
        }

    def _preprocessors(self, names: list[str], manifest: Manifest) -> list[str | None]:
        """What makes each guide."""
        if not self.auto_hint:
            return [None] * len(names)
        given = [_ALSO.get(text.lower(), text.lower()) for text in listed(self.controlnet_type)]
        if unknown := [text for text in given if text not in (*PREPROCESSORS, *_AS_THEY_ARE)]:
            raise FieldError("controlnet_type", _no_hint(unknown[0]))
        if len(given) == len(names):
            return [None if text in _AS_THEY_ARE else text for text in given]
        if len(given) > 1:
            raise FieldError("controlnet_type", "must be one, or one for each controlnet_model")
        return [manifest.controlnets[name].preprocessor for name in names]


def _no_hint(controlnet_type: str) -> str:
    """Why auto_hint cannot make it, and what it can."""
    possible = f"{', '.join(PREPROCESSORS)}; or set auto_hint to no"
    if reason := _WITHOUT_HINT.get(controlnet_type):
        return f"{controlnet_type} cannot be made of a picture here: {reason}. What can is {possible}"
    return f"{controlnet_type} is not one of {possible}"
