"""What a check finds, and checks that are made at the same time, none for longer than people wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

PATIENCE_S = 5.0
"""The seconds after which an answer over the network is no longer waited for."""

_SLACK_S = 1.0
"""The seconds by which checks may be later than what they wait for: they work beside each other."""

Verdict = Literal["ok", "warning", "problem"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one thing.

    Attributes:
        state: problem: `serve` would not start, or could draw nothing.
        words: how it is.
        remedy: what to do about it, where that is known.
    """

    name: str
    state: Verdict
    words: str
    remedy: str = ""


Check = Callable[[], "Finding | list[Finding]"]


def all_findings(checks: Mapping[str, Check]) -> list[Finding]:
    """What all checks find, in their order; one that hangs or fails is a finding too."""
    answers = within(PATIENCE_S + _SLACK_S, checks)
    found: list[Finding] = []
    for name in checks:
        match answers.get(name):
            case None:
                found.append(Finding(name, "problem", f"no answer within {PATIENCE_S:g} s"))
            case Exception() as error:
                found.append(Finding(name, "problem", f"unexpected {type(error).__name__}: {error}"))
            case Finding() as finding:
                found.append(finding)
            case several:
                found += several
    return found


def within(seconds: float, works: Mapping[str, Callable[[], T]]) -> dict[str, T | Exception]:
    """What works give that are done at the same time, or how they failed; whatever takes longer is not in it.

    Their threads are daemons: one that hangs in a name server's silence does not keep the process.
    """
    answers: dict[str, T | Exception] = {}

    def work(name: str) -> None:
        try:
            answers[name] = works[name]()
        except Exception as error:
            answers[name] = error

    threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in works]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(answers)
