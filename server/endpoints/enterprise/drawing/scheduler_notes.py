"""Notes of an answer on the noise scheduler and its options."""

from __future__ import annotations

from pipelines.request import SchedulerChoice
from pipelines.schedulers.names import ALGORITHM_TYPES, NOTES, WITH_KARRAS_SIGMAS
from server.endpoints.enterprise.wire import yes_no
from server.errors import FieldError
from server.jobs.order import JSON

NO_EFFECT = "no effect"


def check_algorithm_type(scheduler: str, algorithm_type: str | None) -> None:
    """Look whether a scheduler knows an algorithm.

    Raises:
        FieldError: the scheduler has a choice of algorithms, but not this one.
    """
    known = ALGORITHM_TYPES.get(scheduler)
    if known and algorithm_type and algorithm_type not in known:
        raise FieldError("algorithm_type", f"must be one of {', '.join(known)} with {scheduler}")


def scheduler_meta(choice: SchedulerChoice) -> dict[str, JSON]:
    """The entries of `meta` on the scheduler: its options as they took effect (``yes``, ``no``, an algorithm,
    null for the scheduler's own) or ``no effect``, and what its name means here where that is not plain."""
    karras = yes_no(bool(choice.use_karras_sigmas)) if choice.name in WITH_KARRAS_SIGMAS else NO_EFFECT
    meaningless = choice.algorithm_type is not None and choice.name not in ALGORITHM_TYPES
    return {
        "use_karras_sigmas": karras,
        "algorithm_type": NO_EFFECT if meaningless else choice.algorithm_type,
        "scheduler_note": NOTES.get(choice.name),
    }
