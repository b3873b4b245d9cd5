"""Lay out what the first files had: plans, records, refusals, late and local answers."""

import sqlalchemy as sa
from alembic import op

from detent.adapters.ledger_tables import POSTGRESQL, number, numbered, word
from detent.adapters.ledger_views import GUARD_FUNCTION, guard_statements

revision = "0001"
down_revision = None

TABLES = ("decision_records", "plan_log", "block_events", "late_answers", "local_answers")


def upgrade() -> None:
    """Make the tables, their keys and their guards."""
    dialect = op.get_bind().dialect.name
    _make_records(dialect)
    op.create_table(
        "plan_log",
        *numbered(dialect),
        *(word(name) for name in ("plan_id", "event", "book", "binding_hash", "plan", "binding")),
        sa.CheckConstraint("event IN ('opened', 'closed')"),
        sa.UniqueConstraint("plan_id", "event"),
    )
    op.create_table(
        "block_events",
        *numbered(dialect),
        number("at_ms", dialect),
        *(word(name) for name in ("method", "reason", "plan_id", "binding_hash")),
        number("ts_ms", dialect, nullable=True),
        word("message"),
        word("metadata"),
    )
    op.create_table(
        "late_answers",
        *numbered(dialect),
        number("at_ms", dialect),
        *(word(name) for name in ("plan_id", "symbol")),
        number("ts_ms", dialect),
        *(word(name) for name in ("kind", "record_hash")),
    )
    op.create_table(
        "local_answers",
        *numbered(dialect),
        *(word(name) for name in ("plan_id", "symbol")),
        number("ts_ms", dialect),
        *(word(name) for name in ("kind", "canonical")),
        sa.UniqueConstraint("plan_id", "symbol", "ts_ms", "kind"),
    )
    if dialect == POSTGRESQL:
        op.execute(GUARD_FUNCTION)
    for table in TABLES:
        for statement in guard_statements(dialect, table):
            op.execute(statement)


def _make_records(dialect: str) -> None:
    op.create_table(
        "decision_records",
        *numbered(dialect),
        *(word(name) for name in ("plan_id", "symbol")),
        number("ts_ms", dialect),
        word("kind"),
        number("sequence", dialect),
        *(word(name) for name in ("record_hash", "canonical")),
    )
    for name, columns in (
        ("decision_records_key", ["ts_ms", "plan_id", "symbol", "kind"]),
        ("decision_records_chain", ["sequence", "plan_id", "symbol"]),
    ):
        op.create_index(name, "decision_records", columns, unique=True)
    beginning = sa.text("substr(record_hash, 1, 16)")
    op.create_index("decision_records_hash", "decision_records", [beginning])


def downgrade() -> None:
    """Stay: no ledger is taken back to nothing."""
