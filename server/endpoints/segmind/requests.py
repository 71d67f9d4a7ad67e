"""GET /v2/requests/{id}/status and /v2/requests/{id} (also under /v1): what became of a request."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from server.accounts.accounts import Account
from server.amounts import in_credits
from server.endpoints.segmind.routes import api_key, error_responses
from server.endpoints.segmind.warnings import warning_fields, warning_headers
from server.endpoints.segmind.wire import evaluations, problem_text, request_urls
from server.http import caller
from server.http.services import services
from server.http.urls import output_urls
from server.jobs.job import Job, JobStatus

router = APIRouter(tags=["segmind"], dependencies=[Depends(api_key)])

STATUS_WORDS = {
    JobStatus.queued: "QUEUED",
    JobStatus.running: "PROCESSING",
    JobStatus.succeeded: "COMPLETED",
    JobStatus.failed: "FAILED",
    JobStatus.cancelled: "FAILED",
}
FAILED_STATUS = 422
"""The HTTP status of an answer about a request that failed, as at the vendor; its SDK reads the body then."""

_ADDRESS = "http://127.0.0.1:8000/v2/requests/6ad2c1a8-94c2-4a51-9a3e-3a5c74a1b0d2"
_STATUS_EXAMPLE: Mapping[str, object] = {
    "status": "PROCESSING",
    "request_id": _ADDRESS.rpartition("/")[2],
    "status_url": f"{_ADDRESS}/status",
    "response_url": _ADDRESS,
    "metrics": {},
}
_FILE = "05c3260d-6a2e-4aa5-82f0-e952f2a5fa10-0.webp"
_OUTPUT = f"http://127.0.0.1:8000/generations/{_FILE}"
_RESULT_EXAMPLE: Mapping[str, object] = {
    "status": "COMPLETED",
    "output": _OUTPUT,
    "images": [{"url": _OUTPUT, "content_type": "image/webp", "file_name": _FILE, "file_size": 120820}],
    "seed": 441234134,
    "seeds": [441234134],
    "prompt": "a cat",
    "metrics": {
        "inference_time": 1.8,
        "queue_time": 0.1,
        "total_time": 1.9,
        "cost": 0.02,
        "remaining_credits": 12.48,
        "evaluations": 25,
    },
    "request_id": _ADDRESS.rpartition("/")[2],
}


def _answers(description: str, example: Mapping[str, object]) -> dict[int | str, dict[str, Any]]:
    success = {"description": description, "content": {"application/json": {"example": example}}}
    return {200: success, **error_responses(401, 404, 422)}


_get = partial(router.get, response_class=Response)
_get_result = partial(
    _get,
    summary="Result of a request",
    description="`metrics.evaluations` says how often the network was asked for all pictures together."
    " `warnings`, and the header `x-warnings`, are there when something was sent in vain: see /v1.",
    responses=_answers("The pictures; before that, the status", _RESULT_EXAMPLE),
)


@_get(
    "/v2/requests/{request_id}/status",
    summary="Status of a request",
    responses=_answers("What is known by now", _STATUS_EXAMPLE),
)
async def status(request: Request, request_id: str) -> Response:
    account = await caller.authenticate_by_header(request)
    job = await services(request).studio.find(account, request_id=request_id)
    return _status(request, job, account)


@_get_result("/v1/requests/{request_id}")
@_get_result("/v2/requests/{request_id}")
async def result(request: Request, request_id: str) -> Response:
    account = await caller.authenticate_by_header(request)
    job = await services(request).studio.find(account, request_id=request_id)
    if job.status is not JobStatus.succeeded:
        return _status(request, job, account)
    urls = output_urls(request, job)
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
        "prompt": getattr(job.request, "prompt", ""),
        "metrics": _metrics(job, account),
        "request_id": job.request_id,
        **warning_fields(job),
    }
    return JSONResponse(body, headers=warning_headers(job))


def _status(request: Request, job: Job, account: Account) -> Response:
    word = STATUS_WORDS[job.status]
    body: dict[str, object] = {
        "status": word,
        "request_id": job.request_id,
        **request_urls(request, job),
        "metrics": _metrics(job, account),
    }
    if word == "FAILED":
        body["error"] = problem_text(job.error or "Request cancelled")
        return JSONResponse(body, FAILED_STATUS)
    return JSONResponse(body | warning_fields(job), headers=warning_headers(job))


def _metrics(job: Job, account: Account) -> dict[str, float]:
    if job.status is not JobStatus.succeeded:
        return {}
    return {
        "inference_time": job.drawing_s,
        "queue_time": job.waiting_s,
        "total_time": job.total_s,
        "cost": in_credits(job.order.price),
        "remaining_credits": in_credits(account.balance),
        **evaluations(job),
    }
