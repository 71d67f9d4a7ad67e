"""The tables, as SQLAlchemy sees them; the migrations create them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class UTCDateTime(TypeDecorator[datetime]):
    """A column of aware datetimes, stored in UTC: SQLite forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

_Id = BigInteger().with_variant(Integer, "sqlite")
"""A 64-bit id. SQLite counts up only a column whose type reads INTEGER, which has 64 bits there."""

accounts = Table(
    "accounts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("is_administrator", Boolean, nullable=False),
    Column("balance", BigInteger, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    CheckConstraint("balance >= 0", name="balance_not_negative"),
    sqlite_autoincrement=True,
)
"""``balance``: millicredits that can be spent; always the sum of the account's ledger."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("account_id", _Id, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("prefix", String(16), nullable=False, index=True),
    Column("label", Text, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("revoked_at", UTCDateTime),
    sqlite_autoincrement=True,
)

ledger = Table(
    "ledger",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("account_id", _Id, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("job_id", BigInteger),
    Column("kind", String(8), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    UniqueConstraint("job_id", "kind"),
    sqlite_autoincrement=True,
)
"""``job_id`` refers to no row: job records are removed after a while, the ledger stays."""

_SETTLED = ledger.c.kind.in_(["capture", "release"])

Index("uq_ledger_settlement", ledger.c.job_id, unique=True, sqlite_where=_SETTLED, postgresql_where=_SETTLED)
"""A job's hold is captured or released, once: a second settlement violates this index."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("request_id", String(36), nullable=False, unique=True),
    Column("file_prefix", String(36), nullable=False),
    Column("account_id", _Id, ForeignKey("accounts.id"), nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("price", BigInteger, nullable=False),
    Column("request", Text, nullable=False),
    Column("picture", LargeBinary),
    Column("options", JSON, nullable=False),
    Column("synchronous", Boolean, nullable=False),
    Column("picture_format", String(8), nullable=False),
    Column("quality", Integer, nullable=False),
    Column("base64_files", Boolean, nullable=False),
    Column("temporary", Boolean, nullable=False),
    Column("idempotency_key", Text),
    Column("body_digest", Text),
    Column("attempts", Integer, nullable=False),
    Column("outputs", JSON, nullable=False),
    Column("flagged", JSON(none_as_null=True)),
    Column("warnings", JSON, nullable=False),
    Column("timings", JSON(none_as_null=True)),
    Column("error", Text),
    Column("error_status", Integer),
    Column("created_at", UTCDateTime, nullable=False),
    Column("started_at", UTCDateTime),
    Column("finished_at", UTCDateTime, index=True),
    UniqueConstraint("account_id", "idempotency_key"),
    Index("ix_jobs_account_id_status", "account_id", "status"),
    sqlite_autoincrement=True,
)
"""``request`` holds the sizes of a caller's pictures; their pixels are in ``picture``, one picture after the
other, until the job has ended."""

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("message_id", String(36), nullable=False, unique=True),
    Column("account_id", _Id, ForeignKey("accounts.id"), nullable=False),
    Column("topic", Text, nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("problem", Text),
    Column("created_at", UTCDateTime, nullable=False),
    Column("due_at", UTCDateTime),
    Column("give_up_at", UTCDateTime, nullable=False),
    Column("settled_at", UTCDateTime, index=True),
    Index("ix_webhooks_due", "due_at", "id", "host", "account_id"),
    sqlite_autoincrement=True,
)
"""The outbox. ``due_at`` is there exactly as long as the message is pending; ``topic``: messages of one topic
arrive in the order of their ids."""
