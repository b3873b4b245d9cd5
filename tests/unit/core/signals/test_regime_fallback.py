"""What stands in for a regime: exact bytes, each symbol's own past, nothing from the future."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import OTHER_SYMBOL, START_MS, SYMBOL, model_binding

from detent.contracts.binding import FallbackMode, Head, ModelBinding, RegimeFallback
from detent.contracts.canonical import canonical_bytes
from detent.contracts.json_codec import to_json
from detent.contracts.signals import FillSignal, Regime, RegimeSignal
from detent.core.signals.regime_fallback import (
    REGIME_NEUTRAL,
    TOXICITY_NEUTRAL,
    LastRegimes,
    ends_the_call,
    fallback_signal,
)

AGE_MS = 3_600_000
STORM = RegimeSignal(
    regime_low_prob_bps=1_000,
    regime_mid_prob_bps=2_000,
    regime_high_prob_bps=7_000,
    predicted_regime=Regime.HIGH,
    regime_confidence_bps=7_000,
    spacing_multiplier_x1000=1_750,
)


def bound(mode: FallbackMode | None, *, max_age_ms: int | None = None) -> ModelBinding:
    """Give a regime binding with a fallback."""
    fallback = None if mode is None else RegimeFallback(mode=mode, max_age_ms=max_age_ms)
    return model_binding(head=Head.REGIME, regime_fallback=fallback)


NEUTRAL = bound(None)
PREVIOUS = bound(FallbackMode.PREVIOUS, max_age_ms=AGE_MS)
ERROR = bound(FallbackMode.ERROR)


@pytest.mark.proves("R75")
def test_the_neutral_signals_are_these_bytes() -> None:
    assert canonical_bytes("neutral", to_json(REGIME_NEUTRAL)) == (
        b'{"predicted_regime":"MID","regime_confidence_bps":3334,"regime_high_prob_bps":3333,'
        b'"regime_low_prob_bps":3333,"regime_mid_prob_bps":3334,"schema":"neutral",'
        b'"spacing_multiplier_x1000":1000}'
    )
    assert canonical_bytes("neutral", to_json(TOXICITY_NEUTRAL)) == (
        b'{"next_regime":"MID","predicted_toxicity":"MID","schema":"neutral",'
        b'"toxicity_high_prob_bps":3333,"toxicity_low_prob_bps":3333,'
        b'"toxicity_mid_prob_bps":3334}'
    )


@pytest.mark.proves("R75")
def test_a_silent_binding_is_neutral_whatever_was_known() -> None:
    last = LastRegimes()
    last.remember(SYMBOL, START_MS, STORM)

    assert fallback_signal(NEUTRAL, last, symbol=SYMBOL, ts_ms=START_MS) == REGIME_NEUTRAL
    assert not ends_the_call(NEUTRAL)


@pytest.mark.proves("R76")
@pytest.mark.parametrize(
    ("symbol", "later_ms", "expected"),
    [
        pytest.param(SYMBOL, 0, STORM, id="same instant"),
        pytest.param(SYMBOL, AGE_MS, STORM, id="at the age"),
        pytest.param(SYMBOL, AGE_MS + 1, REGIME_NEUTRAL, id="too old"),
        pytest.param(SYMBOL, -1, REGIME_NEUTRAL, id="from the future"),
        pytest.param(OTHER_SYMBOL, 0, REGIME_NEUTRAL, id="another symbol's"),
    ],
)
def test_the_previous_signal_is_the_symbols_own_and_ages(
    symbol: str, later_ms: int, expected: RegimeSignal
) -> None:
    last = LastRegimes()
    last.remember(SYMBOL, START_MS, STORM)

    found = fallback_signal(PREVIOUS, last, symbol=symbol, ts_ms=START_MS + later_ms)
    assert found == expected


@pytest.mark.proves("R76")
def test_none_yet_is_neutral() -> None:
    found = fallback_signal(PREVIOUS, LastRegimes(), symbol=SYMBOL, ts_ms=START_MS)

    assert found == REGIME_NEUTRAL


@pytest.mark.proves("R77")
def test_error_gives_nothing_and_ends_the_call() -> None:
    last = LastRegimes()
    last.remember(SYMBOL, START_MS, STORM)

    assert fallback_signal(ERROR, last, symbol=SYMBOL, ts_ms=START_MS) is None
    assert ends_the_call(ERROR)


@pytest.mark.parametrize("head", [Head.DIRECTION, Head.FILL, Head.BRACKETS])
def test_heads_without_a_fallback_have_none(head: Head) -> None:
    binding = model_binding(head=head)

    assert fallback_signal(binding, LastRegimes(), symbol=SYMBOL, ts_ms=START_MS) is None
    assert not ends_the_call(binding)


def test_toxicity_is_neutral() -> None:
    binding = model_binding(head=Head.TOXICITY)

    found = fallback_signal(binding, LastRegimes(), symbol=SYMBOL, ts_ms=START_MS)
    assert found == TOXICITY_NEUTRAL


@given(times=st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_the_newest_is_kept_in_whatever_order_they_come(times: list[int]) -> None:
    last = LastRegimes()
    for after in times:
        last.remember(SYMBOL, START_MS + after, STORM)
    newest_ms = START_MS + max(times)

    assert last.at(SYMBOL, newest_ms, max_age_ms=1) == STORM
    assert last.at(SYMBOL, newest_ms - 1, max_age_ms=AGE_MS) is None


def test_memory_is_bounded_and_holds_regimes_only() -> None:
    last = LastRegimes(symbols_max=3)
    last.remember("OTHER", START_MS, FillSignal(p_fill_bps=1))
    for index in range(10):
        last.remember(f"S{index}", START_MS, STORM)

    known = [f"S{i}" for i in range(10) if last.at(f"S{i}", START_MS, max_age_ms=1)]
    assert known == ["S7", "S8", "S9"]
    assert last.at("OTHER", START_MS, max_age_ms=1) is None
