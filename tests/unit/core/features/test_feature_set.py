"""Proves what a feature set pins, and that nothing unprovided can be named."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs

from detent.contracts.errors import InvalidField
from detent.core.features.book_values import _OF_BOOK
from detent.core.features.engine import BarSource, BookConfig, EngineConfig
from detent.core.features.feature_set import (
    DIRECTION_BARS_V1,
    FeatureSet,
    direction_bars_v1,
    parse_feature_set,
)
from detent.core.features.feature_spec import (
    BOOK_TRANSFORMS,
    FeatureSpec,
    FeatureTransform,
    caller_feature,
    derived,
    feature,
)

RETURN = feature(FeatureTransform.RETURN_PCT, 3)
NATR = feature(FeatureTransform.NATR_PCT)
SET = FeatureSet(name="two", features=(RETURN, NATR), engine=EngineConfig())


def edited(change: Callable[[dict[str, Any]], object]) -> bytes:
    fields = json.loads(DIRECTION_BARS_V1.canonical_json)
    change(fields)
    return json.dumps(fields).encode()


@pytest.mark.proves("R161")
def test_shipped_set_has_the_published_version() -> None:
    """Another hash here makes every artifact that was trained before unservable."""
    assert DIRECTION_BARS_V1.feature_version == (
        "cdb98d87573a730c0635521f1a9b3b97e8d79074c322995371561a36c8bf2684"
    )


@pytest.mark.proves("R83")
def test_shipped_set_names_its_features_in_order() -> None:
    assert DIRECTION_BARS_V1.feature_names == (
        "return_pct_1",
        "return_pct_3",
        "return_pct_6",
        "return_pct_12",
        "return_pct_24",
        "deviation_pct_12",
        "deviation_pct_24",
        "close_zscore_24",
        "natr_pct",
        "sum_abs_returns_pct",
        "range_score_capped",
    )
    assert DIRECTION_BARS_V1.warmup_bars_min == 25
    assert DIRECTION_BARS_V1.engine.bar_source is BarSource.READY_MADE


@pytest.mark.proves("R161")
def test_json_round_trip_keeps_set_and_version() -> None:
    read = parse_feature_set(DIRECTION_BARS_V1.canonical_json)

    assert read == DIRECTION_BARS_V1
    assert read.feature_version == DIRECTION_BARS_V1.feature_version
    assert parse_feature_set(json.dumps(json.loads(SET.canonical_json), indent=2).encode()) == SET


@pytest.mark.proves("R3", "R161", "R326")
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(structs.replace(SET, name="other"), id="name"),
        pytest.param(structs.replace(SET, features=(NATR, RETURN)), id="order"),
        pytest.param(structs.replace(SET, features=(RETURN,)), id="one fewer"),
        pytest.param(
            structs.replace(SET, features=(feature(FeatureTransform.RETURN_PCT, 4), NATR)),
            id="window",
        ),
        *(
            pytest.param(
                structs.replace(SET, engine=engine),
                id=f"engine {number}",
            )
            for number, engine in enumerate(
                [
                    EngineConfig(bar_interval_ms=1),
                    EngineConfig(atr_period=15),
                    EngineConfig(range_horizon=15),
                    EngineConfig(max_bars=999),
                    EngineConfig(bar_source=BarSource.FROM_QUOTES),
                ]
            )
        ),
    ],
)
def test_any_change_is_another_version(changed: FeatureSet) -> None:
    assert changed.feature_version != SET.feature_version


@pytest.mark.proves("R3", "R161")
def test_rounding_and_missing_data_rules_are_in_the_hashed_bytes() -> None:
    fields = json.loads(SET.canonical_json)

    assert (fields["spread_rounding"], fields["bps_rounding"]) == ("truncate", "half_even")
    assert fields["missing_data"] == "refuse"


def test_interval_is_part_of_the_shipped_set() -> None:
    quarter_hour = direction_bars_v1(900_000)

    assert quarter_hour.feature_names == DIRECTION_BARS_V1.feature_names
    assert quarter_hour.feature_version != DIRECTION_BARS_V1.feature_version


@pytest.mark.proves("R83")
@pytest.mark.parametrize(
    ("name", "transform", "window_bars", "field"),
    [
        pytest.param("volume_24h", FeatureTransform.RETURN_PCT, 24, "name", id="another name"),
        pytest.param("return_pct_5", FeatureTransform.RETURN_PCT, 6, "name", id="another window"),
        pytest.param("volume_24h", "volume_24h", None, "transform", id="no such transform"),
        pytest.param("return_pct", FeatureTransform.RETURN_PCT, None, "window_bars", id="none"),
        pytest.param("return_pct_0", FeatureTransform.RETURN_PCT, 0, "window_bars", id="zero"),
        pytest.param("close_zscore_1", FeatureTransform.CLOSE_ZSCORE, 1, "window_bars", id="one"),
        pytest.param("natr_pct_14", FeatureTransform.NATR_PCT, 14, "window_bars", id="superfluous"),
        pytest.param("close_mean_1", FeatureTransform.ROLLING_MEAN, 1, "window_bars", id="point"),
        pytest.param(
            "close_lag_2000", FeatureTransform.LAG, 2_000, "window_bars", id="beyond a window"
        ),
        pytest.param("mean_10", FeatureTransform.ROLLING_MEAN, 10, "sources", id="of nothing"),
        pytest.param("position_3", FeatureTransform.CALLER, 3, "window_bars", id="caller's past"),
    ],
)
def test_feature_that_no_input_provides_is_refused(
    name: str, transform: FeatureTransform, window_bars: int | None, field: str
) -> None:
    with pytest.raises(InvalidField) as caught:
        FeatureSpec(name=name, transform=transform, window_bars=window_bars)

    assert caught.value.field == field


@pytest.mark.parametrize(
    ("features", "engine", "field"),
    [
        pytest.param((), EngineConfig(), "features", id="empty"),
        pytest.param((NATR, NATR), EngineConfig(), "features", id="twice"),
        pytest.param(
            (feature(FeatureTransform.RETURN_PCT, 20),),
            EngineConfig(max_bars=20),
            "max_bars",
            id="never warm",
        ),
        pytest.param(
            (feature(FeatureTransform.WILDER_ATR, 14),),
            EngineConfig(max_bars=280),
            "max_bars",
            id="Wilder needs twenty periods",
        ),
        pytest.param(
            (derived(FeatureTransform.ROLLING_MEAN, "return_pct_3"),),
            EngineConfig(),
            "features[0].sources",
            id="source that is not in the set",
        ),
        pytest.param(
            (NATR, derived(FeatureTransform.PRODUCT, "natr_pct", "open_interest")),
            EngineConfig(),
            "features[1].sources",
            id="source that nothing provides",
        ),
        *(
            pytest.param(
                (RETURN, spec),
                EngineConfig(bar_source=BarSource.FROM_QUOTES),
                "features[1].name",
                id=f"{spec.name} of bars from quotes",
            )
            for spec in (
                feature(FeatureTransform.VOLUME),
                feature(FeatureTransform.VOLUME_ZSCORE, 10),
                feature(FeatureTransform.VWAP_DISTANCE_PCT, 1),
                feature(FeatureTransform.FUNDING_RATE_BPS),
                derived(FeatureTransform.ROLLING_MEAN, "volume"),
            )
        ),
        *(
            pytest.param(
                (caller_feature("position_size"), RETURN, spec),
                EngineConfig(),
                "features[2].name",
                id=spec.name,
            )
            for spec in (
                derived(FeatureTransform.ROLLING_MEAN, "position_size"),
                derived(FeatureTransform.LAG, "position_size", window_bars=1),
            )
        ),
        pytest.param(
            (caller_feature("volume"),), EngineConfig(), "features[0].name", id="caller's column"
        ),
    ],
)
def test_set_that_cannot_serve_is_refused(
    features: tuple[FeatureSpec, ...], engine: EngineConfig, field: str
) -> None:
    with pytest.raises(InvalidField) as caught:
        FeatureSet(name="bad", features=features, engine=engine)

    assert caught.value.field == field


@pytest.mark.parametrize(
    ("window_rows", "features", "field"),
    [
        pytest.param(0, (NATR,), "window_rows", id="none"),
        pytest.param(1_025, (NATR,), "window_rows", id="too many"),
        pytest.param(
            1_000,
            tuple(feature(FeatureTransform.RETURN_PCT, bars) for bars in range(1, 67)),
            "window_rows",
            id="too many values",
        ),
        pytest.param(987, (NATR,), "max_bars", id="more than is held"),
        pytest.param(2, (caller_feature("position_size"),), "features[0].name", id="caller"),
    ],
)
def test_window_that_cannot_be_served_is_refused(
    window_rows: int, features: tuple[FeatureSpec, ...], field: str
) -> None:
    with pytest.raises(InvalidField) as caught:
        FeatureSet(name="bad", features=features, engine=EngineConfig(), window_rows=window_rows)

    assert caught.value.field == field


def test_window_may_use_every_bar_that_is_held() -> None:
    widest = FeatureSet(name="widest", features=(NATR,), engine=EngineConfig(), window_rows=986)

    assert widest.warmup_bars_min == 1_000


@pytest.mark.parametrize(
    ("transform", "window_bars", "needed"),
    [
        (FeatureTransform.REALISED_VOL_PCT_PER_BAR, 10, 11),
        (FeatureTransform.REALISED_VOL_PCT_PER_YEAR, 10, 11),
        (FeatureTransform.WILDER_NATR_PCT, 14, 281),
        (FeatureTransform.VOLUME_ZSCORE, 10, 10),
        (FeatureTransform.VWAP_DISTANCE_PCT, 10, 10),
        (FeatureTransform.FUNDING_RATE_BPS, None, 1),
    ],
)
def test_feature_needs_the_bars_that_it_reads(
    transform: FeatureTransform, window_bars: int | None, needed: int
) -> None:
    feature_set = structs.replace(SET, features=(feature(transform, window_bars),))

    assert feature_set.warmup_bars_min == needed


@pytest.mark.proves("R45", "R83")
@pytest.mark.parametrize(
    ("text", "field"),
    [
        pytest.param(edited(lambda f: f.update(schema="other.v1")), "schema", id="schema"),
        pytest.param(edited(lambda f: f.pop("schema")), "schema", id="no schema"),
        pytest.param(edited(lambda f: f.update(extra=1)), "extra", id="extra key"),
        pytest.param(edited(lambda f: f.pop("missing_data")), "missing_data", id="missing key"),
        pytest.param(
            edited(lambda f: f["features"].append({"name": "volume_24h", "window_bars": None})),
            "features[11].transform",
            id="feature without transform",
        ),
        pytest.param(
            edited(lambda f: f["features"][0].update(transform="volume_24h")),
            "features[0].transform",
            id="unknown transform",
        ),
        pytest.param(
            edited(lambda f: f["features"][0].update(name="price_mid")),
            "features[0].name",
            id="unknown name",
        ),
        pytest.param(
            edited(lambda f: f["features"][0].update(window_bars=1.0)), "feature_set", id="float"
        ),
        pytest.param(
            edited(lambda f: f["engine"].update(atr_period=True)), "engine.atr_period", id="bool"
        ),
        pytest.param(
            edited(lambda f: f.update(spread_rounding="half_even")),
            "spread_rounding",
            id="rounding",
        ),
        pytest.param(b"[]", "feature_set", id="no object"),
        pytest.param(b'{"schema":', "feature_set", id="truncated"),
    ],
)
def test_json_that_is_no_feature_set_is_refused(text: bytes, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_feature_set(text)

    assert caught.value.field == field


BOOK = FeatureSet(
    name="book",
    features=tuple(feature(transform) for transform in sorted(BOOK_TRANSFORMS)),
    engine=EngineConfig(book=BookConfig()),
)


@pytest.mark.proves("R15", "R161")
def test_reference_quantity_is_part_of_the_version() -> None:
    other = BookConfig(l2_qty_ref=Decimal("0.004"))
    changed = structs.replace(BOOK, engine=EngineConfig(book=other))

    assert json.loads(BOOK.canonical_json)["engine"]["l2_qty_ref"] == "0.003"
    assert changed.feature_version != BOOK.feature_version
    assert parse_feature_set(changed.canonical_json) == changed


@pytest.mark.proves("R161")
def test_set_without_a_book_has_no_key_of_one() -> None:
    """ADR 0011: the versions of sets that were trained before there were books stand."""
    assert "l2_qty_ref" not in json.loads(SET.canonical_json)["engine"]
    assert not SET.reads_book


@pytest.mark.parametrize(
    ("features", "engine"),
    [
        pytest.param(BOOK.features, EngineConfig(), id="book without a quantity"),
        pytest.param((NATR,), BOOK.engine, id="quantity without a book"),
    ],
)
def test_quantity_and_book_features_come_together(
    features: tuple[FeatureSpec, ...], engine: EngineConfig
) -> None:
    with pytest.raises(InvalidField, match="l2_qty_ref"):
        FeatureSet(name="half", features=features, engine=engine)


@pytest.mark.parametrize("qty_ref", [Decimal(0), Decimal(-1), Decimal("NaN"), 0.003])
def test_quantity_that_could_not_be_traded_is_refused(qty_ref: Any) -> None:
    with pytest.raises(InvalidField, match="l2_qty_ref"):
        BookConfig(l2_qty_ref=qty_ref)


def test_every_feature_of_the_book_has_a_formula() -> None:
    assert set(_OF_BOOK) == BOOK_TRANSFORMS
