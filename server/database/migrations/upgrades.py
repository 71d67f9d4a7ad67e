"""The history of the tables, applied by Alembic inside the caller's transaction."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from server.database.errors import UnusableDatabase

_FOLDER = Path(__file__).parent


def configuration(connection: Connection) -> Config:
    """Alembic's configuration for this folder, working on ``connection``."""
    config = Config()
    # Alembic reads a percent sign as the start of an interpolation
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Apply the migrations that are missing; the caller commits.

    Raises:
        UnusableDatabase: the database is at a revision that this version does not know.
    """
    try:
        command.upgrade(configuration(connection), "head")
    except CommandError as error:
        raise UnusableDatabase(f"the database was written by a newer version: {error}") from error


def current_revision(connection: Connection) -> str | None:
    """The revision of the tables; None where there are none."""
    return MigrationContext.configure(connection).get_current_revision()


def newest_revision() -> str:
    """The newest revision that this version knows."""
    newest = ScriptDirectory(str(_FOLDER)).get_current_head()
    assert newest is not None
    return newest
