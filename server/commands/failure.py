"""The error by which a command ends."""

from __future__ import annotations


class CommandFailed(Exception):
    """A command cannot go on, for a reason that ``str(error)`` tells a person.

    Attributes:
        status: the exit status. 1: it failed; 2: it was asked wrongly.
    """

    def __init__(self, message: str, *, status: int = 2) -> None:
        super().__init__(message)
        self.status = status
