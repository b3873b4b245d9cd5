"""Locks what a recorded stream decides: replayed it gives a known digest, without models another.

Both digests are of integers and canonical text. One that moves says that the core decides
something else than it did: that is a change of what is served, and never an accident.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest
from msgspec import structs
from tests.backtests import question_of
from tests.unit.offline.backtesting.test_fills import records_in
from tests.unit.offline.backtesting.test_folder import bound_setup

from detent.contracts.canonical import canonical_bytes
from detent.contracts.decision import GENESIS_HASH, DecisionRecord
from detent.contracts.json_codec import to_json
from detent.contracts.plan import STATE_INITIAL
from detent.contracts.reasons import Reason
from detent.core.ledger.record import ChainPoint, replay_decision
from detent.offline.backtesting.backtest import proxy_setup
from detent.offline.backtesting.engine import Setup
from detent.offline.backtesting.folder import LEDGER_FILE, run_into
from detent.offline.backtesting.signals import Signals, no_answers

REPLAY_DIGEST = "ecd03d88998f15630b4a3901884c8b5ed12e4a1e25d5ff86918d0be3463f8a2a"
BASELINE_DIGEST = "35b218243f8c4d2a8012fd9d3ff1851c25f0f72a453789d9516fef8c2000cf74"


def recorded(folder: Path, setup: Setup) -> list[DecisionRecord]:
    run_into(folder, setup, signal_origin="stored", records=True)
    return list(records_in(folder / LEDGER_FILE).values())


def digest(texts: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for text in texts:
        found.update(text + b"\n")
    return found.hexdigest()


def decided(records: Iterable[DecisionRecord]) -> str:
    """Give the digest of what was decided, by whichever plan."""
    return digest(
        canonical_bytes(
            "test.decided",
            {
                "symbol": one.row.symbol,
                "ts_ms": one.ts_ms,
                "p_hat_bps": one.signal.p_hat_bps,
                "outcome": to_json(one.outcome),
            },
        )
        for one in records
    )


def replayed(setup: Setup, records: list[DecisionRecord]) -> list[DecisionRecord]:
    """Decide every record again, each chain from its beginning on what the last one left."""
    points: dict[str, ChainPoint] = {}
    found = []
    for record in records:
        start = ChainPoint(sequence=0, previous_hash=GENESIS_HASH, state=STATE_INITIAL)
        point = points.get(record.row.symbol, start)
        again = replay_decision(record, bound=setup.bound, point=point)
        points[record.row.symbol] = ChainPoint(
            sequence=again.sequence + 1, previous_hash=again.record_hash, state=again.state_after
        )
        found.append(again)
    return found


@pytest.mark.proves("R47")
def test_a_recorded_stream_replays_to_its_locked_digest(tmp_path: Path) -> None:
    setup = bound_setup()
    records = recorded(tmp_path / "model", setup)
    again = replayed(setup, records)

    assert digest(one.canonical for one in records) == REPLAY_DIGEST
    assert digest(one.canonical for one in again) == REPLAY_DIGEST
    other = structs.replace(records[40], ts_ms=records[40].ts_ms + 1)
    changed = [*records[:40], other, *records[41:]]
    assert digest(one.canonical for one in replayed(setup, changed)) != REPLAY_DIGEST


@pytest.mark.proves("R47")
def test_with_models_switched_off_the_digest_is_the_baseline(tmp_path: Path) -> None:
    """A plan of the model whose answers are all off decides what a plan of the proxy does."""
    on = bound_setup()
    off = structs.replace(
        on,
        signals=Signals(
            model=no_answers(on.market.close.shape, Reason.INFER_DISABLED),
            proxy=on.signals.proxy,
        ),
    )
    proxy = recorded(tmp_path / "proxy", proxy_setup(question_of(), on.market))

    assert decided(proxy) == BASELINE_DIGEST
    assert decided(recorded(tmp_path / "off", off)) == BASELINE_DIGEST
    assert decided(recorded(tmp_path / "on", on)) != BASELINE_DIGEST
