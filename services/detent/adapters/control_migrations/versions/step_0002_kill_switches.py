"""Lay out the kill switches: as they stand, every change, and who obeys which."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables and their keys."""
    op.create_table(
        "kill_history",
        sa.Column("revision", NUMBER, primary_key=True, autoincrement=True),
        *_switch(),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "kill_switches",
        sa.Column("revision", sa.BigInteger, nullable=False),
        *_switch(),
        sa.PrimaryKeyConstraint("scope", "key"),
    )
    op.create_table(
        "kill_readers",
        sa.Column("reader_id", sa.Text, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("seen_ms", sa.BigInteger, nullable=False),
    )


def _switch() -> list[sa.Column[object]]:
    return [
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("position", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    ]


def downgrade() -> None:
    """Stay: who switched what off, and why, is not forgotten."""
