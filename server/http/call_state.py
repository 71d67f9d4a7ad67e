"""The state of one HTTP call: what the server itself knows of it while it is answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from starlette.requests import HTTPConnection
from starlette.types import Scope

_KEY = "understudy.call"
"""The name of the call's state in its ASGI scope."""


@dataclass(slots=True)
class CallState:
    """The facts that the middleware writes into the headers of every answer.

    Attributes:
        request_id: the id of this call, made when it came in.
        balance: the balance of the caller's account in millicredits; None while nobody is known to call.
    """

    request_id: str
    balance: int | None = None


def begin_call(scope: Scope, request_id: str) -> CallState:
    """Put the state of a new call on its ASGI scope, where `call_state` finds it."""
    state = CallState(request_id)
    scope[_KEY] = state
    return state


def call_state(request: HTTPConnection) -> CallState:
    """The state of the call that this request belongs to."""
    return cast(CallState, request.scope[_KEY])
