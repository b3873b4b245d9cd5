"""Lay out the rollouts: as they stand, every change of them, and who obeys which."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
LIVE = sa.text("stage IN ('shadow', 'canary', 'full')")


def upgrade() -> None:
    """Make the tables and their keys."""
    op.create_table(
        "rollouts",
        sa.Column("rollout_id", sa.Text, primary_key=True),
        sa.Column("book", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("canonical", sa.Text, nullable=False),
        sa.UniqueConstraint("revision", name="rollouts_revision"),
    )
    op.create_index(
        "rollouts_live",
        "rollouts",
        ["book"],
        unique=True,
        postgresql_where=LIVE,
        sqlite_where=LIVE,
    )
    op.create_table(
        "rollout_history",
        sa.Column("revision", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("rollout_id", sa.Text, nullable=False),
        sa.Column("canonical", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("rollout_history_id", "rollout_history", ["rollout_id", "revision"])
    op.create_table(
        "rollout_readers",
        sa.Column("reader_id", sa.Text, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("seen_ms", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Stay: who rolled what out, and why, is not forgotten."""
