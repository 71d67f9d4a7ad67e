"""A request may have several pictures; their sizes are in the request."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("jobs", "picture_width")


def downgrade() -> None:
    op.add_column("jobs", sa.Column("picture_width", sa.Integer))
