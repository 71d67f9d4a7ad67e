"""The use-case: hold the price, queue, draw, encode, store, capture; release on any failure, once."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections import OrderedDict
from dataclasses import replace

from pipelines import image_io
from pipelines.drawing import Drawing
from pipelines.errors import GenerationError
from pipelines.request import Rewriting
from server import errors
from server.accounts.accounts import Account
from server.engines.dispatch import Dispatch
from server.jobs.job import Job, JobStatus, Output
from server.jobs.jobs import Jobs
from server.jobs.order import Order
from server.metrics import Metrics
from server.png_metadata import generation_parameters
from server.settings import Settings
from server.storage import Storage

log = logging.getLogger(__name__)

_SUFFIX = {"jpeg": "jpg", "webp": "webp", "png": "png"}

_RECENT_JOBS = 32
"""The number of jobs whose pictures stay in memory, for the answer that is about to be written."""


class Studio:
    """The way of an order from an endpoint to the engines, and of its pictures into storage."""

    def __init__(
        self, jobs: Jobs, dispatch: Dispatch, storage: Storage, metrics: Metrics, settings: Settings
    ) -> None:
        self._jobs = jobs
        self._dispatch = dispatch
        self._storage = storage
        self._metrics = metrics
        self._settings = settings
        self._tasks: dict[int, asyncio.Task[Job]] = {}
        self._waiting: dict[int, int] = {}  # job id -> account id
        self._progress: dict[int, tuple[int, int]] = {}
        self._recent: OrderedDict[int, list[bytes]] = OrderedDict()
        self._stopping = False

    async def submit(self, account: Account, order: Order) -> Job:
        """Hold the price and queue; drawing goes on behind this call. A replay returns the first job.

        Raises:
            InsufficientCredits, IdempotencyConflict, QueueFull: nothing was charged.
        """
        job, _ = await self._submit(account, order)
        return job

    async def draw(self, account: Account, order: Order, *, wait_s: float | None = None) -> Job:
        """Submit and wait. When the task that awaits this is cancelled, so is the job, and it is refunded.

        Args:
            wait_s: after these seconds the job goes on without its caller and is returned as it is by then.
        Raises:
            ApiError: the job failed; nothing was charged.
        """
        while True:
            job, replayed = await self._submit(account, order)
            try:
                return await self.wait(job, wait_s)
            except TimeoutError:
                await self._jobs.detach(job)
                return await self._jobs.find(account.id, id=job.id)
            except asyncio.CancelledError:
                if not replayed:
                    await self.cancel(job)
                raise
            except errors.CallerGone:
                # Who asked first hung up, which freed the idempotency key; this caller still waits.
                if not replayed:
                    raise

    async def rewrite(self, account: Account, rewriting: Rewriting) -> tuple[str, ...]:
        """Have an engine's language model rewrite texts, and return them in order; nothing is charged.

        Raises:
            ApiError: the model cannot do it, or no engine can be had.
        """
        try:
            drawing = await self._dispatch.draw(
                rewriting, account_id=account.id, on_progress=lambda done, total: None
            )
        except GenerationError as error:
            log.error("rewriting texts with %s failed: %s", rewriting.pipeline, _one_line(error))
            raise errors.from_drawing(error) from error
        self._metrics.observe_stages(rewriting.pipeline, drawing.timings)
        return drawing.texts

    async def wait(self, job: Job, timeout_s: float | None = None) -> Job:
        """Wait until the job has ended well.

        Raises:
            ApiError: it failed or was cancelled.
            TimeoutError: it has not ended within ``timeout_s``.
        """
        task = self._tasks.get(job.id)
        if task is None:
            job = await self._jobs.find(job.account_id, id=job.id)
            if job.status in (JobStatus.queued, JobStatus.running):
                raise errors.Unavailable("The request is still being drawn, ask again later")
            if job.status is JobStatus.cancelled:
                raise errors.CallerGone
            if job.status is not JobStatus.succeeded:
                raise errors.recorded(job.error, job.error_status)
            return job
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        if not done:
            raise TimeoutError
        if task.cancelled():
            raise errors.CallerGone
        return task.result()

    async def pictures(self, job: Job) -> list[bytes]:
        """The encoded pictures of a succeeded job, in order.

        Raises:
            NotFound: their retention is over.
        """
        recent = self._recent.get(job.id)
        if recent is not None:
            return recent
        return [(await self._storage.get(output.name))[0] for output in job.outputs]

    async def find(self, account: Account, *, request_id: str | None = None, id: int | None = None) -> Job:
        """The account's own job.

        Raises:
            NotFound: unknown, or another account's.
        """
        return await self._jobs.find(account.id, request_id=request_id, id=id)

    async def cancel(self, job: Job) -> None:
        """Withdraw one job and refund it; a job that has ended stays as it is."""
        task = self._tasks.get(job.id)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def clear_queue(self, account: Account) -> int:
        """Withdraw all jobs of the account that no engine has taken yet, refunded; return how many."""
        tasks = [self._tasks[job_id] for job_id, owner in self._waiting.items() if owner == account.id]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(tasks)

    def progress(self, job: Job) -> tuple[int, int] | None:
        """The network evaluations (done, total) of a job that is being drawn."""
        return self._progress.get(job.id)

    async def resume(self) -> None:
        """Draw again, after a start, the jobs that callers will come back for; the others were refunded."""
        for job in await self._jobs.recover():
            self._begin(job, bounded=False)

    async def stop(self) -> None:
        """Stop drawing. Jobs that callers wait for are refunded, others stay queued for the next start."""
        self._stopping = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _submit(self, account: Account, order: Order) -> tuple[Job, bool]:
        try:
            self._dispatch.refuse_if_full(account.id)
            self._dispatch.refuse_if_absent(order.request)
        except (errors.QueueFull, errors.Unavailable):
            # who asks again needs no place
            earlier = await self._jobs.earlier(account.id, order)
            if earlier is None:
                raise
            return earlier, True
        if self._settings.auth == "open":
            order = replace(order, price=0)
        job, replayed = await self._jobs.open(account.id, order)
        if not replayed:
            self._begin(job)
        return job, replayed

    def _begin(self, job: Job, *, bounded: bool = True) -> None:
        task = asyncio.create_task(self._work(job, bounded), name=f"job {job.id}")
        self._tasks[job.id] = task
        self._waiting[job.id] = job.account_id
        task.add_done_callback(lambda ended: self._end(job.id, ended))

    def _end(self, job_id: int, task: asyncio.Task[Job]) -> None:
        self._tasks.pop(job_id, None)
        self._waiting.pop(job_id, None)
        self._progress.pop(job_id, None)
        if not task.cancelled():
            task.exception()  # its waiters were told, and an asynchronous job's record says it

    async def _work(self, job: Job, bounded: bool) -> Job:
        starting: list[asyncio.Task[None]] = []

        async def on_start() -> None:
            self._waiting.pop(job.id, None)
            # Recorded while the engine draws; nobody waits for it but the end of the job.
            starting.append(asyncio.create_task(self._jobs.start(job.id)))

        try:
            drawing = await self._dispatch.draw(
                job.request,
                account_id=job.account_id,
                ticket_id=job.request_id,
                on_progress=lambda done, total: self._progress.update({job.id: (done, total)}),
                on_start=on_start,
                bounded=bounded,
            )
            outputs = await self._encode_and_store(job, drawing)
            await asyncio.gather(*starting)
            ended = await self._jobs.succeed(
                job.id, outputs, drawing.flagged, drawing.warnings, drawing.timings
            )
            self._metrics.count_job(job.order.endpoint, "succeeded")
            self._metrics.observe_stages(job.request.pipeline, drawing.timings)
            return ended
        except asyncio.CancelledError:
            self._metrics.count_job(job.order.endpoint, "cancelled")
            if job.order.synchronous or not self._stopping:
                await self._jobs.cancel(job.id)
            raise
        except GenerationError as error:
            failure = errors.from_drawing(error, job.order.field_names)
            _log(job, failure, error)
        except errors.ApiError as error:
            failure = error
            _log(job, failure, error)
        except Exception as error:
            failure = errors.InternalError()
            _log(job, failure, error, with_traceback=True)
        self._metrics.count_job(job.order.endpoint, "failed")
        await self._jobs.fail(job.id, str(failure), failure.status)
        raise failure

    async def _encode_and_store(self, job: Job, drawing: Drawing) -> list[Output]:
        """Encode and store, a thread for each picture; they stay in memory for the answer that follows."""
        stored = await asyncio.gather(
            *(
                asyncio.to_thread(self._encode_and_write, job, drawing, index)
                for index in range(len(drawing.images))
            )
        )
        self._recent[job.id] = [picture for picture, _ in stored]
        if len(self._recent) > _RECENT_JOBS:
            self._recent.popitem(last=False)
        return [output for _, output in stored]

    def _encode_and_write(self, job: Job, drawing: Drawing, index: int) -> tuple[bytes, Output]:
        """Encode one picture and write it into the storage. Blocking, called in a thread."""
        order = job.order
        with_metadata = self._settings.png_metadata and order.picture_format == "png"
        metadata = generation_parameters(order.request, index) if with_metadata else None
        picture = image_io.encode(drawing.images[index], order.picture_format, order.quality, metadata)
        suffix, content_type, file = (
            ("base64", "text/plain", base64.b64encode(picture))
            if order.base64_files
            else (_SUFFIX[order.picture_format], image_io.content_type(order.picture_format), picture)
        )
        name = f"{job.file_prefix}-{index}.{suffix}"
        self._storage.write(name, file, content_type, temporary=order.temporary)
        return picture, Output(name=name, content_type=content_type, size=len(file))


def _log(job: Job, failure: errors.ApiError, error: Exception, *, with_traceback: bool = False) -> None:
    """Write one line about a job that failed; what is this server's own fault is an error."""
    log.log(
        logging.ERROR if failure.status >= 500 else logging.INFO,
        "request %s (%s, job %d) failed with %d: %s: %s",
        job.request_id,
        job.order.endpoint,
        job.id,
        failure.status,
        type(error).__name__,
        _one_line(error),
        exc_info=error if with_traceback else None,
    )


def _one_line(error: Exception) -> str:
    """The error's text without line breaks: some of it may be a caller's."""
    return " ".join(str(error).split())
