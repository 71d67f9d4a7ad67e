"""POST nsfw_image_check: the safety checker's word on a picture that the caller sends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fastapi import APIRouter, Request
from pydantic import Field

from pipelines.image_io import RGBImage
from pipelines.request import SafetyCheck
from pipelines.weights.manifest import Manifest
from server.accounts.accounts import Account
from server.endpoints.enterprise.answers import processing
from server.endpoints.enterprise.drawing.checkpoints import checkpoints
from server.endpoints.enterprise.drawing.draw import draw
from server.endpoints.enterprise.drawing.fields import PaidFields
from server.endpoints.enterprise.drawing.picture_fields import read_picture_field, url_or_none
from server.endpoints.enterprise.routes import post
from server.endpoints.fields import PictureField
from server.errors import NotFound
from server.http.services import services
from server.http.urls import output_urls
from server.jobs.job import JobStatus


class NsfwImageCheck(PaidFields):
    """The fields of nsfw_image_check."""

    slug: ClassVar[str] = "nsfw_image_check"
    summary: ClassVar[str] = "Whether a picture may be shown"
    description: ClassVar[str | None] = (
        "Where the call was answered `processing`, fetch and the webhook say `nsfw_content_detected`"
        " and have the picture's URL in `output`, as of every other operation."
    )
    price_millicredits: ClassVar[int] = 1
    example: ClassVar[Mapping[str, object]] = {
        "key": "enterprise_api_key",
        "init_image": "http://127.0.0.1:8000/generations/05c3260d-6a2e-4aa5-82f0-e952f2a5fa10-0.png",
    }
    answer: ClassVar[Mapping[str, object]] = {
        "status": "success",
        "id": 302457,
        "images": "http://127.0.0.1:8000/generations/2c1f7a52-6a2e-4aa5-82f0-e952f2a5fa10-0.png",
        "has_nsfw_concept": [True],
    }

    init_image: PictureField = Field(description="The picture: a URL, or base64.")

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> SafetyCheck:
        """The safety check by the first checkpoint that has a checker; those that are loaded at the start
        come first.

        Raises:
            NotFound: no checkpoint has one.
        """
        checked = [
            (not entry.resident, name)
            for name, entry in checkpoints(manifest).items()
            if "safety_checker" in entry.parts
        ]
        if not checked:
            raise NotFound("This server has no safety checker: no checkpoint of its weights.yaml names one")
        _, name = min(checked, key=lambda choice: choice[0])
        picture = pictures["init_image"]
        return SafetyCheck(pipeline=name, image=picture, width=picture.width, height=picture.height)


async def nsfw_image_check(request: Request, account: Account, fields: NsfwImageCheck) -> dict[str, object]:
    picture = await read_picture_field(request, fields.init_image, "init_image")
    asked = fields.to_request(services(request).manifest, {"init_image": picture})
    meta = {"model_id": asked.pipeline, "init_image": url_or_none(fields.init_image)}
    job = await draw(request, account, fields, asked, meta=meta, temporary=True)
    if job.status is not JobStatus.succeeded:
        return processing(request, job)
    (url,) = output_urls(request, job)
    return {"status": "success", "id": job.id, "images": url, "has_nsfw_concept": list(job.flagged or ())}


router = APIRouter()
post(router, NsfwImageCheck, nsfw_image_check)
