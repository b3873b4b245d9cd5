"""Proves that one number crosses from the model into policy, and what it cannot do there."""

import ast
import inspect
import typing
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from tests.builders import (
    HOUR_MS,
    START_MS,
    SYMBOL,
    emergency,
    model_binding,
    plan_of,
    policy_inputs_of,
    record_of,
    row_of,
)
from tests.conftest import Artifacts
from tests.fakes import PolicyHost
from tests.strategist import Strategist, fresh_plan_id, recorded

import detent.core.policy
from detent.api.v1 import (
    decision_record_pb2,
    inference_service_pb2,
    ml_signal_snapshot_pb2,
    plan_pb2,
    policy_service_pb2,
)
from detent.contracts.binding import SignalSource
from detent.contracts.caller_feature import CallerFeature
from detent.contracts.decision import DecisionKind, DecisionRow, SignalRecord
from detent.contracts.json_codec import field_hints, is_domain_type, unwrap_optional
from detent.contracts.plan import (
    STATE_INITIAL,
    HorizonAlpha,
    OrderStyle,
    Plan,
    PolicyConfig,
    RiskOverrides,
    StandDown,
    StandDownSource,
    TriggerState,
)
from detent.contracts.reasons import Reason
from detent.core.ledger.record import CHAIN_START, bind_plan, policy_inputs, record_decision
from detent.core.policy.decide import decide_weight
from detent.core.policy.inputs import PolicyInputs
from detent.core.signals.choice import ModelOutcome
from detent.core.signals.proxy import ProxyAnswer
from detent_cli.stack import Stack
from detent_client import DetentClient

PERMITTED = {
    TriggerState.INACTIVE: (0, 0),
    TriggerState.EXIT_ONLY: (-1, 1),
    TriggerState.LONG_ALLOWED: (0, 1),
    TriggerState.SHORT_ALLOWED: (-1, 0),
}
GRID_BPS = (0, 1, 2_500, 4_499, 4_999, 5_000, 5_001, 5_501, 7_500, 9_999, 10_000)
FOREIGN = ("p_hat", "feature", "probability", "confidence", "model", "proxy", "head")


# What policy can see


@pytest.mark.proves("R162", "R191", "R195", "R196", "R205")
def test_policy_sees_exactly_these_fields() -> None:
    """Whoever adds one has to come here and say why."""
    names = set(PolicyInputs.__struct_fields__)

    assert names == {
        "symbol",
        "ts_ms",
        "bar_interval_ms",
        "trigger_state",
        "triggers_known",
        "signal_strength_bps",
        "vol_hat_ppm",
        "current_weight_ppm",
        "equity",
        "exit_intent",
        "emergency_only",
        "overrides",
        "config",
        "limits",
        "state",
        # What a book of learning permits: gates and a budget, nothing of any signal.
        "learning",
        # What keeps new exposure out or asks for an exit; none of it can add anything.
        "further_exit_intents",
        "stand_down",
        "no_new_long",
        "no_new_short",
    }


@pytest.mark.proves("R162", "R196", "R205", "R207")
def test_nothing_that_policy_sees_carries_a_belief_or_a_feature() -> None:
    """One integer in basis points, and no other number that a model could have written."""
    found = dict(all_fields(PolicyInputs))

    for path in found:
        assert not any(word in path.lower() for word in FOREIGN), path
    assert [path for path in found if path.endswith("_bps")] == [
        "signal_strength_bps",
        "config.tau_bps",
    ]
    assert not any(kind is float for kind in found.values())
    assert list(inspect.signature(decide_weight).parameters) == ["inputs"]


