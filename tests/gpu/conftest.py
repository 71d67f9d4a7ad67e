"""Prints what the measurements found, below the test results."""

from __future__ import annotations

import pytest

ROWS: pytest.StashKey[list[tuple[str, ...]]] = pytest.StashKey()

HEADER = (
    "pipeline",
    "dtype",
    "pictures",
    "encode s",
    "prior s/step",
    "denoise s/step",
    "decode s",
    "peak GB",
)


@pytest.fixture
def table(request: pytest.FixtureRequest) -> list[tuple[str, ...]]:
    """Rows of strings under `HEADER`; printed at the end of the run."""
    return request.config.stash.setdefault(ROWS, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    widths = [max(len(row[column]) for row in [HEADER, *rows]) for column in range(len(HEADER))]
    terminalreporter.section("seconds per stage and peak memory")
    for row in [HEADER, *rows]:
        line = "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line(line)
