"""Delivering the outbox to real receivers on this machine, with a clock that the test turns."""

from __future__ import annotations

import asyncio
import ipaddress
import sqlite3
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier

from server.accounts.accounts import Accounts
from server.database.database import Database, database_url
from server.metrics import Metrics
from server.outside.public_http import PublicHTTP
from server.settings import Settings
from server.webhooks import delivery as deliveries_module
from server.webhooks.delivery import AT_ONCE, AT_ONCE_PER_ACCOUNT, AT_ONCE_PER_HOST, Deliveries
from server.webhooks.outbox import GIVE_UP_AFTER, Webhook, Webhooks, WebhookStatus, pause_s
from server.webhooks.secret import webhook_secret
from tests.receiver import nobody_listens, receiver
from tests.running_server import eventually

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Office:
    """An outbox, its deliverer, and the deliverer's clock; waiting for a moment turns the clock.

    Attributes:
        pauses: what the deliverer waited for.
    """

    outbox: Webhooks
    database: Database
    account: int
    http: PublicHTTP
    metrics: Metrics = field(default_factory=Metrics)
    jitter: float = 0.0
    # a little late, so that what was recorded just now is due
    now: datetime = field(default_factory=lambda: datetime.now(UTC) + timedelta(seconds=1))
    pauses: list[float] = field(default_factory=list)
    on_pause: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.deliveries = self.deliverer()

    def deliverer(self) -> Deliveries:
        return Deliveries(
            self.outbox,
            self.http,
            SECRET,
            self.metrics,
            now=lambda: self.now,
            pause=self._pause,
            jitter=lambda: self.jitter,
        )

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.on_pause()
        await asyncio.sleep(0)

    async def deliver(self) -> list[Webhook]:
        """Make the attempts that are due now, to their end; what the outbox says then."""
        await self.deliveries.begin()
        await self.deliveries.wait()
        return await self.outbox.all()

    async def put(self, url: str, topic: str | None = None, **payload: Any) -> str:
        return await self.outbox.enqueue(self.account, url, payload, topic=topic)


@asynccontextmanager
async def office(folder: Path, *, allowed: str = "127.0.0.1/32", **http: Any) -> AsyncGenerator[Office]:
    database = Database(database_url(Settings(data=folder)), busy_timeout_s=0.05)
    await database.migrate()
    account = await Accounts(database).create("somebody")
    opened = Office(Webhooks(database), database, account.id, PublicHTTP([allowed], **http))
    try:
        async with asyncio.timeout(60):
            yield opened
    finally:
        await opened.deliveries.stop()
        await database.close()


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


async def until(look: Callable[[], Any]) -> None:
    await asyncio.to_thread(eventually, look)


def rename(folder: Path, table: str, name: str) -> None:
    with closing(sqlite3.connect(folder / "understudy.db", timeout=30)) as connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO {name}")
        connection.commit()


