"""Proves that an auditor sees what somebody with the file and raw SQL did to it."""

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.builders import HOUR_MS, OTHER_SYMBOL, START_MS, SYMBOL, plan_of, row_of
from tests.fakes import PolicyHost

from detent.contracts.binding import ModelBinding
from detent.contracts.calls.ledger import VerifyLedgerResponse
from detent.contracts.errors import DecisionNotFound, LedgerUnavailable
from detent_client import ClientOptions, DetentClient

BARS = 8
RECORDS = "decision_records"
Edit = Callable[[sqlite3.Connection], object]


def sql(statement: str) -> Edit:
    """Give an edit that is one statement."""
    return lambda db: db.execute(statement)


def swap(db: sqlite3.Connection) -> None:
    """Swap two records of a chain, places and keys included."""
    rows = db.execute(
        f"SELECT id, ts_ms, canonical, record_hash FROM {RECORDS}"
        " WHERE symbol = ? AND sequence IN (2, 3) ORDER BY sequence",
        (SYMBOL,),
    ).fetchall()
    db.execute(f"UPDATE {RECORDS} SET ts_ms = -id, record_hash = id WHERE id IN (?, ?)", ids(rows))
    for (row_id, *_), (_, *content) in zip(rows, reversed(rows), strict=True):
        update = f"UPDATE {RECORDS} SET ts_ms = ?, canonical = ?, record_hash = ? WHERE id = ?"
        db.execute(update, (*content, row_id))


def ids(rows: list[tuple[int, int, str, str]]) -> list[int]:
    return [row[0] for row in rows]


def rewrite(db: sqlite3.Connection) -> None:
    """Change a weight in the middle of a chain and the record's own hash with it."""
    (row_id, text) = db.execute(
        f"SELECT id, canonical FROM {RECORDS} WHERE symbol = ? AND sequence = 4", (SYMBOL,)
    ).fetchone()
    changed = text.replace('"target_weight_final_ppm":', '"target_weight_final_ppm":1', 1)
    assert changed != text
    hash_ = hashlib.sha256(changed.encode()).hexdigest()
    update = f"UPDATE {RECORDS} SET canonical = ?, record_hash = ? WHERE id = ?"
    db.execute(update, (changed, hash_, row_id))


ONE = f"WHERE symbol = '{SYMBOL}' AND sequence"
EDITS: dict[str, Edit] = {
    "flip a digit": sql(
        f"UPDATE {RECORDS} SET canonical = replace(canonical, '\"sequence\":3', '\"sequence\":4')"
        f" {ONE} = 3"
    ),
    "empty a record": sql(f"UPDATE {RECORDS} SET canonical = '' {ONE} = 3"),
    "put bytes in a record": sql(f"UPDATE {RECORDS} SET canonical = X'FF00FE' {ONE} = 3"),
    "cut a record": sql(f"UPDATE {RECORDS} SET canonical = substr(canonical, 1, 99) {ONE} = 3"),
    "claim another hash": sql(f"UPDATE {RECORDS} SET record_hash = 'f' {ONE} = 3"),
    "delete the first": sql(f"DELETE FROM {RECORDS} {ONE} = 0"),
    "delete one": sql(f"DELETE FROM {RECORDS} {ONE} = 3"),
    "delete a stretch": sql(f"DELETE FROM {RECORDS} {ONE} BETWEEN 2 AND 5"),
    "move a bar": sql(f"UPDATE {RECORDS} SET ts_ms = ts_ms + 1 {ONE} = 3"),
    "rename a bar": sql(f"UPDATE {RECORDS} SET kind = 'emergency' {ONE} = 3"),
    "move to another chain": sql(f"UPDATE {RECORDS} SET symbol = 'AUDUSD', sequence = 0 {ONE} = 3"),
    "renumber": sql(f"UPDATE {RECORDS} SET sequence = sequence + 10 WHERE symbol = '{SYMBOL}'"),
    "rewrite and rehash": rewrite,
    "swap two": swap,
}


