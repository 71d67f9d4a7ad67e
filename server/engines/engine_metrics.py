"""What of the engines' report an operator watches by Prometheus."""

from __future__ import annotations

from collections import Counter

from server.engines.dispatch import Dispatch
from server.engines.engine import EngineState
from server.metrics import Metrics


def show_engines(metrics: Metrics, dispatch: Dispatch) -> None:
    """Show each engine's state, memory and requests, and what waits for which pipeline."""
    metrics.watch_each(
        "engine_ready",
        "1 while this engine can draw",
        ["engine"],
        lambda: [([name], state is EngineState.ready) for name, state in dispatch.report().states()],
    )
    metrics.watch_each(
        "engine_budget_bytes",
        "The most bytes that loaded parts may take on the engine's device",
        ["engine"],
        lambda: [
            ([each.engine.name], each.engine.memory.budget_bytes)
            for each in dispatch.report().engines
            if each.engine.memory.budget_bytes is not None
        ],
    )
    metrics.watch_each(
        "loaded_bytes",
        "Bytes of each loaded part of a pipeline, on the engine's device or in the host's memory",
        ["engine", "pipeline", "part", "place"],
        lambda: [
            ([each.engine.name, part.pipeline, part.part, part.place], part.nbytes)
            for each in dispatch.report().engines
            for part in each.parts
        ],
    )
    metrics.watch_each(
        "engine_running",
        "Requests that this engine has, by pipeline",
        ["engine", "pipeline"],
        lambda: [
            ([each.engine.name, pipeline], requests)
            for each in dispatch.report().engines
            for pipeline, requests in Counter(one.ticket.request.pipeline for one in each.running).items()
        ],
    )
    metrics.watch_each(
        "waiting",
        "Requests that wait for an engine, by pipeline",
        ["pipeline"],
        lambda: [([each.pipeline], each.requests) for each in dispatch.report().waiting],
    )
