"""The order of a caller, as an endpoint states it. A job carries it unchanged to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pipelines.request import PictureRequest

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

PictureFormat = Literal["jpeg", "webp", "png"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request to draw, with its price and the way its pictures are handed over.

    Attributes:
        endpoint: slug or operation; it appears in the job row and in the metrics.
        price: millicredits, held when the job is opened and captured on success.
        quality: 0..100, for JPEG and WebP.
        base64_files: store text files with base64 instead of pictures.
        temporary: the outputs live for the shorter retention.
        synchronous: the caller waits; refunded rather than drawn again when the server dies meanwhile.
        options: what the page needs again when it writes its answer later.
        idempotency_key: the name under which a retry finds the first answer; None once the job failed or was
            cancelled, because its retry draws again.
        body_digest: SHA-256 of the body that came with the idempotency key.
        request_id: the id of the call that orders, which its answer and the log repeat; None: a new one.
        field_names: the page's own names of fields that the request calls otherwise, for errors.
    """

    endpoint: str
    request: PictureRequest
    price: int
    picture_format: PictureFormat
    quality: int = 95
    base64_files: bool = False
    temporary: bool = False
    synchronous: bool
    options: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    idempotency_key: str | None = None
    body_digest: str | None = None
    request_id: str | None = None
    field_names: Mapping[str, str] = field(default_factory=dict[str, str])
