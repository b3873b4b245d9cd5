"""What a file of bars may say besides: read where it stands, absent where it does not."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.artifacts import HOUR_MS
from tests.unit.offline.test_bars import cells, csv_file

from detent.contracts.errors import DataInvalid
from detent.contracts.market import Bar
from detent.core.features.feature_set import direction_bars_v1
from detent.offline.bars import load_bars
from detent.offline.feature_build import iter_table_rows

DATA = Path(__file__).parents[4] / "shared" / "data"


def bars_with(path: Path, column: str, values: list[str], *, count: int = 12) -> tuple[Bar, ...]:
    """Read bars that have one more column, empty where no value is left."""
    rows = cells(count)
    for index, row in enumerate(rows):
        row[column] = values[index] if index < len(values) else ""
    return load_bars(csv_file(path / "bars.csv", rows)).bars["BTCUSDT"]


def test_prices_by_volume_and_rates_are_read_where_they_stand(tmp_path: Path) -> None:
    vwap = bars_with(tmp_path, "vwap", ["", "20001.5"])
    rates = bars_with(tmp_path, "funding_rate", ["0.0001", "", "-0.0002"])

    assert [one.vwap for one in vwap[:3]] == [None, Decimal("20001.5"), None]
    assert [one.funding_rate for one in rates[:3]] == [Decimal("0.0001"), None, Decimal("-0.0002")]


def test_settled_funding_holds_until_the_next_and_for_eight_hours_at_most(tmp_path: Path) -> None:
    """The rate holds at the closes after it; a settlement that is missing is not made up."""
    bars = bars_with(tmp_path, "funding", ["", "0.0001", "", "-0.0003"], count=14)
    held = [None, *["0.0001"] * 2, *["-0.0003"] * 8, *[None] * 3]

    assert [one.funding_rate for one in bars] == [one and Decimal(one) for one in held]


def test_late_bars_are_stale_in_the_build_as_they_are_live(tmp_path: Path) -> None:
    rows = cells(40)
    for index, row in enumerate(rows):
        delay_ms = 700 if index % 7 == 3 else 0
        row["available_ts_ms"] = str(int(row["ts_ms"]) + HOUR_MS + delay_ms)
    table = load_bars(csv_file(tmp_path / "bars.csv", rows))
    blocks = [block for _, block in iter_table_rows(table, direction_bars_v1(HOUR_MS))]
    refusals = [refusal for block in blocks for refusal in block.refusals]

    assert table.bars["BTCUSDT"][3].available_ts_ms == table.bars["BTCUSDT"][3].ts_ms + 700
    assert [index for index, one in enumerate(refusals) if one == "FEATURES_STALE"] == [31, 38]


@pytest.mark.parametrize(
    ("column", "value"),
    [("vwap", "0"), ("vwap", "x"), ("funding", "nan"), ("available_ts_ms", "1600000000000")],
)
def test_value_that_is_none_is_refused_by_row_and_column(
    tmp_path: Path, column: str, value: str
) -> None:
    with pytest.raises(DataInvalid, match=f"row 2, column {column}"):
        bars_with(tmp_path, column, ["", value])


def test_hash_follows_what_is_said_besides_and_is_as_before_where_nothing_is(
    tmp_path: Path,
) -> None:
    rows = cells()
    plain = load_bars(csv_file(tmp_path / "plain.csv", rows)).data_hash
    empty = load_bars(csv_file(tmp_path / "e.csv", [row | {"vwap": ""} for row in rows])).data_hash
    said = {
        load_bars(csv_file(tmp_path / "s.csv", [row | {column: value} for row in rows])).data_hash
        for column, value in (("vwap", "9"), ("funding_rate", "9"), ("funding", "8"))
    }

    assert plain == empty
    assert len(said | {plain}) == 4


def test_times_that_a_data_frame_kept_as_floats_are_read(tmp_path: Path) -> None:
    rows = cells(3)
    closes = [int(row["ts_ms"]) + HOUR_MS for row in rows]
    columns = {name: pa.array([float(row[name]) for row in rows]) for name in list(rows[0])[2:]}
    columns |= {
        "ts_ms": pa.array([int(row["ts_ms"]) for row in rows]),
        "symbol": pa.array([row["symbol"] for row in rows]),
        "available_ts_ms": pa.array([None, float(closes[1] + 5), None]),
    }
    path = tmp_path / "bars.parquet"
    pq.write_table(pa.table(columns), path)

    bars = load_bars(path).bars["BTCUSDT"]
    assert [one.available_ts_ms for one in bars] == [None, closes[1] + 5, None]


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared market data are not at hand")
def test_real_files_say_what_their_readme_says() -> None:
    (vwap,) = load_bars(DATA / "bars_1h_coinbase_btcusd_2017_2019_vwap.parquet").bars.values()
    funding = load_bars(DATA / "bars_15m_binance_usdm_2025q1_funding.parquet").bars.values()

    assert sum(one.vwap is None for one in vwap) == 28
    for bars in funding:
        held = [one.funding_rate is not None for one in bars]
        assert all(held[held.index(True) :])
