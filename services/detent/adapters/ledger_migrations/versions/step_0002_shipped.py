"""Add what comes after a decision, anchors, and who a ledger is; let readers see overrides."""

import secrets

import sqlalchemy as sa
from alembic import op

from detent.adapters.ledger_tables import POSTGRESQL, SQLITE, number, numbered, word
from detent.adapters.ledger_views import guard_statements, view_statements

revision = "0002"
down_revision = "0001"

TABLES = ("shadow_signals", "fills", "outcomes", "stand_downs", "results_summary", "anchors")
LOCAL_TABLES = ("ledger_identity", "model_inputs")
FIRST_TABLES = ("plan_log", "decision_records", "block_events", "late_answers", "local_answers")
VIEWS = "bar_decisions, overrides, alembic_version"
WRITER = "detent_writer"


def upgrade() -> None:
    """Make the tables, the views, and in PostgreSQL the role that may only add."""
    dialect = op.get_bind().dialect.name
    _make_tables(dialect)
    if dialect == SQLITE:
        _make_local()
        # The refusals of old files were kept for ever: now only the newest are.
        op.execute("DROP TRIGGER block_events_no_update")
        op.execute("DROP TRIGGER block_events_no_delete")
        op.execute("DROP VIEW IF EXISTS bar_decisions")
    for table in (*TABLES, *(("block_events", *LOCAL_TABLES) if dialect == SQLITE else ())):
        for statement in guard_statements(dialect, table):
            op.execute(statement)
    for statement in view_statements(dialect):
        op.execute(statement)
    if dialect == POSTGRESQL:
        _make_writer()


def _make_tables(dialect: str) -> None:
    bar = (*(word(name) for name in ("plan_id", "symbol")), number("ts_ms", dialect))
    op.create_table(
        "shadow_signals",
        *numbered(dialect),
        *(column._copy() for column in bar),
        *(word(name) for name in ("kind", "binding_hash", "canonical")),
        sa.UniqueConstraint("ts_ms", "plan_id", "symbol", "kind", "binding_hash"),
    )
    op.create_table(
        "fills",
        *numbered(dialect),
        word("fill_id"),
        *(column._copy() for column in bar),
        *(word(name) for name in ("book", "canonical")),
        sa.UniqueConstraint("fill_id"),
    )
    op.create_table(
        "outcomes",
        *numbered(dialect),
        *(column._copy() for column in bar),
        word("canonical"),
        sa.UniqueConstraint("plan_id", "symbol", "ts_ms"),
    )
    op.create_table(
        "stand_downs",
        *numbered(dialect),
        number("at_ms", dialect),
        *(word(name) for name in ("book", "symbol", "set_by")),
        number("until_ts_ms", dialect, nullable=True),
        word("reason"),
    )
    op.create_table(
        "results_summary",
        *numbered(dialect),
        *(word(name) for name in ("plan_id", "book", "canonical")),
        sa.UniqueConstraint("plan_id"),
    )
    owner = ("source",) if dialect == POSTGRESQL else ()
    op.create_table(
        "anchors",
        *numbered(dialect),
        number("anchor_index", dialect),
        number("at_ms", dialect),
        *(word(name) for name in ("anchor_hash", "canonical", "key_id", "signature")),
        sa.UniqueConstraint(*owner, "anchor_index"),
    )


def _make_local() -> None:
    identity = op.create_table(
        "ledger_identity",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True),
        word("ledger_id"),
    )
    op.bulk_insert(identity, [{"id": 1, "ledger_id": secrets.token_hex(8)}])
    op.create_table(
        "model_inputs",
        sa.Column("id", sa.Integer, primary_key=True),
        word("features_hash"),
        number("expires_ms", SQLITE),
        word("canonical"),
        sa.Column("model_input", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("features_hash"),
    )
    op.create_index("model_inputs_expiry", "model_inputs", ["expires_ms"])


def _make_writer() -> None:
    """Make the role that ships and reads, and may neither change nor take away."""
    op.execute(
        f"DO $$ BEGIN CREATE ROLE {WRITER} NOLOGIN;"
        " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
    )
    written = ", ".join((*TABLES, *FIRST_TABLES))
    op.execute(f"REVOKE ALL ON {written}, {VIEWS} FROM {WRITER}, PUBLIC")
    op.execute(f"GRANT SELECT, INSERT ON {written} TO {WRITER}")
    op.execute(f"GRANT SELECT ON {VIEWS} TO {WRITER}")


def downgrade() -> None:
    """Stay: a ledger keeps what it recorded."""
