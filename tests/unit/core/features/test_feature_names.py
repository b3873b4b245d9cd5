"""Proves that no feature can be named after a clock, and that the check catches one."""

import pytest
from tests.unit.core.features.market import READY_MADE

from detent.contracts.errors import InvalidField
from detent.core.features.feature_names import check_feature_name
from detent.core.features.feature_set import DIRECTION_BARS_V1, FeatureSet
from detent.core.features.feature_spec import COLUMNS, FeatureTransform, caller_feature


@pytest.mark.proves("R40")
@pytest.mark.parametrize("transform", list(FeatureTransform))
def test_no_transform_is_named_after_a_clock(transform: FeatureTransform) -> None:
    check_feature_name("name", transform.value)


@pytest.mark.proves("R40")
@pytest.mark.parametrize(
    "name", [*DIRECTION_BARS_V1.feature_names, *COLUMNS, "volume_24h", "vol_per_year", "hurst"]
)
def test_spans_and_units_are_no_clocks(name: str) -> None:
    check_feature_name("name", name)


@pytest.mark.proves("R40")
@pytest.mark.parametrize(
    "name",
    [
        "hour_of_day",
        "Hour",
        "is-weekday",
        "now_ms",
        "time2close",
        "ts",
        "day_sin",
        "clock.skew",
        "minutes_since_open",
        "session_id",
        "position_date",
        "last_month_of_year",
    ],
)
def test_a_clock_is_refused_by_its_word(name: str) -> None:
    """The check is worth nothing unless it catches one that was planted."""
    with pytest.raises(InvalidField, match="no clock among the features"):
        check_feature_name("name", name)
    with pytest.raises(InvalidField, match="no clock among the features"):
        FeatureSet(name="some", features=(caller_feature(name),), engine=READY_MADE)


@pytest.mark.parametrize("name", ["", "_x", "a b", "x" * 129])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidField, match="name"):
        check_feature_name("name", name)
