"""Requests drawn through the loop, for the tests beside this file."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.denoising.loop import Loop
from pipelines.drawing import Drawing
from pipelines.messages import Drawn, Event, Failed
from pipelines.request import Request


def events_of(loop: Loop, requests: Mapping[str, Request]) -> list[Event]:
    """All that the loop says of requests that are handed over together."""
    for name, each in requests.items():
        loop.submit(name, each)
    events: list[Event] = []
    while not loop.idle:
        events += loop.turn()
    return events


def drawings(events: list[Event]) -> dict[str, Drawing]:
    """What was drawn, by request; none may have failed."""
    assert not [event for event in events if isinstance(event, Failed)]
    return {event.ticket_id: event.drawing for event in events if isinstance(event, Drawn)}
