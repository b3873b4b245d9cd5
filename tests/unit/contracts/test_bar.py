"""Proves what a bar may say beyond its prices, and that it travels."""

from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs
from tests.unit.core.features.market import bar

from detent.contracts.errors import InvalidField
from detent.contracts.market import Bar
from detent.contracts.wire import from_wire, to_wire

PLAIN = bar(0, "100")
TOLD = structs.replace(PLAIN, vwap=Decimal("99.875"), funding_rate=Decimal("-0.0001"))


@pytest.mark.parametrize("one", [PLAIN, TOLD])
def test_a_bar_travels_with_and_without_vwap_and_funding(one: Bar) -> None:
    message = to_wire(one)

    assert message.HasField("vwap") == (one.vwap is not None)
    assert message.HasField("funding_rate") == (one.funding_rate is not None)
    assert from_wire(Bar, message) == one


@pytest.mark.parametrize(
    "changes",
    [
        {"vwap": Decimal(0)},
        {"vwap": Decimal(-1)},
        {"vwap": 99.5},
        {"funding_rate": Decimal("NaN")},
        {"funding_rate": 0.0001},
        {"funding_rate": Decimal("1E-60")},
    ],
)
def test_a_bar_that_says_what_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidField) as caught:
        structs.replace(PLAIN, **changes)

    assert [caught.value.field] == list(changes)
