"""Proves policy against a second implementation and against what it must never do."""

import numpy as np
import pytest
from msgspec import structs
from tests import reference_policy
from tests.random_bars import draw_cases, policy_inputs_of
from tests.reference_policy import EXIT_ONLY, INACTIVE, LONG, SHORT, Cases, Weights

from detent.contracts.plan import OrderStyle
from detent.contracts.reasons import Reason
from detent.core.policy.decide import decide_weight

CHUNK = 125_000
CHUNKS = 8


def decided(cases: Cases) -> Weights:
    """Let the real policy decide every case."""
    rows = []
    for inputs in policy_inputs_of(cases):
        outcome, state = decide_weight(inputs)
        rows.append(
            (
                outcome.target_weight_raw_ppm,
                outcome.target_weight_policy_ppm,
                outcome.target_weight_capped_ppm,
                outcome.target_weight_final_ppm,
                outcome.order_style is not OrderStyle.NONE,
                outcome.precedence_tier,
                Reason.EMERGENCY_EXIT_PREEMPTS_ENTRY in outcome.reasons,
                state.latched_ts_ms is not None,
            )
        )
    columns = np.array(rows, dtype=np.int64).T
    return Weights(
        raw_ppm=columns[0],
        policy_ppm=columns[1],
        capped_ppm=columns[2],
        final_ppm=columns[3],
        trades=columns[4].astype(bool),
        tier=columns[5],
        preempted=columns[6].astype(bool),
        latched=columns[7].astype(bool),
    )


def assert_never(cases: Cases, found: Weights) -> None:
    """Hold every answer to what no model, trigger or setting may bring about."""
    final, current = found.final_ppm, cases.current_ppm
    # (1) No exposure without permission, and never the other way.
    assert not final[cases.trigger == INACTIVE].any()
    assert (final[cases.trigger == LONG] >= 0).all()
    assert (final[cases.trigger == SHORT] <= 0).all()
    # (2) An exit never grows and never changes sides; on a bar of its own it shrinks.
    exits = cases.trigger == EXIT_ONLY
    assert (np.abs(final[exits]) <= np.abs(current[exits])).all()
    assert (np.sign(final[exits]) * np.sign(current[exits]) >= 0).all()
    moving = exits & ~cases.emergency_only & (current != 0)
    assert (np.abs(final[moving]) < np.abs(current[moving])).all()
    assert found.trades[moving].all()
    # (3) Every limit holds.
    size = np.abs(final)
    assert (size <= cases.w_max_ppm).all()
    assert (size <= cases.max_weight_ppm).all()
    for cap in (cases.symbol_cap_ppm, cases.override_cap_ppm):
        assert (size <= np.where(cap == reference_policy.NONE, size, cap)).all()
    assert not final[cases.stands_down | ~cases.allowed].any()
    # (4) Without a signal, a volatility or a known trigger nothing grows.
    entries = (cases.trigger == LONG) | (cases.trigger == SHORT)
    blind = (cases.strength_bps == reference_policy.NONE) | ~cases.known | (cases.vol_hat_ppm <= 0)
    unsure = entries & blind
    assert (size[unsure] <= np.abs(current[unsure])).all()
    # (5) What is shut lets nothing in, on its side only; risk exits get out, at once.
    for shut, side in ((cases.no_new_long, 1), (cases.no_new_short, -1)):
        assert (side * final[shut] <= np.maximum(side * current[shut], 0)).all()
    latched = cases.latched | (cases.intent != reference_policy.NO_INTENT)
    assert (final[latched] * current[latched] >= 0).all()
    assert (size[latched] <= np.abs(current[latched])).all()
    reduced = (cases.reduce_ppm != reference_policy.NONE) & (current != 0)
    assert (size[reduced] < np.abs(current[reduced])).all()
    assert not final[cases.risk_off].any()
    out_now = (reduced | cases.risk_off | cases.stands_down) & (final != current)
    assert found.trades[out_now].all()


@pytest.mark.proves("R189", "R190", "R192", "R193", "R194", "R214", "R215", "R216", "R222")
@pytest.mark.proves("R327", "R348", "R349")
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_million_bars_agree_with_the_reference_and_break_no_promise(chunk: int) -> None:
    cases = draw_cases(CHUNK, seed=chunk)

    assert_agree(cases, decided(cases))


@pytest.mark.long
@pytest.mark.parametrize("chunk", range(80))
def test_ten_million_bars_agree_with_the_reference_and_break_no_promise(chunk: int) -> None:
    cases = draw_cases(CHUNK, seed=1_000 + chunk)

    assert_agree(cases, decided(cases))


def assert_agree(cases: Cases, found: Weights) -> None:
    expected = reference_policy.decide(cases)
    for name in Weights.__struct_fields__:
        differs = getattr(found, name) != getattr(expected, name)
        if differs.any():
            first = int(np.argmax(differs))
            case = {name: getattr(cases, name)[first] for name in cases.__struct_fields__}
            got, want = (
                {name: getattr(weights, name)[first] for name in Weights.__struct_fields__}
                for weights in (found, expected)
            )
            pytest.fail(f"{int(differs.sum())} differ in {name}: {case}\n{got}\n{want}")
    assert_never(cases, found)


def test_the_cases_reach_every_corner() -> None:
    """A property that no case could break would prove nothing."""
    cases = draw_cases(100_000, seed=0)
    found = reference_policy.decide(cases)

    for tier in (1, 2, 3, 4):
        assert (found.tier == tier).mean() > 0.02
    assert 0.1 < found.trades.mean() < 0.9
    for trigger in (LONG, SHORT):
        free = found.final_ppm[(cases.trigger == trigger) & (found.tier == 4)]
        assert (free != 0).mean() > 0.3
    at_bound = (np.abs(found.raw_ppm) == cases.w_max_ppm) & (cases.w_max_ppm > 0)
    assert at_bound.mean() > 0.01
    assert found.preempted.mean() > 0.003
    none = np.zeros(len(cases), dtype=bool)
    for name in ("no_new_long", "no_new_short", "latched", "risk_off"):
        without = reference_policy.decide(structs.replace(cases, **{name: none}))
        assert (without.final_ppm != found.final_ppm).mean() > 0.003, name
    clamped = (found.policy_ppm == 0) & (np.sign(cases.current_ppm) != 0)
    assert clamped.mean() > 0.05


@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param(lambda c, w: np.where(c.trigger == INACTIVE, 1, w.final_ppm), id="inactive"),
        pytest.param(lambda _, w: -w.final_ppm, id="sign"),
        pytest.param(lambda c, w: w.final_ppm + (c.trigger == LONG), id="cap by one"),
        pytest.param(
            lambda c, w: np.where(c.trigger == EXIT_ONLY, c.current_ppm, w.final_ppm), id="exit"
        ),
        pytest.param(
            lambda c, w: np.where(c.no_new_short, w.capped_ppm - 1, w.final_ppm), id="shut side"
        ),
        pytest.param(lambda c, w: np.where(c.latched, w.raw_ppm, w.final_ppm), id="latch"),
        pytest.param(
            lambda c, w: np.where(c.reduce_ppm > 0, c.current_ppm, w.final_ppm), id="reduction"
        ),
    ],
)
def test_the_promises_notice_a_policy_that_breaks_them(break_it: object) -> None:
    """The control: each promise fails on a policy that was bent on purpose."""
    cases = draw_cases(50_000, seed=3)
    sound = reference_policy.decide(cases)
    bent = structs.replace(sound, final_ppm=break_it(cases, sound))  # type: ignore[operator]

    assert_never(cases, sound)
    with pytest.raises(AssertionError):
        assert_never(cases, bent)
