"""What one engine cannot draw with now, and why: missing at a glance, or found out by opening it."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from pipelines.errors import CheckpointUnavailable
from pipelines.messages import Absent
from pipelines.weights.absence import absent, fingerprint, remedy
from pipelines.weights.manifest import Manifest

log = logging.getLogger(__name__)

Absence = tuple[str, str | None]
"""The name of something absent, and its part where only an optional part is."""

_DOES_NOT_OPEN = "its weights are damaged, incomplete, or not the ones that were verified"


class Availability:
    """The absences of a manifest, looked up now and then, and what failed to open since its files changed.

    What failed to open is not opened again before its files, its entry or its record in the lock change.
    """

    def __init__(self, manifest: Manifest, weights: Path) -> None:
        self._manifest = manifest
        self._weights = weights
        self._glance: dict[Absence, Absent] = {}
        self._failed: dict[str, tuple[Absent, tuple[object, ...]]] = {}
        self._before: dict[str, tuple[object, ...]] = {}
        self.look()

    def replace(self, manifest: Manifest) -> None:
        """Judge by another manifest from now on."""
        self._manifest = manifest
        self.look()

    def look(self) -> set[Absence]:
        """Look at the files again.

        Returns:
            what was absent, or did not open, and is not so any more or not for the same reason.
        """
        before = set(self._glance.items())
        self._glance = {(entry.name, entry.part): entry for entry in absent(self._manifest, self._weights)}
        changed = {absence for absence, _ in before - set(self._glance.items())}
        for name, (_, seen) in list(self._failed.items()):
            if fingerprint(self._manifest, name, self._weights) != seen:
                del self._failed[name]
                changed.add((name, None))
        return changed

    def absences(self, loaded: Collection[str] = ()) -> tuple[Absent, ...]:
        """All that cannot be drawn with; a pipeline that is loaded draws, whatever became of its files."""
        failed = {(name, None): entry for name, (entry, _) in self._failed.items()}
        return tuple(
            entry
            for (name, part), entry in {**self._glance, **failed}.items()
            if part is not None or name not in loaded
        )

    def lacks(self, name: str) -> bool:
        """Whether the last look, or opening it, has found that a pipeline is missing or damaged."""
        return name in self._failed or (name, None) in self._glance

    def demand(self, name: str) -> None:
        """Refuse a pipeline that would not open; called before it is opened.

        Raises:
            CheckpointUnavailable: its weights are missing or damaged, or failed to open as they are.
        """
        entry = self._failed[name][0] if name in self._failed else self._glance.get((name, None))
        if entry is not None and self._is_still_so(entry):
            raise entry.error()
        # Files may change while it is opened: what was seen before is what did not open.
        self._before[name] = fingerprint(self._manifest, name, self._weights)

    def failed(self, name: str, error: CheckpointUnavailable) -> None:
        """Remember that a pipeline did not open; the log says so once."""
        pipeline = self._manifest.pipelines.get(name) or self._manifest.openable()[name]
        mended = error.remedy or remedy(name, next(iter(pipeline.parts.values())), self._weights)
        kind = next(
            (kind for kind in ("upscalers", "face_restorers") if name in getattr(self._manifest, kind)),
            "pipelines",
        )
        entry = Absent(name, kind, _DOES_NOT_OPEN, mended, also=pipeline.also)
        self._failed[name] = (entry, self._before.pop(name, ()))
        log.error("%s is unavailable: %s", name, error)

    def _is_still_so(self, entry: Absent) -> bool:
        """Whether a second look finds what the last one found: files may have come since."""
        return (entry.name, entry.part) not in self.look()
