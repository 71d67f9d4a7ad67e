"""LoRAs, textual inversions and VAEs of the manifest: attached for one group, detached after."""

from __future__ import annotations

from pathlib import Path

from pipelines.manifest import Manifest


class AdapterLibrary:
    """Finds and keeps the adapters that requests name."""

    def __init__(self, manifest: Manifest, weights: Path, cache_bytes: int = 2 * 1024**3) -> None:
        self._manifest = manifest
        self._weights = weights
        self._cache_bytes = cache_bytes
