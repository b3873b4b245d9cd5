"""Declare the tables of the kill switches in the control database."""

from typing import Any

from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, Table, Text

from detent.adapters.control_tables import METADATA, NUMBER


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
# The newest change that each replica said it obeys.
KILL_READERS = Table(
    "kill_readers",
    METADATA,
    Column("reader_id", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
)
