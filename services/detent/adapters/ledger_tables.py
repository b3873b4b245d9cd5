"""Declare the tables of the ledger once, for SQLite and for PostgreSQL.

A record is one canonical blob. `decision_records` keeps it beside the key that it is found
by; the views `bar_decisions` and `overrides` generate every other column from the blob, so
that what a reader sees cannot disagree with what was hashed (decision D23). The keys begin
with what grows, so that new rows touch the same few pages; hashes come in no order, so only
their first quarter is indexed.

In PostgreSQL, where several owners ship to the same tables, a row is named by the ledger
that it comes from and by its number there. `ledger_migrations` brings a database to this form.
"""

import functools
from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.schema import SchemaItem

POSTGRESQL = "postgresql"
SQLITE = "sqlite"
# The two keys of a record; each begins with what grows.
RECORD_KEYS = {
    "decision_records_key": ("ts_ms", "plan_id", "symbol", "kind"),
    "decision_records_chain": ("sequence", "plan_id", "symbol"),
}
# By what a record is found when nothing but its hash is known. Hashes come in no order: in a file,
# for which answers wait, each part of so many rows has them for itself.
HASH_INDEX = {
    POSTGRESQL: ("decision_records_hash", ("substr(record_hash, 1, 16)",)),
    SQLITE: ("decision_records_part", ("id >> 12", "substr(record_hash, 1, 16)")),
}
# What only the owner keeps: who it is, and model inputs, which are forgotten in time (D4).
LOCAL_ONLY = ("ledger_identity", "model_inputs")


def word(name: str) -> Column[Any]:
    """Give a column of text that is always there."""
    return Column(name, Text, nullable=False)


def number(name: str, dialect: str, *, nullable: bool = False) -> Column[Any]:
    """Give a column of 64-bit integers."""
    return Column(name, BigInteger if dialect == POSTGRESQL else Integer, nullable=nullable)


def numbered(dialect: str) -> list[SchemaItem]:
    """Give what a row is named by: its number, in PostgreSQL after the ledger it comes from."""
    if dialect == POSTGRESQL:
        key = PrimaryKeyConstraint("source", "id")
        return [word("source"), number("id", dialect), key]
    return [Column("id", Integer, primary_key=True)]


def ledger_metadata(dialect: str) -> MetaData:
    """Declare every table for one kind of database."""
    metadata = MetaData()
    table = functools.partial(_table, metadata, dialect)
    at = functools.partial(number, dialect=dialect)
    bar = (word("plan_id"), word("symbol"), at("ts_ms"))
    table(
        "plan_log",
        *(word(name) for name in ("plan_id", "event", "book", "binding_hash", "plan", "binding")),
        CheckConstraint("event IN ('opened', 'closed')"),
        UniqueConstraint("plan_id", "event"),
    )
    _declare_rollouts(table)
    record = (*bar, word("kind"), at("sequence"), word("record_hash"), word("canonical"))
    records = table("decision_records", *record)
    for name, columns in RECORD_KEYS.items():
        Index(name, *(records.c[column] for column in columns), unique=True)
    name, expressions = HASH_INDEX[dialect]
    Index(name, *map(text, expressions), _table=records)
    bar_key = ("ts_ms", "plan_id", "symbol", "kind", "binding_hash")
    table(
        "shadow_signals",
        *bar,
        word("kind"),
        word("binding_hash"),
        word("canonical"),
        UniqueConstraint(*bar_key),
    )
    fill = (word("fill_id"), *bar, word("book"), word("canonical"))
    table("fills", *fill, UniqueConstraint("fill_id"))
    table("outcomes", *bar, word("canonical"), UniqueConstraint("plan_id", "symbol", "ts_ms"))
    table(
        "stand_downs",
        at("at_ms"),
        *(word(name) for name in ("book", "symbol", "set_by")),
        at("until_ts_ms", nullable=True),
        word("reason"),
    )
    table("late_answers", at("at_ms"), *bar, word("kind"), word("record_hash"))
    local = (*bar, word("kind"), word("canonical"))
    table("local_answers", *local, UniqueConstraint("plan_id", "symbol", "ts_ms", "kind"))
    table(
        "block_events",
        at("at_ms"),
        *(word(name) for name in ("method", "reason", "plan_id", "binding_hash")),
        at("ts_ms", nullable=True),
        word("message"),
        word("metadata"),
    )
    table(
        "results_summary",
        word("plan_id"),
        word("book"),
        word("canonical"),
        UniqueConstraint("plan_id"),
    )
    _declare_replans(table, dialect)
    owner = ("source",) if dialect == POSTGRESQL else ()
    table(
        "anchors",
        at("anchor_index"),
        at("at_ms"),
        *(word(name) for name in ("anchor_hash", "canonical", "key_id", "signature")),
        UniqueConstraint(*owner, "anchor_index"),
    )
    if dialect == SQLITE:
        _declare_local(metadata)
    return metadata


def _table(metadata: MetaData, dialect: str, name: str, *columns: SchemaItem) -> Table:
    # A column belongs to one table, so each gets copies of what several share.
    own = [
        column._copy() if isinstance(column, Column) else column  # noqa: SLF001
        for column in columns
    ]
    return Table(name, metadata, *numbered(dialect), *own)


def _declare_rollouts(table: Callable[..., Table]) -> None:
    # Of the arms of rollouts alone: a plan of its own has no row here.
    names = ("plan_id", "rollout", "shadow_binding")
    arms = table("plan_rollouts", *(word(name) for name in names))
    Index("plan_rollouts_plan", arms.c.plan_id, unique=True)


def _declare_replans(table: Callable[..., Table], dialect: str) -> None:
    replans = table(
        "replans",
        number("at_ms", dialect),
        *(word(name) for name in ("book", "plan_id", "new_plan_id")),
        number("ts_ms", dialect),
        *(word(name) for name in ("outcome", "reason", "material_hash", "canonical")),
        CheckConstraint("outcome IN ('replaced', 'suppressed', 'skipped')"),
        UniqueConstraint("plan_id", "new_plan_id", "ts_ms", "material_hash"),
    )
    Index("replans_new_plan", replans.c.new_plan_id)


def _declare_local(metadata: MetaData) -> None:
    Table(
        "ledger_identity",
        metadata,
        Column("id", Integer, CheckConstraint("id = 1"), primary_key=True),
        word("ledger_id"),
    )
    Table(
        "model_inputs",
        metadata,
        Column("id", Integer, primary_key=True),
        word("features_hash"),
        number("expires_ms", SQLITE),
        word("canonical"),
        Column("model_input", LargeBinary, nullable=False),
        UniqueConstraint("features_hash"),
        Index("model_inputs_expiry", "expires_ms"),
    )
