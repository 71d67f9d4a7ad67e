"""The table of cards: what of a manifest fits a card of which size. Torch-free.

python -m pipelines.weights.cards [weights.yaml]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from pipelines.weights.manifest import Manifest, load_manifest
from pipelines.weights.memory import fits, needed_bytes, part_bytes
from pipelines.weights.networks import GIGABYTE

CARDS_GB = (12, 24, 48, 80)
"""The sizes of usual cards. A gigabyte has 10⁹ bytes here; a card of "24 GB" has 24 to 25.8 of them."""


def table(manifest: Manifest) -> str:
    """The table in Markdown: a line for each pipeline, a column for each card."""
    by_card = [fits(manifest, gigabytes * GIGABYTE) for gigabytes in CARDS_GB]
    head = ("pipeline", "weights", "at one moment", *(f"{gigabytes} GB" for gigabytes in CARDS_GB))
    rows = [
        (
            name,
            f"{sum(part_bytes(entry).values()) / GIGABYTE:.1f}",
            f"{needed_bytes(entry) / GIGABYTE:.1f}",
            *(str(card[name]) for card in by_card),
        )
        for name, entry in manifest.openable().items()
    ]
    return "\n".join([_line(head), _line("---" for _ in head), *map(_line, rows)])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(table(load_manifest(Path(sys.argv[1] if len(sys.argv) > 1 else "weights.yaml"))))
