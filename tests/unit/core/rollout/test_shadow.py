"""Proves the pairing: the unused answer stands beside the record, which does not know of it."""

import pytest
from msgspec import structs
from tests.builders import model_binding, plan_of, record_of

from detent.contracts.binding import PROXY_BINDING, SignalSource
from detent.contracts.canonical import canonical_bytes, parse_json
from detent.contracts.decision import DecisionKind
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.reasons import Reason
from detent.contracts.rollout import PlanRollout, RolloutArm
from detent.contracts.shadow import ShadowSignal
from detent.core.ledger.record import bind_plan
from detent.core.rollout.gates import ACTIVE_ACK, Enablement, enablement_reason
from detent.core.rollout.shadow import (
    is_shadowed,
    shadow_enablement,
    shadow_plans,
    shadow_signals,
)
from detent.core.signals.choice import ModelOutcome, refused

MODEL = bind_plan(plan_of("plan"), model_binding())
PROXY = bind_plan(plan_of("plan"), PROXY_BINDING)
ANSWER = ModelOutcome(features_hash="7" * 64, p_hat_raw_bps=6_100, p_hat_bps=6_000)


def paired(outcome: ModelOutcome) -> ShadowSignal:
    record = record_of(bound=MODEL, model=refused(Reason.ACTIVE_DISABLED))
    (signal,) = shadow_signals(
        [(record, record.record_hash)],
        {record.row.symbol: outcome},
        asked=MODEL,
        rollout=None,
        latency_us=1_200,
    )
    return signal


def test_an_answer_stands_beside_what_was_used() -> None:
    signal = paired(ANSWER)

    assert (signal.p_hat_bps, signal.p_hat_raw_bps, signal.reason) == (6_000, 6_100, None)
    assert (signal.used_source, signal.used_p_hat_bps) == (SignalSource.PROXY, 7_000)
    assert signal.used_reason is Reason.ACTIVE_DISABLED
    assert signal.binding_hash == MODEL.binding_hash
    assert (signal.model_id, signal.horizon_bars) == ("direction_test_v1.0.0", 4)


def test_a_reason_stands_where_there_is_no_answer() -> None:
    signal = paired(refused(Reason.INFERENCE_DEADLINE, "7" * 64))

    assert (signal.p_hat_bps, signal.reason) == (None, Reason.INFERENCE_DEADLINE)
    assert signal.features_hash == "7" * 64


def test_the_proxys_answer_is_in_the_record_and_nobody_is_asked_for_it() -> None:
    record = record_of(bound=MODEL, model=ANSWER)

    (signal,) = shadow_signals(
        [(record, record.record_hash)], None, asked=PROXY, rollout=None, latency_us=0
    )

    assert (signal.p_hat_bps, signal.used_p_hat_bps) == (7_000, 6_000)
    assert (signal.used_source, signal.model_id) == (SignalSource.MODEL, None)


def test_the_text_of_an_answer_reads_back_and_grows_by_a_rollout_only_where_there_is_one() -> None:
    signal = paired(ANSWER)
    placed = structs.replace(
        signal,
        rollout=PlanRollout(rollout_id="r1", arm=RolloutArm.CANDIDATE, canary_bps=500, revision=3),
    )

    assert "rollout" not in to_json(signal)
    for one in (signal, placed):
        text = canonical_bytes(ShadowSignal.SCHEMA, to_json(one))
        assert from_json(ShadowSignal, parse_json("shadow", text)) == one


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"reason": Reason.OUTPUT_INVALID}, id="both"),
        pytest.param({"p_hat_bps": None, "p_hat_raw_bps": None}, id="neither"),
        pytest.param({"p_hat_raw_bps": None}, id="half an answer"),
        pytest.param({"p_hat_bps": 10_001}, id="no probability"),
        pytest.param({"record_hash": "7"}, id="no record"),
        pytest.param({"latency_us": -1}, id="before it was asked"),
    ],
)
def test_what_says_two_things_or_none_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidField):
        structs.replace(paired(ANSWER), **changes)


def test_a_plans_own_model_is_asked_unused_only_on_the_rung_for_it() -> None:
    assert [one.binding_hash for one in shadow_plans(MODEL, own=True)] == [MODEL.binding_hash]
    assert shadow_plans(MODEL, own=False) == ()
    assert shadow_plans(PROXY, own=True) == ()


def test_a_rollouts_other_side_is_asked_whatever_becomes_of_the_rollout() -> None:
    arm = PlanRollout(rollout_id="r1", arm=RolloutArm.CANDIDATE, canary_bps=500, revision=3)
    stable = model_binding(model_id="direction_test_v0.9.0")
    bound = bind_plan(plan_of("plan"), model_binding(), rollout=arm, shadow_binding=stable)
    (asked,) = shadow_plans(bound, own=False)

    assert (asked.binding, asked.binding_hash) == (stable, stable.binding_hash)
    assert asked.rollout is None
    assert [one.binding for one in shadow_plans(bound, own=True)] == [bound.binding, stable]


def test_an_emergency_has_no_shadow() -> None:
    assert is_shadowed(record_of())
    assert not is_shadowed(record_of(kind=DecisionKind.EMERGENCY))


@pytest.mark.parametrize(
    ("given", "env", "reason"),
    [
        pytest.param(Enablement(infer_enabled=True), False, None, id="the first key suffices"),
        pytest.param(Enablement(), False, Reason.INFER_DISABLED, id="no key"),
        pytest.param(Enablement(infer_enabled=True), True, Reason.KILL_SWITCH_ENV, id="killed"),
        pytest.param(
            Enablement(infer_enabled=True, kill_switch=True),
            False,
            Reason.KILL_SWITCH_CONFIG,
            id="killed by configuration",
        ),
        pytest.param(
            Enablement(infer_enabled=True, environment="paper", allowed_environments=("live",)),
            False,
            None,
            id="an environment is about acting",
        ),
    ],
)
def test_a_shadow_has_the_switches_of_a_model_that_does_not_act(
    given: Enablement, env: bool, reason: Reason | None
) -> None:
    assert enablement_reason(shadow_enablement(given), kill_switch_env=env) is reason


def test_a_shadows_switches_let_no_model_act() -> None:
    """What is derived is for asking: the process's own switches stay as they were."""
    own = Enablement(infer_enabled=True)

    assert shadow_enablement(own).active_ack == ACTIVE_ACK
    assert enablement_reason(own, kill_switch_env=False) is Reason.ACTIVE_DISABLED
