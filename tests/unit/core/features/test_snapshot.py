"""Proves the snapshot formulas against golden values and an exact reference."""

from collections.abc import Sequence
from decimal import ROUND_UP, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.unit.core.features.market import START_MS, bar, bars_of, quote, ranges

from detent.contracts.errors import InvalidField
from detent.contracts.market import Bar, Quote
from detent.contracts.snapshots import FeatureSnapshot
from detent.core.features.engine import BarSource, EngineConfig
from detent.core.features.snapshot import (
    build_feature_snapshot,
    imbalance_l1_bps,
    mid_price,
    spread_bps,
)

NOW_MS = START_MS + 10_000_000
ENGINE = EngineConfig()

prices = st.decimals(min_value="0.00000001", max_value="1000000", places=8)
quantities = st.decimals(min_value="0", max_value="1000000", places=8)


def snapshot(
    bars: Sequence[Bar], *, engine: EngineConfig = ENGINE, last: Quote | None = None
) -> FeatureSnapshot:
    return build_feature_snapshot(
        engine, symbol="BTCUSDT", ts_ms=NOW_MS, bars=bars, warmup_bars=len(bars), quote=last
    )


@pytest.mark.proves("R2")
def test_mid_price_golden() -> None:
    assert mid_price(quote(NOW_MS, "50000", "50010")) == Decimal(50005)


@pytest.mark.proves("R2")
@given(prices, prices)
def test_mid_price_is_exact(first: Decimal, second: Decimal) -> None:
    assume(first != second)
    bid, ask = sorted((first, second))

    mid = mid_price(quote(NOW_MS, str(f"{bid:f}"), str(f"{ask:f}")))

    assert Fraction(mid) == (Fraction(bid) + Fraction(ask)) / 2


@pytest.mark.proves("R2")
def test_mid_price_is_exact_beyond_28_digits() -> None:
    """The 28-digit context of the other fields must not round the midpoint."""
    bid, ask = "1000000000000000.0000000000000000001", "1000000000000000.0000000000000000003"

    assert mid_price(quote(NOW_MS, bid, ask)) == Decimal("1000000000000000.0000000000000000002")


@pytest.mark.proves("R3")
@pytest.mark.parametrize(
    ("bid", "ask", "expected"),
    [
        pytest.param("50000", "50050", 9, id="9.995 is cut off"),
        pytest.param("50000", "50010", 1, id="1.9998 is cut off"),
        pytest.param("99.95", "100.05", 10, id="exact"),
        pytest.param("0.00000001", "1000000", 19_999, id="as wide as can be"),
    ],
)
def test_spread_is_cut_off(bid: str, ask: str, expected: int) -> None:
    assert spread_bps(quote(NOW_MS, bid, ask)) == expected


@pytest.mark.proves("R4")
@pytest.mark.parametrize(
    ("bid_qty", "ask_qty", "expected"),
    [
        ("3", "1", 5_000),
        ("50", "150", -5_000),
        ("0", "0", 0),
        ("1", "0", 10_000),
        ("0", "1", -10_000),
    ],
)
def test_imbalance_golden(bid_qty: str, ask_qty: str, expected: int) -> None:
    assert imbalance_l1_bps(quote(NOW_MS, bid_qty=bid_qty, ask_qty=ask_qty)) == expected


@pytest.mark.proves("R4")
@given(quantities, quantities)
def test_imbalance_stays_in_range_and_is_odd(bid_qty: Decimal, ask_qty: Decimal) -> None:
    there = imbalance_l1_bps(quote(NOW_MS, bid_qty=f"{bid_qty:f}", ask_qty=f"{ask_qty:f}"))
    back = imbalance_l1_bps(quote(NOW_MS, bid_qty=f"{ask_qty:f}", ask_qty=f"{bid_qty:f}"))
    share = (bid_qty - ask_qty) / (bid_qty + ask_qty + Decimal("1e-8")) * 10_000

    assert -10_000 <= there <= 10_000
    assert back == -there
    assert abs(share - there) <= Decimal("0.5")


@pytest.mark.proves("R5")
@pytest.mark.parametrize(
    ("bid_qty", "ask_qty", "expected"), [("5.5", "3.2", "3.2"), ("0", "100", "0")]
)
def test_thin_side_is_the_smaller(bid_qty: str, ask_qty: str, expected: str) -> None:
    taken = snapshot([], last=quote(NOW_MS - 1, bid_qty=bid_qty, ask_qty=ask_qty))

    assert taken.thin_l1 == Decimal(expected)


