"""The outbox of webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", _ID, nullable=False),
        sa.Column("message_id", sa.String(36), nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("problem", sa.Text),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("due_at", _TIME),
        sa.Column("give_up_at", _TIME, nullable=False),
        sa.Column("settled_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_webhooks_account_id"),
        sa.UniqueConstraint("message_id", name="uq_webhooks_message_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_webhooks_topic", "webhooks", ["topic"])
    op.create_index("ix_webhooks_settled_at", "webhooks", ["settled_at"])
    op.create_index("ix_webhooks_due", "webhooks", ["due_at", "id", "host", "account_id"])


def downgrade() -> None:
    op.drop_table("webhooks")
