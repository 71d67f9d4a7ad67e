"""Fields that hold a picture: how it is read, and cut to the size that is drawn."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fastapi import Request
from pydantic import Field

from pipelines import image_io
from pipelines.image_io import RGBImage
from pipelines.request import Replacement
from server.endpoints.enterprise.drawing.fields import PictureFields, replacement
from server.endpoints.fields import Number, PictureField
from server.errors import FieldError, InvalidInputImage
from server.http.pictures import is_url, read_picture
from server.jobs.order import JSON

MASK_FIELD = "mask_image"
MASK_FORMS = (
    "White is repainted, black is kept to the pixel; where the mask is grey the old and the new picture are"
    " mixed, so a blurred mask makes a soft edge. Of strokes on a transparent canvas what was painted is"
    " repainted, of a picture with a transparent hole the hole."
)

FORMS = "An http(s) URL, a data URI or base64; resized to cover width x height and centre-cropped."


class InitImageFields(PictureFields):
    """The fields of the operations that redraw a picture, or a part of it.

    Their pages document what replaces a flagged picture otherwise than text2img's.
    """

    safety_checker_type: Replacement = replacement("sensitive_content_text")
    init_image: PictureField = Field(description=f"The picture to start from. {FORMS}")
    strength: Number = Field(
        0.7,
        ge=0,
        le=1,
        description="How much is redrawn: this part of the steps, at least one. 1 forgets what was there.",
    )

    def sent_pictures(self) -> Mapping[str, str | bytes]:
        return {"init_image": self.init_image}

    def validate_together(self) -> None:
        refuse_too_little(self.num_inference_steps, self.strength)

    def own_meta(self) -> dict[str, JSON]:
        return {"init_image": url_or_none(self.init_image), "strength": self.strength}


def refuse_too_little(num_inference_steps: int, strength: float) -> None:
    """Look whether a strength leaves anything of the steps.

    Raises:
        FieldError: no step would be drawn.
    """
    if int(num_inference_steps * strength) < 1:
        raise FieldError("strength", f"leaves none of {num_inference_steps} steps to draw; raise either")


async def read_and_crop(
    request: Request, given: str | bytes, field: str, width: int, height: int
) -> RGBImage:
    """The picture or mask that a field holds, resized to cover ``width`` x ``height`` and centre-cropped.

    Raises:
        FieldError, FieldTooLarge: naming the field.
    """
    picture = await read_picture_field(request, given, field)
    return await asyncio.to_thread(image_io.cover, picture, width, height)


async def read_picture_field(request: Request, given: str | bytes, field: str) -> RGBImage:
    """The picture that a field holds, in its own size.

    Raises:
        FieldError, FieldTooLarge: naming the field.
    """
    try:
        return await read_picture(request, given, field, mask=field == MASK_FIELD)
    except InvalidInputImage as error:
        raise FieldError(field, error.problem) from error


def url_or_none(picture: str | bytes | None) -> str | None:
    """A picture as `meta` repeats it: its URL, or None where the picture itself was sent."""
    return picture if is_url(picture) else None
