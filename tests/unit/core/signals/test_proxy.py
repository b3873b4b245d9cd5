"""Proves the rule-based belief: its formula, its symmetry, and what it says without history."""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.contracts.errors import InvalidField
from detent.contracts.proxy import PROXY_DEFAULT, ProxyConfig
from detent.contracts.reasons import Reason
from detent.core.signals.proxy import (
    SERIES_FLAT,
    SERIES_ROWS,
    SERIES_WARMING_UP,
    proxy_answer,
    proxy_answers,
    proxy_series,
)

SMALL = ProxyConfig(lookback_bars=1, window_bars=4, ddof=1, k_x1000=1_000)
REFERENCE = Path(__file__).parents[5] / "shared" / "reference" / "quant" / "finance.json"
MOVES = st.lists(st.floats(-0.05, 0.05), min_size=4, max_size=60)


def by_the_formula(closes: Sequence[float], config: ProxyConfig) -> float:
    """Compute the belief with another library, from the formula."""
    momentum = [
        closes[index] / closes[index - config.lookback_bars] - 1
        for index in range(len(closes) - config.window_bars, len(closes))
    ]
    spread = statistics.stdev(momentum) if config.ddof else statistics.pstdev(momentum)
    score = (momentum[-1] - statistics.fmean(momentum)) / spread
    return 0.5 * (math.tanh(config.k_x1000 / 1000 * score) + 1)


def closes_of(moves: Sequence[float]) -> list[float]:
    closes = [100.0]
    for move in moves:
        closes.append(closes[-1] * (1 + move))
    return closes


@pytest.mark.proves("R204")
def test_a_belief_that_can_be_worked_out_by_hand() -> None:
    """Momenta 0, 0, 0, 10 %: mean 2.5 %, deviation 5 %, score 1.5, tanh 0.905148."""
    answer = proxy_answer([100.0, 100.0, 100.0, 100.0, 110.0], SMALL)

    assert answer.reason is None
    assert answer.p_hat_bps == round(10_000 * 0.5 * (1 + 0.9051482536))


@pytest.mark.proves("R204")
@given(MOVES)
def test_the_belief_is_the_formula(moves: list[float]) -> None:
    closes = closes_of(moves)
    answer = proxy_answer(closes, SMALL)

    if answer.reason is None:
        assert math.isclose(answer.p_hat_bps, 10_000 * by_the_formula(closes, SMALL), abs_tol=0.51)


@pytest.mark.proves("R204")
@given(MOVES)
def test_turning_every_move_around_turns_the_belief_around(moves: list[float]) -> None:
    there = proxy_answer(closes_of(moves), SMALL)
    back = proxy_answer(closes_of([-move for move in moves]), SMALL)

    assert there.reason is back.reason
    assert abs(there.p_hat_bps + back.p_hat_bps - 10_000) <= 1


@pytest.mark.proves("R204")
@pytest.mark.parametrize("count", range(PROXY_DEFAULT.closes_needed))
def test_a_short_history_gives_one_half_and_says_so(count: int) -> None:
    answer = proxy_answer([100.0 + index for index in range(count)], PROXY_DEFAULT)

    assert answer.p_hat_bps == 5_000
    assert answer.reason is Reason.PROXY_WARMING_UP


@pytest.mark.proves("R204")
@pytest.mark.parametrize("growth", [1.0, 1.01, 0.99])
def test_momentum_that_never_changes_gives_one_half_and_says_so(growth: float) -> None:
    closes = [100.0 * growth**index for index in range(80)]

    answer = proxy_answer(closes, PROXY_DEFAULT)

    assert answer.p_hat_bps == 5_000
    assert answer.reason is Reason.PROXY_FLAT


@given(st.lists(st.floats(1e-9, 1e9), min_size=60, max_size=90))
def test_only_the_newest_closes_count(closes: list[float]) -> None:
    needed = PROXY_DEFAULT.closes_needed

    assert proxy_answer(closes, PROXY_DEFAULT) == proxy_answer(closes[-needed:], PROXY_DEFAULT)


@given(st.lists(st.lists(st.floats(1e-3, 1e6), min_size=0, max_size=70), min_size=1, max_size=12))
def test_a_symbol_gets_the_same_answer_alone_and_in_company(closes: list[list[float]]) -> None:
    together = proxy_answers(closes, PROXY_DEFAULT)

    assert together == [proxy_answer(row, PROXY_DEFAULT) for row in closes]


@given(st.floats(1e-3, 1e3), MOVES)
def test_the_unit_of_the_price_does_not_matter(scale: float, moves: list[float]) -> None:
    closes = closes_of(moves)
    scaled = [close * scale for close in closes]

    one, other = proxy_answer(closes, SMALL), proxy_answer(scaled, SMALL)

    if one.reason is other.reason is None and abs(one.p_hat_bps - 5_000) > 10:
        assert abs(one.p_hat_bps - other.p_hat_bps) <= 1


