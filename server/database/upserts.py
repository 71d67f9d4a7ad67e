"""The statement INSERT ... ON CONFLICT DO NOTHING, which SQLAlchemy writes per dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Select, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert


def insert_or_nothing(
    table: Table,
    *returning: Column[Any],
    source: tuple[Sequence[str], Select[*tuple[Any, ...]]] | None = None,
) -> Mapping[str, ReturningInsert[Any]]:
    """The statement for each dialect name; it returns no row where a unique constraint was in the way.

    Args:
        source: column names and the SELECT that gives their values; None: values come at execution.
    """
    statements: dict[str, ReturningInsert[Any]] = {}
    for dialect in (sqlite, postgresql):
        statement = dialect.insert(table)
        if source is not None:
            statement = statement.from_select(source[0], source[1])
        statements[dialect.dialect.name] = statement.on_conflict_do_nothing().returning(*returning)
    return statements
