"""POST nsfw_image_check: the safety checker's word on a picture that the caller sends."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from pipelines.image_io import RGBImage
from pipelines.request import SafetyCheck
from pipelines.weights.manifest import Manifest
from server.endpoints.enterprise.answers import processing
from server.endpoints.enterprise.drawing.checkpoints import checkpoints
from server.endpoints.enterprise.drawing.draw import run_job
from server.endpoints.enterprise.drawing.picture_fields import read_picture_field, url_or_none
from server.endpoints.enterprise.webhook import WebhookFields
from server.endpoints.enterprise.wire import post, read
from server.endpoints.fields import PictureField
from server.errors import NotFound
from server.http import caller
from server.http.services import services
from server.http.urls import output_urls
from server.jobs.jobs import JobStatus

PRICE_MILLICREDITS = 1


class NsfwImageCheck(WebhookFields):
    """The documented field, and where to send the answer."""

    init_image: PictureField = Field(description="The picture: a URL, or base64.")

    def to_request(self, picture: RGBImage, manifest: Manifest) -> SafetyCheck:
        """To the first checkpoint that has a checker, one that is loaded at start before others.

        Raises:
            NotFound: none has one.
        """
        checked = [
            (not entry.resident, name)
            for name, entry in checkpoints(manifest).items()
            if "safety_checker" in entry.parts
        ]
        if not checked:
            raise NotFound("This server has no safety checker: no checkpoint of its weights.yaml names one")
        _, name = min(checked, key=lambda choice: choice[0])
        return SafetyCheck(pipeline=name, image=picture, width=picture.width, height=picture.height)


async def nsfw_image_check(request: Request) -> JSONResponse:
    account, fields = await read(request, NsfwImageCheck)
    picture = await read_picture_field(request, fields.init_image, "init_image")
    asked = fields.to_request(picture, services(request).manifest)
    job = await run_job(
        request,
        account,
        "nsfw_image_check",
        fields,
        asked,
        price=PRICE_MILLICREDITS,
        temporary=True,
        meta={"model_id": asked.pipeline, "init_image": url_or_none(fields.init_image)},
    )
    if job.status is not JobStatus.succeeded:
        return JSONResponse(processing(request, job))
    (url,) = output_urls(request, job)
    return JSONResponse(
        {"status": "success", "id": job.id, "images": url, "has_nsfw_concept": list(job.flagged or ())}
    )


router = APIRouter()
post(
    router,
    "nsfw_image_check",
    nsfw_image_check,
    NsfwImageCheck,
    summary="Whether a picture may be shown",
    description="Where the call was answered `processing`, fetch and the webhook say `nsfw_content_detected`"
    " and have the picture's URL in `output`, as of every other operation.",
    example={
        "key": "enterprise_api_key",
        "init_image": "http://127.0.0.1:8000/outputs/05c3260d-6a2e-4aa5-82f0-e952f2a5fa10-0.png",
    },
    answer={
        "status": "success",
        "id": 302457,
        "images": "http://127.0.0.1:8000/outputs/2c1f7a52-6a2e-4aa5-82f0-e952f2a5fa10-0.png",
        "has_nsfw_concept": [True],
    },
    parameters=[caller.IDEMPOTENCY_KEY_PARAMETER],
)
