"""The cause of a failure in the caller's words, where what the request names is the cause."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch

from pipelines.errors import (
    DrawingFailed,
    GenerationError,
    InvalidInput,
    NumbersOutOfRange,
    OutOfMemory,
    UnknownAdapter,
    is_out_of_memory,
)
from pipelines.request import Prompted, Request

log = logging.getLogger(__name__)


@contextmanager
def blaming(field: str, names: Sequence[str]) -> Generator[None]:
    """Tell a failure of the block as that of the adapters that are put to use in it; the log has the cause.

    Running out of memory says nothing about them, nor does what makes the device unusable.

    Args:
        field: canonical name of the field that names the adapters.
        names: the adapters; where there is none, nobody is blamed.
    Raises:
        UnknownAdapter: instead of what a library raised.
    """
    try:
        yield
    except (GenerationError, torch.AcceleratorError):
        raise
    except Exception as error:
        if not names or is_out_of_memory(error):
            raise
        raise UnknownAdapter(field, f"{_listed(names)} cannot be used with this checkpoint") from error


def in_callers_words(error: GenerationError, request: Request) -> GenerationError:
    """The error on the field of the request that explains it.

    Numbers out of range are the fault of the adapters that a request puts on a checkpoint, if it has any: a
    LoRA with a matrix of no numbers draws black pictures, and so does one that is much too strong.
    """
    if not isinstance(error, NumbersOutOfRange) or not isinstance(request, Prompted):
        return error
    by_field = {
        "loras": [lora.name for lora in request.loras],
        "embeddings": list(request.embeddings),
        "controls": [control.name for control in request.controls],
        "vae": [request.vae] if request.vae else [],
    }
    used = {field: names for field, names in by_field.items() if names}
    if not used:
        return error
    every = [name for names in used.values() for name in names]
    cause = "it is" if len(every) == 1 else "one of them is"
    problem = f"{_listed(every)}: {error}; {cause} damaged, or made for other checkpoints, or too strong"
    return InvalidInput(next(iter(used)), problem)


def _listed(names: Sequence[str]) -> str:
    """The names as one text, each once."""
    return ", ".join(dict.fromkeys(names))


def told(error: Exception, request: Request, ticket_id: str) -> GenerationError:
    """What the caller is told of an error that ended a request; what is not for a caller is logged."""
    if is_out_of_memory(error):
        return OutOfMemory("the request does not fit into this device's memory")
    if not isinstance(error, GenerationError):
        log.error("drawing %s failed", ticket_id, exc_info=error)
        return DrawingFailed("drawing failed")
    if error.__cause__ is not None:
        log.warning("drawing %s failed: %s", ticket_id, error, exc_info=error.__cause__)
    return in_callers_words(error, request)
