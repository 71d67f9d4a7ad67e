"""POST super_resolution: a picture enlarged by one of the manifest's upscalers."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import AliasChoices, Field

from pipelines.image_io import RGBImage
from pipelines.request import Upscaling
from pipelines.weights.manifest import Manifest
from server.endpoints.enterprise.answers import finished, processing
from server.endpoints.enterprise.drawing.draw import run_job
from server.endpoints.enterprise.drawing.picture_fields import read_picture_field, url_or_none
from server.endpoints.enterprise.webhook import WebhookFields
from server.endpoints.enterprise.wire import post, read, yes_no
from server.endpoints.fields import Flag, PictureField, Text, whole_number
from server.errors import FieldError, NotFound
from server.http import caller
from server.http.services import services
from server.http.urls import output_urls
from server.jobs.jobs import JobStatus

PRICE_MILLICREDITS = 10
MOST_PIXELS = 32_000_000
"""Of the result: more would take an engine's memory and minutes of its time for one caller."""


class SuperResolution(WebhookFields):
    """The documented fields."""

    url: PictureField = Field(
        validation_alias=AliasChoices("url", "init_image"),
        description="The picture: a URL, or base64. At most 32 megapixels may come out.",
    )
    scale: Annotated[Literal[2, 3, 4], whole_number] = Field(
        2,
        description="How many times wider and higher. Where the upscaler's own scale is another one, it draws"
        " its own and the result is resized with Lanczos' filter.",
    )
    face_enhance: Flag = Field(
        False,
        description="Draw the faces of the enlarged picture anew, with the first face restorer of this"
        " server's manifest. Where no face is found, the answer's `warning` says so.",
    )
    model_id: Text | None = Field(
        None, description="An upscaler of this server's manifest; the first one when it is absent."
    )

    def to_request(self, picture: RGBImage, manifest: Manifest) -> Upscaling:
        """The same in canonical names.

        Raises:
            NotFound: no such upscaler. FieldError: too large a result, or nothing that restores faces.
        """
        if not manifest.upscalers:
            raise NotFound("This server has no upscaler: weights.yaml names none")
        name = self.model_id or next(iter(manifest.upscalers))
        if name not in manifest.upscalers:
            raise NotFound("Model id not found")
        width, height = self.scale * picture.width, self.scale * picture.height
        if width * height > MOST_PIXELS:
            megapixels = f"{width * height / 1e6:.1f} megapixels"
            problem = f"would make {megapixels}; at most {MOST_PIXELS / 1e6:g} may come out"
            raise FieldError("scale", problem)
        return Upscaling(
            pipeline=name,
            image=picture,
            width=width,
            height=height,
            face_restorer=self._face_restorer(manifest),
        )

    def _face_restorer(self, manifest: Manifest) -> str | None:
        """The manifest's first one, where faces are to be restored."""
        if not self.face_enhance:
            return None
        if not manifest.face_restorers:
            problem = "needs a face restorer: weights.yaml names none in its face_restorers; send it as false"
            raise FieldError("face_enhance", problem)
        return next(iter(manifest.face_restorers))


async def super_resolution(request: Request) -> JSONResponse:
    account, fields = await read(request, SuperResolution)
    picture = await read_picture_field(request, fields.url, "url")
    asked = fields.to_request(picture, services(request).manifest)
    job = await run_job(
        request,
        account,
        "super_resolution",
        fields,
        asked,
        price=PRICE_MILLICREDITS,
        meta={
            "model_id": asked.pipeline,
            "url": url_or_none(fields.url),
            "scale": fields.scale,
            "face_enhance": yes_no(fields.face_enhance),
            "W": asked.width,
            "H": asked.height,
        },
    )
    if job.status is not JobStatus.succeeded:
        return JSONResponse(processing(request, job))
    answer = finished(request, job)
    return JSONResponse({**answer, "output": output_urls(request, job)[0]})


router = APIRouter()
post(
    router,
    "super_resolution",
    super_resolution,
    SuperResolution,
    summary="Enlarge a picture",
    description="`output` is one URL; where the call was answered `processing`, fetch and the webhook have it"
    " in a list, as of every other operation.",
    example={
        "key": "enterprise_api_key",
        "url": "http://127.0.0.1:8000/outputs/05c3260d-6a2e-4aa5-82f0-e952f2a5fa10-0.png",
        "scale": 2,
        "face_enhance": False,
        "webhook": None,
    },
    answer={
        "status": "success",
        "generationTime": 0.71,
        "id": 302456,
        "output": "http://127.0.0.1:8000/outputs/1f0a5e7e-6a2e-4aa5-82f0-e952f2a5fa10-0.png",
        "meta": {"model_id": "small-x2", "scale": 2, "face_enhance": "no", "W": 1024, "H": 1024},
    },
    parameters=[caller.IDEMPOTENCY_KEY_PARAMETER],
)
