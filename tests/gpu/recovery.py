"""Drive the engine's loop to its end, for tests that make the device's memory short."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.denoising.loop import Loop
from pipelines.drawing import Drawing
from pipelines.messages import Drawn, Event
from pipelines.request import Request
from tests.gpu.stages import default_request


def drive(loop: Loop, requests: Mapping[str, Request]) -> list[Event]:
    """Submit all, by their ticket ids, and turn until nothing is left to do."""
    for ticket_id, request in requests.items():
        loop.submit(ticket_id, request)
    events: list[Event] = []
    while not loop.idle:
        events += loop.turn()
    return events


def draw_many_within(loop: Loop, name: str, side: int, many: int) -> Drawing:
    """One request for many pictures, which a roomy device would draw in one group."""
    request = default_request(name, tuple(range(many)), side=side, steps=2, prompt="a cat")
    (drawn,) = [event for event in drive(loop, {"many": request}) if isinstance(event, Drawn)]
    return drawn.drawing
