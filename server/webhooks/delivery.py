"""The delivery of the outbox: a few messages at a time, signed, again and again until receivers have them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx
from standardwebhooks import Webhook as Signer

from server import errors
from server.metrics import Metrics
from server.outside.public_http import NotReached, PublicHTTP
from server.webhooks.outbox import LONGEST_PAUSE_S, Webhook, Webhooks, pause_s

T = TypeVar("T")

log = logging.getLogger(__name__)

TIMEOUT_S = 30.0
"""The seconds for one attempt, from the look-up of the host's name to the status line."""

AT_ONCE = 64
"""The most attempts at the same time."""
AT_ONCE_PER_HOST = 4
"""The most attempts at the same time on one host: a receiver that never answers delays no other one."""
AT_ONCE_PER_ACCOUNT = 16
"""The most attempts at the same time for one account: with many such receivers it delays only itself."""

LOOK_EVERY_S = 0.5
"""The seconds between two looks into the outbox, where other processes put messages too."""

RECORD_AGAIN_S = 5.0
"""The seconds after which the outcome of an attempt is recorded again where the database was locked."""

GONE = 410
"""The status by which a receiver says that it wants nothing more (Standard Webhooks)."""
_ASK_FOR_TIME = (429, 503)
"""The statuses by which a receiver asks for time."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The outcome of an attempt that failed.

    Attributes:
        problem: why it failed.
        final: there is no use in another attempt.
        retry_after_s: the seconds that the receiver asks for.
    """

    problem: str
    final: bool = False
    retry_after_s: float = 0.0


class Deliveries:
    """Sends what is due in the outbox; one per database.

    An attempt is recorded after it was made. When the server dies in between, the message is sent once more
    after the next start: receivers know it by its ``webhook-id``.

    Args:
        secret: ``whsec_...``, what messages are signed with.
        now, pause, jitter: the time, how to wait for seconds, and a chance of 0 to 1.
    """

    def __init__(
        self,
        webhooks: Webhooks,
        http: PublicHTTP,
        secret: str,
        metrics: Metrics,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._webhooks = webhooks
        self._http = http
        self._signer = Signer(secret)
        self._metrics = metrics
        self._now = now
        self._pause = pause
        self._jitter = jitter
        self._in_flight: dict[int, tuple[Webhook, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Deliver for ever. The one who cancels this has to call `stop`."""
        while True:
            try:
                await self.begin()
            except Exception:
                log.exception("looking for due webhooks failed; trying again")
            await self._pause(LOOK_EVERY_S)

    async def begin(self) -> None:
        """Begin an attempt for each message that is due, as far as there is room."""
        while len(self._in_flight) < AT_ONCE:
            in_flight = [webhook for webhook, _ in self._in_flight.values()]
            webhook = await self._webhooks.due(
                self._now(),
                but_not=self._in_flight,
                but_no_host=_full((webhook.host for webhook in in_flight), AT_ONCE_PER_HOST),
                but_no_account=_full((webhook.account_id for webhook in in_flight), AT_ONCE_PER_ACCOUNT),
            )
            if webhook is None:
                return
            task = asyncio.create_task(self._attempt(webhook), name=f"webhook {webhook.id}")
            self._in_flight[webhook.id] = webhook, task
            task.add_done_callback(lambda _, id=webhook.id: self._in_flight.pop(id))

    async def wait(self) -> None:
        """Wait for the attempts that have begun."""
        await asyncio.gather(*(task for _, task in self._in_flight.values()))

    async def stop(self) -> None:
        """Leave attempts unfinished; they are made again after the next start."""
        tasks = [task for _, task in self._in_flight.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _attempt(self, webhook: Webhook) -> None:
        refusal = await self._send(webhook)
        now = self._now()
        if refusal is None:
            outcome, record = "delivered", lambda: self._webhooks.mark_delivered(webhook, now)
        elif refusal.final or now >= webhook.give_up_at:
            outcome, record = "failed", lambda: self._webhooks.give_up(webhook, refusal.problem, now)
            log.warning("webhook %s is given up: %s", webhook.id, refusal.problem)
        else:
            pause = max(pause_s(webhook.attempts + 1, self._jitter), refusal.retry_after_s)
            until = now + timedelta(seconds=pause)
            outcome, record = "postponed", lambda: self._webhooks.postpone(webhook, refusal.problem, until)
        while True:
            try:
                await record()
                break
            except errors.Unavailable:
                # not sent again meanwhile: a receiver need not suffer from our locked database
                await self._pause(RECORD_AGAIN_S)
        self._metrics.count_webhook_attempt(outcome)

    async def _send(self, webhook: Webhook) -> _Refusal | None:
        """Make one attempt; return why it failed, or None when the receiver has the message."""
        now = self._now()
        headers = {
            "content-type": "application/json",
            "webhook-id": webhook.message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(webhook.message_id, now, webhook.payload),
        }
        try:
            url = self._http.read(webhook.url)
            sending = self._http.request(
                "POST", url, headers=headers, content=webhook.payload.encode(), timeout_s=TIMEOUT_S
            )
            async with sending as response:  # the body of the answer says nothing and is not read
                return None if response.is_success else _refusal(response, self._now())
        except NotReached as error:
            return _Refusal(str(error))
        except Exception:
            log.exception("webhook %s could not be sent", webhook.id)
            return _Refusal("sending failed")


def _refusal(response: httpx.Response, now: datetime) -> _Refusal:
    status = response.status_code
    asked_s = _seconds_until(response.headers.get("retry-after", ""), now) if status in _ASK_FOR_TIME else 0.0
    return _Refusal(
        f"the receiver answered {status}", final=status == GONE, retry_after_s=min(asked_s, LONGEST_PAUSE_S)
    )


def _seconds_until(retry_after: str, now: datetime) -> float:
    """The seconds that the header asks for, as a number or by a date (RFC 9110, 10.2.3); 0 if unreadable."""
    if retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except (ValueError, IndexError, OverflowError):
        return 0.0
    if moment.tzinfo is None:  # as RFC 5322 writes a time of which only UTC is known
        moment = moment.replace(tzinfo=UTC)
    return (moment - now).total_seconds()


def _full(names: Iterable[T], room: int) -> list[T]:
    return [name for name, count in Counter(names).items() if count >= room]
