"""Lay out the registry: models and the history of what was done to them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

PRODUCTION = sa.text("status = 'production'")
NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables and their keys."""
    op.create_table(
        "registry_models",
        sa.Column("registry_id", sa.Text, primary_key=True),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("model_version_hash", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("registered_at_ms", sa.BigInteger, nullable=False),
        sa.Column("pointer", sa.Text, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.CheckConstraint(
            "status IN ('staged', 'production', 'deprecated')", name="registry_models_status"
        ),
        sa.UniqueConstraint("model_id", name="registry_models_model_id"),
    )
    op.create_index(
        "registry_models_production",
        "registry_models",
        ["model_name"],
        unique=True,
        postgresql_where=PRODUCTION,
        sqlite_where=PRODUCTION,
    )
    op.create_table(
        "registry_history",
        sa.Column("id", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("registry_id", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
    )
    op.create_index("registry_history_name", "registry_history", ["model_name", "id"])


def downgrade() -> None:
    """Stay: what was decided about models is not forgotten."""
