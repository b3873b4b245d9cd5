"""Keep the client's own answers on disk until a service has them."""

import os
import threading
from pathlib import Path

import msgspec

from detent.contracts.canonical import canonical_bytes, parse_json
from detent.contracts.decision import LocalAnswer
from detent.contracts.errors import InvalidField, LedgerUnavailable
from detent.contracts.json_codec import from_json, to_json

SCHEMA = "detent.journal_entry.v1"
ENTRIES_MAX = 100_000


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one answer with the plan that it was given under."""

    plan_id: str
    binding_hash: str
    answer: LocalAnswer


class Journal:
    """Owns one file of JSON lines; an entry is on disk when `add` returns."""

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

    def add(self, entry: JournalEntry) -> None:
        """Keep an answer; durable when this returns.

        Raises:
            LedgerUnavailable: The file is full or cannot be written: there is no answer.
        """
        with self._lock:
            if len(self._entries) >= ENTRIES_MAX:
                raise LedgerUnavailable(
                    f"the journal holds {ENTRIES_MAX} unreported answers", cause="journal full"
                )
            if self._torn:
                self._rewrite(self._entries)
            # Until it is whole, what was written of the line is nobody's answer.
            self._torn = True
            try:
                with self._path.open("ab") as file:
                    file.write(_line(entry))
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise _unavailable(error) from error
            self._torn = False
            self._entries.append(entry)

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
