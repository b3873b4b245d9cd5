"""Proves that a record is a pure function of its question, and replays to the same bytes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.builders import (
    HOUR_MS,
    START_MS,
    SYMBOL,
    emergency,
    model_binding,
    plan_of,
    record_of,
    row_of,
)

from detent.contracts.binding import PROXY_BINDING, SignalSource
from detent.contracts.canonical import canonical_bytes, parse_json, sha256_hex
from detent.contracts.decision import DecisionKind, DecisionRecord, decision_of
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.plan import Trigger, TriggerState
from detent.contracts.reasons import Reason
from detent.core.ledger.record import (
    CHAIN_START,
    ChainPoint,
    bind_plan,
    replay_decision,
    triggers_known,
)
from detent.core.signals.choice import ModelOutcome, refused
from detent.core.signals.proxy import ProxyAnswer

BOUND = bind_plan(plan_of("plan"), model_binding())
ANSWER = ModelOutcome(features_hash="d" * 64, p_hat_raw_bps=7_000, p_hat_bps=9_000)


@pytest.mark.proves("R51", "R212")
def test_the_same_question_gives_the_same_bytes() -> None:
    one, other = (record_of(bound=BOUND, model=ANSWER) for _ in range(2))

    assert one.canonical == other.canonical
    assert one.record_hash == sha256_hex(one.canonical)


@pytest.mark.proves("R51", "R212")
@given(st.data())
def test_a_stream_replays_to_the_same_bytes(data: st.DataObject) -> None:
    """From the recorded probabilities on: rows, gates, weights, state and hashes come again."""
    bound = BOUND if data.draw(st.booleans()) else bind_plan(plan_of("plan"), PROXY_BINDING)
    point = CHAIN_START
    for bar in range(data.draw(st.integers(1, 8))):
        record = drawn_record(data, bound=bound, point=point, ts_ms=START_MS + bar * HOUR_MS)
        read_back = from_json(DecisionRecord, parse_json("record", record.canonical))

        replayed = replay_decision(read_back, bound=bound, point=point)

        assert read_back == record
        assert replayed.canonical == record.canonical
        point = ChainPoint(
            sequence=bar + 1, previous_hash=record.record_hash, state=record.state_after
        )


def drawn_record(data: st.DataObject, **fixed: Any) -> DecisionRecord:
    bps = st.integers(0, 10_000)
    kind = data.draw(st.sampled_from(list(DecisionKind)))
    models = [None, ANSWER, refused(Reason.INFERENCE_DEADLINE, "d" * 64)]
    modelled = fixed["bound"].binding.signal_source is SignalSource.MODEL
    model = data.draw(st.sampled_from(models)) if modelled else None
    if kind is DecisionKind.BAR and modelled and model is None:
        model = refused(Reason.FEATURES_STALE)
    row = row_of(
        trigger_state=data.draw(st.sampled_from(list(TriggerState))),
        weight_ppm=data.draw(st.integers(-500_000, 500_000)),
        vol_hat_ppm=data.draw(st.one_of(st.none(), st.integers(-1, 10**9))),
        exit_intent=emergency() if kind is DecisionKind.EMERGENCY else None,
    )
    reason = data.draw(st.sampled_from([None, Reason.PROXY_WARMING_UP]))
    proxy = ProxyAnswer(p_hat_bps=5_000 if reason else data.draw(bps), reason=reason)
    return record_of(row=row, model=model, kind=kind, proxy=proxy, **fixed)


@pytest.mark.proves("R212")
def test_a_record_has_no_wall_clock_and_no_latency_in_it() -> None:
    """Whatever would differ in a replay has no place in what is hashed."""
    text = json.dumps(to_json(record_of(bound=BOUND, model=ANSWER)))

    for word in ("latency", "now", "created", "recorded_at", "elapsed", "host"):
        assert word not in text


def test_every_field_of_a_record_is_part_of_its_hash() -> None:
    record = record_of(bound=BOUND, model=ANSWER)
    fields = to_json(record)

    for name in fields:
        changed = canonical_bytes(DecisionRecord.SCHEMA, {**fields, name: "other"})
        assert sha256_hex(changed) != record.record_hash


@pytest.mark.proves("R51")
def test_a_record_carries_on_from_the_point_that_it_was_given() -> None:
    first = record_of(bound=BOUND, model=ANSWER)
    point = ChainPoint(sequence=1, previous_hash=first.record_hash, state=first.state_after)

    second = record_of(bound=BOUND, model=ANSWER, point=point, ts_ms=START_MS + HOUR_MS)

    assert (second.sequence, second.previous_hash) == (1, first.record_hash)
    # One bar after a rebalance the cooldown of two bars withholds the next.
    assert Reason.REBALANCE_COOLDOWN in second.outcome.reasons


@pytest.mark.parametrize(
    ("trigger_state", "active", "known"),
    [
        (TriggerState.LONG_ALLOWED, ("breakout",), True),
        (TriggerState.LONG_ALLOWED, (), False),
        (TriggerState.LONG_ALLOWED, ("stranger",), False),
        (TriggerState.SHORT_ALLOWED, ("breakout", "stranger"), False),
        (TriggerState.EXIT_ONLY, (), True),
        (TriggerState.INACTIVE, (), True),
        (TriggerState.INACTIVE, ("stranger",), False),
    ],
)
def test_a_permission_needs_a_trigger_of_the_plan_behind_it(
    trigger_state: TriggerState, active: tuple[str, ...], known: bool
) -> None:
    plan = plan_of("plan", triggers=(Trigger(trigger_id="breakout", parameters_hash="0" * 64),))
    row = row_of(trigger_state=trigger_state, active_trigger_ids=active)

    assert triggers_known(plan, row) == known


def test_a_bar_is_usable_until_the_next_one_closes() -> None:
    assert record_of(bound=BOUND, model=ANSWER).valid_until_ts_ms == START_MS + HOUR_MS


def test_a_decision_is_the_part_of_a_record_that_is_acted_on() -> None:
    record = record_of(bound=BOUND, model=ANSWER)

    decision = decision_of(record, record.record_hash)

    assert decision.symbol == SYMBOL
    assert decision.target_weight_final_ppm == record.outcome.target_weight_final_ppm
    assert decision.delta_weight_ppm == record.outcome.delta_weight_ppm
    assert decision.reasons == record.outcome.reasons
    assert decision.signal_source is SignalSource.MODEL
    assert decision.record_hash == record.record_hash


def test_binding_a_proxy_plan_drops_what_does_not_count() -> None:
    """Rolling back changes one field of the binding; what is bound is the bare proxy."""
    rolled_back = structs.replace(model_binding(), signal_source=SignalSource.PROXY)

    assert bind_plan(plan_of("plan"), rolled_back) == bind_plan(plan_of("plan"), PROXY_BINDING)
