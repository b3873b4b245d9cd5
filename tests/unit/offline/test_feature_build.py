"""The offline twin: one row per bar, the service's hashes, the same bytes every time."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from msgspec import structs
from tests.unit.artifacts import HOUR_MS, raw_bars

from detent.contracts.calls.feature import ModelInput
from detent.contracts.errors import DataInvalid
from detent.core.features.engine import BarSource
from detent.core.features.feature_set import FeatureSet, direction_bars_v1
from detent.core.features.offline_rows import iter_model_inputs
from detent.offline.bars import BarTable, load_bars, table_of
from detent.offline.commands import silent
from detent.offline.feature_build import BuildSummary, build_features

DATA = Path(__file__).parents[4] / "shared" / "data"
HOURLY = direction_bars_v1(HOUR_MS)


def two_symbols(count: int = 60) -> BarTable:
    """Give hourly bars of two symbols."""
    eth = raw_bars(count, symbol="ETHUSDT", seed=2)
    return table_of("x", [*raw_bars(count), *eth])


def build(out: Path, *, force: bool = False) -> BuildSummary:
    return build_features(two_symbols(), HOURLY, out=out, force=force, progress=silent)


def assert_rows_are_served(table: BarTable, feature_set: FeatureSet, out: Path) -> int:
    """Compare a parquet file with what the service serves; give the number of served rows."""
    rows = iter(pq.read_table(out).to_pylist())
    served = 0
    for symbol, bars in sorted(table.bars.items()):
        for bar, expected in zip(bars, iter_model_inputs(feature_set, bars), strict=True):
            row = next(rows)
            assert (row["ts_ms"], row["symbol"]) == (bar.ts_ms, symbol)
            values = [row[name] for name in feature_set.feature_names]
            if isinstance(expected, ModelInput):
                served += 1
                assert np.array(values, dtype="<f4").tobytes() == expected.values
                assert row["features_hash"] == expected.features_hash
                assert (row["snapshot_hash"],) == expected.snapshot_hashes
                assert row["refusal"] is None
            else:
                assert values == [None] * len(values)
                assert (row["features_hash"], row["snapshot_hash"]) == (None, None)
                assert row["refusal"] == expected
    assert next(rows, None) is None
    return served


@pytest.mark.proves("R315")
def test_built_rows_are_the_served_rows(tmp_path: Path) -> None:
    summary = build(tmp_path / "rows.parquet")
    served = assert_rows_are_served(two_symbols(), HOURLY, tmp_path / "rows.parquet")

    assert (summary.rows, summary.served) == (120, served) == (120, 72)
    assert summary.refused == {"FEATURES_WARMING_UP": 48}
    assert summary.data_hash == two_symbols().data_hash


@pytest.mark.skipif(not DATA.exists(), reason="needs the market data beside the checkout")
@pytest.mark.proves("R315")
def test_built_rows_of_real_bars_are_the_served_rows(tmp_path: Path) -> None:
    table = load_bars(DATA / "bars_1h_binance_spot_2024.parquet")
    build_features(table, HOURLY, out=tmp_path / "rows.parquet", progress=silent)

    assert assert_rows_are_served(table, HOURLY, tmp_path / "rows.parquet") == 23_868


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_the_same_bars_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    files = [tmp_path / f"{index}{suffix}" for index in range(2)]
    summaries = [build(path) for path in files]

    assert len({path.read_bytes() for path in files}) == 1
    assert summaries[0] == summaries[1]


def test_file_says_what_it_was_made_of(tmp_path: Path) -> None:
    build(tmp_path / "rows.parquet")
    metadata = json.loads(pq.read_schema(tmp_path / "rows.parquet").metadata[b"detent"])

    assert metadata["feature_version"] == HOURLY.feature_version
    assert metadata["feature_set"].encode() == HOURLY.canonical_json
    assert metadata["data_hash"] == two_symbols().data_hash
    assert set(metadata["versions"]) == {"detent", "numpy", "pyarrow"}


def test_csv_reads_back_as_the_same_float32(tmp_path: Path) -> None:
    build(tmp_path / "rows.csv")
    build(tmp_path / "rows.parquet")
    with (tmp_path / "rows.csv").open(encoding="ascii", newline="") as source:
        texts = list(csv.DictReader(source))
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()

    assert len(texts) == len(rows) == 120
    for text, row in zip(texts, rows, strict=True):
        assert set(text) == set(row)
        for name in HOURLY.feature_names:
            read = np.float32(text[name]) if text[name] else None
            assert read == (None if row[name] is None else np.float32(row[name]))
        assert text["features_hash"] == (row["features_hash"] or "")
        assert text["refusal"] == (row["refusal"] or "")


def test_file_that_exists_is_replaced_only_on_purpose(tmp_path: Path) -> None:
    out = tmp_path / "new" / "rows.parquet"
    build(out)
    whole = out.read_bytes()
    out.write_bytes(b"precious")
    with pytest.raises(DataInvalid, match="--force"):
        build(out)
    assert out.read_bytes() == b"precious"
    build(out, force=True)

    assert out.read_bytes() == whole
    assert [path.name for path in out.parent.iterdir()] == ["rows.parquet"]


def test_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_features(two_symbols(), HOURLY, out=tmp_path / "rows.parquet", progress=stop)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("feature_set", "name", "message"),
    [
        pytest.param(HOURLY, "rows.xlsx", "found .xlsx", id="suffix"),
        pytest.param(direction_bars_v1(60_000), "rows.csv", "found 3600000 ms", id="interval"),
        pytest.param(
            structs.replace(
                HOURLY, engine=structs.replace(HOURLY.engine, bar_source=BarSource.FROM_QUOTES)
            ),
            "rows.csv",
            "expected quotes",
            id="source of bars",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(
    tmp_path: Path, feature_set: FeatureSet, name: str, message: str
) -> None:
    with pytest.raises(DataInvalid, match=message):
        build_features(two_symbols(), feature_set, out=tmp_path / name, progress=silent)
    assert list(tmp_path.iterdir()) == []


def test_rows_of_several_bars_have_a_column_per_value(tmp_path: Path) -> None:
    windowed = structs.replace(HOURLY, window_rows=3)
    table = two_symbols()
    build_features(table, windowed, out=tmp_path / "rows.parquet", progress=silent)

    names = pq.read_schema(tmp_path / "rows.parquet").names
    assert names[2:-3] == list(windowed.input_names)
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    expected = list(iter_model_inputs(windowed, table.bars["BTCUSDT"]))[-1]
    assert isinstance(expected, ModelInput)
    assert rows[59]["features_hash"] == expected.features_hash
