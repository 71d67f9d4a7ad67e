"""GET /v2/requests/{id}/status and /v2/requests/{id} (also under /v1): what became of a request."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from server import caller
from server.accounts import Account
from server.endpoints.segmind.documentation import api_key, errors
from server.endpoints.segmind.wire import in_credits, request_urls, seconds
from server.jobs import Job, JobStatus

router = APIRouter(tags=["segmind"], dependencies=[Depends(api_key)])

STATUS_WORDS = {
    JobStatus.queued: "QUEUED",
    JobStatus.running: "PROCESSING",
    JobStatus.succeeded: "COMPLETED",
    JobStatus.failed: "FAILED",
    JobStatus.cancelled: "FAILED",
}
FAILED_STATUS = 422
"""The vendor serves failures so; its SDK reads the body all the same."""

_get = partial(router.get, response_class=Response, responses=errors(401, 404, 422))


@_get("/v2/requests/{request_id}/status", summary="Status of a request")
async def status(request: Request, request_id: str) -> Response:
    account = await caller.authenticate(request, caller.header_key(request))
    job = await caller.services(request).studio.find(account, request_id=request_id)
    return _status(request, job, account)


@_get("/v1/requests/{request_id}", summary="Result of a request")
@_get("/v2/requests/{request_id}", summary="Result of a request")
async def result(request: Request, request_id: str) -> Response:
    account = await caller.authenticate(request, caller.header_key(request))
    job = await caller.services(request).studio.find(account, request_id=request_id)
    if job.status is not JobStatus.succeeded:
        return _status(request, job, account)
    urls = caller.output_urls(request, job)
    images = [
        {"url": url, "content_type": output.content_type, "file_name": output.name, "file_size": output.size}
        for url, output in zip(urls, job.outputs, strict=True)
    ]
    body = {
        "status": "COMPLETED",
        "output": urls[0],
        "images": images,
        "seed": job.request.seeds[0],
        "seeds": job.request.seeds,
        "prompt": job.request.prompt,
        "metrics": _metrics(job, account),
        "request_id": job.request_id,
    }
    return JSONResponse(body)


def _status(request: Request, job: Job, account: Account) -> Response:
    word = STATUS_WORDS[job.status]
    body: dict[str, object] = {
        "status": word,
        "request_id": job.request_id,
        **request_urls(request, job),
        "metrics": _metrics(job, account),
    }
    if word == "FAILED":
        body["error"] = job.error or "Request cancelled"
        return JSONResponse(body, FAILED_STATUS)
    return JSONResponse(body)


def _metrics(job: Job, account: Account) -> dict[str, float]:
    if job.status is not JobStatus.succeeded:
        return {}
    return {
        "inference_time": seconds(job.started_at, job.finished_at),
        "queue_time": seconds(job.created_at, job.started_at),
        "total_time": seconds(job.created_at, job.finished_at),
        "cost": in_credits(job.price),
        "remaining_credits": in_credits(account.balance),
    }
