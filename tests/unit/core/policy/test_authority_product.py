"""Proves authority over the whole product of states, sources, switches, beliefs and positions."""

import itertools
import math

import pytest
from tests.builders import START_MS, model_binding, plan_of, row_of
from tests.fakes import ACTIVE

from detent.contracts.binding import SignalSource
from detent.contracts.decision import DecisionKind, DecisionRecord
from detent.contracts.plan import TriggerState
from detent.contracts.reasons import Reason
from detent.core.ledger.record import CHAIN_START, bind_plan, record_decision
from detent.core.rollout.gates import enablement_reason
from detent.core.signals.binary_maps import LogisticMap
from detent.core.signals.calibration import Calibrator
from detent.core.signals.choice import ModelOutcome, refused
from detent.core.signals.proxy import ProxyAnswer

BELIEFS = (
    math.nan,
    math.inf,
    -math.inf,
    -0.0,
    0.0,
    5e-324,
    math.nextafter(0.5, 0.0),
    0.5,
    math.nextafter(0.5, 1.0),
    math.nextafter(1.0, 0.0),
    1.0,
    math.nextafter(1.0, 2.0),
    -5e-324,
    1e308,
)
ROLLOUT = (None, Reason.NOT_IN_CANARY, Reason.ROLLED_BACK, Reason.SHADOW_ONLY)
KILLS = (False, True)
WEIGHTS_PPM = (-2_000_000, -250_000, -1, 0, 1, 250_000, 2_000_000)
PROXY = (
    ProxyAnswer(p_hat_bps=0, reason=None),
    ProxyAnswer(p_hat_bps=10_000, reason=None),
    ProxyAnswer(p_hat_bps=5_000, reason=Reason.PROXY_WARMING_UP),
)
ALLOWED_SIGNS = {
    TriggerState.INACTIVE: {0},
    TriggerState.LONG_ALLOWED: {0, 1},
    TriggerState.SHORT_ALLOWED: {0, -1},
}
CALIBRATOR = Calibrator(map=LogisticMap(a=-1.0, b=0.0))
PLAN = plan_of("plan")


def outcome_of(belief: float, *, killed: bool, rollout: Reason | None) -> ModelOutcome:
    """Take a raw answer through the gates and the calibrator, as the services do."""
    closed = enablement_reason(ACTIVE, kill_switch_env=killed) or rollout
    if closed is not None:
        return refused(closed)
    answer = CALIBRATOR.direction(belief)
    if isinstance(answer, Reason):
        return refused(answer)
    return ModelOutcome(p_hat_raw_bps=answer.p_hat_raw_bps, p_hat_bps=answer.p_hat_bps)


def sign(value: int) -> int:
    return (value > 0) - (value < 0)


@pytest.mark.proves("R189", "R191", "R192", "R193", "R194", "R201", "R203")
@pytest.mark.parametrize("trigger_state", list(TriggerState))
def test_no_combination_gives_a_model_what_the_trigger_withholds(
    trigger_state: TriggerState,
) -> None:
    bounds = {
        source: bind_plan(PLAN, model_binding(signal_source=source)) for source in SignalSource
    }
    counted = 0
    for source, killed, rollout, belief, weight_ppm, proxy in itertools.product(
        SignalSource, KILLS, ROLLOUT, BELIEFS, WEIGHTS_PPM, PROXY
    ):
        modelled = source is SignalSource.MODEL
        model = outcome_of(belief, killed=killed, rollout=rollout) if modelled else None
        record = record_decision(
            bound=bounds[source],
            ts_ms=START_MS,
            kind=DecisionKind.BAR,
            row=row_of(trigger_state=trigger_state, weight_ppm=weight_ppm),
            proxy=proxy,
            model=model,
            point=CHAIN_START,
        )
        assert_within_permission(record)
        # A belief that is none, a switch or a rollout leaves exactly what the proxy decides.
        if model is not None and model.reason is not None:
            assert record.signal.fallback_reason is model.reason
            assert record.signal.p_hat_bps == proxy.p_hat_bps
        counted += 1
    assert counted == 2 * 2 * 4 * 14 * 7 * 3


def assert_within_permission(record: DecisionRecord) -> None:
    final_ppm = record.outcome.target_weight_final_ppm
    held_ppm = record.row.position.current_weight_ppm
    trigger_state = record.row.trigger_state
    assert abs(final_ppm) <= PLAN.policy_config.w_max_ppm
    if trigger_state is TriggerState.EXIT_ONLY:
        assert final_ppm * held_ppm >= 0
        assert final_ppm == 0 or abs(final_ppm) < abs(held_ppm)
    else:
        assert sign(final_ppm) in ALLOWED_SIGNS[trigger_state]
