"""The table of clients in `server/README.md`: which client was driven along which path, and how that went.

    python -m tests.clients.table

runs every test that is marked with `client`, slow ones too, and writes the table.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "server" / "README.md"
BEGIN, END = "<!-- clients -->", "<!-- /clients -->"
"""The lines around the table."""

FOLDERS = ("tests/clients", "tests/integration")
"""Where tests drive clients."""

PATHS = ("happy", "error")

PASSED, FAILED, SKIPPED = "", " (fails)", " (not run)"
"""What stands in a cell behind what a client was driven to do."""

Step = tuple[str, str, str, str]
"""A client's name and language, the path, what it does there."""


def steps_of(marks: Iterable[Any]) -> Iterator[Step]:
    """What these marks, of which some are `client`, say that a test does."""
    for mark in marks:
        if mark.name != "client":
            continue
        name, language = mark.args
        for path in PATHS:
            if path in mark.kwargs:
                yield name, language, path, mark.kwargs[path]


def marked_steps() -> set[Step]:
    """What all tests do, by their marks; none is run."""
    steps: set[Step] = set()
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).glob("test_*.py")):
            if "mark.client(" in file.read_text():
                module = importlib.import_module(f"{folder.replace('/', '.')}.{file.stem}")
                steps |= {step for marks in _marks(module) for step in steps_of(marks)}
    return steps


def _marks(module: Any) -> Iterator[list[Any]]:
    for test in vars(module).values():
        for mark in getattr(test, "pytestmark", []):
            yield [mark]
            if mark.name == "parametrize":
                yield from (list(getattr(value, "marks", ())) for value in mark.args[1])


class Recorder:
    """A plugin of pytest that remembers how each step went; the worst of its tests counts."""

    def __init__(self) -> None:
        self.outcomes: dict[Step, str] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Any:
        report = yield
        outcome = FAILED if report.failed else SKIPPED if report.skipped else PASSED
        for step in steps_of(item.iter_markers()):
            self.outcomes[step] = max(
                self.outcomes.get(step, PASSED), outcome, key=[PASSED, SKIPPED, FAILED].index
            )
        return report


def rendered(outcomes: Mapping[Step, str]) -> str:
    """The table's lines."""
    lines = ["| client | language | happy path | error path |", "|---|---|---|---|"]
    for name, language in sorted({step[:2] for step in outcomes}, key=lambda row: (row[0].lower(), row[1])):
        cells = (
            "; ".join(f"{step[3]}{outcome}" for step, outcome in sorted(outcomes.items()) if step[:3] == row)
            for row in ((name, language, path) for path in PATHS)
        )
        lines.append(f"| {name} | {language} | {' | '.join(cells)} |")
    return "\n".join(lines)


def written() -> dict[Step, str]:
    """What the README's table says."""
    outcomes: dict[Step, str] = {}
    for line in README.read_text().partition(BEGIN)[2].partition(END)[0].strip().splitlines()[2:]:
        name, language, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        for path, cell in zip(PATHS, cells, strict=True):
            for said in filter(None, cell.split("; ")):
                outcome = next(each for each in (FAILED, SKIPPED, PASSED) if said.endswith(each))
                outcomes[name, language, path, said.removesuffix(outcome)] = outcome
    return outcomes


def main() -> int:
    recorder = Recorder()
    files = {file for folder in FOLDERS for file in (ROOT / folder).glob("test_*.py")}
    marked = sorted(str(file) for file in files if "mark.client(" in file.read_text())
    status = pytest.main(["-n0", "-q", "-m", "client", *marked], plugins=[recorder])
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(f"{before}{BEGIN}\n{rendered(recorder.outcomes)}\n{END}{rest.partition(END)[2]}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
