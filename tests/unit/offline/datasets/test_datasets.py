"""Data sets: the same bytes from the same bars, labels as defined, and nothing else is read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from tests.unit.training_rows import CREATED_AT, DATASET_ID, bars, build, dataset, dataset_in

from detent.contracts.binding import Head
from detent.contracts.calls.feature import ModelInput
from detent.contracts.errors import DataInvalid, InvalidField
from detent.contracts.proxy import PROXY_DEFAULT
from detent.core.features.offline_rows import iter_model_inputs
from detent.core.features.shipped_sets import GRINDER_FEATURE_ORDER_V1
from detent.core.signals.proxy import proxy_answer
from detent.offline.datasets.building import cadence_evidence
from detent.offline.datasets.folder import files_of, read_dataset, write_dataset
from detent.offline.datasets.manifest import (
    DatasetManifest,
    DatasetSource,
    dataset_manifest_bytes,
    feature_order_hash,
    parse_dataset_manifest,
)
from detent.offline.datasets.promotion import require_promotion_dataset
from detent.offline.datasets.rows import LABEL, PROXY, Rows, rows_bytes
from detent.offline.walk_forward.leakage import check_rows_against_bars

Damage = Callable[[Path], object]


def _bit(folder: Path) -> None:
    content = bytearray((folder / "rows.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "rows.parquet").write_bytes(bytes(content))


def _link(folder: Path) -> None:
    target = folder.parent / "elsewhere.parquet"
    shutil.move(folder / "rows.parquet", target)
    (folder / "rows.parquet").symlink_to(target)


def _hard_link(folder: Path) -> None:
    os.link(folder / "rows.parquet", folder.parent / "again.parquet")


def _spaced(folder: Path) -> None:
    text = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(text.replace(b'","', b'", "', 1))


def _edited(old: bytes, new: bytes) -> Damage:
    def edit(folder: Path) -> None:
        text = (folder / "manifest.json").read_bytes()
        assert old in text
        (folder / "manifest.json").write_bytes(text.replace(old, new, 1))

    return edit


@pytest.mark.proves("R335", "R336")
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda folder: (folder / "rows.parquet").unlink(), id="missing-rows"),
        pytest.param(lambda folder: (folder / "manifest.json").unlink(), id="missing-manifest"),
        pytest.param(lambda folder: (folder / "feature_set.json").unlink(), id="missing-set"),
        pytest.param(lambda folder: (folder / "more.parquet").write_text("x"), id="unlisted"),
        pytest.param(lambda folder: (folder / "rows.pkl").write_text("x"), id="pickle"),
        pytest.param(_bit, id="tampered-rows"),
        pytest.param(lambda f: (f / "rows.parquet").write_bytes(b""), id="empty-rows"),
        pytest.param(_link, id="symlink"),
        pytest.param(_hard_link, id="hard-link"),
        pytest.param(_spaced, id="not-canonical"),
        pytest.param(_edited(b'"source":"synthetic"', b'"source":"rumour"'), id="source"),
        pytest.param(_edited(b'"h2"', b'""'), id="no-horizon"),
        pytest.param(_edited(b'"horizon_bars":2', b'"horizon_bars":0'), id="horizon-0"),
        pytest.param(_edited(b'"row_count":', b'"row_count":1'), id="row-count"),
        pytest.param(_edited(b'"dataset_id":"planted', b'"dataset_id":"planter'), id="id"),
        pytest.param(_edited(b'"return_pct_1"', b'"return_pct_2"'), id="feature-order"),
        pytest.param(_edited(b'"AAA"', b'"AAB"'), id="symbols"),
        pytest.param(_edited(b'"first_ts_ms":17', b'"first_ts_ms":16'), id="span"),
    ],
)
def test_a_data_set_that_is_not_what_it_says_is_refused(tmp_path: Path, damage: Damage) -> None:
    folder = dataset_in(tmp_path)
    read_dataset(folder)
    damage(folder)

    with pytest.raises(DataInvalid) as caught:
        read_dataset(folder)

    assert "found" in caught.value.message
    assert "expected" in caught.value.message


@pytest.mark.proves("R336")
def test_a_folder_that_is_a_link_or_has_another_name_is_refused(tmp_path: Path) -> None:
    folder = dataset_in(tmp_path)
    (tmp_path / "linked-15m").symlink_to(folder)
    with pytest.raises(DataInvalid):
        read_dataset(tmp_path / "linked-15m")

    folder.rename(tmp_path / "renamed-15m")
    with pytest.raises(DataInvalid, match="renamed-15m"):
        read_dataset(tmp_path / "renamed-15m")


@pytest.mark.proves("R335")
@pytest.mark.parametrize("name", ["ab", "Upper-15m", "../up", "a..b", "-front", "x" * 66, ""])
def test_a_name_that_could_be_a_path_is_refused(name: str) -> None:
    with pytest.raises(InvalidField):
        structs.replace(dataset().manifest, dataset_id=name)


@pytest.mark.proves("R335")
@pytest.mark.parametrize("rows", [0, 9, 10_000_001])
def test_row_counts_out_of_bounds_are_refused(rows: int) -> None:
    for bound in (10, 10_000_000):
        assert structs.replace(dataset().manifest, row_count=bound).row_count == bound
    with pytest.raises(InvalidField, match="row_count"):
        structs.replace(dataset().manifest, row_count=rows)


@pytest.mark.proves("R335")
def test_order_of_features_hashes_as_in_the_seeds() -> None:
    """The value of the fifteen names, in their order, as the seeds' data sets carry it."""
    names = GRINDER_FEATURE_ORDER_V1.feature_names

    assert feature_order_hash(names) == "cc836e0d5383abd9"
    assert feature_order_hash(names[::-1]) != "cc836e0d5383abd9"


