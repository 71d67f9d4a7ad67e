"""The checkpoints and adapters that are used, in a file of the data folder that commands read."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.weights.atomic import write_atomically

log = logging.getLogger(__name__)

USAGE_NAME = "models-used.json"
"""The file in the data folder; it is written at most once a second, and only when something was used."""


class ModelUsage(BaseModel):
    """What a server draws with.

    Attributes:
        process: the process id of the server that wrote it; 0 after its end.
        resident: names of the pipelines that an engine has in memory.
        last_used: when each name was last drawn with.
    """

    model_config = ConfigDict(frozen=True)

    process: int = 0
    resident: tuple[str, ...] = ()
    last_used: Mapping[str, datetime] = Field(default_factory=dict[str, datetime])


def read_usage(data: Path) -> ModelUsage:
    """What is known of the use; nothing where no server has drawn yet, or the file is damaged."""
    try:
        return ModelUsage.model_validate_json((data / USAGE_NAME).read_bytes())
    except (OSError, ValidationError):
        return ModelUsage()


class UsageRecord:
    """Keeps the file up to date; a disk that cannot be written costs the record and nothing else."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._written = read_usage(data)
        self._failed = False

    def update(
        self, resident: tuple[str, ...], last_used: Mapping[str, float], *, ends: bool = False
    ) -> None:
        """Write what is new. Blocking, for a millisecond."""
        times = {name: datetime.fromtimestamp(int(when), UTC) for name, when in last_used.items()}
        now = ModelUsage(
            process=0 if ends else os.getpid(),
            resident=() if ends else resident,
            last_used={**self._written.last_used, **times},
        )
        if now == self._written:
            return
        try:
            write_atomically(self._data / USAGE_NAME, now.model_dump_json())
        except OSError as error:
            if not self._failed:
                log.warning("what is used is not recorded: %s", error)
            self._failed = True
        self._written = now
