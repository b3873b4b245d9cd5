"""Feature sets: found by name or file, and compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs
from tests.unit.artifacts import HOUR_MS

from detent.contracts.errors import DataInvalid, InvalidField
from detent.core.features.feature_set import direction_bars_v1
from detent.core.features.feature_spec import FeatureTransform, feature
from detent.offline.feature_sets import Difference, differences, find_feature_set

HOURLY = direction_bars_v1(HOUR_MS)


def test_set_is_found_by_name_and_by_file(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    path.write_bytes(HOURLY.canonical_json)

    assert find_feature_set("direction_bars_v1", bar_interval_ms=HOUR_MS) == HOURLY
    assert find_feature_set(str(path), bar_interval_ms=1) == HOURLY


def test_what_is_no_feature_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="direction_bars_v1"):
        find_feature_set("direction_bars_v9", bar_interval_ms=HOUR_MS)
    with pytest.raises(DataInvalid):
        find_feature_set(str(tmp_path), bar_interval_ms=HOUR_MS)
    path = tmp_path / "set.json"
    path.write_bytes(b"{}")
    with pytest.raises(InvalidField, match="schema"):
        find_feature_set(str(path), bar_interval_ms=HOUR_MS)
    path.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(DataInvalid, match="more than"):
        find_feature_set(str(path), bar_interval_ms=HOUR_MS)


def test_same_sets_do_not_differ() -> None:
    assert differences(HOURLY, direction_bars_v1(HOUR_MS)) == ()


def test_every_change_of_version_is_named() -> None:
    """Two sets have one version if and only if nothing differs."""
    longer = feature(FeatureTransform.RETURN_PCT, 48)
    others = [
        structs.replace(HOURLY, name="other"),
        structs.replace(HOURLY, engine=structs.replace(HOURLY.engine, atr_period=15)),
        structs.replace(HOURLY, features=HOURLY.features[:-1]),
        structs.replace(HOURLY, features=(*HOURLY.features, longer)),
        structs.replace(HOURLY, features=(*HOURLY.features[1:], HOURLY.features[0])),
    ]
    found = [differences(HOURLY, other) for other in others]

    assert all(other.feature_version != HOURLY.feature_version for other in others)
    assert found[0] == (Difference(field="name", first="direction_bars_v1", second="other"),)
    assert found[1] == (Difference(field="engine.atr_period", first=14, second=15),)
    assert found[2] == (Difference(field="range_score_capped", first="in place 11", second=None),)
    assert found[3] == (Difference(field="return_pct_48", first=None, second="in place 12"),)
    assert found[4][0] == Difference(field="return_pct_1", first="in place 1", second="in place 11")
    assert len(found[4]) == 11
