"""The table of cards in pipelines/README.md is the one that the shipped manifest gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipelines.weights.cards import table
from pipelines.weights.manifest import load_manifest

ROOT = Path(__file__).parents[2]


def test_the_table_of_cards_is_that_of_the_shipped_manifest() -> None:
    text = (ROOT / "pipelines/README.md").read_text()
    _, _, rest = text.partition("<!-- cards -->\n")
    shown, _, _ = rest.partition("\n<!-- end of cards -->")
    assert shown.strip() == table(load_manifest(ROOT / "weights.yaml"))


def test_the_command_that_the_readme_names_prints_it() -> None:
    command = [sys.executable, "-m", "pipelines.weights.cards", "weights.yaml"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == table(load_manifest(ROOT / "weights.yaml"))
