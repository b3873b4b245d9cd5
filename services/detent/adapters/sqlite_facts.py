"""Keep facts of one table once each, under a key, in the ledger's file."""

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import msgspec

from detent.adapters.sqlite_file import SqliteFile
from detent.contracts.canonical import canonical_bytes
from detent.contracts.errors import DataConflict
from detent.contracts.json_codec import to_json

Key = tuple[object, ...]
# Asked for in parts: a statement names no more values than SQLite allows in any version.
KEYS_PER_READ = 200


class Fact(Protocol):
    """Is a value with a canonical text of its own."""

    SCHEMA: ClassVar[str]


class FactTable(msgspec.Struct, frozen=True, kw_only=True):
    """Says how the facts of one kind are laid out.

    Attributes:
        name: The table.
        columns: Fields that stand in columns of the same name, before `canonical`.
        key: Those among them that name a fact.
        beside_decisions: Whether a row may share the commit of decisions.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    beside_decisions: bool = True

    @property
    def insert(self) -> str:
        """Give the statement that adds a row: the columns, and after them the canonical text."""
        marks = ", ".join("?" * (len(self.columns) + 1))
        return f"INSERT INTO {self.name} ({', '.join(self.columns)}, canonical) VALUES ({marks})"


class SqliteFacts:
    """Holds the facts of one table; every write is durable when it returns."""

    def __init__(self, file: SqliteFile, table: FactTable) -> None:
        """Share the file and its thread with the ledger."""
        self._file = file
        self._table = table
        # What is read to find the new ones must still hold when they are written.
        self._adding = asyncio.Lock()

    async def add(self, facts: Sequence[Fact]) -> int:
        """Make facts durable, all or none; gives how many were new.

        Raises:
            DataConflict: A fact of this key is held with other content.
            LedgerUnavailable: Nothing was written.
        """
        table = self._table
        keys = [_values(fact, table.key) for fact in facts]
        texts = [_text(fact) for fact in facts]
        async with self._adding:
            held = await self._held(keys)
            new: list[Key] = []
            for index, (key, text) in enumerate(zip(keys, texts, strict=True)):
                known = held.get(key)
                if known is None:
                    new.append((*_values(facts[index], table.columns), text))
                    held[key] = text
                elif known != text:
                    raise DataConflict(f"{table.name}[{index}]", text, f"what is held: {known}")
            if new:
                await self._file.write([(table.insert, new)], alone=not table.beside_decisions)
        return len(new)

    async def _held(self, keys: Sequence[Key]) -> dict[Key, str]:
        """Give the text of every key that is held."""
        held: dict[Key, str] = {}
        columns = ", ".join(self._table.key)
        one = f"({', '.join('?' * len(self._table.key))})"
        for start in range(0, len(keys), KEYS_PER_READ):
            part = keys[start : start + KEYS_PER_READ]
            wanted = ", ".join([one] * len(part))
            rows = await self._file.read(
                f"SELECT {columns}, canonical FROM {self._table.name}"
                f" WHERE ({columns}) IN (VALUES {wanted})",
                [value for key in part for value in key],
            )
            held.update({tuple(row[:-1]): str(row[-1]) for row in rows})
        return held


def _values(fact: Any, names: Sequence[str]) -> Key:
    """Give fields of a fact as a database holds them; an enum is its value there."""
    return tuple(getattr(fact, name) for name in names)


def _text(fact: Fact) -> str:
    return canonical_bytes(fact.SCHEMA, to_json(fact)).decode("ascii")
