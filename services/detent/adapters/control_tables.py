"""Declare the tables of the control database: what operators change and services follow.

The tables of the registry begin with `registry_`, those of the kill switches with `kill_`, those
of rollouts with `rollout`, those of elections with `leader_`. `control_migrations` brings a
database to this form.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

METADATA = MetaData()
STATUSES = "'staged', 'production', 'deprecated'"
PRODUCTION = text("status = 'production'")
LIVE = text("stage IN ('shadow', 'canary', 'full')")
# Numbers itself in both databases.
NUMBER = BigInteger().with_variant(Integer, "sqlite")

# One row per model that the registry holds; `pointer` and `manifest` are canonical JSON.
MODELS = Table(
    "registry_models",
    METADATA,
    Column("registry_id", Text, primary_key=True),
    Column("model_name", Text, nullable=False),
    Column("model_id", Text, nullable=False),
    Column("model_version_hash", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("registered_at_ms", BigInteger, nullable=False),
    Column("pointer", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    CheckConstraint(f"status IN ({STATUSES})", name="registry_models_status"),
    UniqueConstraint("model_id", name="registry_models_model_id"),
    # The database itself holds that a line has one model in production.
    Index(
        "registry_models_production",
        "model_name",
        unique=True,
        postgresql_where=PRODUCTION,
        sqlite_where=PRODUCTION,
    ),
)
# What was done, in its order; nothing is ever taken away.
HISTORY = Table(
    "registry_history",
    METADATA,
    Column("id", NUMBER, primary_key=True, autoincrement=True),
    Column("model_name", Text, nullable=False),
    Column("registry_id", Text, nullable=False),
    Column("event", Text, nullable=False),
    Index("registry_history_name", "model_name", "id"),
)


def _switch() -> list[Column[Any]]:
    """Give the columns of a switch, in the order of `contracts.kill_switch.KillSwitch`."""
    return [
        Column("scope", Text, nullable=False),
        Column("key", Text, nullable=False),
        Column("position", Text, nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("actor", Text, nullable=False),
        Column("reason", Text, nullable=False),
        Column("at_ms", BigInteger, nullable=False),
    ]


# Every change in its order; nothing is ever taken away.
KILL_HISTORY = Table(
    "kill_history",
    METADATA,
    Column("revision", NUMBER, primary_key=True, autoincrement=True),
    *_switch(),
    sqlite_autoincrement=True,
)
# Every switch as it stands, with the change that left it so.
KILL_SWITCHES = Table(
    "kill_switches",
    METADATA,
    Column("revision", BigInteger, nullable=False),
    *_switch(),
    PrimaryKeyConstraint("scope", "key"),
)


def _readers(name: str) -> Table:
    """Give a table of the newest change that each replica said it obeys."""
    return Table(
        name,
        METADATA,
        Column("reader_id", Text, primary_key=True),
        Column("revision", BigInteger, nullable=False),
        Column("seen_ms", BigInteger, nullable=False),
    )


KILL_READERS = _readers("kill_readers")
# Every rollout as it stands, with the change that left it so; `canonical` is all of it.
ROLLOUTS = Table(
    "rollouts",
    METADATA,
    Column("rollout_id", Text, primary_key=True),
    Column("book", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("canonical", Text, nullable=False),
    UniqueConstraint("revision", name="rollouts_revision"),
    # The database itself holds that a book has one live rollout.
    Index("rollouts_live", "book", unique=True, postgresql_where=LIVE, sqlite_where=LIVE),
)
# Every change of a rollout in its order; nothing is ever taken away.
ROLLOUT_HISTORY = Table(
    "rollout_history",
    METADATA,
    Column("revision", NUMBER, primary_key=True, autoincrement=True),
    Column("rollout_id", Text, nullable=False),
    Column("canonical", Text, nullable=False),
    Index("rollout_history_id", "rollout_id", "revision"),
    sqlite_autoincrement=True,
)
ROLLOUT_READERS = _readers("rollout_readers")
# Who acts for which task; `renewed_ms` is for people, no process compares clocks.
LEADER_LEASES = Table(
    "leader_leases",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("renewed_ms", BigInteger, nullable=False),
)
