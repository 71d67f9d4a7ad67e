"""Lists as a person reads them in a terminal, as a pipe takes them, and as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
"""The option of every command that lists something."""


def print_json(value: Any) -> None:
    """Print JSON; dates and paths become texts."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def one_line(text: object) -> str:
    """A text that somebody else wrote, such as a file's name, without anything that a terminal would obey."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in str(text))


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[str] = frozenset()
) -> None:
    """Print a table with a line of headings; without rows nothing.

    A terminal gets it in colour and as wide as it is; a pipe gets columns between blanks, never cut.

    Args:
        right: the headings of the columns that end at the same place, such as amounts.
    """
    if not rows:
        return
    rows = [[one_line(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_coloured(headings, rows, right)
        return
    lines = [list(headings), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        cells = [
            cell.rjust(width) if heading in right else cell.ljust(width)
            for heading, cell, width in zip(headings, line, widths, strict=True)
        ]
        print("  ".join(cells).rstrip())


def _print_coloured(headings: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str]) -> None:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold cyan")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def say_empty(what: str) -> None:
    """Say that there is nothing to list; on stderr, so that a pipe gets nothing."""
    print(what, file=sys.stderr)