def test_the_same_bars_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = build(tmp_path / "a"), dataset_in(tmp_path)

    for name in ("manifest.json", "rows.parquet", "feature_set.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    manifest = dataset().manifest
    assert parse_dataset_manifest(dataset_manifest_bytes(manifest)) == manifest
    assert manifest.created_at == CREATED_AT


@pytest.mark.parametrize("head", [Head.FILL, Head.BRACKETS])
def test_bars_label_no_orders_and_no_events(tmp_path: Path, head: Head) -> None:
    with pytest.raises(DataInvalid, match=f"head {head}, expected a head of bars: direction"):
        build(tmp_path, head=head)


@pytest.mark.parametrize("created_at", ["2024-13-01T00:00:00Z", "2024-10-01T25:00:00Z", "today"])
def test_an_instant_of_no_calendar_is_refused(created_at: str) -> None:
    with pytest.raises(InvalidField, match="created_at"):
        structs.replace(dataset().manifest, created_at=created_at)


def test_a_data_set_never_changes(tmp_path: Path) -> None:
    dataset_in(tmp_path)

    with pytest.raises(DataInvalid, match="never changes"):
        build(tmp_path)


@pytest.mark.proves("R159", "R160")
def test_rows_are_those_of_live_serving_with_the_label_of_the_definition(tmp_path: Path) -> None:
    """Inputs by the code that serves, labels from closes, the proxy as policy computes it."""
    rows, table = dataset().rows, bars()
    checked = 0
    for symbol, series in table.bars.items():
        live = {
            one.ts_ms: one.values
            for one in iter_model_inputs(dataset().feature_set, series)
            if isinstance(one, ModelInput)
        }
        closes = [float(bar.close) for bar in series]
        place = {bar.ts_ms: index for index, bar in enumerate(series)}
        for row in np.flatnonzero(rows.symbols == symbol).tolist():
            at = place[int(rows.ts_ms[row])]
            assert rows.values[row].tobytes() == live[int(rows.ts_ms[row])]
            assert int(rows.label_ts_ms[row]) == series[at + 2].ts_ms
            assert rows.labels[row] == (closes[at + 2] > closes[at])
            if row % 40 == 0:
                said = proxy_answer(closes[: at + 1], PROXY_DEFAULT).p_hat_bps
                assert rows.targets[PROXY][row] == said
            checked += 1
    assert checked == len(rows) == dataset().manifest.row_count
    assert "close[t+2]" in dataset().manifest.label_definition


def replanted(tmp_path: Path, rows: Rows) -> Path:
    """Write other rows under a manifest that pins them, as someone with write access would."""
    manifest = dataset().manifest
    contents = {
        "feature_set.json": dataset().feature_set.canonical_json,
        "rows.parquet": rows_bytes(manifest.head, manifest.input_features, rows),
    }
    return write_dataset(tmp_path, structs.replace(manifest, files=files_of(contents)), contents)


@pytest.mark.proves("R159")
def test_a_label_that_its_closes_contradict_is_refused(tmp_path: Path) -> None:
    rows = dataset().rows
    labels = rows.labels.copy()
    labels[7] = not labels[7]

    with pytest.raises(DataInvalid, match="row 8"):
        replanted(tmp_path, structs.replace(rows, targets=rows.targets | {LABEL: labels}))


@pytest.mark.proves("R159")
def test_a_feature_from_the_future_is_found_against_the_bars(tmp_path: Path) -> None:
    """One bar too late: every hash is right, and only the bars can tell."""
    rows = dataset().rows
    assert check_rows_against_bars(dataset(), bars()) == 64
    values = rows.values.copy()
    values[:-2, 0] = rows.values[2:, 0]

    planted = read_dataset(replanted(tmp_path, structs.replace(rows, values=values)))

    with pytest.raises(DataInvalid, match="up to then"):
        check_rows_against_bars(planted, bars())


def test_rows_are_not_compared_with_other_bars() -> None:
    with pytest.raises(DataInvalid, match="hash"):
        check_rows_against_bars(dataset(), bars(900))


@pytest.mark.proves("R172")
def test_another_cadence_needs_its_evidence(tmp_path: Path) -> None:
    hour_ms = 3_600_000
    evidence = tmp_path / "why.md"
    with pytest.raises(DataInvalid, match="900000"):
        build(tmp_path, table=bars(900, hour_ms), dataset_id="hourly")
    with pytest.raises(DataInvalid):
        cadence_evidence(hour_ms, evidence)
    evidence.write_text(" \n")
    with pytest.raises(DataInvalid, match="empty"):
        cadence_evidence(hour_ms, evidence)
    evidence.write_text("The edge decays within the hour: see the study.")

    assert cadence_evidence(900_000, None) is None
    assert cadence_evidence(hour_ms, evidence) is not None
    with pytest.raises(DataInvalid, match=r"why\.md: found evidence, expected none"):
        cadence_evidence(900_000, evidence)
    with pytest.raises(InvalidField, match="cadence_evidence"):
        structs.replace(dataset().manifest, bar_interval_ms=hour_ms)


@pytest.mark.proves("R170")
def test_a_fortnight_or_made_up_data_promote_nothing() -> None:
    with pytest.raises(DataInvalid, match="synthetic"):
        require_promotion_dataset(dataset())

    exported = structs.replace(dataset().manifest, source=DatasetSource.EXPORT)
    with pytest.raises(DataInvalid, match="6 months"):
        require_promotion_dataset(structs.replace(dataset(), manifest=exported))


@pytest.mark.proves("R170")
def test_eight_months_of_two_regimes_suffice() -> None:
    """Each row a day apart: a rise of four months, and a fall of four."""
    day_ms, rows = 86_400_000, dataset().rows
    chosen = np.flatnonzero(rows.symbols == "AAA")[:240]
    closes = np.array([f"{100 + min(n, 240 - n)}" for n in range(240)], dtype=object)
    first_ms = int(rows.ts_ms[0])
    long = structs.replace(
        rows,
        ts_ms=first_ms + day_ms * np.arange(240),
        symbols=rows.symbols[chosen],
        targets={"bar_close": closes},
    )
    manifest = structs.replace(dataset().manifest, source=DatasetSource.EXPORT, symbols=("AAA",))
    enough = structs.replace(dataset(), manifest=manifest, rows=long)

    assert require_promotion_dataset(enough)[0].months > 7
    short = structs.replace(long, ts_ms=long.ts_ms - (long.ts_ms - first_ms) // 2)
    with pytest.raises(DataInvalid, match="months"):
        require_promotion_dataset(structs.replace(enough, rows=short))


def test_manifest_names_the_head_and_the_folder() -> None:
    manifest = dataset().manifest

    assert isinstance(manifest, DatasetManifest)
    assert (manifest.head, manifest.dataset_id) == (Head.DIRECTION, DATASET_ID)
