"""A job as a row of the database: the one place that knows which column holds what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from io import BytesIO
from typing import Any

from pydantic_core import PydanticSerializationError
from sqlalchemy import ColumnElement, Row, select

from pipelines.drawing import Timings
from pipelines.image_io import RGBImage
from pipelines.request import PictureRequest, TextToImage, from_json, map_pictures, to_json
from server import errors
from server.database.tables import accounts, jobs
from server.jobs.job import Job, JobStatus, Output
from server.jobs.order import Order

_NO_REQUEST = TextToImage(
    pipeline="", prompt="", width=0, height=0, num_inference_steps=0, guidance_scale=0, seeds=()
)

_FIELD_NAMES = "field names"
"""The key of an order's ``field_names`` among its options, none of which has a blank in its name."""

_BALANCE = select(accounts.c.balance).where(accounts.c.id == jobs.c.account_id).correlate(jobs)

COLUMNS: tuple[ColumnElement[Any], ...] = (
    *(column for column in jobs.c if column.name != "picture"),
    _BALANCE.scalar_subquery().label("balance"),
)
"""The columns that `read` needs of a row."""


def write(job: Job) -> dict[str, Any]:
    """The values of a new job's row. Pictures are kept apart, and only where the job can be drawn again.

    Raises:
        MalformedBody: a text of the request is not valid Unicode.
    """
    order = job.order
    return {
        "account_id": job.account_id,
        "request_id": job.request_id,
        "file_prefix": job.file_prefix,
        "created_at": job.created_at,
        "status": job.status.value,
        "attempts": 0,
        "outputs": [],
        "warnings": [],
        "endpoint": order.endpoint,
        "request": _write_request(order.request),
        "picture": None if order.synchronous else pixels(order.request),
        "price": order.price,
        "picture_format": order.picture_format,
        "quality": order.quality,
        "base64_files": order.base64_files,
        "temporary": order.temporary,
        "synchronous": order.synchronous,
        "options": {**order.options, _FIELD_NAMES: dict(order.field_names)},
        "idempotency_key": order.idempotency_key,
        "body_digest": order.body_digest,
    }


def write_end(
    outputs: Sequence[Output], flagged: Sequence[bool] | None, warnings: Sequence[str], timings: Timings
) -> dict[str, Any]:
    """The values that a success writes into a job's row."""
    return {
        "outputs": [asdict(output) for output in outputs],
        "flagged": None if flagged is None else list(flagged),
        "warnings": list(warnings),
        "timings": asdict(timings),
    }


def read(row: Row[Any], *, balance: int | None = None) -> Job:
    """The job of a row with these `COLUMNS`.

    Args:
        balance: the account's balance in millicredits, where it has changed since the row was read.
    Raises:
        pydantic.ValidationError: the request was written by a version that this one does not understand.
    """
    job = _read(row, from_json(row.request))
    return job if balance is None else replace(job, balance=balance)


def read_outcome(row: Row[Any]) -> Job:
    """The job of a row even where nobody understands its request any more: an empty one stands in for it."""
    return _read(row, _NO_REQUEST)


def pixels(request: PictureRequest) -> bytes | None:
    """All pictures of a request, one after the other; None where there are none (or none any more)."""
    kept: list[bytes] = []

    def keep(picture: RGBImage) -> RGBImage:
        kept.append(picture.pixels)
        return picture

    map_pictures(request, keep)
    return b"".join(kept) or None


def with_pictures(job: Job, stored: bytes | None) -> Job | None:
    """The job with its caller's pictures, as `pixels` put them; None where they were not kept."""
    left = BytesIO(stored or b"")
    wanted = 0

    def give_back(picture: RGBImage) -> RGBImage:
        nonlocal wanted
        size = picture.width * picture.height * 3
        wanted += size
        return replace(picture, pixels=left.read(size))

    request = map_pictures(job.request, give_back)
    if wanted != len(stored or b""):
        return None
    return replace(job, order=replace(job.order, request=request))


def _write_request(request: PictureRequest) -> str:
    without_pixels = map_pictures(request, lambda picture: replace(picture, pixels=b""))
    try:
        return to_json(without_pixels).decode()
    except (PydanticSerializationError, UnicodeError):
        raise errors.MalformedBody("The prompt is not valid Unicode text") from None


def _read(row: Row[Any], request: PictureRequest) -> Job:
    options = dict(row.options)
    field_names = options.pop(_FIELD_NAMES, {})  # rows of earlier versions lack them
    return Job(
        id=row.id,
        account_id=row.account_id,
        order=Order(
            endpoint=row.endpoint,
            request=request,
            price=row.price,
            picture_format=row.picture_format,
            quality=row.quality,
            base64_files=row.base64_files,
            temporary=row.temporary,
            synchronous=row.synchronous,
            options=options,
            field_names=field_names,
            idempotency_key=row.idempotency_key,
            body_digest=row.body_digest,
        ),
        request_id=row.request_id,
        file_prefix=row.file_prefix,
        created_at=row.created_at,
        balance=row.balance,
        status=JobStatus(row.status),
        attempts=row.attempts,
        outputs=tuple(Output(**output) for output in row.outputs),
        flagged=None if row.flagged is None else tuple(row.flagged),
        warnings=tuple(row.warnings),
        timings=None if row.timings is None else Timings(**row.timings),
        error=row.error,
        error_status=row.error_status,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
