"""The errors that a caller can be answered with, and one table from drawing errors to them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipelines import errors as drawing
from server.amounts import in_credits


class ApiError(Exception):
    """An error that a caller is answered with: each dialect puts its text ``str(error)`` into its own body.

    Attributes:
        status: HTTP status of the segmind dialect and of enterprise's ``standard`` mode.
    """

    status = 500


class FieldError(ApiError):
    """A field of the body is malformed or out of range.

    Attributes:
        field: its name on the wire.
        problem: what is wrong with it, without the name.
    """

    status = 400

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


class MissingField(FieldError):
    """A required field is absent."""

    def __init__(self, field: str) -> None:
        super().__init__(field, "field is required")


class FieldTooLarge(FieldError):
    """The picture that a field holds has more bytes or pixels than the configured limit."""

    status = 413


class NotInEnum(FieldError):
    """A value outside a documented enumeration."""

    status = 406


class MalformedBody(ApiError):
    """The body is not what its content type says."""

    status = 400


class InvalidInputImage(ApiError):
    """The caller's picture is none. The text is the documented one and does not say why.

    Attributes:
        problem: what is wrong with it, to be put behind the name of its field.
    """

    status = 400

    def __init__(self, problem: str = "is not a picture") -> None:
        super().__init__("Invalid input image")
        self.problem = problem


class MissingKey(ApiError):
    """The call has no API key."""

    status = 401

    def __init__(self) -> None:
        super().__init__("Missing Authorization or x-api-key in header")


class InvalidKey(ApiError):
    """No account has this API key."""

    status = 401

    def __init__(self) -> None:
        super().__init__("Unauthorized. API key is invalid or may have expired")


class Forbidden(ApiError):
    """The operation changes the server for everyone and needs an administrator's key."""

    status = 403


class NotFound(ApiError):
    """There is no such slug, request id (it may be another account's) or model id."""

    status = 404


class NoSuchPage(NotFound):
    """No page has this path: its status is 404 in both settings of enterprise's errors."""

    def __init__(self) -> None:
        super().__init__("The requested URL does not exist")


class MethodNotAllowed(ApiError):
    """The page has other verbs: its status is 405 in both settings of enterprise's errors."""

    status = 405

    def __init__(self) -> None:
        super().__init__("Method not allowed")


class InvalidContentType(ApiError):
    """The body has a content type that the page does not read."""

    status = 406

    def __init__(self) -> None:
        super().__init__("Invalid content type")


class InsufficientCredits(ApiError):
    """The balance does not cover the price. ``balance`` and ``required`` are in millicredits."""

    status = 406

    def __init__(self, balance: int, required: int) -> None:
        super().__init__(balance, required)
        self.balance = balance
        self.required = required

    def __str__(self) -> str:
        return (
            f"Insufficient credits: balance {in_credits(self.balance)}, required {in_credits(self.required)}"
        )


class BodyTooSlow(ApiError):
    """The caller stopped sending in the middle of the body."""

    status = 408

    def __init__(self) -> None:
        super().__init__("The body did not arrive in time")


class UnreadableCoding(ApiError):
    """The body is compressed. ``coding``: the name of what it is compressed with."""

    status = 415

    def __init__(self, coding: str) -> None:
        super().__init__(f"Content-Encoding {coding} is not supported: send the body without compressing it")
        self.coding = coding


class IdempotencyConflict(ApiError):
    """The idempotency key belongs to a call with another body."""

    status = 409

    def __init__(self) -> None:
        super().__init__("Idempotency-Key was used before with another body")


class BodyTooLarge(ApiError):
    """The body of a call has more bytes than the configured limit, or a picture in it has."""

    status = 413


class QueueFull(ApiError):
    """The queue has no place for the request. ``retry_after_s``: whole seconds until it may have one."""

    status = 429

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("rate_limit_exceeded")
        self.retry_after_s = retry_after_s


class Unavailable(ApiError):
    """No engine can draw this now: weights are loading or missing, the device is lost or too small."""

    status = 503
    retry_after_s: int | None = 10


class NotHere(Unavailable):
    """What is asked for lacks its weights: asking again is of no use before an operator has mended it."""

    retry_after_s: int | None = None


class DeviceTooSmall(ApiError):
    """No device of this server has memory enough for the request: asking again is of no use."""

    status = 503


class QueueTimeout(ApiError):
    """The request waited in the queue for longer than the configured time."""

    status = 504

    def __init__(self) -> None:
        super().__init__("The request waited too long in the queue")


class InternalError(ApiError):
    """A fault of the server itself, told in a text that gives nothing away."""

    status = 500

    def __init__(self) -> None:
        super().__init__("Internal server error. Please try again.")


class NotDrawn(ApiError):
    """The request cannot be drawn, for a reason that is known and not the caller's."""

    status = 500


class CallerGone(ApiError):
    """The caller hung up or withdrew the request; nobody reads this."""

    status = 499

    def __init__(self) -> None:
        super().__init__("Request cancelled")


_OUR_FIELDS = ("pipeline", "kind")
"""Fields of requests that most pages fill in by themselves."""


def from_drawing(error: drawing.GenerationError, names: Mapping[str, str] | None = None) -> ApiError:
    """The error for the caller that a drawing error means; a test finds subclasses that are missing here.

    Args:
        names: the wire's names of canonical fields, where they differ.
    """
    names = names or {}
    match error:
        case drawing.InvalidInput(field=field) if field in _OUR_FIELDS and field not in names:
            return NotDrawn(error.problem)
        case drawing.ImageTooLarge():
            return FieldTooLarge(names.get(error.field, error.field), error.problem)
        case drawing.InvalidInput():
            return FieldError(names.get(error.field, error.field), error.problem)
        case drawing.UnknownPipeline():
            return NotFound(str(error))
        case drawing.UnusableCheckpoint() if "pipeline" in names:
            return FieldError(names["pipeline"], str(error))
        case drawing.UnusableCheckpoint():
            return NotDrawn(str(error))
        case drawing.CheckpointUnavailable():
            return NotHere(str(error))
        case drawing.NeverFits():
            return DeviceTooSmall(str(error))
        case drawing.OutOfMemory() | drawing.EngineLost():
            return Unavailable(str(error))
        case drawing.NumbersOutOfRange():
            return NotDrawn(f"The picture could not be drawn: {error}")
        case drawing.Cancelled():
            return CallerGone()
        case _:
            return InternalError()


_ON_A_FIELD = re.compile(r"(?P<field>[A-Za-z_]\w*): (?P<problem>.+)", re.DOTALL)


class PastFailure(ApiError):
    """A failure that happened before somebody asked for it; text and status are from its record."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def recorded(text: str | None, status: int | None) -> ApiError:
    """The error of a job's record: on its field, where it was told on one."""
    text, status = text or str(CallerGone()), status or CallerGone.status
    on_a_field = _ON_A_FIELD.fullmatch(text)
    if on_a_field is None or status not in (FieldError.status, FieldTooLarge.status):
        return PastFailure(text, status)
    kind = FieldError if status == FieldError.status else FieldTooLarge
    return kind(on_a_field["field"], on_a_field["problem"])
