"""Accounts with their keys, the ledger of credits, and jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("is_administrator", sa.Boolean, nullable=False),
        sa.Column("balance", sa.BigInteger, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.UniqueConstraint("name", name="uq_accounts_name"),
        sa.CheckConstraint("balance >= 0", name="ck_accounts_balance_not_negative"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "api_keys",
        sa.Column("id", _ID, nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("revoked_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_api_keys_account_id"),
        sa.UniqueConstraint("sha256", name="uq_api_keys_sha256"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_api_keys_account_id", "api_keys", ["account_id"])
    op.create_index("ix_api_keys_prefix", "api_keys", ["prefix"])
    op.create_table(
        "ledger",
        sa.Column("id", _ID, nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("job_id", sa.BigInteger),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_ledger_account_id"),
        sa.UniqueConstraint("job_id", "kind", name="uq_ledger_job_id_kind"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_ledger_account_id", "ledger", ["account_id"])
    settled = sa.text("kind IN ('capture', 'release')")
    op.create_index(
        "uq_ledger_settlement",
        "ledger",
        ["job_id"],
        unique=True,
        sqlite_where=settled,
        postgresql_where=settled,
    )
    _create_jobs()


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", _ID, nullable=False),
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("file_prefix", sa.String(36), nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("price", sa.BigInteger, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("picture", sa.LargeBinary),
        sa.Column("picture_width", sa.Integer),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("synchronous", sa.Boolean, nullable=False),
        sa.Column("picture_format", sa.String(8), nullable=False),
        sa.Column("quality", sa.Integer, nullable=False),
        sa.Column("base64_files", sa.Boolean, nullable=False),
        sa.Column("temporary", sa.Boolean, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("body_digest", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("outputs", sa.JSON, nullable=False),
        sa.Column("flagged", sa.JSON),
        sa.Column("warnings", sa.JSON, nullable=False),
        sa.Column("timings", sa.JSON),
        sa.Column("error", sa.Text),
        sa.Column("error_status", sa.Integer),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("started_at", _TIME),
        sa.Column("finished_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_jobs_account_id"),
        sa.UniqueConstraint("request_id", name="uq_jobs_request_id"),
        sa.UniqueConstraint("account_id", "idempotency_key", name="uq_jobs_account_id_idempotency_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_account_id_status", "jobs", ["account_id", "status"])
    op.create_index("ix_jobs_finished_at", "jobs", ["finished_at"])


def downgrade() -> None:
    for table in ("jobs", "ledger", "api_keys", "accounts"):
        op.drop_table(table)
