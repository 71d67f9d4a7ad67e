"""Pictures that a caller sends along: reading them out of a field, cut to the size that is drawn."""

from __future__ import annotations

import asyncio

from fastapi import Request
from pydantic import Field

from pipelines import image_io
from pipelines.image_io import RGBImage
from server.endpoints.enterprise.drawing.fields import PictureFields
from server.endpoints.fields import Number, PictureField
from server.errors import FieldError, InvalidInputImage
from server.http.pictures import read_picture
from server.jobs.jobs import JSON

FORMS = "An http(s) URL, a data URI or base64; resized to cover width x height and centre-cropped."


class InitImageFields(PictureFields):
    """The documented fields of the operations that redraw a picture, or a part of it."""

    init_image: PictureField = Field(description=f"The picture to start from. {FORMS}")
    strength: Number = Field(
        0.7,
        ge=0,
        le=1,
        description="How much is redrawn: this part of the steps, at least one. 1 forgets what was there.",
    )

    def refuse_too_little(self) -> None:
        """Before anything is fetched or charged.

        Raises:
            FieldError: no step would be drawn.
        """
        refuse_too_little(self.num_inference_steps, self.strength)

    def own_meta(self) -> dict[str, JSON]:
        return {"init_image": url_or_none(self.init_image), "strength": self.strength}


def refuse_too_little(num_inference_steps: int, strength: float) -> None:
    """
    Raises:
        FieldError: no step would be drawn.
    """
    if int(num_inference_steps * strength) < 1:
        raise FieldError("strength", f"leaves none of {num_inference_steps} steps to draw; raise either")


async def read_and_crop(request: Request, fields: PictureFields, field: str) -> RGBImage:
    """The picture in a field, ``fields.width`` x ``fields.height``.

    Raises:
        FieldError, BodyTooLarge: naming the field.
    """
    picture = await read_picture_field(request, getattr(fields, field), field)
    return await asyncio.to_thread(image_io.cover, picture, fields.width, fields.height)


async def read_picture_field(request: Request, given: str | bytes, field: str) -> RGBImage:
    """The picture that a field holds, as it is.

    Raises:
        FieldError, BodyTooLarge: naming the field.
    """
    try:
        return await read_picture(request, given, field)
    except InvalidInputImage as error:
        raise FieldError(field, error.problem) from error


def url_or_none(picture: str | bytes | None) -> str | None:
    """A picture as `meta` repeats it: its URL; nothing where the picture itself was sent."""
    if isinstance(picture, str) and picture.strip().lower().startswith(("http://", "https://")):
        return picture
    return None
