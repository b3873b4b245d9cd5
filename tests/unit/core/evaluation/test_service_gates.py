"""The gates of a shadow: quantiles are exact, bounds are strict, thin or short is no evidence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.core.evaluation.promotion_cases import blocking, good_measures

from detent.contracts.errors import InvalidField
from detent.contracts.reasons import Reason
from detent.core.evaluation.measures import ServiceMeasures
from detent.core.evaluation.profiles import SEED, STANDARD
from detent.core.evaluation.service_gates import (
    ShadowRow,
    measure_service,
    nearest_rank,
    service_gates,
)

HOUR_MS = 3_600_000


def row(bar: int, latency_us: int = 1_000, reason: Reason | None = None) -> ShadowRow:
    return ShadowRow(ts_ms=bar * HOUR_MS, latency_us=latency_us, reason=reason)


def refused(**changes: Any) -> dict[str, str]:
    good = good_measures().service
    assert good is not None
    return blocking(service_gates(STANDARD, structs.replace(good, **changes)))


@pytest.mark.proves("R332")
@pytest.mark.parametrize(
    ("passes", "blocks", "gate"),
    [
        ({"covered_ms": 24 * HOUR_MS}, {"covered_ms": 24 * HOUR_MS - 1}, "shadow_hours"),
        ({"p99_us": 99_999}, {"p99_us": 100_000}, "shadow_p99"),
        ({"p999_us": 249_999}, {"p999_us": 250_000}, "shadow_p999"),
        ({"error_count": 99}, {"error_count": 100}, "shadow_errors"),
    ],
)
def test_each_bound_is_met_or_refused_to_the_unit(
    passes: dict[str, int], blocks: dict[str, int], gate: str
) -> None:
    assert refused(**passes) == {}
    assert set(refused(**blocks)) == {gate}


@pytest.mark.proves("R332")
def test_too_few_rows_tell_nothing_and_may_still_be_bad() -> None:
    unknown = "insufficient_evidence"
    slowest = {"shadow_p99": unknown, "shadow_p999": unknown, "shadow_errors": unknown}

    assert refused(row_count=1_000) == {}
    assert refused(row_count=999) == {"shadow_rows": unknown} | slowest
    assert refused(row_count=999, p99_us=100_000)["shadow_p99"] == "failed"
    assert set(blocking(service_gates(STANDARD, None)).values()) == {unknown}
    assert service_gates(SEED, None) == ()


@pytest.mark.proves("R332")
def test_rows_are_counted_as_they_are() -> None:
    rows = [row(bar, 1_000 + bar) for bar in range(1_000)]
    off = [row(5_000 + number, 10**9, Reason.KILL_SWITCH_STATE) for number in range(50)]
    late = [row(2_000, 300_000, Reason.INFERENCE_DEADLINE)]

    assert measure_service([*late, *rows, *off], bar_interval_ms=HOUR_MS) == ServiceMeasures(
        row_count=1_001,
        error_count=1,
        covered_ms=1_001 * HOUR_MS,
        p99_us=1_990,
        p999_us=1_999,
    )
    assert measure_service(off, bar_interval_ms=HOUR_MS) is None


def test_many_rows_of_one_bar_are_one_bar_long() -> None:
    found = measure_service([row(3)] * 2_000, bar_interval_ms=HOUR_MS)

    assert found is not None
    assert found.covered_ms == HOUR_MS


@given(values=st.lists(st.integers(0, 10**6), min_size=1, max_size=300), share=st.integers(1, 1000))
def test_a_quantile_is_the_least_value_that_covers_its_share(values: list[int], share: int) -> None:
    ordered = sorted(values)
    found = nearest_rank(ordered, share)

    assert found in values
    assert sum(value <= found for value in values) * 1_000 >= share * len(values)
    below = [value for value in values if value < found]
    assert len(below) * 1_000 < share * len(values)


def test_more_errors_than_rows_are_no_measure() -> None:
    with pytest.raises(InvalidField, match="error_count"):
        ServiceMeasures(row_count=1, error_count=2, covered_ms=0, p99_us=0, p999_us=0)
