"""Bring a ledger file to the form of today, and say how its rows are read.

The tables themselves are declared in `ledger_tables`, for this file and for PostgreSQL. A file
that has today's form is opened without a look at any of it.
"""

import secrets
import sqlite3
from pathlib import Path

from detent.contracts.errors import LedgerUnavailable

SCHEMA_VERSION = 5
# What the steps of `ledger_migrations` come to in a new file.
SCRIPT_FILE = Path(__file__).with_name("ledger_file.sql")
SEPARATOR = ";\n\n"
# Refusals that a file keeps; PostgreSQL keeps all that were shipped.
BLOCK_EVENTS_KEPT = 100_000
# As bytes, whatever somebody has put there: an auditor must be able to read all of it.
STORED = "plan_id, symbol, ts_ms, kind, sequence, record_hash, CAST(canonical AS BLOB)"

# Begins the search for records by the first 16 characters of their hashes. The index has a part
# for every 4,096 rows, so that a commit writes into one and not all over; here each is looked into.
BY_HASH = (
    "WITH RECURSIVE parts (part) AS (SELECT 0 UNION ALL SELECT part + 1 FROM parts"
    " WHERE part < (SELECT MAX(id) >> 12 FROM decision_records))"
    " SELECT canonical, record_hash FROM parts CROSS JOIN decision_records"
    " WHERE id >> 12 = part AND substr(record_hash, 1, 16)"
)

# A record by its place in its chain.
IN_CHAIN = (
    "SELECT canonical, record_hash FROM decision_records"
    " WHERE sequence = ? AND plan_id = ? AND symbol = ?"
)
# The records of one plan. The index of chains begins with the sequence, so that a commit writes
# into one place; so each bar of the plan is looked for by its own.
RUN_ROWS = (
    "WITH RECURSIVE steps (step) AS (SELECT 0 UNION ALL SELECT step + 1 FROM steps"
    " WHERE EXISTS (SELECT 1 FROM decision_records WHERE sequence = step AND plan_id = ?))"
    " SELECT symbol, ts_ms, sequence, record_hash, signal_source, fallback_reason,"
    " target_weight_final_ppm FROM steps CROSS JOIN bar_decisions"
    " WHERE sequence = step AND plan_id = ? ORDER BY id"
)


def prepare(db: sqlite3.Connection) -> None:
    """Bring an open file to the form of today, in place.

    Raises:
        LedgerUnavailable: It is of a later form than we know, or of somebody else's.
    """
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found == SCHEMA_VERSION:
        return
    table_count = db.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0]
    if found > SCHEMA_VERSION or (found == 0 and table_count):
        cause = f"found schema version {found}, expected {SCHEMA_VERSION} or an earlier one"
        raise LedgerUnavailable(f"the ledger cannot be used: {cause}", cause=cause)
    if found == 0:
        _make(db)
        return
    # Imported here: a file of today's form needs none of it, and a start is quick without.
    from detent.adapters.ledger_migrating import migrate_sqlite  # noqa: PLC0415

    migrate_sqlite(db, found=found, wanted=SCHEMA_VERSION)


def _make(db: sqlite3.Connection) -> None:
    """Lay out a new file, all or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        # Whoever came first may have done it meanwhile.
        if db.execute("PRAGMA user_version").fetchone()[0] == 0:
            own = {"ledger_id": secrets.token_hex(8)}
            for statement in SCRIPT_FILE.read_text(encoding="utf-8").split(SEPARATOR):
                db.execute(statement, own if ":ledger_id" in statement else {})
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
