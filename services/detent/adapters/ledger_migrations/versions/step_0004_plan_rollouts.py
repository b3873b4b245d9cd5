"""Keep beside a plan which arm of which rollout it is, and what answers beside it."""

from alembic import op

from detent.adapters.ledger_tables import POSTGRESQL, numbered, word
from detent.adapters.ledger_views import guard_statements

revision = "0004"
down_revision = "0003"

TABLE = "plan_rollouts"
WRITER = "detent_writer"


def upgrade() -> None:
    """Make the table, which nobody may change, and let the writing role add to it."""
    dialect = op.get_bind().dialect.name
    op.create_table(
        TABLE,
        *numbered(dialect),
        *(word(name) for name in ("plan_id", "rollout", "shadow_binding")),
    )
    op.create_index("plan_rollouts_plan", TABLE, ["plan_id"], unique=True)
    for statement in guard_statements(dialect, TABLE):
        op.execute(statement)
    if dialect == POSTGRESQL:
        op.execute(f"REVOKE ALL ON {TABLE} FROM {WRITER}, PUBLIC")
        op.execute(f"GRANT SELECT, INSERT ON {TABLE} TO {WRITER}")


def downgrade() -> None:
    """Stay: a ledger keeps what it recorded."""