def test_quote_fields_are_absent_together_without_a_quote() -> None:
    taken = snapshot(ranges([10] * 15))

    assert (taken.mid_price, taken.spread_bps, taken.imbalance_l1_bps, taken.thin_l1) == (
        None,
        None,
        None,
        None,
    )


@pytest.mark.proves("R7")
@pytest.mark.parametrize(
    ("true_ranges", "expected"),
    [
        pytest.param([10] * 10, None, id="10 bars"),
        pytest.param([10] * 14, None, id="14 bars"),
        pytest.param([10] * 15, Decimal(10), id="15 bars"),
        pytest.param([10, 20] * 8, Decimal(15), id="alternating"),
        pytest.param([90] * 20 + [10] * 14, Decimal(10), id="the last 14 only"),
        pytest.param([90] * 20 + [10] * 13, Decimal(220) / Decimal(14), id="one of the old"),
    ],
)
def test_atr_golden(true_ranges: list[int], expected: Decimal | None) -> None:
    assert snapshot(ranges(true_ranges)).atr == expected


@pytest.mark.proves("R7")
@pytest.mark.parametrize("gap", ["130", "70"])
def test_true_range_reaches_to_the_close_before(gap: str) -> None:
    taken = snapshot([bar(0, "100"), bar(1, gap)], engine=EngineConfig(atr_period=1))

    assert taken.atr == Decimal(30)


@pytest.mark.proves("R6")
@pytest.mark.parametrize(
    ("true_ranges", "expected"),
    [
        pytest.param([10] * 15, 1_000, id="1000"),
        pytest.param([50] * 15, 5_000, id="5000"),
        pytest.param([1] * 15, 100, id="100"),
        pytest.param([10] * 14, 0, id="warm-up"),
        pytest.param([0] * 15, 0, id="flat"),
    ],
)
def test_natr_golden(true_ranges: list[int], expected: int) -> None:
    bars = ranges(true_ranges)

    assert {snapshot(bars).natr_bps for _ in range(100)} == {expected}
    assert type(snapshot(bars).natr_bps) is int


@pytest.mark.proves("R6")
@pytest.mark.parametrize(
    ("close", "expected"),
    [
        pytest.param("80000", 2, id="2.5"),
        pytest.param("57142.85714285714", 4, id="a little over 3.5"),
        pytest.param("16000", 12, id="12.5"),
        pytest.param("14814.8148", 14, id="a little over 13.5"),
    ],
)
def test_natr_rounds_half_to_even(close: str, expected: int) -> None:
    """A true range of 20 over the close lies on the half or just beside it."""
    high, low = str(Decimal(close) + 10), str(Decimal(close) - 10)
    taken = snapshot(
        [bar(0, close), bar(1, close, high=high, low=low)], engine=EngineConfig(atr_period=1)
    )

    assert taken.natr_bps == expected


@pytest.mark.proves("R8")
@pytest.mark.parametrize(
    ("closes", "horizon", "expected"),
    [
        pytest.param(["100", "110", "100"], 2, (1_909, 0, 1_909), id="there and back"),
        pytest.param(["100"] * 15, 14, (0, 0, 0), id="flat"),
        pytest.param(["100", "110"], 2, (0, 0, 0), id="too few"),
        pytest.param(["100", "90"], 1, (1_000, 1_000, 0), id="a fall is not negative"),
    ],
)
def test_range_golden(closes: list[str], horizon: int, expected: tuple[int, int, int]) -> None:
    taken = snapshot(bars_of(closes), engine=EngineConfig(range_horizon=horizon))

    assert (taken.sum_abs_returns_bps, taken.net_return_bps, taken.range_score) == expected


@pytest.mark.proves("R8")
def test_range_score_tells_trend_from_chop() -> None:
    trend = [
        str((Decimal(100) * Decimal("1.01") ** n).quantize(Decimal("1e-8"))) for n in range(15)
    ]
    chop = ["100", "101"] * 7 + ["100"]

    assert snapshot(bars_of(trend)).range_score <= 2
    assert snapshot(bars_of(chop)).range_score > 100
    assert snapshot(bars_of(chop[:14])).range_score == 0


@pytest.mark.proves("R8")
def test_path_is_summed_before_it_is_rounded() -> None:
    """Fourteen steps of 0.4 bps are 6 bps; each rounded first they would be 0."""
    closes = ["25000", "25001"] * 7 + ["25000"]

    assert snapshot(bars_of(closes)).sum_abs_returns_bps == 6


def test_context_of_the_caller_changes_nothing() -> None:
    bars = [bar(n, "123.4567", high="456.789") for n in range(15)]
    bars[7] = bar(7, "323.4567")
    last = quote(NOW_MS - 1, "100.12345", "100.79")
    expected = snapshot(bars, last=last)

    with localcontext() as context:
        context.prec = 4
        context.rounding = ROUND_UP

        assert snapshot(bars, last=last) == expected


