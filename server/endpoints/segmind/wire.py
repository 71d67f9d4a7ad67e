"""The parts that Segmind's model pages share: from a call to an order, from a job to an answer, errors."""

from __future__ import annotations

import asyncio
import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Literal, TypeAlias

import fastapi
from fastapi.responses import JSONResponse, Response
from pydantic import AliasChoices, Field

from pipelines import image_io
from pipelines.image_io import RGBImage
from pipelines.request import PictureRequest
from server.amounts import in_credits
from server.endpoints.fields import Fields, PictureField, body_digest, read, whole_number
from server.endpoints.pricing import price
from server.endpoints.segmind.body import PICTURE_NAMES, read_body
from server.errors import ApiError, InternalError, QueueFull, Unavailable
from server.http import caller
from server.http.call_state import call_state
from server.http.hang_up import while_connected
from server.http.pictures import read_picture
from server.http.services import services
from server.http.urls import output_urls, public_url
from server.jobs.job import Job
from server.jobs.order import Order, PictureFormat

Side = Annotated[Literal[512, 576, 640, 704, 768, 832, 896, 960, 1024], whole_number]
"""A width or height in pixels. Each page documents two of them; clients send all of these."""

InputImage: TypeAlias = Annotated[
    PictureField,
    Field(
        validation_alias=AliasChoices(*PICTURE_NAMES),
        description="Base64, a data URI, an http(s) URL, or a file part named image or file.",
    ),
]


@dataclass(frozen=True, slots=True)
class Delivery:
    """How drawn pictures travel home: the first one's bytes, or all of them as base64 in JSON."""

    picture_format: PictureFormat
    quality: int = 95
    as_json: bool = False


class Page(Fields, ABC):
    """One documented model page: its fields, and what they mean.

    Attributes:
        slug: the page's name in its path, in the records of jobs, in the metrics and in the price list.
        price_millicredits: the price of one picture that is drawn in ``default_steps``.
        media_types: the types that the picture may have.
        example: the page's own sample body.
    """

    slug: ClassVar[str]
    summary: ClassVar[str]
    price_millicredits: ClassVar[int]
    default_steps: ClassVar[int]
    media_types: ClassVar[tuple[str, ...]] = ("image/jpeg",)
    example: ClassVar[Mapping[str, object]]

    @abstractmethod
    def effort(self) -> tuple[int, int]:
        """The number of pictures that are paid for, and of steps in each."""

    @abstractmethod
    def delivery(self) -> Delivery: ...

    def source(self) -> str | bytes | None:
        """The caller's picture as it came, on pages that need one."""
        return None

    @abstractmethod
    def to_request(self, picture: RGBImage | None) -> PictureRequest:
        """The request that the fields ask for, in canonical names and with explicit seeds.

        It blocks while it resizes a picture.

        Args:
            picture: the picture of `source`, in its own size.
        """

    def price(self, base_millicredits: int) -> int:
        """The price of the order in millicredits."""
        return price(base_millicredits, *self.effort(), self.default_steps)


def json_or_jpeg(as_json: bool) -> Delivery:
    """The delivery that ``base64`` chooses: PNGs in JSON, or a JPEG."""
    return Delivery("png", as_json=True) if as_json else Delivery("jpeg")


async def draw(request: fastapi.Request, page: type[Page]) -> Response:
    """POST /v1/{slug}: wait for the pictures."""
    account = await caller.authenticate(request, caller.header_key(request))
    fields, order = await _read_order(request, page, synchronous=True)
    studio = services(request).studio
    job = await while_connected(request, studio.draw(account, order))
    caller.report_balance(request, job)
    return await _pictures(request, job, fields.delivery())


async def submit(request: fastapi.Request, page: type[Page]) -> Response:
    """POST /v2/{slug}: queue, and say where to ask."""
    account = await caller.authenticate(request, caller.header_key(request))
    _, order = await _read_order(request, page, synchronous=False)
    job = await services(request).studio.submit(account, order)
    caller.report_balance(request, job)
    addresses = request_urls(request, job)
    body = {
        "request_id": job.request_id,
        "status": "QUEUED",
        "poll_url": addresses["status_url"],
        **addresses,
    }
    return JSONResponse(body)


def request_urls(request: fastapi.Request, job: Job) -> dict[str, str]:
    """The URLs where a request can be asked after, absolute: the vendor's SDK follows them as they are."""
    response_url = f"{public_url(request)}/v2/requests/{job.request_id}"
    return {"status_url": f"{response_url}/status", "response_url": response_url}


def evaluations(job: Job) -> dict[str, int]:
    """The number of network evaluations for all pictures of a job; empty where they were not counted."""
    counted = job.timings.evaluations if job.timings else 0
    return {"evaluations": counted} if counted else {}


def error_response(error: ApiError, request: fastapi.Request) -> Response:
    """The dialect's error body and headers."""
    body = {"error": str(error)}
    headers: dict[str, str] = {}
    match error:
        case QueueFull():
            reset = datetime.now(UTC) + timedelta(seconds=error.retry_after_s)
            headers["retry-after"] = str(error.retry_after_s)
            headers["x-rate-limit-reset-at-utc"] = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
        case Unavailable():
            headers["retry-after"] = str(error.retry_after_s)
        case InternalError():
            body["request_id"] = call_state(request).request_id
        case _:
            pass
    return JSONResponse(body, error.status, headers)


async def _read_order(request: fastapi.Request, page: type[Page], *, synchronous: bool) -> tuple[Page, Order]:
    fields = read(page, await read_body(request))
    idempotency_key = caller.idempotency_key(request)
    source = fields.source()
    if source is None:
        drawable = fields.to_request(None)
    else:
        picture = await read_picture(request, source)
        drawable = await asyncio.to_thread(fields.to_request, picture)
    delivery = fields.delivery()
    prices = services(request).settings.prices_millicredits
    return fields, Order(
        endpoint=page.slug,
        request=drawable,
        price=fields.price(prices.get(page.slug, page.price_millicredits)),
        picture_format=delivery.picture_format,
        quality=delivery.quality,
        synchronous=synchronous,
        idempotency_key=idempotency_key,
        body_digest=await asyncio.to_thread(body_digest, fields, page.slug) if idempotency_key else None,
    )


async def _pictures(request: fastapi.Request, job: Job, delivery: Delivery) -> Response:
    pictures = await services(request).studio.pictures(job)
    headers = _accounting_headers(job)
    if delivery.as_json:
        texts = await asyncio.to_thread(lambda: [base64.b64encode(picture).decode() for picture in pictures])
        body = {
            "status": "Success",
            "image": texts[0] if len(texts) == 1 else texts,
            "infer_time": job.drawing_s,
            "outputs": len(texts),
            "image_format": delivery.picture_format,
        }
        return JSONResponse(body, headers=headers)
    if len(pictures) > 1:
        # One body holds one picture; nothing that was paid for gets lost.
        headers["x-output-urls"] = json.dumps(output_urls(request, job))
    media_type = image_io.content_type(delivery.picture_format)
    return Response(pictures[0], headers=headers, media_type=media_type)


def _accounting_headers(job: Job) -> dict[str, str]:
    drawn = job.request
    size = {"height": drawn.height, "width": drawn.width}
    metadata = {**size, "samples": len(drawn.seeds), **evaluations(job)}
    return {
        "x-cost": str(in_credits(job.order.price)),
        "x-generation-time": str(job.drawing_s),
        "x-seed-value": ",".join(str(seed) for seed in drawn.seeds),
        "x-request-id": job.request_id,
        "x-output-metadata": json.dumps(metadata),
    }
