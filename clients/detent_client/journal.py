"""Keep the client's own answers on disk until a service has them."""

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from detent.contracts.canonical import canonical_bytes, parse_json
from detent.contracts.decision import LocalAnswer
from detent.contracts.errors import InvalidField, LedgerUnavailable
from detent.contracts.json_codec import from_json, to_json

SCHEMA = "detent.journal_entry.v1"
ENTRIES_MAX = 100_000
REPORT_ROWS_MAX = 1_000


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one answer with the plan that it was given under."""

    plan_id: str
    binding_hash: str
    answer: LocalAnswer


class Journal:
    """Owns one file of JSON lines; entries are on disk when `add` returns."""

    def __init__(self, path: Path) -> None:
        """Take up what an earlier run left unreported.

        The last line may be torn by a crash: its answer never left, and it is cut off. A
        line that is damaged anywhere else is an answer that did leave, so it stops us.

        Raises:
            LedgerUnavailable: The file cannot be read, or a line is damaged.
        """
        self._path = path
        # Answers are added while others are being reported, each from a thread of its own.
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
        except OSError as error:
            raise _unavailable(error) from error
        self._entries = [_parsed(number, line) for number, line in enumerate(lines[:-1], start=1)]
        self._torn = bool(lines[-1])

    @property
    def pending(self) -> tuple[JournalEntry, ...]:
        """Give the entries that no service has yet, oldest first."""
        return tuple(self._entries)

    def add(self, *entries: JournalEntry) -> None:
        """Keep answers that leave together, all or none; durable when this returns.

        They are synced once: what a disk takes for one is the same for thousands.

        Raises:
            LedgerUnavailable: The file is full or cannot be written: there is no answer.
        """
        with self._lock:
            if len(self._entries) + len(entries) > ENTRIES_MAX:
                raise LedgerUnavailable(
                    f"the journal holds {len(self._entries)} unreported answers and has no room"
                    f" for {len(entries)} more: it takes {ENTRIES_MAX}",
                    cause="journal full",
                )
            if self._torn:
                self._rewrite(self._entries)
            # Until they are whole, what was written of the lines is nobody's answer.
            self._torn = True
            try:
                with self._path.open("ab") as file:
                    file.writelines(_line(entry) for entry in entries)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise _unavailable(error) from error
            self._torn = False
            self._entries.extend(entries)

    def drop(self, reported: tuple[JournalEntry, ...]) -> None:
        """Forget entries that a service has; the file is replaced in one step.

        Raises:
            LedgerUnavailable: The file cannot be written; the entries stay and will be
                reported again, which the service recognises.
        """
        gone = {id(entry) for entry in reported}
        with self._lock:
            self._rewrite([entry for entry in self._entries if id(entry) not in gone])

    def _rewrite(self, entries: list[JournalEntry]) -> None:
        staged = self._path.with_suffix(".staged")
        try:
            with staged.open("wb") as file:
                file.writelines(_line(entry) for entry in entries)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(self._path)
        except OSError as error:
            raise _unavailable(error) from error
        self._entries, self._torn = entries, False


def iter_reports(pending: Iterable[JournalEntry]) -> Iterator[tuple[JournalEntry, ...]]:
    """Yield entries as they are reported: at most `REPORT_ROWS_MAX` of one plan, oldest first."""
    plans: dict[tuple[str, str], list[JournalEntry]] = {}
    for entry in pending:
        plans.setdefault(plan_of(entry), []).append(entry)
    for same in plans.values():
        for start in range(0, len(same), REPORT_ROWS_MAX):
            yield tuple(same[start : start + REPORT_ROWS_MAX])


def plan_of(entry: JournalEntry) -> tuple[str, str]:
    """Name what the entries of one report have in common: plan and binding."""
    return entry.plan_id, entry.binding_hash


def _line(entry: JournalEntry) -> bytes:
    return canonical_bytes(SCHEMA, to_json(entry)) + b"\n"


def _parsed(number: int, line: bytes) -> JournalEntry:
    try:
        return from_json(JournalEntry, parse_json("journal", line))
    except InvalidField as error:
        cause = f"line {number}: {error.message}"
        raise LedgerUnavailable(f"the client's journal is damaged, {cause}", cause=cause) from error


def _unavailable(error: OSError) -> LedgerUnavailable:
    cause = type(error).__name__
    return LedgerUnavailable(f"the client's journal cannot be used: {cause}", cause=cause)