def test_tiny_prices_keep_an_atr_that_plain_notation_carries() -> None:
    close = "0.00000000000000000001"
    bars = [bar(n, close, high="0.00000000000000000004") for n in range(15)]
    bars[3] = bar(3, close)

    atr = snapshot(bars).atr

    assert atr is not None
    assert len(f"{atr:f}") <= 40
    assert abs(atr - Decimal(39) / Decimal(14) * Decimal("1e-20")) < Decimal("1e-38")


def test_indicator_out_of_range_is_a_typed_error() -> None:
    bars = [bar(0, "1000000000000"), bar(1, "0.000000000001")]

    with pytest.raises(InvalidField) as caught:
        snapshot(bars, engine=EngineConfig(atr_period=1))

    assert caught.value.field == "natr_bps"


@pytest.mark.proves("R326")
@pytest.mark.parametrize("field", ["bar_interval_ms", "atr_period", "range_horizon", "max_bars"])
@pytest.mark.parametrize("value", [0, -1, True, 1.0])
def test_engine_refuses_what_is_not_above_zero(field: str, value: object) -> None:
    with pytest.raises(InvalidField) as caught:
        EngineConfig(**{field: value})  # type: ignore[arg-type]

    assert caught.value.field == field


@pytest.mark.proves("R326")
def test_engine_has_the_documented_defaults() -> None:
    assert EngineConfig() == EngineConfig(
        bar_interval_ms=60_000,
        atr_period=14,
        range_horizon=14,
        max_bars=1_000,
        bar_source=BarSource.READY_MADE,
    )


def test_engine_refuses_a_memory_in_which_nothing_warms_up() -> None:
    with pytest.raises(InvalidField, match="max_bars: found '14', expected at least 15"):
        EngineConfig(max_bars=14)


# An independent reference: exact rationals, one rounding at the end, nothing shared with the code.
def reference(bars: Sequence[Bar], period: int, horizon: int) -> dict[str, Fraction]:
    exact = [
        {name: Fraction(getattr(one, name)) for name in ("high", "low", "close")} for one in bars
    ]
    found = {"atr": Fraction(-1), "natr": Fraction(0), "path": Fraction(0), "net": Fraction(0)}
    if len(exact) > period:
        total = Fraction(0)
        for position in range(len(exact) - period, len(exact)):
            now, before = exact[position], exact[position - 1]["close"]
            total += max(now["high"], before) - min(now["low"], before)
        found["atr"] = total / period
        found["natr"] = found["atr"] / exact[-1]["close"] * 10_000
    if len(exact) > horizon:
        tail = [one["close"] for one in exact[len(exact) - horizon - 1 :]]
        for position in range(1, len(tail)):
            found["path"] += abs(tail[position] - tail[position - 1]) / tail[position - 1]
        found["path"] *= 10_000
        found["net"] = abs(tail[-1] - tail[0]) / tail[0] * 10_000
    return found


@st.composite
def bar_lists(draw: st.DrawFn) -> list[Bar]:
    made = []
    for index in range(draw(st.integers(min_value=0, max_value=12))):
        cents = sorted(draw(st.lists(st.integers(100, 20_000), min_size=3, max_size=3)))
        low, close, high = (str(Decimal(cent) / 100) for cent in cents)
        made.append(bar(index, close, high=high, low=low))
    return made


def near_tie(value: Fraction) -> bool:
    return abs(value % 1 - Fraction(1, 2)) < Fraction(1, 10**15)


@pytest.mark.proves("R6", "R7", "R8")
@given(bar_lists(), st.integers(1, 6), st.integers(1, 6))
def test_indicators_agree_with_an_exact_reference(
    bars: list[Bar], period: int, horizon: int
) -> None:
    exact = reference(bars, period, horizon)
    assume(not any(near_tie(exact[name]) for name in ("natr", "path", "net")))

    taken = snapshot(bars, engine=EngineConfig(atr_period=period, range_horizon=horizon))

    assert taken.natr_bps == round(exact["natr"])
    assert taken.sum_abs_returns_bps == round(exact["path"])
    assert taken.net_return_bps == round(exact["net"])
    assert taken.range_score == round(exact["path"]) // (round(exact["net"]) + 1)
    if len(bars) <= period:
        assert taken.atr is None
    else:
        assert taken.atr is not None
        assert abs(Fraction(taken.atr) - exact["atr"]) < Fraction(1, 10**24)
