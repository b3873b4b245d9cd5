"""Add what becomes of replans: made, suppressed, skipped."""

import sqlalchemy as sa
from alembic import op

from detent.adapters.ledger_tables import POSTGRESQL, number, numbered, word
from detent.adapters.ledger_views import guard_statements

revision = "0003"
down_revision = "0002"

TABLE = "replans"
WRITER = "detent_writer"


def upgrade() -> None:
    """Make the table, which nobody may change, and let the writing role add to it."""
    dialect = op.get_bind().dialect.name
    op.create_table(
        TABLE,
        *numbered(dialect),
        number("at_ms", dialect),
        *(word(name) for name in ("book", "plan_id", "new_plan_id")),
        number("ts_ms", dialect),
        *(word(name) for name in ("outcome", "reason", "material_hash", "canonical")),
        sa.CheckConstraint("outcome IN ('replaced', 'suppressed', 'skipped')"),
        sa.UniqueConstraint("plan_id", "new_plan_id", "ts_ms", "material_hash"),
    )
    op.create_index("replans_new_plan", TABLE, ["new_plan_id"])
    for statement in guard_statements(dialect, TABLE):
        op.execute(statement)
    if dialect == POSTGRESQL:
        op.execute(f"REVOKE ALL ON {TABLE} FROM {WRITER}, PUBLIC")
        op.execute(f"GRANT SELECT, INSERT ON {TABLE} TO {WRITER}")


def downgrade() -> None:
    """Stay: a ledger keeps what it recorded."""
