"""Usage by hour, key, model and route, and who has written which batch of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("hour", sa.BigInteger, nullable=False),
        sa.Column("key_id", sa.String(10), nullable=False),
        sa.Column("key_name", sa.String(64), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("hour", "key_id", "key_name", "model", "route", name="pk_usage"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usage_writers",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("batch", sa.BigInteger, nullable=False),
        sa.Column("hour", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usage_writers"),
    )
