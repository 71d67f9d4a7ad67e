"""POST /v1/esrgan and its /v2 twin: a picture enlarged by the first upscaler of the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipelines.image_io import RGBImage
from pipelines.request import Upscaling
from pipelines.weights.manifest import Manifest
from server.endpoints.enlarging import refuse_too_large
from server.endpoints.fields import Flag, WholeNumber, whole_number
from server.endpoints.segmind.page import PNG_IN_JSON, Delivery, InputImage, Page, delivery_warnings
from server.endpoints.segmind.routes import routes
from server.errors import NotFound


class Esrgan(Page):
    slug: ClassVar[str] = "esrgan"
    summary: ClassVar[str] = "ESRGAN: enlarge a picture"
    sources: ClassVar[str] = (
        "Fields, defaults and limits are those of the vendor's page, but for `face_enhance` and `base64`, "
        "which clients send."
    )
    price_millicredits: ClassVar[int] = 5
    default_steps: ClassVar[int] = 1
    media_types: ClassVar[tuple[str, ...]] = ("image/jpeg", "image/png", "image/webp")
    example: ClassVar[Mapping[str, object]] = {
        "image": "https://www.segmind.com/butterfly.png",
        "scale": "2",
        "output_format": "jpeg",
        "quality": 95,
    }

    image: InputImage
    scale: Annotated[Literal[2, 4, 8], whole_number] = Field(
        2,
        description="How many times wider and higher; at most 32 megapixels may come out. Where the"
        " upscaler's own scale is another one, its result is resized with Lanczos' filter.",
    )
    output_format: Literal["jpeg", "png", "webp"] = Field("jpeg", description="Format of the picture.")
    quality: WholeNumber = Field(95, ge=10, le=100, description="Of JPEG and WebP; 100 is best.")
    face_enhance: Flag = Field(
        False,
        description="Draw the faces anew with the first face restorer of this server's manifest. `x-warnings`"
        " says where there is none, or no face. Not on the vendor's page.",
    )
    base64: Flag = Field(
        False,
        description="Answer JSON with a base64 PNG, whatever `output_format` says. Not on the vendor's page.",
    )

    def effort(self) -> tuple[int, int]:
        return 1, 1

    def delivery(self) -> Delivery:
        return PNG_IN_JSON if self.base64 else Delivery(self.output_format, self.quality)

    def sent_pictures(self) -> Mapping[str, str | bytes]:
        return {"image": self.image}

    def validate_names(self, manifest: Manifest) -> None:
        if not manifest.upscalers:
            raise NotFound("This server has no upscaler: weights.yaml names none")

    def warnings(self, manifest: Manifest) -> list[str]:
        in_vain = self.face_enhance and not manifest.face_restorers
        missing = "face_enhance: has no effect, because weights.yaml names no face restorer"
        without_faces = [missing] if in_vain else []
        return without_faces + delivery_warnings(self, "output_format", "quality")

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> Upscaling:
        picture = pictures["image"]
        width, height = self.scale * picture.width, self.scale * picture.height
        refuse_too_large(width, height)
        return Upscaling(
            pipeline=next(iter(manifest.upscalers)),
            image=picture,
            width=width,
            height=height,
            face_restorer=next(iter(manifest.face_restorers), None) if self.face_enhance else None,
        )


router = routes(Esrgan)