def all_fields(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk over the fields of a type and of everything in it."""
    for name, hint in field_hints(kind):
        bare, _ = unwrap_optional(hint)
        inner = typing.get_args(bare)[0] if typing.get_origin(bare) is tuple else bare
        yield prefix + name, inner
        if is_domain_type(inner):
            yield from all_fields(typing.cast("type", inner), f"{prefix}{name}.")


@pytest.mark.proves("R162", "R195", "R197")
def test_the_policy_package_cannot_even_name_a_signal_or_a_feature() -> None:
    """What is not imported cannot be read; and no line of it knows one model from another."""
    for source in Path(detent.core.policy.__path__[0]).glob("*.py"):
        tree = ast.parse(source.read_text(encoding="utf-8"))
        imported = [
            node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        ]
        assert not [name for name in imported if "signals" in name or "features" in name]
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not {name for name in names if "model" in name or "p_hat" in name}, source.name


@pytest.mark.proves("R162", "R191", "R195", "R205")
def test_the_question_about_a_bar_has_no_place_for_a_belief() -> None:
    request = policy_service_pb2.DecideTargetWeightsRequest.DESCRIPTOR
    row = decision_record_pb2.DecisionRow.DESCRIPTOR

    names = [field.name for field in (*request.fields, *row.fields)]

    # What only the strategist knows goes to the model; that it ends there is shown below.
    assert [name for name in names if any(word in name for word in FOREIGN)] == ["caller_features"]


@pytest.mark.proves("R191", "R195")
def test_an_artifact_has_no_way_to_say_when_or_which_way() -> None:
    forbidden = ("side", "direction_of", "order", "weight_ppm", "trigger", "entry", "exit", "size")
    messages = ml_signal_snapshot_pb2.DESCRIPTOR.message_types_by_name.values()

    for message in messages:
        for field in message.fields:
            assert not any(word in field.name for word in forbidden), field.full_name


@pytest.mark.proves("R195")
def test_inference_has_no_call_that_could_move_anything() -> None:
    service = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"]

    assert [method.name for method in service.methods] == ["InferSignals", "DescribeArtifact"]
    for method in service.methods:
        for message in (method.input_type, method.output_type):
            assert not any(word in message.full_name for word in ("Plan", "Order", "Policy"))


@pytest.mark.proves("R162", "R196")
@given(value=st.decimals(-1_000, 1_000, places=2))
def test_what_the_strategist_tells_the_model_does_not_reach_the_weight(value: Decimal) -> None:
    """With one answer of the model, a row with caller features has the outcome of one without."""
    said = (CallerFeature(name="position_size", value=value),)

    told, silent = record_of(row=row_of(caller_features=said)), record_of(row=row_of())

    assert told.outcome == silent.outcome
    assert (told.signal, told.state_after) == (silent.signal, silent.state_after)
    assert told.record_hash != silent.record_hash


@pytest.mark.proves("R162", "R191", "R196")
@given(st.data())
def test_provenance_does_not_reach_the_weight(data: st.DataObject) -> None:
    """Two signals with one strength and nothing else in common give one outcome."""
    strength_bps = data.draw(st.integers(0, 10_000))
    one, other = (signal_of(strength_bps, data) for _ in range(2))
    row = row_of(weight_ppm=data.draw(st.integers(-300_000, 300_000)))
    plan = plan_of("plan")

    outcomes = [
        decide_weight(
            policy_inputs(
                plan=plan,
                ts_ms=START_MS,
                kind=DecisionKind.BAR,
                row=row,
                signal=signal,
                state=STATE_INITIAL,
            )
        )
        for signal in (one, other)
    ]

    assert outcomes[0] == outcomes[1]


def signal_of(strength_bps: int, data: st.DataObject) -> SignalRecord:
    bps = st.integers(0, 10_000)
    hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
    return SignalRecord(
        signal_source=data.draw(st.sampled_from(list(SignalSource))),
        fallback_reason=data.draw(st.sampled_from([None, Reason.INFERENCE_DEADLINE])),
        model_id=data.draw(st.sampled_from([None, "m_v1.0.0"])),
        model_version_hash=data.draw(hashes),
        feature_version=data.draw(hashes),
        calibration_version=data.draw(hashes),
        features_hash=data.draw(hashes),
        p_hat_raw_bps=data.draw(bps),
        p_hat_calibrated_bps=data.draw(bps),
        proxy_version=data.draw(hashes),
        proxy_p_hat_bps=data.draw(bps),
        proxy_reason=data.draw(st.sampled_from([None, Reason.PROXY_FLAT])),
        p_hat_bps=data.draw(bps),
        signal_strength_bps=strength_bps,
    )


# What the number can do there


@pytest.mark.proves("R189", "R190", "R191", "R192", "R193", "R194", "R200")
@pytest.mark.parametrize("trigger_state", list(TriggerState))
@pytest.mark.parametrize("source", list(SignalSource))
@pytest.mark.parametrize("weight_ppm", [-1_500_000, -200_000, -1, 0, 1, 200_000, 1_500_000])
def test_no_belief_moves_a_weight_past_its_permission(
    trigger_state: TriggerState, source: SignalSource, weight_ppm: int
) -> None:
    low, high = PERMITTED[trigger_state]
    w_max_ppm = plan_of("plan").policy_config.w_max_ppm

    for p_hat_bps in GRID_BPS:
        final_ppm = final_weight(p_hat_bps, source, trigger_state, weight_ppm)

        assert low * w_max_ppm <= final_ppm <= high * w_max_ppm
        if trigger_state is TriggerState.EXIT_ONLY:
            assert final_ppm == 0 or abs(final_ppm) < abs(weight_ppm)
            assert final_ppm * weight_ppm >= 0


def final_weight(
    p_hat_bps: int, source: SignalSource, trigger_state: TriggerState, weight_ppm: int
) -> int:
    modelled = source is SignalSource.MODEL
    record = record_decision(
        bound=bind_plan(plan_of("plan"), model_binding(signal_source=source)),
        ts_ms=START_MS,
        kind=DecisionKind.BAR,
        row=row_of(trigger_state=trigger_state, weight_ppm=weight_ppm),
        proxy=ProxyAnswer(p_hat_bps=p_hat_bps, reason=None),
        model=ModelOutcome(p_hat_raw_bps=p_hat_bps, p_hat_bps=p_hat_bps) if modelled else None,
        point=CHAIN_START,
    )
    return record.outcome.target_weight_final_ppm


@pytest.mark.proves("R193", "R200")
@settings(max_examples=200)
@given(st.data())
def test_an_exit_shrinks_on_every_bar_and_ends_at_exactly_zero(data: st.DataObject) -> None:
    sign = data.draw(st.sampled_from([-1, 1]))
    equity = data.draw(st.decimals("0.01", "1e9", places=2))
    strengths = data.draw(st.lists(st.integers(0, 10_000), min_size=1, max_size=5))
    alpha = HorizonAlpha(horizon_id="h", alpha_ppm=data.draw(st.integers(5_000, 1_000_000)))
    config = PolicyConfig(
        horizon_id="h",
        epsilon_w_ppm=data.draw(st.integers(0, 50_000)),
        alpha_by_horizon=(alpha,),
    )
    held_ppm = sign * data.draw(st.integers(1, 100_000_000))
    bars = 0
    while held_ppm != 0:
        outcome, _ = decide_weight(
            policy_inputs_of(
                trigger_state=TriggerState.EXIT_ONLY,
                current_weight_ppm=held_ppm,
                signal_strength_bps=strengths[bars % len(strengths)],
                config=config,
                equity=equity,
            )
        )
        assert abs(outcome.target_weight_final_ppm) < abs(held_ppm)
        assert outcome.target_weight_final_ppm * sign >= 0
        assert outcome.order_style is OrderStyle.TAKER
        held_ppm = outcome.target_weight_final_ppm
        bars += 1
        assert bars < 10_000


# The same over the wire


@pytest.mark.proves("R189", "R191", "R192", "R194", "R200", "R305")
async def test_no_answer_of_a_model_moves_a_weight_past_its_permission_over_the_wire(
    host: PolicyHost, host_client: DetentClient
) -> None:
    w_max_ppm = plan_of("plan").policy_config.w_max_ppm
    for trigger_state, (low, high) in PERMITTED.items():
        for weight_ppm in (-100_000, 0, 100_000):
            opened = await host_client.open_plan(plan_of(fresh_plan_id()), host.binding)
            for index, p_hat_bps in enumerate(GRID_BPS):
                host.inference.p_hat_bps = p_hat_bps
                decision = await host_client.decide(
                    opened,
                    ts_ms=START_MS + index * HOUR_MS,
                    row=row_of(trigger_state=trigger_state, weight_ppm=weight_ppm),
                )
                assert decision.p_hat_bps == p_hat_bps
                final_ppm = decision.target_weight_final_ppm
                assert low * w_max_ppm <= final_ppm <= high * w_max_ppm


@pytest.mark.proves("R192", "R305")
async def test_an_inactive_trigger_flattens_a_position_whatever_the_model_believes(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)

    for index in range(300, 320):
        decision = await strategist.decide(index, TriggerState.INACTIVE, weight_ppm=200_000)
        assert decision.signal_source is SignalSource.MODEL
        assert decision.target_weight_final_ppm == 0
        assert decision.delta_weight_ppm == -200_000
        assert decision.order_style is OrderStyle.TAKER
        assert decision.reasons == (Reason.TRIGGER_INACTIVE,)
    beliefs = [row["p_hat_bps"] for row in recorded(stack.ledger_file, strategist.plan_id)]
    assert max(beliefs) > 6_000


@pytest.mark.proves("R193")
async def test_an_exit_reaches_exactly_zero_over_the_wire(
    client: DetentClient, artifacts: Artifacts
) -> None:
    strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
    strategist.weight_ppm = 200_000

    path = [strategist.weight_ppm]
    for index in range(100, 130):
        await strategist.decide(index, TriggerState.EXIT_ONLY)
        path.append(strategist.weight_ppm)
        if strategist.weight_ppm == 0:
            break

    # FORMULAS, annex A: .20 goes to .14; ours does not stall above epsilon.
    assert path[:2] == [200_000, 140_000]
    assert path == sorted(path, reverse=True)
    assert len(set(path)) == len(path)
    assert path[-1] == 0
    flat = await strategist.decide(130, TriggerState.EXIT_ONLY)
    assert (flat.target_weight_final_ppm, flat.order_style) == (0, OrderStyle.NONE)


@pytest.mark.proves("R225", "R226", "R229", "R230")
async def test_an_emergency_is_flat_at_once_and_asks_no_model(
    host: PolicyHost, host_client: DetentClient
) -> None:
    opened = await host_client.open_plan(plan_of(fresh_plan_id()), host.binding)
    host.inference.p_hat_bps = 10_000
    row = row_of(weight_ppm=150_000)
    await host_client.decide(opened, ts_ms=START_MS, row=row)
    asked = len(host.inference.asked)

    decision = await host_client.decide(
        opened,
        ts_ms=START_MS,
        row=structs.replace(row, exit_intent=emergency()),
        kind=DecisionKind.EMERGENCY,
    )

    assert decision.target_weight_final_ppm == 0
    assert decision.delta_weight_ppm == -150_000
    assert decision.order_style is OrderStyle.TAKER
    assert Reason.EMERGENCY_EXIT_EXECUTED in decision.reasons
    assert len(host.inference.asked) == asked
    bar, exit_ = recorded(host.ledger_file, opened.plan.plan_id)
    assert (bar["kind"], exit_["kind"]) == ("bar", "emergency")


@pytest.mark.proves("R190", "R222")
async def test_a_tighter_limit_of_the_bar_cuts_the_strongest_belief(
    host: PolicyHost, host_client: DetentClient
) -> None:
    opened = await host_client.open_plan(plan_of(fresh_plan_id()), host.binding)
    host.inference.p_hat_bps = 10_000
    stand_down = StandDown(
        until_ts_ms=START_MS + 10 * HOUR_MS, reason="news", source=StandDownSource.OPS
    )
    cases = (
        (RiskOverrides(max_weight_ppm=40_000), 40_000, Reason.RISK_CAP_OVERRIDE),
        (RiskOverrides(max_weight_ppm=0), 0, Reason.RISK_CAP_OVERRIDE),
        (RiskOverrides(stand_down=stand_down), 0, Reason.STAND_DOWN),
    )

    for index, (overrides, final_ppm, reason) in enumerate(cases):
        row = row_of(weight_ppm=240_000, risk_overrides=overrides)
        decision = await host_client.decide(opened, ts_ms=START_MS + index * HOUR_MS, row=row)

        assert decision.signal_strength_bps == 10_000
        assert decision.target_weight_final_ppm == final_ppm
        assert reason in decision.reasons


def test_the_contract_has_one_source_of_permission() -> None:
    """A row says what the trigger permits; a plan cannot say it once for all bars."""
    assert "trigger_state" in set(DecisionRow.__struct_fields__)
    assert "trigger_state" not in set(Plan.__struct_fields__)
    assert plan_pb2.TriggerState.keys()[0] == "TRIGGER_STATE_UNSPECIFIED"
    assert row_of(SYMBOL).trigger_state is TriggerState.LONG_ALLOWED
