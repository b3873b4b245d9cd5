"""Proves which form a feature set is written in, and that each has one form only."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs
from tests.unit.core.features.market import READY_MADE

from detent.contracts.errors import InvalidField
from detent.core.features.feature_set import FeatureSet, parse_feature_set
from detent.core.features.feature_spec import FeatureTransform, Normalisation, derived, feature

NATR = feature(FeatureTransform.NATR_PCT)
MEAN = derived(FeatureTransform.ROLLING_MEAN, "natr_pct")
SCALED = feature(
    FeatureTransform.NATR_PCT,
    normalisation=Normalisation(offset=Decimal("-1.50"), scale=Decimal("0.250")),
)
PLAIN = FeatureSet(name="plain", features=(NATR,), engine=READY_MADE)
NEWER = FeatureSet(name="newer", features=(SCALED, MEAN), engine=READY_MADE, window_rows=3)


def edited(feature_set: FeatureSet, change: Callable[[dict[str, Any]], object]) -> bytes:
    fields = json.loads(feature_set.canonical_json)
    change(fields)
    return json.dumps(fields).encode()


@pytest.mark.proves("R161")
def test_a_set_without_newer_parts_is_written_as_before() -> None:
    fields = json.loads(PLAIN.canonical_json)

    assert fields["schema"] == "detent.feature_set.v1"
    assert "window_rows" not in fields
    assert fields["features"] == [
        {"name": "natr_pct", "transform": "natr_pct", "window_bars": None}
    ]


@pytest.mark.proves("R161", "R155")
def test_a_set_with_newer_parts_is_written_whole() -> None:
    fields = json.loads(NEWER.canonical_json)

    assert (fields["schema"], fields["window_rows"]) == ("detent.feature_set.v2", 3)
    assert fields["features"] == [
        {
            "name": "natr_pct",
            "transform": "natr_pct",
            "window_bars": None,
            "sources": [],
            "normalisation": {"offset": "-1.5", "scale": "0.25"},
        },
        {
            "name": "natr_pct_mean_10",
            "transform": "mean",
            "window_bars": 10,
            "sources": ["natr_pct"],
            "normalisation": None,
        },
    ]


@pytest.mark.proves("R161")
@pytest.mark.parametrize("feature_set", [PLAIN, NEWER])
def test_either_form_is_read_as_it_was_written(feature_set: FeatureSet) -> None:
    read = parse_feature_set(feature_set.canonical_json)

    assert read == feature_set
    assert read.feature_version == feature_set.feature_version


@pytest.mark.proves("R155", "R161")
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(structs.replace(NEWER, window_rows=4), id="rows"),
        pytest.param(structs.replace(NEWER, window_rows=1), id="one row"),
        pytest.param(structs.replace(NEWER, features=(MEAN, SCALED)), id="order"),
        pytest.param(structs.replace(NEWER, features=(NATR, MEAN)), id="as it is"),
        pytest.param(
            structs.replace(
                NEWER, features=(SCALED, derived(FeatureTransform.ROLLING_STD, "natr_pct"))
            ),
            id="transform",
        ),
        *(
            pytest.param(
                structs.replace(
                    NEWER, features=(structs.replace(SCALED, normalisation=normalisation), MEAN)
                ),
                id=str(number),
            )
            for number, normalisation in enumerate(
                [
                    Normalisation(offset=Decimal("1.5"), scale=Decimal("0.25")),
                    Normalisation(offset=Decimal("-1.5"), scale=Decimal("0.26")),
                ]
            )
        ),
    ],
)
def test_any_change_of_a_newer_part_is_another_version(changed: FeatureSet) -> None:
    assert changed.feature_version != NEWER.feature_version


@pytest.mark.proves("R161")
def test_equal_decimals_are_the_same_version() -> None:
    again = structs.replace(
        SCALED, normalisation=Normalisation(offset=Decimal("-1.5"), scale=Decimal("0.25"))
    )

    assert structs.replace(NEWER, features=(again, MEAN)).feature_version == NEWER.feature_version


@pytest.mark.proves("R45", "R161")
@pytest.mark.parametrize(
    ("text", "field"),
    [
        pytest.param(edited(PLAIN, lambda f: f.update(window_rows=1)), "window_rows", id="rows"),
        pytest.param(
            edited(PLAIN, lambda f: f["features"][0].update(sources=[])),
            "features[0].sources",
            id="sources",
        ),
        pytest.param(
            edited(PLAIN, lambda f: f.update(schema="detent.feature_set.v2")),
            "schema",
            id="newer schema for an older set",
        ),
        pytest.param(
            edited(NEWER, lambda f: f.update(schema="detent.feature_set.v1")),
            "window_rows",
            id="older schema for a newer set",
        ),
        pytest.param(edited(NEWER, lambda f: f.pop("window_rows")), "window_rows", id="no rows"),
        pytest.param(
            edited(NEWER, lambda f: f["features"][1].pop("normalisation")),
            "features[1].normalisation",
            id="no normalisation",
        ),
        pytest.param(
            edited(NEWER, lambda f: f["features"][0]["normalisation"].update(scale="0")),
            "features[0].normalisation.scale",
            id="scale of zero",
        ),
        pytest.param(
            edited(NEWER, lambda f: f["features"][0]["normalisation"].update(scale="-1")),
            "features[0].normalisation.scale",
            id="scale below zero",
        ),
        pytest.param(
            edited(NEWER, lambda f: f["features"][0]["normalisation"].update(offset=1)),
            "features[0].normalisation.offset",
            id="a number",
        ),
        pytest.param(
            edited(NEWER, lambda f: f["features"][1].update(sources=["spread_pct"])),
            "features[1].name",
            id="name of another source",
        ),
        pytest.param(
            edited(NEWER, lambda f: f["features"].__setitem__(0, 7)), "features[0]", id="no object"
        ),
        pytest.param(edited(PLAIN, lambda f: f.update(features=7)), "features", id="no list"),
        pytest.param(
            edited(PLAIN, lambda f: f["features"].append(7)), "features[1]", id="one no object"
        ),
    ],
)
def test_text_of_neither_form_is_refused(text: bytes, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_feature_set(text)

    assert caught.value.field == field
