"""Holds the journal to what it promises: on disk when `add` returns, nothing twice."""

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.builders import START_MS, row_of

from detent.contracts.decision import DecisionKind, LocalAnswer
from detent.contracts.errors import LedgerUnavailable
from detent.contracts.reasons import Reason
from detent_client import journal as journal_module
from detent_client.journal import Journal, JournalEntry


def entry_of(number: int) -> JournalEntry:
    answer = LocalAnswer(
        ts_ms=START_MS + number,
        kind=DecisionKind.BAR,
        row=row_of(),
        target_weight_final_ppm=0,
        reason=Reason.CLIENT_NO_SERVICE,
    )
    return JournalEntry(plan_id="plan", binding_hash="a" * 64, answer=answer)


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_journal_survives_a_restart(path: Path) -> None:
    entries = tuple(entry_of(number) for number in range(3))
    journal = Journal(path)
    for entry in entries:
        journal.add(entry)

    assert Journal(path).pending == entries


def test_journal_ignores_the_torn_line_of_a_crash(path: Path) -> None:
    """The answer of a torn line never left, so nothing is lost with it."""
    journal = Journal(path)
    journal.add(entry_of(0))
    journal.add(entry_of(1))
    path.write_bytes(path.read_bytes()[:-20])

    assert Journal(path).pending == (entry_of(0),)


def test_journal_keeps_what_comes_after_a_torn_line(path: Path) -> None:
    Journal(path).add(entry_of(0))
    path.write_bytes(path.read_bytes() + b'{"answer":{"kind"')
    Journal(path).add(entry_of(1))

    assert Journal(path).pending == (entry_of(0), entry_of(1))


def test_journal_refuses_damage_before_its_end(path: Path) -> None:
    """A whole line was an answer that left: losing it silently is not an option."""
    journal = Journal(path)
    journal.add(entry_of(0))
    journal.add(entry_of(1))
    path.write_bytes(path.read_bytes().replace(b"plan_id", b"plan_jd", 1))

    with pytest.raises(LedgerUnavailable, match="damaged, line 1"):
        Journal(path)


def test_journal_drops_only_what_was_reported(path: Path) -> None:
    journal = Journal(path)
    for number in range(3):
        journal.add(entry_of(number))
    journal.drop(journal.pending[:2])

    assert journal.pending == (entry_of(2),)
    assert Journal(path).pending == (entry_of(2),)


def test_journal_that_cannot_be_written_gives_no_answer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody can audit must not be traded, the client's own answer included."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    journal = Journal(path)
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(LedgerUnavailable, match="journal cannot be used: OSError"):
        journal.add(entry_of(0))
    assert journal.pending == ()


def test_journal_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "ENTRIES_MAX", 2)
    journal = Journal(path)
    journal.add(entry_of(0))
    journal.add(entry_of(1))

    with pytest.raises(LedgerUnavailable, match="holds 2 unreported answers"):
        journal.add(entry_of(2))


def test_answers_that_leave_together_are_journalled_together_or_not_at_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was journalled alone would be reported as an answer that nobody was given."""
    monkeypatch.setattr(journal_module, "ENTRIES_MAX", 3)
    journal = Journal(path)
    journal.add(entry_of(0), entry_of(1))

    with pytest.raises(LedgerUnavailable, match="no room for 2 more: it takes 3"):
        journal.add(entry_of(2), entry_of(3))
    assert journal.pending == Journal(path).pending == (entry_of(0), entry_of(1))


def test_journal_survives_a_write_that_failed_half_way(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The half line is nobody's answer; the next whole one must not grow out of it."""
    journal = Journal(path)
    journal.add(entry_of(0))
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(LedgerUnavailable):
        journal.add(entry_of(1))
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:-7])

    journal.add(entry_of(2))

    assert journal.pending == (entry_of(0), entry_of(2))
    assert Journal(path).pending == (entry_of(0), entry_of(2))


def _full(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_journal_loses_nothing_while_answers_are_added_and_reported_at_once(path: Path) -> None:
    journal = Journal(path)
    reported: list[JournalEntry] = []

    def report() -> None:
        ends_s = time.monotonic() + 20
        while len(reported) < 200 and time.monotonic() < ends_s:
            first = journal.pending[:5]
            journal.drop(first)
            reported.extend(first)

    with ThreadPoolExecutor(3) as threads:
        report_done = threads.submit(report)
        halves = [
            threads.submit(lambda half=half: [journal.add(entry_of(n)) for n in half])
            for half in (range(100), range(100, 200))
        ]
        for done in (*halves, report_done):
            done.result(60)

    assert sorted(entry.answer.ts_ms for entry in reported) == [START_MS + n for n in range(200)]
    assert journal.pending == Journal(path).pending == ()