@pytest.mark.proves("R204")
def test_every_parameter_of_the_proxy_is_part_of_its_hash() -> None:
    versions = {
        PROXY_DEFAULT.proxy_version,
        ProxyConfig(lookback_bars=11, window_bars=48, ddof=1, k_x1000=1000).proxy_version,
        ProxyConfig(lookback_bars=12, window_bars=47, ddof=1, k_x1000=1000).proxy_version,
        ProxyConfig(lookback_bars=12, window_bars=48, ddof=0, k_x1000=1000).proxy_version,
        ProxyConfig(lookback_bars=12, window_bars=48, ddof=1, k_x1000=999).proxy_version,
    }

    assert len(versions) == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [("lookback_bars", 0), ("window_bars", 1), ("ddof", 2), ("k_x1000", 0), ("ddof", True)],
)
def test_parameters_without_a_score_are_refused(field: str, value: int) -> None:
    fields = {"lookback_bars": 1, "window_bars": 4, "ddof": 1, "k_x1000": 1_000, field: value}

    with pytest.raises(InvalidField, match=field):
        ProxyConfig(**fields)


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference values are not at hand")
@pytest.mark.parametrize("ddof", [0, 1])
def test_the_belief_agrees_with_the_reference_values(ddof: int) -> None:
    fixtures = json.loads(REFERENCE.read_text(encoding="utf-8"))["fixtures"]
    fixture = next(found for found in fixtures if found["id"] == "tanh_z_proxy")
    question = fixture["inputs"]
    config = ProxyConfig(
        lookback_bars=question["lookback"],
        window_bars=question["window"],
        ddof=ddof,
        k_x1000=round(1_000 * question["k"]),
    )

    compared = 0
    for index, p_hat in enumerate(fixture["expected"][f"p_hat_ddof{ddof}"]):
        if isinstance(p_hat, float):
            answer = proxy_answer(question["close"][: index + 1], config)
            assert abs(answer.p_hat_bps - 10_000 * p_hat) <= 0.5 + 1e-6
            compared += 1
    assert compared == 71


# Bars that leave a block of one row, alone or after a whole one, for one config and the other.
ONE_ROW_LEFT = [
    config.closes_needed + rows for config in (SMALL, PROXY_DEFAULT) for rows in (0, SERIES_ROWS)
]


@pytest.mark.parametrize("config", [SMALL, PROXY_DEFAULT])
@pytest.mark.parametrize("count", [3, 61, 900, SERIES_ROWS + 100, *ONE_ROW_LEFT])
def test_a_series_is_every_bar_by_itself(config: ProxyConfig, count: int) -> None:
    """In integers, on both sides of a block's edge, flat stretches and warm-up included."""
    random = np.random.default_rng(count)
    moves = random.normal(0.0, 0.01, count) * (random.random(count) > 0.3)
    moves[count // 3 : count // 3 + 70] = 0.0
    closes = 100.0 * np.cumprod(1.0 + moves)
    series = proxy_series(closes, config).tolist()

    checked = [*range(min(count, 900)), *range(max(0, count - 150), count)]
    windows = [closes[max(0, bar - 80) : bar + 1].tolist() for bar in checked]
    for bar, answer in zip(checked, proxy_answers(windows, config), strict=True):
        absent = {Reason.PROXY_WARMING_UP: SERIES_WARMING_UP, Reason.PROXY_FLAT: SERIES_FLAT}
        expected = answer.p_hat_bps if answer.reason is None else absent[answer.reason]
        assert series[bar] == expected, bar


@pytest.mark.parametrize("scale", [1e-2, 1e-5, 1e-8, 1e-11, 1e-14])
def test_a_series_of_a_steady_trend_is_every_bar_by_itself(scale: float) -> None:
    """Where momentum hardly changes, sums that windows share would have no digits left."""
    random = np.random.default_rng(11)
    closes = 100.0 * np.cumprod(1.001 + random.normal(0.0, scale, 400))
    series = proxy_series(closes, PROXY_DEFAULT).tolist()

    windows = [closes[max(0, bar - 80) : bar + 1].tolist() for bar in range(len(closes))]
    for bar, answer in enumerate(proxy_answers(windows, PROXY_DEFAULT)):
        absent = {Reason.PROXY_WARMING_UP: SERIES_WARMING_UP, Reason.PROXY_FLAT: SERIES_FLAT}
        assert series[bar] == (answer.p_hat_bps if answer.reason is None else absent[answer.reason])
