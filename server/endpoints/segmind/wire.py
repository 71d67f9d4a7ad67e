"""The way of a model page's call: to an order, and from its job to an answer; errors."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from pipelines import image_io
from server.amounts import in_credits
from server.endpoints.fields import body_digest, read
from server.endpoints.segmind.body import MASK_NAMES, read_body
from server.endpoints.segmind.page import Delivery, Page
from server.endpoints.segmind.prompt_syntax import read_prompt_syntax
from server.endpoints.segmind.warnings import as_options, warning_fields, warning_headers
from server.errors import ApiError, InternalError, QueueFull, Unavailable, UnreadableCoding
from server.http import caller
from server.http.call_state import call_state
from server.http.hang_up import while_connected
from server.http.pictures import read_picture
from server.http.services import services
from server.http.urls import output_urls, public_url
from server.jobs.job import Job
from server.jobs.order import Order


async def draw(request: Request, page: type[Page]) -> Response:
    """POST /v1/{slug}: wait for the pictures."""
    account = await caller.authenticate_by_header(request)
    fields, order = await _read_order(request, page, synchronous=True)
    studio = services(request).studio
    job = await while_connected(request, studio.draw(account, order))
    caller.report_balance(request, job)
    return await _pictures(request, job, fields.delivery())


async def submit(request: Request, page: type[Page]) -> Response:
    """POST /v2/{slug}: queue, and say where to ask."""
    account = await caller.authenticate_by_header(request)
    _, order = await _read_order(request, page, synchronous=False)
    job = await services(request).studio.submit(account, order)
    caller.report_balance(request, job)
    addresses = request_urls(request, job)
    body = {
        "request_id": job.request_id,
        "status": "QUEUED",
        "poll_url": addresses["status_url"],
        **addresses,
        **warning_fields(job),
    }
    return JSONResponse(body, headers=warning_headers(job))


def request_urls(request: Request, job: Job) -> dict[str, str]:
    """The URLs where a request can be asked after, absolute: the vendor's SDK follows them as they are."""
    response_url = f"{public_url(request)}/v2/requests/{job.request_id}"
    return {"status_url": f"{response_url}/status", "response_url": response_url}


def evaluations(job: Job) -> dict[str, int]:
    """The number of network evaluations for all pictures of a job; empty where they were not counted."""
    counted = job.timings.evaluations if job.timings else 0
    return {"evaluations": counted} if counted else {}


async def sent_key(request: Request) -> str | None:
    """The API key of a call that no page answers."""
    return caller.header_key(request)


def error_response(error: ApiError, request: Request) -> Response:
    """The dialect's error body and headers."""
    body = {"error": str(error)}
    headers: dict[str, str] = {}
    match error:
        case QueueFull():
            reset = datetime.now(UTC) + timedelta(seconds=error.retry_after_s)
            headers["retry-after"] = str(error.retry_after_s)
            headers["x-rate-limit-reset-at-utc"] = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
        case Unavailable(retry_after_s=int(seconds)):
            headers["retry-after"] = str(seconds)
        case InternalError():
            body["request_id"] = call_state(request).request_id
        case UnreadableCoding():
            headers["accept-encoding"] = "identity"
        case _:
            pass
    return JSONResponse(body, error.status, headers)


async def _read_order(request: Request, page: type[Page], *, synchronous: bool) -> tuple[Page, Order]:
    fields = read(page, await read_body(request))
    manifest = services(request).manifest
    drawn, syntax = await asyncio.to_thread(read_prompt_syntax, fields)
    fields.validate_names(manifest)
    idempotency_key = caller.idempotency_key(request)
    pictures = {
        name: await read_picture(request, sent, name, mask=name in MASK_NAMES)
        for name, sent in fields.sent_pictures().items()
    }
    drawable = await asyncio.to_thread(drawn.to_request, manifest, pictures)
    delivery = fields.delivery()
    base_price = services(request).settings.base_price(page.slug, page.price_millicredits)
    return fields, Order(
        endpoint=page.slug,
        request=drawable,
        price=fields.price(base_price),
        picture_format=delivery.picture_format,
        quality=delivery.quality,
        synchronous=synchronous,
        options=as_options([*fields.warnings(manifest), *syntax]),
        request_id=call_state(request).request_id,
        field_names=page.field_names,
        idempotency_key=idempotency_key,
        body_digest=await asyncio.to_thread(body_digest, fields, page.slug) if idempotency_key else None,
    )


async def _pictures(request: Request, job: Job, delivery: Delivery) -> Response:
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
            **warning_fields(job),
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
        **warning_headers(job),
    }
