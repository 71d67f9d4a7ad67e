"""Absolute URLs of this server, as its clients reach it."""

from __future__ import annotations

from fastapi import Request

from server.http.services import services
from server.jobs.job import Job

OUTPUT_PATH = "/generations"
"""The path below which stored files are given out: drawn pictures, their base64 texts and uploads alike."""

OUTPUT_PATHS = (OUTPUT_PATH, "/outputs")
"""All paths below which stored files open; the further ones are those of addresses given out before."""


def public_url(request: Request) -> str:
    """The URL by which clients reach this server, without a slash at the end."""
    configured = services(request).settings.public_url
    return (configured or str(request.base_url)).rstrip("/")


def output_url(public_url: str, name: str) -> str:
    """The absolute URL of a stored file, below the URL by which clients reach this server."""
    return f"{public_url}{OUTPUT_PATH}/{name}"


def stored_name(public_url: str, url: str) -> str | None:
    """The name of the stored file that a URL of this server is of; None where it is of something else."""
    for path in OUTPUT_PATHS:
        address = f"{public_url}{path}/"
        if url.startswith(address):
            return url.removeprefix(address).partition("?")[0]
    return None


def output_urls(request: Request, job: Job) -> list[str]:
    """Absolute URLs of a job's outputs, in order; they open with a plain GET."""
    return urls_below(public_url(request), job)


def urls_below(public_url: str, job: Job) -> list[str]:
    """Absolute URLs of a job's outputs below this URL: for a webhook, sent when the call is over."""
    return [output_url(public_url, output.name) for output in job.outputs]
