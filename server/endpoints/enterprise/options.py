"""The options of an enterprise job: what its answers and its webhook need again when it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import cast

from server.jobs.order import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookReceiver:
    """The receiver of the message about a job's end.

    Attributes:
        url: the address that gets the POST.
        public_url: this server's address as the caller reaches it; URLs of outputs are below it.
    """

    url: str
    public_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnterpriseOptions:
    """The facts that this dialect keeps with a job.

    Attributes:
        warning: the answer's warning of what has no effect or is not done; None: there is nothing to say.
        meta: the answer's `meta`: the parameters that an engine is really asked for.
        track_id: the caller's own name for the call, which answers and webhook repeat.
        webhook: the receiver to tell when the job has ended; None: nobody wants to be told.
    """

    warning: str | None = None
    meta: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    track_id: str | int | float | None = None
    webhook: WebhookReceiver | None = None

    def to_json(self) -> dict[str, JSON]:
        """The options as a job's record holds them."""
        return {
            "warning": self.warning,
            "meta": self.meta,
            "track_id": self.track_id,
            "webhook": None if self.webhook is None else asdict(self.webhook),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, JSON]) -> EnterpriseOptions:
        """The options of a job's record; empty where the job is another dialect's."""
        receiver = None
        if stored.get("webhook"):
            addresses = cast("Mapping[str, str]", stored["webhook"])
            receiver = WebhookReceiver(url=addresses["url"], public_url=addresses["public_url"])
        return cls(
            warning=cast("str | None", stored.get("warning")),
            meta=cast("Mapping[str, JSON]", stored.get("meta", {})),
            track_id=cast("str | int | float | None", stored.get("track_id")),
            webhook=receiver,
        )
