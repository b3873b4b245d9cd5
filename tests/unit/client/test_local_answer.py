"""Holds the client's own answer to hold-or-reduce, for every question it can be asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.builders import START_MS, emergency, plan_of, policy_config, row_of

from detent.contracts.decision import DecisionKind, DecisionRow, LocalAnswer
from detent.contracts.errors import InvalidField
from detent.contracts.plan import (
    ExitIntent,
    ExitKind,
    HorizonAlpha,
    Plan,
    PositionState,
    RiskOverrides,
    StandDown,
    StandDownSource,
    TriggerState,
)
from detent.contracts.reasons import Reason
from detent_client.local_answer import answer_locally

WEIGHTS = st.integers(min_value=-1_500_000, max_value=1_500_000)


def local(row: DecisionRow, plan: Plan | None = None) -> int:
    decision, journalled = answer_locally(
        plan=plan or plan_of("local"), ts_ms=START_MS, kind=DecisionKind.BAR, row=row
    )

    assert decision.fallback_reason is Reason.CLIENT_NO_SERVICE
    assert decision.record_hash == ""
    assert journalled.target_weight_final_ppm == decision.target_weight_final_ppm
    return decision.target_weight_final_ppm


@given(
    trigger_state=st.sampled_from(TriggerState),
    weight_ppm=WEIGHTS,
    vol_hat_ppm=st.none() | st.integers(min_value=-10, max_value=10**9),
    alpha_ppm=st.integers(min_value=1, max_value=1_000_000),
    wants_out=st.booleans(),
)
@pytest.mark.proves("R194", "R318")
def test_local_answer_never_raises_exposure(
    trigger_state: TriggerState,
    weight_ppm: int,
    vol_hat_ppm: int | None,
    alpha_ppm: int,
    wants_out: bool,
) -> None:
    config = policy_config(alpha_by_horizon=(HorizonAlpha(horizon_id="h4", alpha_ppm=alpha_ppm),))
    row = row_of(
        weight_ppm=weight_ppm,
        trigger_state=trigger_state,
        vol_hat_ppm=vol_hat_ppm,
        exit_intent=emergency() if wants_out else None,
    )
    final_ppm = local(row, plan_of("local", policy_config=config))

    assert abs(final_ppm) <= abs(weight_ppm)
    assert final_ppm * weight_ppm >= 0
    direction = {TriggerState.LONG_ALLOWED: 1, TriggerState.SHORT_ALLOWED: -1}
    if trigger_state in direction:
        assert final_ppm * direction[trigger_state] >= 0
    if trigger_state is TriggerState.INACTIVE or wants_out:
        assert final_ppm == 0


def test_local_answer_holds_within_the_permission() -> None:
    assert local(row_of(weight_ppm=120_000)) == 120_000


def test_local_answer_cuts_to_the_bounds() -> None:
    assert local(row_of(weight_ppm=400_000)) == policy_config().w_max_ppm


def test_local_answer_obeys_a_stand_down() -> None:
    stand_down = StandDown(until_ts_ms=START_MS + 1, reason="news", source=StandDownSource.OPS)
    row = row_of(weight_ppm=120_000, risk_overrides=RiskOverrides(stand_down=stand_down))

    assert local(row) == 0


@pytest.mark.proves("R193")
def test_local_exits_reach_exactly_flat() -> None:
    weight_ppm, bars = 250_000, 0
    while weight_ppm != 0:
        row = row_of(weight_ppm=weight_ppm, trigger_state=TriggerState.EXIT_ONLY)
        smaller_ppm = local(row)
        assert abs(smaller_ppm) < abs(weight_ppm)
        weight_ppm, bars = smaller_ppm, bars + 1

    assert bars < 30


def test_an_answer_that_raised_exposure_cannot_be_reported() -> None:
    row = row_of(weight_ppm=100_000)

    with pytest.raises(InvalidField, match="at most 100000"):
        LocalAnswer(
            ts_ms=START_MS,
            kind=DecisionKind.BAR,
            row=row,
            target_weight_final_ppm=100_001,
            reason=Reason.CLIENT_NO_SERVICE,
        )
    held = structs.replace(
        row, position=PositionState(current_weight_ppm=0, equity=1000 * row.bar_close)
    )
    assert local(held) == 0


def test_an_answer_that_changed_sides_cannot_be_reported() -> None:
    """As much the other way is not holding: it is exposure that nobody permitted."""
    with pytest.raises(InvalidField, match="on the side of -100000"):
        LocalAnswer(
            ts_ms=START_MS,
            kind=DecisionKind.BAR,
            row=row_of(weight_ppm=-100_000),
            target_weight_final_ppm=100_000,
            reason=Reason.CLIENT_NO_SERVICE,
        )


@pytest.mark.proves("R349")
def test_risk_exits_are_obeyed_without_any_service() -> None:
    half = ExitIntent(kind=ExitKind.RISK_REDUCE, exit_rule_id="trim", reduce_ppm=500_000)
    off = ExitIntent(kind=ExitKind.RISK_OFF, exit_rule_id="breadth")

    assert local(row_of(weight_ppm=200_000, exit_intent=half)) == 100_000
    assert local(row_of(weight_ppm=200_000, exit_intent=half, further_exit_intents=(off,))) == 0
