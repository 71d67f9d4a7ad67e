"""A job from its opening to its end, and what a restart makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text, update

from pipelines.image_io import RGBImage
from server import errors
from server.accounts.accounts import Account, Accounts
from server.accounts.credits import Credits
from server.database.database import Database
from server.database.tables import jobs as jobs_table
from server.jobs.job import Job, JobStatus, Output
from server.jobs.jobs import Jobs
from tests.builders import TIMINGS, image_to_image, inpainting, new_order, text_to_image

pytestmark = pytest.mark.anyio

PICTURE = RGBImage(64, 32, bytes(range(256)) * 24)


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


async def _stored_picture(database: Database, job: Job) -> bytes | None:
    async with database.reading() as connection:
        column = select(jobs_table.c.picture).where(jobs_table.c.id == job.id)
        return (await connection.execute(column)).scalar_one()


async def test_an_opened_job_says_everything_that_was_ordered(jobs: Jobs, ada: Account) -> None:
    request = text_to_image("a cat\0 \U0001f408 猫", seeds=(0, 2**64 - 1), negative_prompt=None)
    order = new_order(
        request=request,
        price=25,
        synchronous=False,
        picture_format="webp",
        quality=80,
        base64_files=True,
        temporary=True,
        options={"track_id": "x\0", "sizes": [1, 2.5, None, {"deep": True}]},
        field_names={"image": "init_image"},
    )
    job, replayed = await jobs.open(ada.id, order)
    assert not replayed
    assert job.balance == 975
    for found in (
        job,
        await jobs.find(ada.id, id=job.id),
        await jobs.find(ada.id, request_id=job.request_id),
    ):
        assert found == job
        assert found.request == request
        assert found.order == order
        assert (found.status, found.attempts, found.started_at) == (JobStatus.queued, 0, None)
    assert timedelta() <= datetime.now(UTC) - job.created_at < timedelta(minutes=1)


async def test_a_success_keeps_the_price_and_says_what_was_drawn(jobs: Jobs, ada: Account) -> None:
    job, _ = await jobs.open(ada.id, new_order())
    await jobs.start(job.id)
    running = await jobs.find(ada.id, id=job.id)
    assert (running.status, running.attempts) == (JobStatus.running, 1)
    outputs = [Output(f"{job.file_prefix}-0.png", "image/png", 123)]
    ended = await jobs.succeed(job.id, outputs, (False,), ["one word was cut"], TIMINGS)
    assert ended == await jobs.find(ada.id, id=job.id)
    assert (ended.status, ended.balance) == (JobStatus.succeeded, 990)
    assert (ended.outputs, ended.flagged, ended.warnings) == (tuple(outputs), (False,), ("one word was cut",))
    assert ended.timings == TIMINGS
    assert ended.created_at <= (ended.started_at or datetime.min) <= (ended.finished_at or datetime.min)


async def test_a_failure_gives_the_price_back_and_keeps_its_words(jobs: Jobs, ada: Account) -> None:
    job, _ = await jobs.open(ada.id, new_order())
    ended = await jobs.fail(job.id, "loras: there is no '\0' and no '\ud800'", 400)
    assert (ended.status, ended.balance, ended.error_status) == (JobStatus.failed, 1000, 400)
    assert ended.error == "loras: there is no '\ufffd' and no '?'"
    assert ended == await jobs.find(ada.id, id=job.id)


async def test_a_cancelled_job_is_refunded(jobs: Jobs, ada: Account) -> None:
    job, _ = await jobs.open(ada.id, new_order())
    ended = await jobs.cancel(job.id)
    assert (ended.status, ended.balance, ended.error_status) == (JobStatus.cancelled, 1000, 499)


async def test_a_job_that_has_ended_stays_as_it_is(jobs: Jobs, ada: Account) -> None:
    for end in (
        lambda job: jobs.succeed(job.id, [], None, [], TIMINGS),
        lambda job: jobs.fail(job.id, "broken", 500),
        lambda job: jobs.cancel(job.id),
    ):
        job, _ = await jobs.open(ada.id, new_order())
        ended = await end(job)
        await jobs.start(job.id)
        assert await jobs.fail(job.id, "again", 400) == ended
        assert await jobs.cancel(job.id) == ended
        assert await jobs.succeed(job.id, [], None, [], TIMINGS) == ended
        assert await jobs.find(ada.id, id=job.id) == ended


async def test_a_drawing_that_begins_anew_counts_its_attempts(jobs: Jobs, ada: Account) -> None:
    job, _ = await jobs.open(ada.id, new_order())
    await jobs.start(job.id)
    first = await jobs.find(ada.id, id=job.id)
    await jobs.start(job.id)
    second = await jobs.find(ada.id, id=job.id)
    assert (first.attempts, second.attempts) == (1, 2)
    assert second.started_at == first.started_at


async def test_a_job_for_nothing_works_without_credits(database: Database, jobs: Jobs) -> None:
    account = await Accounts(database).open_account()
    for end in (lambda job: jobs.succeed(job.id, [], None, [], TIMINGS), lambda job: jobs.cancel(job.id)):
        job, _ = await jobs.open(account.id, new_order(price=0))
        assert (job.balance, (await end(job)).balance) == (0, 0)
    assert await Credits(database).ledger(account.id) == []


async def test_too_few_credits_leave_no_job_behind(
    jobs: Jobs, ada: Account, queued: Callable[[int], Awaitable[int]]
) -> None:
    with pytest.raises(errors.InsufficientCredits, match="Insufficient credits") as refusal:
        await jobs.open(ada.id, new_order(price=1001))
    assert (refusal.value.balance, refusal.value.required) == (1000, 1001)
    assert await queued(ada.id) == 0


async def test_text_that_is_no_unicode_is_the_callers_mistake(
    jobs: Jobs, ada: Account, queued: Callable[[int], Awaitable[int]]
) -> None:
    with pytest.raises(errors.MalformedBody, match="Unicode"):
        await jobs.open(ada.id, new_order(request=text_to_image("half a pair \ud800")))
    assert await queued(ada.id) == 0


async def test_another_accounts_job_is_not_found(database: Database, jobs: Jobs, ada: Account) -> None:
    job, _ = await jobs.open(ada.id, new_order())
    bob = await Accounts(database).create("bob")
    with pytest.raises(errors.NotFound, match=f"Request {job.id} not found"):
        await jobs.find(bob.id, id=job.id)
    with pytest.raises(errors.NotFound, match=f"Request {job.request_id} not found"):
        await jobs.find(bob.id, request_id=job.request_id)


@pytest.mark.parametrize("id", [0, -1, 4711, 2**63, 10**40, None])
async def test_an_id_that_never_was_is_not_found(jobs: Jobs, ada: Account, id: int | None) -> None:
    with pytest.raises(errors.NotFound):
        await jobs.find(ada.id, id=id)


@pytest.mark.parametrize("request_id", ["", "x", "\0" * 36, "\ud800" * 36, "é" * 36, "x" * 36, "x" * 10**6])
async def test_a_request_id_that_never_was_is_not_found(jobs: Jobs, ada: Account, request_id: str) -> None:
    with pytest.raises(errors.NotFound):
        await jobs.find(ada.id, request_id=request_id)


async def test_a_replay_returns_the_first_job(jobs: Jobs, ada: Account) -> None:
    order = new_order(idempotency_key="retry-1", body_digest="abc")
    first, replayed = await jobs.open(ada.id, order)
    again, replayed_again = await jobs.open(ada.id, order)
    assert (replayed, replayed_again) == (False, True)
    assert again == first
    await jobs.succeed(first.id, [], None, [], TIMINGS)
    ended, _ = await jobs.open(ada.id, order)
    assert (ended.id, ended.status, ended.balance) == (first.id, JobStatus.succeeded, 990)


async def test_the_same_key_with_another_body_is_refused(
    jobs: Jobs, ada: Account, queued: Callable[[int], Awaitable[int]]
) -> None:
    await jobs.open(ada.id, new_order(idempotency_key="retry-1", body_digest="abc"))
    with pytest.raises(errors.IdempotencyConflict):
        await jobs.open(ada.id, new_order(idempotency_key="retry-1", body_digest="xyz"))
    assert await queued(ada.id) == 1


async def test_the_same_key_of_another_account_is_another_job(
    database: Database, jobs: Jobs, ada: Account
) -> None:
    bob = await Accounts(database).create("bob")
    first, _ = await jobs.open(ada.id, new_order(idempotency_key="retry-1", body_digest="abc"))
    other, replayed = await jobs.open(
        bob.id, new_order(price=0, idempotency_key="retry-1", body_digest="xyz")
    )
    assert not replayed
    assert other.id != first.id


async def test_the_same_key_many_times_at_once_is_one_job(
    database: Database, second: Database, ada: Account
) -> None:
    callers = [Jobs(database), Jobs(second)]
    order = new_order(idempotency_key="retry-1", body_digest="abc")
    outcomes = await asyncio.gather(*(callers[number % 2].open(ada.id, order) for number in range(20)))
    assert len({job.id for job, _ in outcomes}) == 1
    assert sum(not replayed for _, replayed in outcomes) == 1
    assert await Credits(database).balance(ada.id) == 990


async def test_the_same_key_with_two_bodies_at_once_is_one_job_and_a_refusal(
    database: Database, second: Database, ada: Account
) -> None:
    outcomes = await asyncio.gather(
        Jobs(database).open(ada.id, new_order(idempotency_key="retry-1", body_digest="abc")),
        Jobs(second).open(ada.id, new_order(idempotency_key="retry-1", body_digest="xyz")),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, errors.IdempotencyConflict) for outcome in outcomes) == 1
    assert await Credits(database).balance(ada.id) == 990


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_a_retry_after_a_failure_draws_again(jobs: Jobs, ada: Account, how: str) -> None:
    order = new_order(idempotency_key="retry-1", body_digest="abc")
    first, _ = await jobs.open(ada.id, order)
    await (jobs.cancel(first.id) if how == "cancelled" else jobs.fail(first.id, "broken", 500))
    again, replayed = await jobs.open(ada.id, order)
    assert not replayed
    assert again.id > first.id
    assert again.balance == 990


async def test_a_refused_hold_does_not_use_up_the_key(jobs: Jobs, ada: Account) -> None:
    with pytest.raises(errors.InsufficientCredits):
        await jobs.open(ada.id, new_order(price=5000, idempotency_key="retry-1", body_digest="abc"))
    _, replayed = await jobs.open(ada.id, new_order(idempotency_key="retry-1", body_digest="xyz"))
    assert not replayed


async def test_after_a_restart_callers_are_refunded_and_the_rest_is_drawn(
    jobs: Jobs, second: Database, ada: Account
) -> None:
    waited_for, _ = await jobs.open(ada.id, new_order(idempotency_key="retry-1", body_digest="abc"))
    queued, _ = await jobs.open(ada.id, new_order(synchronous=False))
    ended, _ = await jobs.open(ada.id, new_order(synchronous=False))
    running, _ = await jobs.open(ada.id, new_order(synchronous=False, request=image_to_image(PICTURE)))
    for job in (waited_for, running, ended):
        await jobs.start(job.id)
    await jobs.succeed(ended.id, [], None, [], TIMINGS)

    recovered = await Jobs(second).recover()
    assert [(job.id, job.status, job.attempts) for job in recovered] == [
        (queued.id, JobStatus.queued, 0),
        (running.id, JobStatus.queued, 1),
    ]
    assert [job.request for job in recovered] == [queued.request, running.request]
    refunded = await jobs.find(ada.id, id=waited_for.id)
    assert (refunded.status, refunded.error_status, refunded.balance) == (JobStatus.failed, 503, 970)
    assert "restarted" in (refunded.error or "")


async def test_a_job_whose_caller_was_let_go_is_drawn_after_a_restart(jobs: Jobs, ada: Account) -> None:
    job, _ = await jobs.open(ada.id, new_order())
    await jobs.detach(job)
    assert [recovered.id for recovered in await jobs.recover()] == [job.id]


async def test_all_pictures_of_a_request_survive_a_restart(jobs: Jobs, ada: Account) -> None:
    request = inpainting(PICTURE, RGBImage(PICTURE.width, PICTURE.height, PICTURE.pixels[::-1]))
    later, _ = await jobs.open(ada.id, new_order(synchronous=False, request=request))
    let_go, _ = await jobs.open(ada.id, new_order(request=request))
    await jobs.detach(let_go)
    await jobs.detach(await jobs.find(ada.id, id=let_go.id))
    recovered = await jobs.recover()
    assert [(job.id, job.request) for job in recovered] == [(later.id, request), (let_go.id, request)]


async def test_what_cannot_be_drawn_after_a_restart_is_refunded(
    database: Database, jobs: Jobs, ada: Account, queued: Callable[[int], Awaitable[int]]
) -> None:
    picture_job = new_order(synchronous=False, request=image_to_image(PICTURE))
    (without_picture, _), (short, _) = [await jobs.open(ada.id, picture_job) for _ in range(2)]
    unreadable, _ = await jobs.open(ada.id, new_order(synchronous=False))
    async with database.transaction() as connection:
        other = update(jobs_table).where(jobs_table.c.id == unreadable.id)
        await connection.execute(other.values(request='{"kind": "of another version"}'))
        for job, picture in ((without_picture, None), (short, PICTURE.pixels[3:])):
            row = update(jobs_table).where(jobs_table.c.id == job.id)
            await connection.execute(row.values(picture=picture))
    assert await jobs.recover() == []
    assert await queued(ada.id) == 0
    assert await Credits(database).balance(ada.id) == 1000


async def test_a_callers_picture_is_kept_only_until_the_job_has_ended(
    database: Database, jobs: Jobs, ada: Account
) -> None:
    request = image_to_image(PICTURE)
    job, _ = await jobs.open(ada.id, new_order(synchronous=False, request=request))
    assert job.request == request
    assert await _stored_picture(database, job) == PICTURE.pixels
    ended = await jobs.succeed(job.id, [], None, [], TIMINGS)
    assert await _stored_picture(database, job) is None
    assert (ended.request.prompt, ended.request.seeds) == (request.prompt, request.seeds)
    async with database.reading() as connection:
        row = (await connection.execute(text("SELECT request FROM jobs"))).scalar_one()
    assert len(row) < 1000


async def test_the_picture_of_a_caller_who_waits_is_not_stored(
    database: Database, jobs: Jobs, ada: Account
) -> None:
    job, _ = await jobs.open(ada.id, new_order(request=image_to_image(PICTURE)))
    assert await _stored_picture(database, job) is None


async def test_old_records_are_removed_and_their_ids_never_used_again(
    database: Database, jobs: Jobs, ada: Account
) -> None:
    kept, _ = await jobs.open(ada.id, new_order())
    removed, _ = await jobs.open(ada.id, new_order())
    ended = await jobs.succeed(removed.id, [], None, [], TIMINGS)
    assert ended.finished_at is not None
    assert await jobs.expire(ended.finished_at) == 0
    assert await jobs.expire(ended.finished_at + timedelta(seconds=1)) == 1
    with pytest.raises(errors.NotFound):
        await jobs.find(ada.id, id=removed.id)
    assert (await jobs.find(ada.id, id=kept.id)).status is JobStatus.queued
    after, _ = await jobs.open(ada.id, new_order())
    assert after.id > removed.id
    rows = await Credits(database).ledger(ada.id)
    assert sum(row.amount for row in rows) == await Credits(database).balance(ada.id) == 970
