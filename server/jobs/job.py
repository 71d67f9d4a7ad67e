"""The job: an order that was accepted, and what has become of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pipelines.drawing import Timings
from pipelines.request import PictureRequest
from server.jobs.order import Order


class JobStatus(StrEnum):
    """The state of a job, as its row in the database has it."""

    queued = "queued"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"


@dataclass(frozen=True, slots=True)
class Output:
    """A stored file. ``size``: bytes."""

    name: str
    content_type: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An order and what became of it.

    Attributes:
        id: counts up and is never used twice; 0 before the job has a row.
        order: the pictures of its request are there when the job was just opened or recovered; elsewhere they
            have sizes and no pixels.
        attempts: how often drawing began.
        flagged: the safety checker's word on each output; None where none looked.
        error, error_status: what a caller is told when the job failed or was cancelled.
        balance: the balance of the account in millicredits, right after the last change.
    """

    id: int = 0
    account_id: int
    order: Order
    request_id: str
    file_prefix: str
    created_at: datetime
    balance: int = 0
    status: JobStatus = JobStatus.queued
    attempts: int = 0
    outputs: tuple[Output, ...] = ()
    flagged: tuple[bool, ...] | None = None
    warnings: tuple[str, ...] = ()
    timings: Timings | None = None
    error: str | None = None
    error_status: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def request(self) -> PictureRequest:
        """The request that was ordered."""
        return self.order.request

    @property
    def waiting_s(self) -> float:
        """Seconds from the opening of the job to its start on an engine; 0 where it never started."""
        return _seconds(self.created_at, self.started_at)

    @property
    def drawing_s(self) -> float:
        """Seconds from the job's start on an engine to its end; 0 where either did not happen."""
        return _seconds(self.started_at, self.finished_at)

    @property
    def total_s(self) -> float:
        """Seconds from the job's opening to its end; 0 before it has ended."""
        return _seconds(self.created_at, self.finished_at)


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return round((end - start).total_seconds(), 3) if start and end else 0.0
