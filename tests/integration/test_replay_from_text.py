"""Proves that the text of a ledger is enough to decide all of it again, to the same bytes."""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from tests.random_decisions import REPLACED_EVERY, SYMBOLS_PER_PLAN, record_courses

from detent.adapters.ledger_reading import SqliteReader
from detent.adapters.ledger_replaying import Replayed, replay_all, replay_one
from detent.contracts.canonical import canonical_bytes, sha256_hex
from detent.contracts.errors import DecisionNotFound, InvalidField
from detent.contracts.reasons import Reason

# A ledger of about fifty thousand records; a million is twenty of them.
LEDGERS = 20
PLANS, BARS = 40, 300
PROCESSES = 2


def replayed(folder: str, seed: int, plans: int, bars: int) -> Replayed:
    """Record courses in a ledger of their own, decide them again, and forget the file."""
    path = Path(folder) / f"{seed}.sqlite"
    count = record_courses(path, seed=seed, plans=plans, bars=bars)
    found = replay_all(SqliteReader(path))
    assert found.record_count == count
    path.unlink()
    return found


@pytest.fixture(name="ledger_file", scope="module")
def _ledger_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record two thousand decisions of forty plans."""
    path = tmp_path_factory.mktemp("replay") / "ledger.sqlite"
    assert record_courses(path, seed=1, plans=PLANS, bars=12) >= 2_000
    return path


@pytest.mark.proves("R51")
def test_two_thousand_records_are_decided_again_to_the_same_bytes(ledger_file: Path) -> None:
    found = replay_all(SqliteReader(ledger_file))

    assert found.record_count >= 2_000
    assert (found.difference_count, found.differences) == (0, ())


@pytest.mark.long
@pytest.mark.proves("R51")
def test_a_million_records_are_decided_again_to_the_same_bytes(tmp_path: Path) -> None:
    count = differing = 0
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        runs = [
            pool.submit(replayed, str(tmp_path), seed, PLANS, BARS)
            for seed in range(100, 100 + LEDGERS)
        ]
        for run in runs:
            found = run.result()
            count += found.record_count
            differing += found.difference_count

    assert count >= 1_000_000
    assert differing == 0


def test_one_record_is_decided_again_by_its_hash(ledger_file: Path) -> None:
    readers = [SqliteReader(ledger_file)]
    for _, fields, record_hash in records_of(ledger_file)[::97]:
        found = replay_one(readers, record_hash)

        assert found.replayed_hash == found.record_hash == record_hash
        assert found.replayed_json == found.recorded_json
        assert json.loads(found.recorded_json) == fields
    with pytest.raises(DecisionNotFound):
        replay_one(readers, "0" * 64)


def test_what_was_recorded_reaches_every_part_of_a_record(ledger_file: Path) -> None:
    """A replay of the same bar over and over would prove nothing."""
    records = [fields for _, fields, _ in records_of(ledger_file)]
    grown = Counter(name for fields in records for name in (*fields, *fields["row"]))
    named = {reason for fields in records for reason in fields["outcome"]["reasons"]}
    named |= {fields["signal"][name] for fields in records for name in _REASONS} - {None}

    for name in (
        *("learning", "stand_down"),
        *("caller_features", "l2_snapshot", "further_exit_intents"),
    ):
        assert 100 < grown[name] < len(records), name
    # So many chains go on from that of a plan that was replaced.
    assert grown["carried"] == PLANS // REPLACED_EVERY * SYMBOLS_PER_PLAN
    for kind in ("bar", "emergency"):
        assert sum(fields["kind"] == kind for fields in records) > 50
    for source in ("model", "proxy"):
        assert sum(fields["signal"]["signal_source"] == source for fields in records) > 400
    for tier in (1, 2, 3, 4):
        assert sum(fields["outcome"]["precedence_tier"] == tier for fields in records) > 100
    expected = {
        *(Reason.RISK_OFF_LATCHED, Reason.RISK_REDUCE, Reason.STAND_DOWN, Reason.EXIT_SNAPPED),
        *(Reason.L2_BLOCK_BUY, Reason.EXEC_L2_STALE, Reason.PROXY_FLAT, Reason.FEATURES_STALE),
        *(Reason.LEARNING_HOLD_LIMIT, Reason.LEARNING_TRADE_COUNT, Reason.SPREAD_WIDE),
        *(Reason.EMERGENCY_EXIT_EXECUTED, Reason.REBALANCE_COOLDOWN, Reason.MIN_NOTIONAL),
    }
    assert expected <= {Reason(name) for name in named}
    assert len(named) > 45


_REASONS = ("fallback_reason", "proxy_reason")


# The control: a ledger whose text says something else is not decided to the same bytes


def bent(path: tuple[str, ...], change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def bend(fields: dict[str, Any]) -> None:
        *parents, last = path
        inner = fields
        for name in parents:
            inner = inner[name]
        inner[last] = change(inner[last])

    return bend


BENT = {
    "final weight": bent(("outcome", "target_weight_final_ppm"), lambda held: held + 1),
    "reason": bent(("outcome", "reasons"), lambda held: [*held, "STAND_DOWN"]),
    "strength": bent(("signal", "signal_strength_bps"), lambda held: 10_000 - held + 1),
    "position": bent(("row", "position", "current_weight_ppm"), lambda held: held + 123_456),
    "remembered": bent(("state_after", "trade_set_count"), lambda held: held + 1),
    "config": bent(("policy_config_hash",), lambda held: held[::-1]),
    "not a record": bent(("signal",), lambda _: 7),
}


@pytest.mark.parametrize("name", BENT)
def test_a_record_that_was_rewritten_is_not_decided_the_same(
    ledger_file: Path, tmp_path: Path, name: str
) -> None:
    row_id, fields, _ = records_of(ledger_file)[500]
    plan_id = fields["plan_id"]
    BENT[name](fields)
    text = canonical_bytes(fields.pop("schema"), fields)
    path = rewritten(ledger_file, tmp_path, row_id, text.decode(), sha256_hex(text))

    assert replay_all(SqliteReader(ledger_file), plan_id).difference_count == 0
    found = replay_all(SqliteReader(path), plan_id)

    assert found.record_count > 20
    assert sha256_hex(text) in {one.record_hash for one in found.differences}
    # Itself, and the one that goes on from it.
    assert found.difference_count <= 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("proxy_p_hat_bps", -1),
        ("p_hat_calibrated_bps", 10_001),
        ("p_hat_calibrated_bps", None),
        ("p_hat_raw_bps", None),
        ("signal_source", "proxy"),
        ("fallback_reason", "INFERENCE_DEADLINE"),
    ],
)
def test_probabilities_that_no_core_wrote_are_refused_by_their_name(
    ledger_file: Path, tmp_path: Path, name: str, value: object
) -> None:
    row_id, fields, record_hash = next(
        one for one in records_of(ledger_file) if one[1]["signal"]["signal_source"] == "model"
    )
    fields["signal"][name] = value
    text = canonical_bytes(fields.pop("schema"), fields)
    path = rewritten(ledger_file, tmp_path, row_id, text.decode(), record_hash)

    with pytest.raises(InvalidField, match=r"p_hat|signal_source"):
        replay_one([SqliteReader(path)], record_hash)


def test_a_plan_that_was_rewritten_decides_otherwise(ledger_file: Path, tmp_path: Path) -> None:
    path = copied(ledger_file, tmp_path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TRIGGER plan_log_no_update")
        text = "replace(plan, '\"w_max_ppm\":', '\"w_max_ppm\":1')"
        db.execute(f"UPDATE plan_log SET plan = {text} WHERE plan_id = 'p3'")

    assert replay_all(SqliteReader(path), "p3").difference_count > 20
    assert replay_all(SqliteReader(path), "p4").difference_count == 0


def records_of(path: Path) -> list[tuple[int, dict[str, Any], str]]:
    sql = "SELECT id, canonical, record_hash FROM decision_records ORDER BY id"
    rows = SqliteReader(path).query(sql)
    return [(row_id, json.loads(text), record_hash) for row_id, text, record_hash in rows]


def copied(path: Path, folder: Path) -> Path:
    to = folder / "copy.sqlite"
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(to)) as other:
        db.backup(other)
    return to


def rewritten(path: Path, folder: Path, row_id: int, text: str, record_hash: str) -> Path:
    to = copied(path, folder)
    with closing(sqlite3.connect(to)) as db, db:
        db.execute("DROP TRIGGER decision_records_no_update")
        update = "UPDATE decision_records SET canonical = ?, record_hash = ? WHERE id = ?"
        assert db.execute(update, (text, record_hash, row_id)).rowcount == 1
    return to
