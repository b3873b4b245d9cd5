"""Proves that every bar leaves a record from which its weight can be explained."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.builders import (
    HOUR_MS,
    OTHER_SYMBOL,
    START_MS,
    SYMBOL,
    emergency,
    plan_of,
    row_of,
)
from tests.conftest import Artifacts
from tests.fakes import PolicyHost, hangs, raises
from tests.strategist import Strategist, fresh_plan_id, ledger_rows, recorded

from detent.adapters.ledger_views import RECORD_COLUMNS
from detent.contracts.binding import PROXY_BINDING, SignalSource
from detent.contracts.canonical import canonical_bytes, sha256_hex
from detent.contracts.decision import DecisionKind, DecisionRecord
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.plan import TriggerState
from detent.contracts.reasons import Reason
from detent.core.signals.strength import signal_strength_bps
from detent_cli.stack import Stack
from detent_client import DetentClient

ALWAYS = (
    "plan_id",
    "symbol",
    "ts_ms",
    "kind",
    "sequence",
    "book",
    "binding_hash",
    "trade_set_id",
    "trigger_state",
    "bar_close",
    "signal_source",
    "proxy_p_hat_bps",
    "p_hat_bps",
    "signal_strength_bps",
    "target_weight_raw_ppm",
    "target_weight_final_ppm",
    "order_style",
    "reasons",
    "record_hash",
    "canonical",
)
BOUND = ("model_id", "model_version_hash", "feature_version", "calibration_version")
ANSWERED = ("p_hat_raw_bps", "p_hat_calibrated_bps", "features_hash")


def assert_null_rule(record: dict[str, Any], *, bound: bool) -> None:
    """Hold one record to what must, may and must not be there on its path."""
    answered = record["signal_source"] == "model"
    present = {name for name, value in record.items() if value is not None}
    assert present.issuperset(ALWAYS)
    for name in BOUND:
        assert (name in present) == bound, name
    for name in ("p_hat_raw_bps", "p_hat_calibrated_bps"):
        assert (name in present) == answered, name
    if answered:
        assert "features_hash" in present
    assert ("fallback_reason" in present) == (bound and not answered)


@pytest.mark.proves("R240", "R241", "R242", "R243", "R244", "R245", "R246")
async def test_the_ledger_has_every_column_that_attribution_needs(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
    await strategist.decide(100)

    (record,) = recorded(stack.ledger_file, strategist.plan_id)

    wanted = {*ALWAYS, *BOUND, *ANSWERED, "fallback_reason"}
    assert wanted.issubset(record)
    assert {name for name, _ in RECORD_COLUMNS}.issubset(record)


@pytest.mark.proves("R206")
@pytest.mark.proves("R240", "R241", "R242", "R243", "R244", "R245", "R246", "R247")
async def test_a_model_bar_records_everything_that_was_believed_and_done(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    binding = artifacts.stable_binding
    strategist = await Strategist.open(client, artifacts.bars, binding)

    decisions = [await strategist.decide(index) for index in range(200, 230)]

    records = recorded(stack.ledger_file, strategist.plan_id)
    assert len(records) == 30
    for decision, record in zip(decisions, records, strict=True):
        assert_null_rule(record, bound=True)
        assert record["signal_source"] == "model"
        assert record["trigger_state"] == "long_allowed"
        assert record["model_id"] == binding.model_id
        assert record["model_version_hash"] == binding.model_version_hash
        assert record["feature_version"] == binding.feature_version
        assert record["calibration_version"] == binding.calibration_version
        assert record["p_hat_bps"] == record["p_hat_calibrated_bps"] == decision.p_hat_bps
        assert record["signal_strength_bps"] == decision.signal_strength_bps
        assert record["target_weight_raw_ppm"] == decision.target_weight_raw_ppm
        assert record["target_weight_final_ppm"] == decision.target_weight_final_ppm
        assert json.loads(record["reasons"]) == list(decision.reasons)
        assert record["trade_set_id"] == decision.trade_set_id
        assert record["record_hash"] == decision.record_hash
    assert len({record["p_hat_raw_bps"] for record in records}) > 10
    assert any(record["p_hat_raw_bps"] != record["p_hat_calibrated_bps"] for record in records)
    assert len({record["features_hash"] for record in records}) == 30


@pytest.mark.proves("R240", "R241", "R242", "R243", "R244", "R245", "R246", "R247")
async def test_a_proxy_bar_records_the_same_with_no_model_in_it(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    strategist = await Strategist.open(client, artifacts.bars, PROXY_BINDING)

    for index in range(70):
        await strategist.decide(index, TriggerState.SHORT_ALLOWED)

    records = recorded(stack.ledger_file, strategist.plan_id)
    assert len(records) == 70
    for record in records:
        assert_null_rule(record, bound=False)
        assert record["p_hat_bps"] == record["proxy_p_hat_bps"]
        assert record["signal_strength_bps"] == signal_strength_bps(
            record["p_hat_bps"], TriggerState.SHORT_ALLOWED
        )
    reasons = [json.loads(record["canonical"])["signal"]["proxy_reason"] for record in records]
    # Sixty closes make one answer: until then the record says why there is none.
    assert reasons == [Reason.PROXY_WARMING_UP] * 59 + [None] * 11


@pytest.mark.proves("R100", "R210", "R240", "R245", "R247")
async def test_every_bar_has_a_record_whatever_happened_on_it(
    host: PolicyHost, host_client: DetentClient
) -> None:
    """Warm-up, inactive, exit, emergency, limit, missing volatility, every kind of fallback."""
    symbols = (SYMBOL, OTHER_SYMBOL)
    opened = await host_client.open_plan(plan_of(fresh_plan_id(), symbols), host.binding)
    inference, features = host.inference, host.features
    moments: Sequence[tuple[dict[str, Any], Any, Any]] = (
        ({}, features.answers, inference.answers),
        ({"trigger_state": TriggerState.INACTIVE}, features.answers, inference.answers),
        ({"trigger_state": TriggerState.EXIT_ONLY}, features.answers, inference.answers),
        ({"exit_intent": emergency()}, features.answers, inference.answers),
        ({"exit_intent": emergency("")}, features.answers, inference.answers),
        ({"vol_hat_ppm": None}, features.answers, inference.answers),
        ({"active_trigger_ids": ("stranger",)}, features.answers, inference.answers),
        ({}, raises(RuntimeError("boom")), inference.answers),
        ({}, features.answers, raises(RuntimeError("boom"))),
        ({}, features.answers, hangs),
        ({}, features.answers, inference.answers),
    )

    for index, (changes, features.behavior, inference.behavior) in enumerate(moments):
        rows = [row_of(symbol, weight_ppm=100_000, **changes) for symbol in symbols]
        results = await host_client.decide_many(
            opened,
            ts_ms=START_MS + index * HOUR_MS,
            rows=rows,
            deadline_s=0.5 if inference.behavior is hangs else 5.0,
        )
        assert [result.symbol for result in results] == list(symbols)

    for symbol in symbols:
        records = [
            record
            for record in recorded(host.ledger_file, opened.plan.plan_id)
            if record["symbol"] == symbol
        ]
        assert [record["ts_ms"] for record in records] == [
            START_MS + index * HOUR_MS for index in range(len(moments))
        ]
        assert [record["sequence"] for record in records] == list(range(len(moments)))
        for record in records:
            assert_null_rule(record, bound=True)
        assert [record["fallback_reason"] for record in records[7:10]] == [
            Reason.FEATURES_UNAVAILABLE,
            Reason.INFERENCE_ERROR,
            Reason.INFERENCE_DEADLINE,
        ]


@pytest.mark.proves("R245", "R209")
async def test_every_override_that_fired_is_recorded_in_order(
    host: PolicyHost, host_client: DetentClient
) -> None:
    opened = await host_client.open_plan(plan_of(fresh_plan_id()), host.binding)
    host.inference.p_hat_bps = 10_000
    row = row_of(weight_ppm=400_000, exit_intent=emergency(), vol_hat_ppm=0)

    decision = await host_client.decide(opened, ts_ms=START_MS, row=row)

    (record,) = recorded(host.ledger_file, opened.plan.plan_id)
    assert json.loads(record["reasons"]) == list(decision.reasons)
    assert decision.reasons == (
        Reason.VOL_INVALID,
        Reason.HOLD_OR_REDUCE,
        Reason.EMERGENCY_EXIT_EXECUTED,
    )


@pytest.mark.proves("R240", "R241", "R244", "R246")
async def test_records_are_keyed_to_plan_and_trade_set(
    host: PolicyHost, host_client: DetentClient
) -> None:
    """Flat to flat is one set; what follows is the next."""
    opened = await host_client.open_plan(plan_of(fresh_plan_id()), host.binding)
    held_ppm, sets = 0, []
    long, inactive = TriggerState.LONG_ALLOWED, TriggerState.INACTIVE
    for index, trigger_state in enumerate([inactive, long, long, inactive, inactive, long, long]):
        decision = await host_client.decide(
            opened,
            # Six hours apart: no cooldown stands between the entries.
            ts_ms=START_MS + 6 * index * HOUR_MS,
            row=row_of(trigger_state=trigger_state, weight_ppm=held_ppm),
        )
        held_ppm = decision.target_weight_final_ppm
        sets.append(decision.trade_set_id)

    plan_id = opened.plan.plan_id
    assert [name.rpartition("/")[2] for name in sets] == ["0", "1", "1", "1", "1", "2", "2"]
    assert {name.rpartition("/")[0] for name in sets} == {f"{plan_id}/{SYMBOL}"}
    records = recorded(host.ledger_file, plan_id)
    assert [record["trade_set_id"] for record in records] == sets


@pytest.mark.proves("R247", "R218")
async def test_a_bar_that_is_asked_twice_has_one_record(
    host: PolicyHost, host_client: DetentClient
) -> None:
    opened = await host_client.open_plan(plan_of(fresh_plan_id()), host.binding)

    first = await host_client.decide(opened, ts_ms=START_MS, row=row_of())
    # Position and volatility may have moved meanwhile; the bar was decided.
    again = await host_client.decide(
        opened, ts_ms=START_MS, row=row_of(weight_ppm=50_000, vol_hat_ppm=1)
    )

    assert again == first
    assert len(recorded(host.ledger_file, opened.plan.plan_id)) == 1
    assert len(host.inference.asked) == 1


@pytest.mark.proves("R249")
async def test_runs_with_and_without_the_model_join_without_a_gap(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    """The judge tells trigger, policy and signal source apart, bar by bar."""
    with_model = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
    without = await Strategist.open(client, artifacts.bars, PROXY_BINDING)
    for index in range(150, 180):
        for strategist in (with_model, without):
            await strategist.decide(index)

    joined = ledger_rows(
        stack.ledger_file,
        "SELECT m.ts_ms, m.trigger_state, p.trigger_state AS other_trigger_state,"
        " m.p_hat_calibrated_bps, p.p_hat_bps, m.proxy_p_hat_bps, m.signal_strength_bps,"
        " m.target_weight_raw_ppm, m.target_weight_final_ppm, p.target_weight_final_ppm AS other,"
        " m.trade_set_id, p.trade_set_id AS other_trade_set_id"
        " FROM bar_decisions m LEFT JOIN bar_decisions p"
        " ON p.symbol = m.symbol AND p.ts_ms = m.ts_ms AND p.plan_id = ?"
        " WHERE m.plan_id = ?",
        without.plan_id,
        with_model.plan_id,
    )

    assert len(joined) == 30
    for pair in joined:
        assert None not in pair.values()
        assert pair["trigger_state"] == pair["other_trigger_state"]
        assert pair["proxy_p_hat_bps"] == pair["p_hat_bps"]


@pytest.mark.proves("R212")
async def test_a_column_cannot_disagree_with_what_was_hashed(
    host: PolicyHost, host_client: DetentClient
) -> None:
    """Columns are computed from the blob, the blob from the record, the hash from the blob."""
    opened = await host_client.open_plan(plan_of(fresh_plan_id()), host.binding)
    await host_client.decide(opened, ts_ms=START_MS, row=row_of())
    (row,) = recorded(host.ledger_file, opened.plan.plan_id)

    blob = row["canonical"].encode("ascii")
    record = from_json(DecisionRecord, json.loads(blob))

    assert sha256_hex(blob) == row["record_hash"] == record.record_hash
    assert canonical_bytes(DecisionRecord.SCHEMA, to_json(record)) == blob
    answer = await host_client.get_decision(row["record_hash"])
    assert answer.record == record
    assert answer.canonical_json.encode("ascii") == blob
    with pytest.raises(sqlite3.Error, match="is a view"):
        write(host.ledger_file, "UPDATE bar_decisions SET signal_source = 'proxy'")


async def test_nothing_that_was_recorded_can_be_changed_by_a_statement(
    host: PolicyHost, host_client: DetentClient
) -> None:
    opened = await host_client.open_plan(plan_of(fresh_plan_id()), host.binding)
    await host_client.decide(opened, ts_ms=START_MS, row=row_of())

    for statement in (
        "UPDATE decision_records SET canonical = '{}'",
        "UPDATE decision_records SET ts_ms = ts_ms + 1",
        "DELETE FROM decision_records",
        "UPDATE plan_log SET event = 'closed'",
        "DELETE FROM plan_log",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            write(host.ledger_file, statement)


def write(ledger_file: Path, statement: str) -> None:
    db = sqlite3.connect(ledger_file)
    try:
        with db:
            db.execute(statement)
    finally:
        db.close()


@pytest.mark.proves("R210", "R247")
async def test_an_emergency_has_a_record_beside_the_bars_own(
    host: PolicyHost, host_client: DetentClient
) -> None:
    opened = await host_client.open_plan(plan_of(fresh_plan_id()), host.binding)
    row = row_of(weight_ppm=100_000)
    out = row_of(weight_ppm=100_000, exit_intent=emergency())

    await host_client.decide(opened, ts_ms=START_MS, row=out, kind=DecisionKind.EMERGENCY)
    await host_client.decide(opened, ts_ms=START_MS, row=row)

    kinds = [record["kind"] for record in recorded(host.ledger_file, opened.plan.plan_id)]
    assert kinds == ["emergency", "bar"]
    verified = await host_client.verify_ledger(opened.plan.plan_id)
    assert (verified.record_count, verified.breaks) == (2, ())


async def test_signal_sources_are_spelled_as_the_seed_spells_them() -> None:
    assert [str(source) for source in SignalSource] == ["proxy", "model"]
