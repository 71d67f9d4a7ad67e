"""What the requests that run need of the pool's pipelines, now and later."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.denoising.active_request import ActiveRequest
from pipelines.denoising.groups import Groups
from pipelines.denoising.needs import NOTHING, InUse, Needs, Parts, Running


def running_needs(names: Iterable[str], running: Iterable[ActiveRequest]) -> Running:
    """What each request that runs needs of each pipeline, as far as that is known.

    Args:
        names: the pipelines that they need.
    """
    needed: dict[str, list[Needs]] = {name: [] for name in names}
    for active in running:
        for name, needs in active.needs.items():
            needed[name].append(needs)
    return needed


def parts_in_use(names: Iterable[str], groups: Groups) -> InUse:
    """The parts with which groups take their steps, and the names of all pipelines that are needed.

    Args:
        names: the pipelines that requests which run need.
    """
    in_use: dict[str, Parts] = dict.fromkeys(names, NOTHING)
    for group in groups:
        name = group.key.pipeline
        in_use[name] = in_use.get(name, NOTHING) | group.parts
    return in_use
