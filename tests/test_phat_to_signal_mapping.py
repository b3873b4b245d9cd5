"""Proves the map from a probability to a magnitude, and that it is the one place to swap."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.builders import OTHER_SYMBOL, model_binding, plan_of, row_of
from tests.conftest import Artifacts
from tests.fakes import PolicyHost, RawServer, signals_of
from tests.strategist import Strategist, fresh_plan_id, recorded

from detent.adapters.grpc_dependencies import GrpcInference
from detent.contracts.binding import PROXY_BINDING, ModelBinding, SignalSource
from detent.contracts.calls.inference import InferSignalsRequest
from detent.contracts.decision import Decision
from detent.contracts.json_codec import to_json
from detent.contracts.plan import TriggerState
from detent.contracts.reasons import Reason
from detent.contracts.signals import DirectionSignal
from detent.contracts.units import BPS_ONE
from detent.contracts.wire import from_wire, to_wire
from detent.core.signals.binary_maps import LogisticMap
from detent.core.signals.calibration import Calibrator
from detent.core.signals.quantise import shares_bps
from detent.core.signals.strength import signal_strength_bps
from detent.rpc.channel import open_channel
from detent.rpc.tracing import no_tracer
from detent_cli.stack import Stack
from detent_client import ClientOptions, DetentClient

LONG, SHORT = TriggerState.LONG_ALLOWED, TriggerState.SHORT_ALLOWED
INACTIVE, EXIT_ONLY = TriggerState.INACTIVE, TriggerState.EXIT_ONLY
REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "quant" / "kelly_fees.json"


# The map


@pytest.mark.proves("R198")
@pytest.mark.parametrize(
    ("p_hat_bps", "strength_bps"),
    [
        (10_000, 10_000),
        (8_000, 6_000),
        (6_500, 3_000),
        (5_001, 2),
        (5_000, 0),
        (4_999, 0),
        (2_000, 0),
        (0, 0),
    ],
)
def test_a_long_permission_scales_the_belief_above_one_half(
    p_hat_bps: int, strength_bps: int
) -> None:
    assert signal_strength_bps(p_hat_bps, LONG) == strength_bps


@pytest.mark.proves("R199")
@pytest.mark.parametrize(
    ("p_hat_bps", "strength_bps"),
    [
        (0, 10_000),
        (2_000, 6_000),
        (3_500, 3_000),
        (4_999, 2),
        (5_000, 0),
        (5_001, 0),
        (8_000, 0),
        (10_000, 0),
    ],
)
def test_a_short_permission_scales_the_belief_below_one_half(
    p_hat_bps: int, strength_bps: int
) -> None:
    assert signal_strength_bps(p_hat_bps, SHORT) == strength_bps


@pytest.mark.proves("R200")
@pytest.mark.parametrize("trigger_state", [INACTIVE, EXIT_ONLY])
def test_without_a_permission_nothing_is_scaled(trigger_state: TriggerState) -> None:
    assert {signal_strength_bps(p_bps, trigger_state) for p_bps in range(BPS_ONE + 1)} == {0}


@pytest.mark.proves("R198", "R199", "R201")
def test_the_map_is_the_formula_at_every_basis_point() -> None:
    """All of it, against the formula in floats: 20,002 points."""
    for p_bps in range(BPS_ONE + 1):
        p = p_bps / BPS_ONE
        long = min(max(2 * (p - 0.5), 0.0), 1.0)
        short = min(max(2 * (0.5 - p), 0.0), 1.0)
        assert math.isclose(signal_strength_bps(p_bps, LONG) / BPS_ONE, long, abs_tol=1e-12)
        assert math.isclose(signal_strength_bps(p_bps, SHORT) / BPS_ONE, short, abs_tol=1e-12)


@pytest.mark.proves("R201")
@given(st.integers(0, BPS_ONE), st.integers(0, BPS_ONE), st.sampled_from([LONG, SHORT]))
def test_the_map_never_turns_a_belief_around(
    one_bps: int, other_bps: int, trigger_state: TriggerState
) -> None:
    low_bps, high_bps = sorted((one_bps, other_bps))
    weaker, stronger = (low_bps, high_bps) if trigger_state is LONG else (high_bps, low_bps)

    at_weaker = signal_strength_bps(weaker, trigger_state)
    at_stronger = signal_strength_bps(stronger, trigger_state)

    assert 0 <= at_weaker <= at_stronger <= BPS_ONE


@pytest.mark.proves("R201")
@given(st.integers(0, BPS_ONE))
def test_no_belief_scales_both_directions(p_hat_bps: int) -> None:
    assert 0 in (signal_strength_bps(p_hat_bps, LONG), signal_strength_bps(p_hat_bps, SHORT))


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference values are not at hand")
def test_the_map_agrees_with_the_reference_values() -> None:
    fixture = reference("signal_strength_mapping")

    for trigger_state, strengths in fixture["expected"].items():
        for p_hat, strength in zip(fixture["inputs"]["p_hat"], strengths, strict=True):
            found_bps = signal_strength_bps(round(p_hat * BPS_ONE), TriggerState(trigger_state))
            assert math.isclose(found_bps / BPS_ONE, strength, abs_tol=1e-12)


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference values are not at hand")
def test_basis_points_agree_with_the_reference_values() -> None:
    # Rows without a value of their own tie in decimal notation, which floats do not.
    rows = [row for row in reference("bps_sum_10000")["expected"]["rows"] if row["bps"]]

    assert rows
    for row in rows:
        assert shares_bps(row["p"]) == tuple(row["bps"])


def reference(fixture_id: str) -> dict[str, Any]:
    fixtures = json.loads(REFERENCE.read_text(encoding="utf-8"))["fixtures"]
    return next(fixture for fixture in fixtures if fixture["id"] == fixture_id)


# What is no probability


@pytest.mark.proves("R201", "R203")
@pytest.mark.parametrize(
    "p_hat", [-1e-9, 1.0001, math.nextafter(1.0, 2.0), -5e-324, math.nan, math.inf, -math.inf]
)
def test_what_is_no_probability_becomes_a_reason(p_hat: float) -> None:
    assert Calibrator(map=LogisticMap(a=-1.0, b=0.0)).direction(p_hat) is Reason.OUTPUT_INVALID


@pytest.mark.proves("R203")
@pytest.mark.parametrize("p_hat", [0.0, -0.0, 5e-324, 0.5, math.nextafter(1.0, 0.0), 1.0])
def test_the_ends_of_the_domain_are_probabilities(p_hat: float) -> None:
    answer = Calibrator(map=LogisticMap(a=-1.0, b=0.0)).direction(p_hat)

    assert isinstance(answer, DirectionSignal)
    assert 0 <= answer.p_hat_bps <= BPS_ONE


def spoil(field: str, value: int) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        (column,) = (column for column in message.columns.signals if column.name == field)
        column.values = value.to_bytes(4, "little", signed=True)

    return change


@pytest.mark.proves("R73", "R201", "R203")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(spoil("p_hat_bps", 10_001), id="above one"),
        pytest.param(spoil("p_hat_bps", -1), id="below zero"),
        pytest.param(spoil("p_hat_raw_bps", 2**31 - 1), id="raw above one"),
        pytest.param(spoil("p_hat_raw_bps", -(2**31)), id="raw below zero"),
    ],
)
async def test_a_probability_outside_its_domain_is_a_fallback_over_the_wire(
    tmp_path: Path, change: Callable[[Any], None]
) -> None:
    """The other end is not ours here: it sends what our own types would refuse to build."""
    binding = model_binding()

    def answer(message: Any) -> Any:
        query = from_wire(InferSignalsRequest, message)
        response = to_wire(signals_of(query, binding, p_hat_bps=10_000))
        change(response)
        return response

    decision, record = await decide_with(answer, binding, tmp_path)

    assert decision.signal_source is SignalSource.PROXY
    assert decision.fallback_reason is Reason.OUTPUT_INVALID
    assert decision.target_weight_final_ppm == 0
    assert record["p_hat_raw_bps"] is record["p_hat_calibrated_bps"] is None


async def decide_with(
    answer: Callable[[Any], Any], binding: ModelBinding, folder: Path
) -> tuple[Decision, dict[str, Any]]:
    """Decide one bar with a foreign inference server behind policy."""
    async with RawServer("InferenceService", {"InferSignals": answer}) as server:
        channel: grpc.aio.Channel = open_channel(server.target)
        host = PolicyHost(
            folder / "ledger.sqlite", binding, inference=GrpcInference(channel, no_tracer())
        )
        options = {"journal_file": folder / "journal.jsonl", "deadline_s": 5.0}
        async with (
            host,
            DetentClient(
                ClientOptions(policy_target=host.target, **options)  # type: ignore[arg-type]
            ) as client,
        ):
            opened = await client.open_plan(plan_of("p"), binding)
            decision = await client.decide(opened, ts_ms=1_700_000_000_000, row=row_of())
        await channel.close()
    return decision, recorded(folder / "ledger.sqlite", "p")[0]


# Over the wire, with the real model


@pytest.mark.proves("R198", "R199", "R200", "R196")
@pytest.mark.parametrize("trigger_state", list(TriggerState))
async def test_the_recorded_strength_is_the_map_of_the_recorded_belief(
    stack: Stack, client: DetentClient, artifacts: Artifacts, trigger_state: TriggerState
) -> None:
    strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)

    decisions = [await strategist.decide(index, trigger_state) for index in range(300, 330)]

    beliefs = {decision.p_hat_bps for decision in decisions}
    assert min(beliefs) < 5_000 < max(beliefs), "the model must believe both for this to say much"
    for decision, record in zip(
        decisions, recorded(stack.ledger_file, strategist.plan_id), strict=True
    ):
        assert decision.signal_source is SignalSource.MODEL, decision
        assert record["p_hat_bps"] == record["p_hat_calibrated_bps"] == decision.p_hat_bps
        expected_bps = signal_strength_bps(decision.p_hat_bps, trigger_state)
        assert record["signal_strength_bps"] == decision.signal_strength_bps == expected_bps


@pytest.mark.proves("R136", "R137", "R202")
async def test_swapping_the_source_changes_nothing_but_the_source(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    """Two plans, equal but for their names and one field of the binding."""
    model = artifacts.stable_binding
    proxy = structs.replace(model, signal_source=SignalSource.PROXY)
    of_model = await Strategist.open(client, artifacts.bars, model)
    of_proxy = await Strategist.open(client, artifacts.bars, proxy)

    for index in range(100, 170):
        await of_model.decide(index)
        await of_proxy.decide(index)

    plans = [to_json((await client.get_plan(s.plan_id)).plan) for s in (of_model, of_proxy)]
    for plan in plans:
        del plan["plan_id"], plan["book"]
    assert plans[0] == plans[1]
    with_model, with_proxy = (
        [json.loads(record["canonical"]) for record in recorded(stack.ledger_file, s.plan_id)]
        for s in (of_model, of_proxy)
    )
    assert {record["signal"]["signal_source"] for record in with_model} == {"model"}
    assert {record["signal"]["signal_source"] for record in with_proxy} == {"proxy"}
    for one, other in zip(with_model, with_proxy, strict=True):
        assert one["policy_config_hash"] == other["policy_config_hash"]
        assert one["signal"]["proxy_p_hat_bps"] == other["signal"]["proxy_p_hat_bps"]
        assert one.keys() == other.keys()
        assert one["outcome"].keys() == other["outcome"].keys()


@pytest.mark.proves("R202")
async def test_equal_strengths_from_either_source_give_equal_weights(
    host: PolicyHost, host_client: DetentClient
) -> None:
    """The swap ends where policy begins: it cannot tell who believed what."""
    proxied = await host_client.open_plan(plan_of(fresh_plan_id()), PROXY_BINDING)
    modelled = await host_client.open_plan(plan_of(fresh_plan_id()), host.binding)
    ts_ms = 1_700_000_000_000
    weight_ppm = 0
    for index in range(80):
        row = row_of(close=str(100 + index * index % 17), weight_ppm=weight_ppm)
        by_proxy = await host_client.decide(proxied, ts_ms=ts_ms, row=row)
        host.inference.p_hat_bps = by_proxy.p_hat_bps
        by_model = await host_client.decide(modelled, ts_ms=ts_ms, row=row)
        ts_ms += 3_600_000
        if Reason.HOLD_OR_REDUCE not in by_proxy.reasons:
            assert by_model.signal_source is SignalSource.MODEL
            assert by_model.signal_strength_bps == by_proxy.signal_strength_bps
            assert by_model.target_weight_raw_ppm == by_proxy.target_weight_raw_ppm
            assert by_model.target_weight_final_ppm == by_proxy.target_weight_final_ppm
            weight_ppm = by_proxy.target_weight_final_ppm
    assert weight_ppm != 0


async def test_symbols_of_one_call_are_mapped_one_by_one(
    client: DetentClient, artifacts: Artifacts
) -> None:
    both = ("EURUSD", OTHER_SYMBOL)
    opened = await client.open_plan(plan_of(fresh_plan_id(), both), artifacts.stable_binding)
    bars = {symbol: artifacts.bars[symbol][310] for symbol in both}
    rows = [
        row_of("EURUSD", close=bars["EURUSD"].close, trigger_state=LONG),
        row_of(OTHER_SYMBOL, close=bars[OTHER_SYMBOL].close, trigger_state=SHORT),
    ]

    results = await client.decide_many(opened, ts_ms=bars["EURUSD"].ts_ms, rows=rows)

    for result, trigger_state in zip(results, (LONG, SHORT), strict=True):
        decision = result.decision
        assert decision is not None
        assert decision.signal_strength_bps == signal_strength_bps(
            decision.p_hat_bps, trigger_state
        )