async def filled(folder: Path, binding: ModelBinding) -> None:
    """Write two chains of a plan."""
    host = PolicyHost(folder / "ledger.sqlite", binding)
    async with host, client_at(host, folder) as client:
        opened = await client.open_plan(plan_of("plan", (SYMBOL, OTHER_SYMBOL)), binding)
        for index in range(BARS):
            rows = [row_of(SYMBOL), row_of(OTHER_SYMBOL)]
            await client.decide_many(opened, ts_ms=START_MS + index * HOUR_MS, rows=rows)


async def verified(folder: Path, binding: ModelBinding) -> VerifyLedgerResponse:
    """Have the ledger verified over the wire."""
    host = PolicyHost(folder / "ledger.sqlite", binding)
    # The plan is not restored: an auditor reads a file that policy might refuse to go on with.
    host.plans.restore = _nothing  # type: ignore[method-assign]
    async with host, client_at(host, folder) as client:
        return await client.verify_ledger()


async def _nothing() -> None:
    return


def tamper(ledger_file: Path, edit: Edit) -> None:
    """Do what somebody with the file can do: drop the guards, edit, put them back."""
    db = sqlite3.connect(ledger_file)
    try:
        with db:
            guards = db.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?",
                (RECORDS,),
            ).fetchall()
            for name, _ in guards:
                db.execute(f"DROP TRIGGER {name}")
            edit(db)
            for _, statement in guards:
                db.execute(statement)
    finally:
        db.close()


def client_at(host: PolicyHost, folder: Path) -> DetentClient:
    return DetentClient(
        ClientOptions(
            journal_file=folder / "journal.jsonl", policy_target=host.target, deadline_s=10.0
        )
    )


async def test_a_ledger_that_nobody_touched_verifies(tmp_path: Path, binding: ModelBinding) -> None:
    await filled(tmp_path, binding)
    tamper(tmp_path / "ledger.sqlite", sql(f"UPDATE {RECORDS} SET kind = kind"))

    found = await verified(tmp_path, binding)

    assert (found.record_count, found.chain_count, found.breaks) == (2 * BARS, 2, ())


@pytest.mark.parametrize("case", EDITS)
async def test_an_edit_of_the_file_is_found_and_named(
    tmp_path: Path, binding: ModelBinding, case: str
) -> None:
    await filled(tmp_path, binding)
    tamper(tmp_path / "ledger.sqlite", EDITS[case])

    found = await verified(tmp_path, binding)

    assert found.breaks
    assert {broken.plan_id for broken in found.breaks} == {"plan"}
    assert OTHER_SYMBOL not in {broken.symbol for broken in found.breaks}
    assert found.breaks[0].message


async def test_a_cut_tail_is_found_by_whoever_kept_an_answer(
    tmp_path: Path, binding: ModelBinding
) -> None:
    """Within the file a shorter chain is a whole one; the head and the answers say otherwise."""
    await filled(tmp_path, binding)
    before = await verified(tmp_path, binding)
    tamper(tmp_path / "ledger.sqlite", sql(f"DELETE FROM {RECORDS} {ONE} >= {BARS - 2}"))

    after = await verified(tmp_path, binding)

    assert after.breaks == ()
    assert after.record_count == before.record_count - 2
    assert after.heads != before.heads
    (head,) = [head for head in before.heads if head.symbol == SYMBOL]
    host = PolicyHost(tmp_path / "ledger.sqlite", binding)
    async with host, client_at(host, tmp_path) as client:
        with pytest.raises(DecisionNotFound):
            await client.get_decision(head.record_hash)


async def test_a_file_that_was_cut_short_is_a_typed_error(
    tmp_path: Path, binding: ModelBinding
) -> None:
    await filled(tmp_path, binding)
    ledger_file = tmp_path / "ledger.sqlite"
    ledger_file.write_bytes(ledger_file.read_bytes()[: 3 * 4096 + 100])

    with pytest.raises(LedgerUnavailable, match=r"malformed|disk image|corrupt"):
        await verified(tmp_path, binding)
