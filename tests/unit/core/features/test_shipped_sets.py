"""Proves the seed's fifteen names, their order, and who provides which."""

import hashlib
import json
import struct
from decimal import Decimal

import pytest
from tests.unit.core.features.market import MINUTE_MS, bar, close_ms, quote

from detent.contracts.calls.feature import ModelInput, SnapshotView
from detent.contracts.reasons import Reason
from detent.core.features.engine import BarSource
from detent.core.features.history import SymbolHistory
from detent.core.features.model_input import build_model_input
from detent.core.features.shipped_sets import (
    GRINDER_FEATURE_ORDER_V1,
    grinder_feature_order_v1,
)

READY_MADE = grinder_feature_order_v1(MINUTE_MS, bar_source=BarSource.READY_MADE)
SAID = {name: Decimal(index - 5) for index, name in enumerate(READY_MADE.caller_names)}


@pytest.mark.proves("R152")
def test_seeds_order_hashes_as_the_seed_has_it() -> None:
    """FORMULAS 1.3: the first 16 hex of the SHA-256 of the plain JSON list."""
    names = list(GRINDER_FEATURE_ORDER_V1.feature_names)

    assert hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16] == "cc836e0d5383abd9"


@pytest.mark.proves("R83")
def test_seeds_set_is_published_and_provides_four_of_fifteen() -> None:
    assert GRINDER_FEATURE_ORDER_V1.feature_version == (
        "9e1dcef9d85447f1b2e321ddef524b44ff98251ad14110cee5d544033eef01b2"
    )
    assert GRINDER_FEATURE_ORDER_V1.feature_names[:4] == (
        "price_mid",
        "price_bid",
        "price_ask",
        "spread_bps",
    )
    assert GRINDER_FEATURE_ORDER_V1.caller_names == GRINDER_FEATURE_ORDER_V1.feature_names[4:]
    assert GRINDER_FEATURE_ORDER_V1.warmup_bars_min == 1


@pytest.mark.proves("R152")
def test_seeds_order_cannot_be_changed() -> None:
    found = GRINDER_FEATURE_ORDER_V1

    assert isinstance(found.features, tuple)
    assert isinstance(found.feature_names, tuple)
    with pytest.raises(AttributeError):
        found.features = found.features[::-1]  # type: ignore[misc]
    with pytest.raises(AttributeError):
        found.features[0].window_bars = 2  # type: ignore[misc]


@pytest.mark.proves("R83", "R152")
def test_seeds_vector_is_fifteen_float32_in_its_order() -> None:
    history = SymbolHistory("BTCUSDT", READY_MADE.engine)
    history.add_quote(quote(close_ms(0) - 1, "49975", "50025"))
    history.add_bar(bar(0, "50000"))

    def asked(said: dict[str, Decimal]) -> ModelInput | Reason:
        return build_model_input(
            READY_MADE,
            history,
            as_of_ts_ms=close_ms(0),
            view=SnapshotView.INPUT,
            caller_values=said,
        )

    outcome = asked(SAID)

    assert isinstance(outcome, ModelInput)
    assert struct.unpack("<15f", outcome.values) == (50_000, 49_975, 50_025, 10, *range(-5, 6))
    for name in SAID:
        lacking = {other: value for other, value in SAID.items() if other != name}
        assert asked(lacking) is Reason.FEATURES_MISSING
