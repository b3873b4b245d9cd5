"""Proves that every gate of a learning book closes it, and only a named person opens one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.builders import START_MS
from tests.trades import TAGS, calm

from detent.contracts.errors import InvalidField
from detent.contracts.learning import (
    LEARNING_GATES,
    OPENABLE_GATES,
    OVERRIDE_TTL_MS_MAX,
    LearningBook,
    LearningBudget,
    LearningConditions,
    LearningGates,
    LearningOverride,
    LearningTags,
    OverrideEffect,
)
from detent.contracts.reasons import Reason
from detent.core.rollout.learning_gate import closed_gates

BOOK = LearningBook(tags=TAGS)
OPEN = LearningOverride(
    effect=OverrideEffect.OPEN,
    gates=tuple(sorted(OPENABLE_GATES)),
    actor="j.doe",
    reason="the event is over",
    issued_ts_ms=START_MS,
    until_ts_ms=START_MS + 1_000,
)
OFF = structs.replace(OPEN, effect=OverrideEffect.OFF, gates=())
# The value at which each gate closes, and the nearest at which it does not.
EDGES = {
    Reason.DATA_GAP: ("data_gap_count", 1, 0),
    Reason.DATA_QUALITY_ANOMALY: ("data_anomaly_count", 1, 0),
    Reason.EXCHANGE_ERROR: ("exchange_error_count", 1, 0),
    Reason.FEED_LATENCY: ("feed_latency_ms", 1_500, 1_499),
    Reason.SCHEDULED_EVENT_WINDOW: ("scheduled_event_count", 1, 0),
    Reason.VOLATILITY_SPIKE: ("volatility_ratio_bps", 30_000, 29_999),
    Reason.LIQUIDITY_THIN: ("volume_ratio_bps", 3_000, 3_001),
    Reason.SPREAD_WIDE: ("spread_bps", 100, 99),
    Reason.SLIPPAGE_ANOMALY: ("slippage_bps", 25, 24),
    Reason.DAILY_LOSS_LIMIT: ("daily_loss_ppm", 5_000, 4_999),
    Reason.EXPERIMENT_LOSS_LIMIT: ("experiment_loss_ppm", 20_000, 19_999),
    Reason.CONSECUTIVE_LOSS_LIMIT: ("losses_in_a_row", 3, 2),
}


def closed(conditions: LearningConditions | None, ts_ms: int = START_MS) -> tuple[Reason, ...]:
    return closed_gates(BOOK, conditions, ts_ms=ts_ms)


@pytest.mark.proves("R351")
def test_there_are_the_thirteen_gates_of_the_forerunner() -> None:
    assert {gate.value for gate in LEARNING_GATES} == {
        "volatility_spike",
        "liquidity_thin",
        "spread_wide",
        "scheduled_event_window",
        "feed_latency",
        "exchange_error",
        "data_gap",
        "daily_loss_limit",
        "experiment_loss_limit",
        "consecutive_loss_limit",
        "slippage_anomaly",
        "data_quality_anomaly",
        "manual_override_off",
    }
    assert {*EDGES, Reason.MANUAL_OVERRIDE_OFF} == set(LEARNING_GATES)


@pytest.mark.proves("R351")
@pytest.mark.parametrize("gate", EDGES)
def test_gate_closes_at_its_threshold_and_not_before(gate: Reason) -> None:
    field, at, before = EDGES[gate]

    assert closed(calm()) == ()
    assert closed(calm(**{field: before})) == ()
    assert closed(calm(**{field: at})) == (gate,)


@pytest.mark.proves("R351")
def test_person_closes_the_book_until_the_override_ends() -> None:
    off = calm(override=OFF)

    assert closed(off) == (Reason.MANUAL_OVERRIDE_OFF,)
    assert closed(off, OFF.until_ts_ms - 1) == (Reason.MANUAL_OVERRIDE_OFF,)
    assert closed(off, OFF.until_ts_ms) == ()
    assert closed(off, OFF.issued_ts_ms - 1) == ()


def test_what_nobody_measured_closes_the_book() -> None:
    assert closed(None) == (Reason.DATA_GAP,)


@pytest.mark.proves("R351")
@given(chosen=st.sets(st.sampled_from(sorted(EDGES))), late=st.booleans())
def test_override_opens_the_gates_that_it_may_and_no_other(chosen: set[Reason], late: bool) -> None:
    bad = {EDGES[gate][0]: EDGES[gate][1] for gate in chosen}
    ts_ms = OPEN.until_ts_ms if late else START_MS
    found = closed(calm(override=OPEN, **bad), ts_ms)

    assert found == tuple(
        gate for gate in LEARNING_GATES if gate in chosen and (late or gate not in OPENABLE_GATES)
    )


@pytest.mark.proves("R351")
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"actor": ""}, "actor", id="nobody"),
        pytest.param({"reason": ""}, "reason", id="no reason"),
        pytest.param({"until_ts_ms": START_MS}, "until_ts_ms", id="over at once"),
        pytest.param(
            {"until_ts_ms": START_MS + OVERRIDE_TTL_MS_MAX + 1}, "until_ts_ms", id="too long"
        ),
        pytest.param({"gates": ()}, "gates", id="opens nothing"),
        pytest.param({"gates": (Reason.DAILY_LOSS_LIMIT,)}, "gates", id="a loss limit"),
        pytest.param({"gates": (Reason.DATA_GAP,)}, "gates", id="missing data"),
        pytest.param({"effect": OverrideEffect.OFF}, "gates", id="closes and opens"),
        pytest.param({"gates": (Reason.SPREAD_WIDE,) * 2}, "gates", id="twice"),
    ],
)
def test_override_that_nobody_answers_for_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        structs.replace(OPEN, **changes)

    assert refused.value.field == field


@pytest.mark.parametrize("kind", [LearningBudget, LearningGates, LearningConditions])
def test_numbers_out_of_range_are_refused_by_name(kind: type[Any]) -> None:
    valid = calm() if kind is LearningConditions else kind()
    for name in kind.__struct_fields__:
        if name in ("shorts", "override"):
            continue
        with pytest.raises(InvalidField) as refused:
            structs.replace(valid, **{name: -(2**40)})

        assert refused.value.field == name


def test_tags_name_an_experiment() -> None:
    with pytest.raises(InvalidField) as refused:
        LearningTags(experiment_id="")

    assert refused.value.field == "experiment_id"
