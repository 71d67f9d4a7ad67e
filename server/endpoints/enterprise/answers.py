"""The answers of this dialect about a job: done, not done yet, failed."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import Request

from server.endpoints.enterprise.families import fetch_path
from server.endpoints.enterprise.options import EnterpriseOptions
from server.endpoints.enterprise.wire import message, yes_no
from server.http.services import services
from server.http.urls import output_url, public_url, urls_below
from server.jobs.job import Job, JobStatus
from server.jobs.order import JSON

UNKNOWN_ETA_S = 30.0
"""The `eta`, in seconds, of a job of whose pace nothing is known yet."""


def finished_or_processing(request: Request, job: Job) -> dict[str, object]:
    """The answer of a call that drew: its pictures, or where to fetch them later."""
    return finished(request, job) if job.status is JobStatus.succeeded else processing(request, job)


def finished(request: Request, job: Job) -> dict[str, object]:
    """The answer of a call whose pictures are done."""
    return succeeded(job, public_url(request)) | _track_id(job)


def succeeded(job: Job, public_url: str) -> dict[str, object]:
    """The words on a job whose pictures are done, in the call's answer and in its webhook.

    Args:
        public_url: this server's address as the caller reaches it.
    """
    return {
        "status": "success",
        "generationTime": job.drawing_s,
        "id": job.id,
        "output": urls_below(public_url, job),
        "nsfw_content_detected": any(job.flagged or ()),
        **_warning(job),
        "meta": meta(job),
    }


def failed(job: Job) -> dict[str, object]:
    """The words of a webhook on a job that failed or was cancelled."""
    return {"status": "failed", "id": job.id, **message(f"Processing failed: {job.error}")}


def processing(request: Request, job: Job) -> dict[str, object]:
    """The answer of a call that did not want to wait longer."""
    urls = [output_url(public_url(request), name) for name in _future_names(job)]
    return {
        "status": "processing",
        "tip": "The pictures are still being drawn. Fetch them after eta seconds; drawing goes on meanwhile.",
        "eta": _eta_s(request, job),
        **message("Try to fetch request after given estimated time"),
        "fetch_result": f"{public_url(request)}{fetch_path(request, job.id)}",
        "id": job.id,
        "output": [],
        **_warning(job),
        "meta": meta(job),
        "future_links": urls,
    } | _track_id(job)


def fetched(request: Request, job: Job) -> dict[str, object]:
    """The answer to somebody who asks for an earlier job."""
    return _fetched(request, job) | _track_id(job)


def _fetched(request: Request, job: Job) -> dict[str, object]:
    match job.status:
        case JobStatus.succeeded:
            words = succeeded(job, public_url(request))
            return {name: value for name, value in words.items() if name != "generationTime"}
        case JobStatus.queued | JobStatus.running:
            tip = f"Estimated {_eta_s(request, job)} s from now."
            return {
                "status": "processing",
                **message("try again later."),
                "id": job.id,
                "output": [],
                "tip": tip,
            }
        case JobStatus.failed | JobStatus.cancelled:
            return {"status": "failed", "id": job.id, **message("Failed, Try Again"), "output": []}


def meta(job: Job) -> dict[str, JSON]:
    """The `meta` of an answer; its `nsfw` has the safety checker's word on each picture, if it looked.

    `model` repeats `model_id`: the V3 pages and clients of them have it so.
    """
    nsfw = [yes_no(word) for word in job.flagged or ()]
    drawn = _options(job).meta
    model = {"model": drawn["model_id"]} if "model_id" in drawn else {}
    return {**drawn, **model, "file_prefix": job.file_prefix, "nsfw": nsfw}


def _options(job: Job) -> EnterpriseOptions:
    return EnterpriseOptions.from_json(job.order.options)


def _track_id(job: Job) -> dict[str, object]:
    track_id = _options(job).track_id
    return {} if track_id is None else {"track_id": track_id}


def _warning(job: Job) -> dict[str, object]:
    own = _options(job).warning
    texts = [*([own] if own else []), *job.warnings]
    return {"warning": "; ".join(texts)} if texts else {}


def _future_names(job: Job) -> list[str]:
    suffix = "base64" if job.order.base64_files else "png"
    return [f"{job.file_prefix}-{index}.{suffix}" for index in range(len(job.request.seeds))]


def _eta_s(request: Request, job: Job) -> float:
    """Seconds until the job's end, if it goes on at the pace so far."""
    progress = services(request).studio.progress(job)
    if progress is None or not progress[0] or job.started_at is None:
        return UNKNOWN_ETA_S
    done, total = progress
    so_far = datetime.now(UTC) - job.started_at
    return round(so_far.total_seconds() * (total - done) / done, 1)