def test_the_standard_library_of_receivers_verifies_a_message(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as it:
            with receiver() as there:
                await it.put(f"{there.url}/hook", status="success", track_id="Ж")
                (webhook,) = await it.deliver()
                (received,) = there.received
                payload = Verifier(SECRET).verify(received.body, received.headers)
                assert payload == {"status": "success", "track_id": "Ж"}
                assert received.headers["webhook-id"] == webhook.message_id
                assert (webhook.status, webhook.attempts) == (WebhookStatus.delivered, 1)
                assert await it.deliver() == [webhook]
                assert len(there.received) == 1

    play(scenario)


def test_another_attempt_has_the_same_id_and_a_signature_of_its_own_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as it:
            with receiver() as there:
                there.statuses = [503]
                message_id = await it.put(there.url, status="success")
                (webhook,) = await it.deliver()
                assert (webhook.status, webhook.problem) == (
                    WebhookStatus.pending,
                    "the receiver answered 503",
                )
                it.now += timedelta(seconds=100)
                (webhook,) = await it.deliver()
                assert (webhook.status, webhook.attempts) == (WebhookStatus.delivered, 2)
                first, second = there.received
                assert first.id == second.id == message_id
                assert first.body == second.body
                times = [int(received.headers["webhook-timestamp"]) for received in there.received]
                assert times[1] - times[0] == 100
                Verifier(SECRET).verify(second.body, second.headers)

    play(scenario)


def test_attempts_become_rare_and_end_after_five_days(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as it:
            with receiver() as there:
                there.statuses = [500] * 100
                await it.put(there.url)
                pauses: list[float] = []
                (webhook,) = await it.deliver()
                began = it.now
                while webhook.due_at is not None:
                    pauses.append((webhook.due_at - it.now).total_seconds())
                    it.now = webhook.due_at - timedelta(seconds=0.01)
                    before = len(there.received)
                    await it.deliver()
                    assert len(there.received) == before, "not before its time"
                    it.now = webhook.due_at
                    (webhook,) = await it.deliver()
                doubling = [5.0 * 2**n for n in range(15)]
                assert pauses[:15] == doubling
                assert pauses[15:] == [86_400.0] * (len(pauses) - 15)
                assert (webhook.status, webhook.problem) == (
                    WebhookStatus.failed,
                    "the receiver answered 500",
                )
                assert webhook.attempts == len(there.received) == len(pauses) + 1
                assert GIVE_UP_AFTER <= it.now - began < GIVE_UP_AFTER + timedelta(days=1, minutes=1)

    play(scenario)


def test_chance_takes_up_to_a_fifth_off_a_pause() -> None:
    assert [pause_s(n, lambda: 1.0) for n in (1, 2, 1000)] == [4.0, 8.0, 69_120.0]
    assert pause_s(1, lambda: 0.5) == 4.5
    assert len({pause_s(1) for _ in range(20)}) > 1


DAY_S = 86_400.0


def date(after_s: float) -> Callable[[datetime], str]:
    """A time of the receiver's choosing, as HTTP writes it."""
    return lambda now: format_datetime(now + timedelta(seconds=after_s), usegmt=True)


def date_of_mail(now: datetime) -> str:
    """In a minute, with a zone that says of UTC only that it is UTC: -0000."""
    return format_datetime((now + timedelta(seconds=60)).replace(tzinfo=None))


@pytest.mark.parametrize(
    ("status", "retry_after", "pause"),
    [
        (429, "60", 60.0),
        (503, "60", 60.0),
        (429, date(60), 60.0),
        (503, date(60), 60.0),
        (503, date_of_mail, 60.0),
        # never earlier than the back-off's own turn
        (429, "0", 5.0),
        (429, "4", 5.0),
        (429, "5", 5.0),
        (429, "6", 6.0),
        (503, date(4), 5.0),
        (503, date(6), 6.0),
        (503, date(-100 * DAY_S), 5.0),
        # never later than a day
        (429, "86399", DAY_S - 1),
        (429, "86400", DAY_S),
        (429, "86401", DAY_S),
        (429, "9" * 400, DAY_S),
        (503, date(DAY_S - 1), DAY_S - 1),
        (503, date(DAY_S + 1), DAY_S),
        # what cannot be read asks for nothing
        (429, "", 5.0),
        (429, "soon", 5.0),
        (429, "-60", 5.0),
        (429, "60.5", 5.0),
        (429, "60, 70", 5.0),
        (429, "Mon, 32 Jan 2035 25:00:00 GMT", 5.0),
        (429, "Mon, 01 Jan 99999 00:00:00 GMT", 5.0),
        (429, "²", 5.0),
        # and others have no word in it
        (500, "60", 5.0),
        (404, "60", 5.0),
        (302, "60", 5.0),
    ],
)
def test_a_receiver_may_ask_for_time_within_bounds(
    tmp_path: Path, status: int, retry_after: str | Callable[[datetime], str], pause: float
) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as it:
            with receiver() as there:
                it.now = it.now.replace(microsecond=0) + timedelta(seconds=1)
                said = retry_after if isinstance(retry_after, str) else retry_after(it.now)
                there.statuses, there.headers = [status], {"Retry-After": said}
                await it.put(there.url)
                (webhook,) = await it.deliver()
                assert (webhook.status, webhook.attempts) == (WebhookStatus.pending, 1)
                assert webhook.due_at == it.now + timedelta(seconds=pause)

    play(scenario)


def test_the_back_off_grows_beside_what_a_receiver_asks_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as it:
            with receiver() as there:
                there.statuses, there.headers = [429] * 3, {"Retry-After": "12"}
                await it.put(there.url)
                pauses: list[float] = []
                for _ in range(3):
                    (webhook,) = await it.deliver()
                    assert webhook.due_at
                    pauses.append((webhook.due_at - it.now).total_seconds())
                    it.now = webhook.due_at
                assert pauses == [12.0, 12.0, 20.0]

    play(scenario)


def test_a_receiver_that_is_gone_is_not_called_again_for_this_message(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as it:
            with receiver() as there:
                there.statuses, there.headers = [410], {"Retry-After": "60"}
                gone = await it.put(there.url, topic="job 7")
                after = await it.put(there.url, topic="job 7")
                given_up, _ = await it.deliver()
                assert (given_up.status, given_up.attempts) == (WebhookStatus.failed, 1)
                assert given_up.problem == "the receiver answered 410"
                assert (given_up.due_at, given_up.settled_at) == (None, it.now)
                _, other = await it.deliver()
                assert other.status is WebhookStatus.delivered
                it.now += GIVE_UP_AFTER
                await it.deliver()
                assert [received.id for received in there.received] == [gone, after]
                await it.outbox.retry([given_up.id])
                again, _ = await it.deliver()
                assert again.status is WebhookStatus.delivered
        assert 'attempts_total{outcome="failed"} 1.0' in it.metrics.text().decode()

    play(scenario)


@pytest.mark.parametrize("status", [199, 300, 301, 307, 400, 404, 409, 411, 429, 500])
def test_only_a_2xx_counts_and_redirects_are_not_followed(tmp_path: Path, status: int) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as it:
            with receiver() as there:
                there.statuses, there.headers = [status], {"Location": "/elsewhere"}
                await it.put(f"{there.url}/here")
                (webhook,) = await it.deliver()
                assert webhook.status is WebhookStatus.pending
                assert [received.path for received in there.received] == ["/here"]
                if status >= 200:
                    assert webhook.problem == f"the receiver answered {status}"

    play(scenario)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_every_2xx_counts(tmp_path: Path, status: int) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as it:
            with receiver() as there:
                there.statuses = [status]
                await it.put(there.url)
                (webhook,) = await it.deliver()
                assert webhook.status is WebhookStatus.delivered

    play(scenario)


def test_a_name_that_points_to_a_private_address_by_now_is_not_called(tmp_path: Path) -> None:
    async def scenario() -> None:
        private = [ipaddress.ip_address("127.0.0.1")]
        async with office(tmp_path, allowed="10.0.0.0/8", resolve=lambda _: private) as it:
            with receiver() as there:
                url = there.url.replace("127.0.0.1", "receiver.example")
                it.http.read(url)  # as at submission: nothing is wrong with the name itself
                await it.put(url)
                (webhook,) = await it.deliver()
                assert webhook.problem == "its address is not a public one"
                assert there.received == []

    play(scenario)


def test_nobody_who_listens_is_tried_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as it:
            await it.put(nobody_listens())
            (webhook,) = await it.deliver()
            assert (webhook.status, webhook.problem) == (WebhookStatus.pending, "the connection failed")

    play(scenario)


def test_a_receiver_that_does_not_answer_in_time_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries_module, "TIMEOUT_S", 0.3)

    async def scenario() -> None:
        async with office(tmp_path) as it:
            with receiver() as there:
                there.answering.clear()
                await it.put(there.url)
                (webhook,) = await it.deliver()
                assert (webhook.status, webhook.problem) == (WebhookStatus.pending, "it took too long")
                assert len(there.received) == 1

    play(scenario)


def test_an_endless_answer_is_not_read(tmp_path: Path) -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
                sent += 65_536
        except ConnectionError:
            writer.close()

    async def scenario() -> None:
        async with office(tmp_path) as it:
            server = await asyncio.start_server(endless, "127.0.0.1", 0)
            await it.put(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            (webhook,) = await it.deliver()
            assert webhook.status is WebhookStatus.delivered
            server.close()

    play(scenario)
    assert sent < 20_000_000


def test_a_dead_receiver_keeps_few_places_and_nobody_else_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as it:
            with receiver() as dead, receiver() as alive:
                dead.answering.clear()
                for _ in range(3 * AT_ONCE_PER_HOST):
                    await it.put(dead.url)
                for _ in range(3 * AT_ONCE_PER_HOST):
                    await it.put(alive.url)
                while len(alive.received) < 3 * AT_ONCE_PER_HOST:
                    await it.deliveries.begin()
                    await asyncio.sleep(0)
                await until(lambda: len(dead.received) == AT_ONCE_PER_HOST)
                await it.deliveries.begin()
                assert [webhook.attempts for webhook in await it.outbox.all()][: len(dead.received)] == [
                    0
                ] * AT_ONCE_PER_HOST
                assert len(dead.received) == AT_ONCE_PER_HOST

    play(scenario)


def test_an_account_with_many_dead_receivers_makes_no_other_account_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        here = [ipaddress.ip_address("127.0.0.1")]
        async with office(tmp_path, resolve=lambda _: here) as it:
            with receiver() as dead, receiver() as alive:
                dead.answering.clear()
                for number in range(AT_ONCE):
                    await it.put(dead.url.replace("127.0.0.1", f"receiver{number}.example"))
                other = await Accounts(it.database).create("other")
                await it.outbox.enqueue(other.id, alive.url, {})
                await it.deliveries.begin()
                await until(lambda: alive.received)
                await until(lambda: len(dead.received) == AT_ONCE_PER_ACCOUNT)
                await it.deliveries.begin()
                assert len(dead.received) == AT_ONCE_PER_ACCOUNT

    play(scenario)


def test_messages_of_one_topic_arrive_in_order_although_the_first_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as it:
            with receiver() as there:
                there.statuses = [500]
                first = await it.put(there.url, topic="job 7")
                second = await it.put(there.url, topic="job 7")
                await it.deliver()
                await it.deliver()
                assert [received.id for received in there.received] == [first]
                it.now += timedelta(seconds=10)
                await it.deliver()
                await it.deliver()
                assert [received.id for received in there.received] == [first, first, second]

    play(scenario)


def test_an_attempt_that_was_interrupted_is_made_again_after_the_next_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as it:
            with receiver() as there:
                there.answering.clear()
                await it.put(there.url)
                await it.deliveries.begin()
                await until(lambda: there.received)
                await it.deliveries.stop()
                there.answering.set()
                it.deliveries = it.deliverer()
                (webhook,) = await it.deliver()
                assert webhook.status is WebhookStatus.delivered
                first, second = there.received
                assert first.id == second.id

    play(scenario)


def test_a_locked_database_does_not_make_the_receiver_suffer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as it:
            with receiver() as there:
                await it.put(there.url)
                lock = sqlite3.connect(tmp_path / "understudy.db", isolation_level=None)
                lock.execute("BEGIN EXCLUSIVE")

                def unlock_at_the_third() -> None:
                    if len(it.pauses) == 3:
                        lock.rollback()

                it.on_pause = unlock_at_the_third
                (webhook,) = await it.deliver()
                lock.close()
                assert webhook.status is WebhookStatus.delivered
                assert len(it.pauses) == 3
                assert len(there.received) == 1

    play(scenario)


def test_the_loop_goes_on_after_an_error_of_the_database(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as it:
            with receiver() as there:
                await it.put(there.url)
                rename(tmp_path, "webhooks", "lost")

                def put_back() -> None:
                    if len(it.pauses) == 2:
                        rename(tmp_path, "lost", "webhooks")

                it.on_pause = put_back
                running = asyncio.create_task(it.deliveries.run())
                await until(lambda: there.received)
                running.cancel()

    play(scenario)


def test_what_was_attempted_is_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as it:
            with receiver() as there:
                there.statuses = [500, 200]
                await it.put(there.url)
                await it.deliver()
                it.now += timedelta(seconds=10)
                await it.deliver()
                there.statuses = [500]
                await it.put(there.url)
                it.now += GIVE_UP_AFTER
                await it.deliver()
        text = it.metrics.text().decode()
        for outcome in ("delivered", "postponed", "failed"):
            assert f'understudy_webhook_attempts_total{{outcome="{outcome}"}} 1.0' in text

    play(scenario)


def test_the_secret_is_made_once_and_readable_by_nobody_else(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    secret = webhook_secret(settings)
    assert webhook_secret(settings) == secret
    assert webhook_secret(Settings(data=tmp_path / "other")) != secret
    assert [(path.name, path.stat().st_mode & 0o777) for path in settings.data.iterdir()] == [
        ("webhook-secret", 0o600)
    ]
    Verifier(secret)


def test_the_configured_secret_is_used_and_a_bad_one_refused(tmp_path: Path) -> None:
    assert webhook_secret(Settings(data=tmp_path, webhook_secret=SECRET)) == SECRET
    for bad in ("secret", "whsec_", "whsec_c2hvcnQ=", "whsec_!", SECRET.removeprefix("whsec_")):
        with pytest.raises(ValueError, match="24 to 64 bytes"):
            Settings(data=tmp_path, webhook_secret=bad)
    (tmp_path / "webhook-secret").write_text("")
    with pytest.raises(ValueError, match="24 to 64 bytes"):
        webhook_secret(Settings(data=tmp_path))
