"""Keep fills and outcomes beside the records that they belong to, in the ledger's file."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from detent.adapters.sqlite_file import SqliteFile
from detent.contracts.canonical import canonical_bytes
from detent.contracts.errors import DataConflict
from detent.contracts.json_codec import to_json
from detent.contracts.trades import Fill, Outcome

Fact = TypeVar("Fact", bound=Fill | Outcome)
Key = tuple[object, ...]
# Asked for in parts: a statement names no more values than SQLite allows in any version.
KEYS_PER_READ = 200

INSERT_FILL = (
    "INSERT INTO fills (fill_id, plan_id, book, symbol, ts_ms, canonical) VALUES (?, ?, ?, ?, ?, ?)"
)
_OUTCOME = "INSERT INTO outcomes (plan_id, symbol, ts_ms, canonical)"


class SqliteTrades:
    """Holds what happened after the decisions; every write is durable when it returns."""

    def __init__(self, file: SqliteFile) -> None:
        """Share the file, its thread and its commits with the ledger."""
        self._file = file
        # What is read to find the new ones must still hold when they are written.
        self._adding = asyncio.Lock()

    async def add_fills(self, fills: Sequence[Fill]) -> int:
        """Make fills durable, all or none; gives how many were new.

        Raises:
            DataConflict: A fill of this name is held with other content.
            LedgerUnavailable: Nothing was written.
        """
        return await self._add("fills", INSERT_FILL, fills, _fill_key, ("fill_id",))

    async def add_outcomes(self, outcomes: Sequence[Outcome]) -> int:
        """Make outcomes durable, all or none; gives how many were new; raises as `add_fills`."""
        sql = f"{_OUTCOME} VALUES (?, ?, ?, ?)"
        names = ("plan_id", "symbol", "ts_ms")
        return await self._add("outcomes", sql, outcomes, _outcome_key, names)

    async def _add(
        self,
        table: str,
        sql: str,
        facts: Sequence[Fact],
        key_of: Callable[[Fact], Key],
        names: tuple[str, ...],
    ) -> int:
        texts = [_text(fact) for fact in facts]
        async with self._adding:
            held = await self._held(table, names, [key_of(fact) for fact in facts])
            new: list[Key] = []
            for index, text in enumerate(texts):
                known = held.get(key_of(facts[index]))
                if known is None:
                    new.append((*_columns(facts[index]), text))
                elif known != text:
                    raise DataConflict(f"{table}[{index}]", text, f"what is held: {known}")
            if new:
                await self._file.write([(sql, new)])
        return len(new)

    async def _held(self, table: str, names: tuple[str, ...], keys: list[Key]) -> dict[Key, str]:
        """Give the text of every key that is held."""
        held: dict[Key, str] = {}
        columns = ", ".join(names)
        one = f"({', '.join('?' * len(names))})"
        for start in range(0, len(keys), KEYS_PER_READ):
            part = keys[start : start + KEYS_PER_READ]
            wanted = ", ".join([one] * len(part))
            rows = await self._file.read(
                f"SELECT {columns}, canonical FROM {table} WHERE ({columns}) IN (VALUES {wanted})",
                [value for key in part for value in key],
            )
            held.update({tuple(row[:-1]): str(row[-1]) for row in rows})
        return held


def _fill_key(fill: Fill) -> Key:
    return (fill.fill_id,)


def _outcome_key(outcome: Outcome) -> Key:
    return (outcome.plan_id, outcome.symbol, outcome.ts_ms)


def _columns(fact: Fill | Outcome) -> Key:
    """Give the columns that a row is found by, in the order of its statement."""
    if isinstance(fact, Fill):
        return (fact.fill_id, fact.plan_id, fact.book, fact.symbol, fact.ts_ms)
    return _outcome_key(fact)


def _text(fact: Fill | Outcome) -> str:
    return canonical_bytes(fact.SCHEMA, to_json(fact)).decode("ascii")
