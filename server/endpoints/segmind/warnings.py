"""What an answer warns of: text beyond a text encoder, options without effect, as a header and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

from server.jobs.job import Job
from server.jobs.order import JSON

HEADER = "x-warnings"
"""The header that has the warnings as a JSON array of texts, in ASCII; absent where there are none."""
WITHOUT_GUIDANCE = "has no effect, because guidance begins above 1"
"""What is wrong with a negative prompt beside a guidance scale of 1 or less."""


def as_options(warnings: Sequence[str]) -> Mapping[str, JSON]:
    """The warnings of a page as a job's record holds them."""
    return {"warnings": list(warnings)} if warnings else {}


def warnings(job: Job) -> list[str]:
    """All warnings on a job: the page's own, then those of the engine that has drawn it."""
    own = cast("list[str]", job.order.options.get("warnings", []))
    return [*own, *job.warnings]


def warning_headers(job: Job) -> dict[str, str]:
    """The header on a job's warnings; JSON escapes whatever does not belong into a header."""
    texts = warnings(job)
    return {HEADER: json.dumps(texts)} if texts else {}


def warning_fields(job: Job) -> dict[str, list[str]]:
    """The field of a JSON answer on a job's warnings; absent where there are none, as at the vendor."""
    texts = warnings(job)
    return {"warnings": texts} if texts else {}
