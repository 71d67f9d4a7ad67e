"""POST super_resolution: a picture enlarged by one of the manifest's upscalers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from fastapi import APIRouter, Request
from pydantic import AliasChoices, Field

from pipelines.image_io import RGBImage
from pipelines.request import Upscaling
from pipelines.weights.manifest import Manifest
from server.accounts.accounts import Account
from server.endpoints.enlarging import refuse_too_large
from server.endpoints.enterprise.answers import finished, processing
from server.endpoints.enterprise.drawing.draw import draw
from server.endpoints.enterprise.drawing.fields import PaidFields
from server.endpoints.enterprise.drawing.picture_fields import read_picture_field, url_or_none
from server.endpoints.enterprise.families import family_of
from server.endpoints.enterprise.routes import post
from server.endpoints.enterprise.wire import yes_no
from server.endpoints.fields import Flag, PictureField, Text, whole_number
from server.errors import FieldError, NotFound
from server.http.services import services
from server.http.urls import output_urls
from server.jobs.job import JobStatus

FIRST = frozenset({"realesr-general-x4v3", "ultra_resolution"})
"""The vendor's names of the first upscaler: the documented default, and the one that its SDKs send."""

OTHERS = frozenset(
    {"RealESRGAN_x4plus", "RealESRNet_x4plus", "RealESRGAN_x4plus_anime_6B", "RealESRGAN_x2plus"}
)
"""The other documented upscalers; one that is not in the manifest is replaced by the first."""


class SuperResolution(PaidFields):
    """The fields of super_resolution, as the pages of v1, v5 and v6 and the SDKs have them."""

    slug: ClassVar[str] = "super_resolution"
    summary: ClassVar[str] = "Enlarge a picture"
    description: ClassVar[str | None] = (
        "`output` is one URL, below `image_editing` a list of it, as those pages document; where the call was"
        " answered `processing`, fetch and the webhook have it in a list, as of every other operation."
    )
    price_millicredits: ClassVar[int] = 10
    example: ClassVar[Mapping[str, object]] = {
        "key": "enterprise_api_key",
        "url": "http://127.0.0.1:8000/generations/05c3260d-6a2e-4aa5-82f0-e952f2a5fa10-0.png",
        "scale": 2,
        "face_enhance": False,
        "webhook": None,
    }
    answer: ClassVar[Mapping[str, object]] = {
        "status": "success",
        "generationTime": 0.71,
        "id": 302456,
        "output": "http://127.0.0.1:8000/generations/1f0a5e7e-6a2e-4aa5-82f0-e952f2a5fa10-0.png",
        "meta": {"model_id": "small-x2", "scale": 2, "face_enhance": "no", "W": 1024, "H": 1024},
    }

    url: PictureField = Field(
        validation_alias=AliasChoices("url", "init_image"),
        description="The picture: a URL, or base64. At most 32 megapixels may come out.",
    )
    scale: Annotated[Literal[1, 2, 3, 4], whole_number] = Field(
        2,
        description="How many times wider and higher; 1 cleans a picture without enlarging it. Where the"
        " upscaler's own scale is another one, it draws its own and the result is resized with Lanczos'"
        " filter.",
    )
    face_enhance: Flag = Field(
        False,
        description="Draw the faces of the enlarged picture anew, with the first face restorer of this"
        " server's manifest. Where no face is found, the answer's `warning` says so.",
    )
    model_id: Text | None = Field(
        None,
        validation_alias=AliasChoices("model_id", "model"),
        description="An upscaler of this server's manifest; the first one when it is absent. So are"
        f" {' and '.join(sorted(FIRST))}, and with a `warning` the other documented names: "
        f"{', '.join(sorted(OTHERS))}. Also as `model`.",
    )

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> Upscaling:
        """The enlargement that the fields ask for, in canonical names.

        Raises:
            NotFound: there is no such upscaler.
            FieldError: the result would be too large, or nothing here restores faces.
        """
        picture = pictures["url"]
        if not manifest.upscalers:
            raise NotFound("This server has no upscaler: weights.yaml names none")
        name = self._upscaler(manifest)
        width, height = self.scale * picture.width, self.scale * picture.height
        refuse_too_large(width, height)
        return Upscaling(
            pipeline=name,
            image=picture,
            width=width,
            height=height,
            face_restorer=self._face_restorer(manifest),
        )

    def warning(self, drawn: Upscaling) -> str | None:
        """The answer's warning, where another upscaler had to stand in for the one that was named."""
        if self.model_id not in OTHERS or self.model_id == drawn.pipeline:
            return None
        return f"{self.model_id} is not on this server; {drawn.pipeline} was used instead"

    def _upscaler(self, manifest: Manifest) -> str:
        if self.model_id in manifest.upscalers:
            return self.model_id
        if self.model_id is not None and self.model_id not in FIRST | OTHERS:
            raise NotFound("Model id not found")
        return next(iter(manifest.upscalers))

    def _face_restorer(self, manifest: Manifest) -> str | None:
        """The manifest's first face restorer, where faces are to be restored."""
        if not self.face_enhance:
            return None
        if not manifest.face_restorers:
            problem = "needs a face restorer: weights.yaml names none in its face_restorers; send it as false"
            raise FieldError("face_enhance", problem)
        return next(iter(manifest.face_restorers))


async def super_resolution(request: Request, account: Account, fields: SuperResolution) -> dict[str, object]:
    picture = await read_picture_field(request, fields.url, "url")
    asked = fields.to_request(services(request).manifest, {"url": picture})
    meta = {
        "model_id": asked.pipeline,
        "url": url_or_none(fields.url),
        "scale": fields.scale,
        "face_enhance": yes_no(fields.face_enhance),
        "W": asked.width,
        "H": asked.height,
    }
    job = await draw(request, account, fields, asked, meta=meta, warning=fields.warning(asked))
    if job.status is not JobStatus.succeeded:
        return processing(request, job)
    answer = finished(request, job)
    if family_of(request.url.path).lists:
        return answer
    (url,) = output_urls(request, job)
    return {**answer, "output": url}


router = APIRouter()
post(router, SuperResolution, super_resolution)
