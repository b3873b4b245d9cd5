"""Manifests of the five heads: their outputs, their fallback, and hashes that stay."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs
from tests.unit.artifacts import artifact, contents_of, manifest_of
from tests.unit.head_artifacts import (
    FURTHER,
    KEYS,
    NEXT_REGIME,
    SPACING,
    manifest_of_head,
    write_head_artifact,
)

from detent.contracts.binding import FallbackMode, Head, RegimeFallback
from detent.contracts.errors import InvalidField
from detent.contracts.manifest import (
    GoldenRow,
    GoldenSet,
    GraphOutput,
    Manifest,
    binding_of,
    golden_bytes,
    manifest_bytes,
    parse_golden,
    parse_manifest,
)
from detent.contracts.signals import DirectionSignal, FillSignal

PREVIOUS = RegimeFallback(mode=FallbackMode.PREVIOUS, max_age_ms=60_000)
DIRECTION = GoldenRow(values=b"1234", direction=DirectionSignal(p_hat_raw_bps=1, p_hat_bps=2))
FILL = GoldenRow(values=b"1234", fill=FillSignal(p_fill_bps=3))


def test_what_came_later_is_left_out_of_the_text_where_it_is_absent() -> None:
    fields = json.loads(manifest_bytes(manifest_of()))
    rows = json.loads(golden_bytes(artifact().golden))

    assert Manifest.JSON_GROWN
    assert not set(Manifest.JSON_GROWN) & set(fields)
    assert set(rows) == {"rows", "schema"}
    assert set(rows["rows"][0]) == {"values", "direction"}
    # The control: a key that is there and says nothing would be another hash, so it is refused.
    for name in Manifest.JSON_GROWN:
        text = json.dumps({**fields, name: None}, sort_keys=True, separators=(",", ":"))
        with pytest.raises(InvalidField) as caught:
            parse_manifest(text.encode("ascii"))
        assert caught.value.field == name


@pytest.mark.parametrize("head", Head)
def test_a_manifest_of_any_head_survives_its_text(head: Head) -> None:
    manifest = manifest_of_head(
        head, git_sha="0" * 40, dataset_id="golden-100", notes="first of its kind"
    )

    assert parse_manifest(manifest_bytes(manifest)) == manifest
    assert binding_of(manifest).head is head
    for name in ("git_sha", "dataset_id", "notes"):
        other = structs.replace(manifest, **{name: None})
        assert other.model_version_hash != manifest.model_version_hash


@pytest.mark.parametrize(
    ("head", "further"),
    [
        (Head.DIRECTION, (SPACING,)),
        (Head.FILL, (NEXT_REGIME,)),
        (Head.BRACKETS, (SPACING,)),
        (Head.REGIME, (NEXT_REGIME,)),
        (Head.REGIME, (SPACING, SPACING)),
        (Head.TOXICITY, ()),
        (Head.TOXICITY, (SPACING,)),
        (Head.TOXICITY, (GraphOutput(name="x", classes=("HIGH", "MID", "LOW")),)),
        (Head.REGIME, (structs.replace(SPACING, name="probabilities"),)),
    ],
)
def test_outputs_that_a_head_does_not_have_are_refused(
    head: Head, further: tuple[GraphOutput, ...]
) -> None:
    with pytest.raises(InvalidField) as caught:
        manifest_of_head(head, further=further)

    assert caught.value.field == "further_outputs"


def test_a_regime_needs_no_spacing() -> None:
    assert manifest_of_head(Head.REGIME, further=()).further_outputs == ()
    assert manifest_of_head(Head.REGIME).further_outputs == FURTHER[Head.REGIME]


@pytest.mark.parametrize(
    ("head", "classes"),
    [
        (Head.DIRECTION, ("up", "down")),
        (Head.FILL, ("filled", "not_filled")),
        (Head.REGIME, ("LOW", "HIGH", "MID")),
        (Head.REGIME, ("down", "up")),
        (Head.TOXICITY, ("LOW", "MID")),
        (Head.BRACKETS, ("one",)),
        (Head.BRACKETS, ("one", "one")),
        (Head.BRACKETS, ("one", "t wo")),
        (Head.BRACKETS, tuple(f"b{n}" for n in range(101))),
    ],
)
def test_classes_that_a_head_does_not_have_are_refused(
    head: Head, classes: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidField) as caught:
        manifest_of_head(head, output_classes=classes)

    assert caught.value.field == "output_classes"


@pytest.mark.parametrize("shape", [(11,), (0, 0), (2, 6), (-1, -11), (1, 11, 1)])
def test_a_window_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    assert len(manifest_of().input_features) == 11
    with pytest.raises(InvalidField) as caught:
        structs.replace(manifest_of(), input_shape=shape)

    assert caught.value.field == "input_shape"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("git_sha", "0" * 39),
        ("git_sha", "A" * 40),
        ("git_sha", ""),
        ("dataset_id", ""),
        ("dataset_id", "a b"),
        ("notes", ""),
        ("notes", "line\nbreak"),
        ("notes", "x" * 513),
    ],
)
def test_provenance_that_is_none_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidField) as caught:
        structs.replace(manifest_of(), **{name: value})

    assert caught.value.field == name


@pytest.mark.proves("R76", "R77")
@pytest.mark.parametrize(
    "fallback", [PREVIOUS, RegimeFallback(mode=FallbackMode.ERROR)], ids=lambda f: str(f.mode)
)
def test_a_fallback_is_bound(fallback: RegimeFallback) -> None:
    silent, bound = manifest_of_head(Head.REGIME), manifest_of_head(Head.REGIME, fallback=fallback)

    assert parse_manifest(manifest_bytes(bound)) == bound
    assert binding_of(bound).regime_fallback == fallback
    assert binding_of(silent).regime_fallback is None
    assert binding_of(bound).binding_hash != binding_of(silent).binding_hash
    for head in set(Head) - {Head.REGIME}:
        with pytest.raises(InvalidField) as caught:
            manifest_of_head(head, fallback=fallback)
        assert caught.value.field == "fallback"


def test_a_neutral_fallback_has_one_form_only() -> None:
    with pytest.raises(InvalidField, match="absent, which means neutral"):
        manifest_of_head(Head.REGIME, fallback=RegimeFallback(mode=FallbackMode.NEUTRAL))


@pytest.mark.proves("R76")
@pytest.mark.parametrize(
    ("mode", "max_age_ms"),
    [
        (FallbackMode.PREVIOUS, None),
        (FallbackMode.PREVIOUS, 0),
        (FallbackMode.PREVIOUS, 32 * 24 * 3_600_000),
        (FallbackMode.ERROR, 1),
        (FallbackMode.NEUTRAL, 1),
    ],
)
def test_a_fallback_that_contradicts_itself_is_refused(
    mode: FallbackMode, max_age_ms: int | None
) -> None:
    with pytest.raises(InvalidField) as caught:
        RegimeFallback(mode=mode, max_age_ms=max_age_ms)

    assert caught.value.field == "max_age_ms"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rows": (DIRECTION, FILL)}, "rows[1]"),
        ({"rows": (FILL, structs.replace(FILL, values=b"12345678"))}, "rows[1].values"),
        ({"rows": (FILL,), "baseline": b"12345678"}, "baseline"),
        ({"rows": (FILL,), "baseline": b""}, "baseline"),
    ],
)
def test_golden_rows_are_of_one_head_and_width(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        GoldenSet(**changes)

    assert caught.value.field == field


def test_a_golden_row_expects_one_answer() -> None:
    for wrong in ({}, {"direction": DIRECTION.direction, "fill": FILL.fill}):
        with pytest.raises(InvalidField):
            GoldenRow(values=b"1234", **wrong)


def test_a_golden_set_with_a_baseline_survives_its_text() -> None:
    golden = GoldenSet(rows=(FILL,), baseline=b"4321")

    assert parse_golden(golden_bytes(golden)) == golden
    assert parse_golden(golden_bytes(GoldenSet(rows=(FILL,)))).baseline is None


@pytest.mark.parametrize("head", Head)
def test_an_artifact_of_any_head_pins_golden_rows_of_that_head(head: Head, tmp_path: Any) -> None:
    golden = parse_golden(contents_of(write_head_artifact(tmp_path, head))["golden.json"])

    assert {row.head for row in golden.rows} == {head}
    if head is Head.BRACKETS:
        first = golden.rows[0].brackets
        assert first is not None
        assert tuple(bracket.bracket_key for bracket in first.brackets) == KEYS
