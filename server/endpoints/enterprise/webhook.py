"""The fields `webhook` and `track_id`, and the message that a receiver gets when the work has ended."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated

from fastapi import Request
from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from server.endpoints.enterprise.answers import failed, succeeded
from server.endpoints.enterprise.options import EnterpriseOptions, WebhookReceiver
from server.endpoints.enterprise.wire import Operation
from server.endpoints.fields import Text
from server.errors import FieldError
from server.http.services import services
from server.http.urls import public_url
from server.jobs.job import Job, JobStatus
from server.outside.public_http import MAX_URL_CHARACTERS, NotReached
from server.webhooks.outbox import WebhookMessage

LONGEST_TRACK_ID = 255

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character: JSON can say it, an answer cannot repeat it."""

URL = Annotated[Text, WithJsonSchema({"type": "string", "format": "uri", "maxLength": MAX_URL_CHARACTERS})]


def _track_id(value: object) -> str | int | float:
    match value:
        case str() if len(value) <= LONGEST_TRACK_ID and not _SURROGATE.search(value):
            return value
        case bool():
            pass
        case int() if -(2**63) <= value < 2**63:
            return value
        case float() if math.isfinite(value):
            return value
        case _:
            pass
    allowed = {"longest": LONGEST_TRACK_ID}
    raise PydanticCustomError(
        "track_id", "must be a number or a text of at most {longest} characters", allowed
    )


TrackId = Annotated[
    str | int | float,
    BeforeValidator(_track_id),
    WithJsonSchema({"anyOf": [{"type": "string", "maxLength": LONGEST_TRACK_ID}, {"type": "number"}]}),
]


class WebhookFields(Operation):
    """The fields of every operation that tells a receiver when it has ended."""

    webhook: URL | None = Field(
        None,
        description="An http or https URL that gets a signed POST when the work has succeeded or failed; sent"
        " again, later and later, until it answers 2xx within 30 seconds or five days have gone by.",
    )
    track_id: TrackId | None = Field(
        None, description="A text or number of yours that the answers and the webhook repeat."
    )

    def webhook_url(self, request: Request) -> str | None:
        """The webhook's URL, as far as a look at it can tell a good one; its name is looked up at delivery.

        Raises:
            FieldError: the URL cannot be called.
        """
        if self.webhook is None:
            return None
        try:
            return str(services(request).public_http.read(self.webhook.strip()))
        except NotReached as error:
            raise FieldError("webhook", f"cannot be called: {error}") from error

    def receiver(self, request: Request) -> WebhookReceiver | None:
        """The receiver that `announcement` is to tell of the job's end; None where there is none.

        Raises:
            FieldError: the webhook's URL cannot be called.
        """
        url = self.webhook_url(request)
        return None if url is None else WebhookReceiver(url=url, public_url=public_url(request))

    def with_track_id(self, answer: Mapping[str, object]) -> dict[str, object]:
        """The answer with the caller's `track_id`, if the call has one."""
        return {**answer} if self.track_id is None else {**answer, "track_id": self.track_id}


def announcement(job: Job) -> WebhookMessage | None:
    """The message to whoever has to be told of a job that has ended; None where nobody asked for it."""
    options = EnterpriseOptions.from_json(job.order.options)
    receiver = options.webhook
    if receiver is None:
        return None
    ended = succeeded(job, receiver.public_url) if job.status is JobStatus.succeeded else failed(job)
    return WebhookMessage(receiver.url, ended | {"track_id": options.track_id})
