"""What is known of a job, and how that is written into a row and read from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from io import BytesIO
from typing import Any, Literal, TypeAlias

from pydantic_core import PydanticSerializationError
from sqlalchemy import ColumnElement, Row, select

from pipelines.drawing import Timings
from pipelines.image_io import RGBImage
from pipelines.request import PictureRequest, TextToImage, from_json, map_pictures, to_json
from server import errors
from server.database.tables import accounts, jobs

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"


class JobStatus(StrEnum):
    queued = "queued"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"


UNFINISHED = (JobStatus.queued.value, JobStatus.running.value)

_NO_REQUEST = TextToImage(
    pipeline="", prompt="", width=0, height=0, num_inference_steps=0, guidance_scale=0, seeds=()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What a caller ordered.

    Attributes:
        price: millicredits.
        synchronous: the caller waits; refunded rather than drawn again when the server dies meanwhile.
        quality: 0..100, for JPEG and WebP.
        base64_files: the outputs are text files with base64.
        temporary: the outputs live for the shorter retention.
        options: what the page needs again when it writes its answer later.
        body_digest: tells whether a repeated idempotency key came with the same body.
    """

    account_id: int
    endpoint: str
    request: PictureRequest
    price: int
    synchronous: bool
    picture_format: Literal["jpeg", "webp", "png"]
    quality: int
    base64_files: bool
    temporary: bool
    options: Mapping[str, JSON]
    idempotency_key: str | None
    body_digest: str | None


@dataclass(frozen=True, slots=True)
class Output:
    """A stored file. ``size``: bytes."""

    name: str
    content_type: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(NewJob):
    """An order and what became of it.

    Attributes:
        id: counts up and is never used twice.
        request: its pictures are there when the job was just opened or recovered; elsewhere they have sizes
            and no pixels.
        idempotency_key: None once the job failed or was cancelled: a retry draws again.
        attempts: how often drawing began.
        flagged: the safety checker's word on each output; None where none looked.
        error, error_status: what a caller is told when the job failed or was cancelled.
        balance: of the account, in millicredits, right after the last change.
    """

    id: int
    request_id: str
    file_prefix: str
    status: JobStatus
    attempts: int
    outputs: tuple[Output, ...]
    flagged: tuple[bool, ...] | None
    warnings: tuple[str, ...]
    timings: Timings | None
    error: str | None
    error_status: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    balance: int

    @property
    def waiting_s(self) -> float:
        """From its opening to the engine; to the millisecond, and 0 where that did not happen."""
        return _seconds(self.created_at, self.started_at)

    @property
    def drawing_s(self) -> float:
        """From the engine to its end."""
        return _seconds(self.started_at, self.finished_at)

    @property
    def total_s(self) -> float:
        """From its opening to its end."""
        return _seconds(self.created_at, self.finished_at)


_BALANCE = select(accounts.c.balance).where(accounts.c.id == jobs.c.account_id).correlate(jobs)

RECORD: tuple[ColumnElement[Any], ...] = (
    *(column for column in jobs.c if column.name != "picture"),
    _BALANCE.scalar_subquery().label("balance"),
)
"""What `read` needs of a row."""

_JOB_FIELDS = frozenset(field.name for field in fields(Job))


def write(job: Job) -> dict[str, Any]:
    """The values of a new row. Pictures are kept apart, and only where the job can be drawn again.

    Raises:
        MalformedBody: a text of the request is not valid Unicode.
    """
    values = {name: getattr(job, name) for name in _JOB_FIELDS - {"id", "balance", "request"}}
    request = map_pictures(job.request, lambda picture: replace(picture, pixels=b""))
    try:
        text = to_json(request).decode()
    except (PydanticSerializationError, UnicodeError):
        raise errors.MalformedBody("The prompt is not valid Unicode text") from None
    return values | {
        "status": job.status.value,
        "request": text,
        "picture": None if job.synchronous else pixels(job.request),
        "options": dict(job.options),
        "outputs": [],
        "warnings": [],
    }


def write_end(
    outputs: Sequence[Output], flagged: Sequence[bool] | None, warnings: Sequence[str], timings: Timings
) -> dict[str, Any]:
    """The values that a success adds to a row."""
    return {
        "outputs": [asdict(output) for output in outputs],
        "flagged": None if flagged is None else list(flagged),
        "warnings": list(warnings),
        "timings": asdict(timings),
    }


def read(row: Row[Any], *, balance: int | None = None) -> Job:
    """The job of a row with the columns of `RECORD`.

    Args:
        balance: where it has changed since the row was read.
    Raises:
        pydantic.ValidationError: the request was written by a version that this one does not understand.
    """
    stored = row._mapping  # pyright: ignore[reportPrivateUsage] (documented; the underscore avoids column names)
    job = _job({**stored, "request": from_json(stored["request"])})
    return job if balance is None else replace(job, balance=balance)


def read_outcome(row: Row[Any]) -> Job:
    """As `read`, also where nobody understands the request any more; the job's own is an empty one."""
    stored = row._mapping  # pyright: ignore[reportPrivateUsage]
    return _job({**stored, "request": _NO_REQUEST})


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
    return replace(job, request=request) if wanted == len(stored or b"") else None


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return round((end - start).total_seconds(), 3) if start and end else 0.0


def _job(stored: Mapping[str, Any]) -> Job:
    values = {name: stored[name] for name in _JOB_FIELDS}
    values["status"] = JobStatus(values["status"])
    values["outputs"] = tuple(Output(**output) for output in values["outputs"])
    values["flagged"] = None if values["flagged"] is None else tuple(values["flagged"])
    values["warnings"] = tuple(values["warnings"])
    values["timings"] = None if values["timings"] is None else Timings(**values["timings"])
    return Job(**values)
