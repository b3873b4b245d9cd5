"""Data files: read as they are, or refused by row and column."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.artifacts import HOUR_MS, START_MS, bar_table, raw_bars

from detent.contracts.errors import DataInvalid
from detent.offline.bars import NUMBERS, BarTable, load_bars, raw_bar, table_of
from detent.offline.commands import load_table
from detent.offline.eurusd import WHEEL_MEMBER, load_eurusd_bars

Cells = dict[str, str]


def cells(count: int = 20, *, symbol: str = "BTCUSDT") -> list[Cells]:
    """Give rows as a CSV file carries them."""
    return [
        {
            "ts_ms": str(raw.open_ts_ms),
            "symbol": raw.symbol,
            **{name: str(number) for name, number in zip(NUMBERS, raw.numbers, strict=True)},
        }
        for raw in raw_bars(count, symbol=symbol)
    ]


def csv_file(path: Path, rows: list[Cells]) -> Path:
    """Write a CSV file."""
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def parquet_file(path: Path, rows: list[Cells]) -> Path:
    """Write a parquet file with integer times and float numbers."""
    columns = {
        "ts_ms": pa.array([int(row["ts_ms"]) for row in rows], type=pa.int64()),
        "symbol": pa.array([row["symbol"] for row in rows]),
        **{name: pa.array([float(row[name]) for row in rows]) for name in NUMBERS},
    }
    pq.write_table(pa.table(columns), path)
    return path


def test_bars_are_the_same_from_csv_and_from_parquet(tmp_path: Path) -> None:
    from_csv = load_bars(csv_file(tmp_path / "bars.csv", cells()))
    from_parquet = load_bars(parquet_file(tmp_path / "bars.parquet", cells()))

    assert from_csv == from_parquet
    assert from_csv.bar_count == 20
    assert from_csv.interval_ms == HOUR_MS


def test_bars_carry_their_close_time() -> None:
    """Files have the open time; on the wire a bar is known from its close."""
    bars = bar_table().bars["BTCUSDT"]

    assert bars[0].ts_ms == START_MS + HOUR_MS
    assert all(bar.interval_ms == HOUR_MS for bar in bars)


@pytest.mark.proves("R56")
def test_data_hash_follows_every_value() -> None:
    plain = table_of("x", raw_bars(20)).data_hash
    rows = cells()
    hashes = {plain}
    for column in ("open", "high", "volume"):
        changed = [dict(row) for row in rows]
        changed[7][column] = str(Decimal(changed[7][column]) + Decimal("0.01"))
        hashes.add(_table(changed).data_hash)
    hashes.add(table_of("x", raw_bars(19)).data_hash)
    hashes.add(table_of("x", raw_bars(20, symbol="ETHUSDT")).data_hash)

    assert len(hashes) == 6
    assert table_of("another name", raw_bars(20)).data_hash == plain


def _table(rows: list[Cells]) -> BarTable:
    return table_of("x", [raw_bar("x", number, row) for number, row in enumerate(rows, start=1)])


def test_gaps_are_listed_and_not_refused() -> None:
    rows = [raw for raw in raw_bars(50) if raw.row not in (11, 12, 30)]
    table = table_of("x", rows)

    assert table.bar_count == 47
    assert [(gap.symbol, gap.missing_bars) for gap in table.gaps] == [
        ("BTCUSDT", 2),
        ("BTCUSDT", 1),
    ]
    assert table.gaps[0].after_ts_ms == START_MS + 10 * HOUR_MS
    assert table.gaps[0].before_ts_ms == START_MS + 13 * HOUR_MS


def test_symbols_may_follow_one_another_or_alternate(tmp_path: Path) -> None:
    first, second = cells(symbol="BTCUSDT"), cells(symbol="ETHUSDT")
    blocks = load_bars(csv_file(tmp_path / "blocks.csv", first + second))
    mixed = [row for pair in zip(first, second, strict=True) for row in pair]

    assert load_bars(csv_file(tmp_path / "mixed.csv", mixed)) == blocks
    assert sorted(blocks.bars) == ["BTCUSDT", "ETHUSDT"]


def _set(column: str, value: str, row: int = 7) -> Callable[[list[Cells]], list[Cells]]:
    def change(rows: list[Cells]) -> list[Cells]:
        rows[row - 1][column] = value
        return rows

    return change


def _without(column: str) -> Callable[[list[Cells]], list[Cells]]:
    return lambda rows: [{key: row[key] for key in row if key != column} for row in rows]


@pytest.mark.parametrize(
    ("spoil", "row", "column"),
    [
        pytest.param(_without("volume"), None, "volume", id="no column"),
        pytest.param(_without("ts_ms"), None, "ts_ms", id="no time column"),
        pytest.param(_set("ts_ms", str(START_MS + 5 * HOUR_MS)), "7", "ts_ms", id="duplicate"),
        pytest.param(_set("ts_ms", str(START_MS)), "7", "ts_ms", id="unsorted"),
        pytest.param(_set("ts_ms", str(START_MS // 1000), 1), "1", "ts_ms", id="seconds"),
        pytest.param(_set("ts_ms", str(START_MS * 1000), 1), "1", "ts_ms", id="microseconds"),
        pytest.param(_set("ts_ms", "-1"), "7", "ts_ms", id="negative time"),
        pytest.param(_set("ts_ms", "1.6e12"), "7", "ts_ms", id="time with an exponent"),
        pytest.param(_set("ts_ms", "2020-09-13"), "7", "ts_ms", id="date"),
        pytest.param(
            _set("ts_ms", str(START_MS + 6 * HOUR_MS + 60_000)), "7", "ts_ms", id="off the grid"
        ),
        pytest.param(_set("close", "nan"), "7", "close", id="nan"),
        pytest.param(_set("close", "inf"), "7", "close", id="infinite"),
        pytest.param(_set("close", "0"), "7", "close", id="zero"),
        pytest.param(_set("open", "-1"), "7", "open", id="negative price"),
        pytest.param(_set("volume", "-1"), "7", "volume", id="negative volume"),
        pytest.param(_set("low", ""), "7", "low", id="empty"),
        pytest.param(_set("low", "ten"), "7", "low", id="word"),
        pytest.param(_set("low", "1_0"), "7", "low", id="underscore"),
        pytest.param(_set("high", "1"), "7", "high", id="high below low"),
        pytest.param(_set("low", "99999999"), "7", "high", id="low above high"),
        pytest.param(_set("symbol", "btc usdt"), "7", "symbol", id="symbol"),
        pytest.param(lambda rows: rows[:1], None, None, id="one row"),
    ],
)
def test_file_that_is_not_usable_is_refused_by_row_and_column(
    tmp_path: Path,
    spoil: Callable[[list[Cells]], list[Cells]],
    row: str | None,
    column: str | None,
) -> None:
    path = csv_file(tmp_path / "bars.csv", spoil(cells()))

    with pytest.raises(DataInvalid) as caught:
        load_bars(path)

    facts = caught.value.metadata
    assert facts["file"] == "bars.csv"
    assert facts.get("row") == row
    assert facts.get("column") == column
    assert facts["found"]
    assert facts["expected"]


def test_parquet_that_holds_other_types_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    rows = cells()
    table = pq.read_table(parquet_file(path, rows))
    floats = pa.array([float(row["ts_ms"]) for row in rows])
    pq.write_table(table.set_column(0, "ts_ms", floats), path)
    with pytest.raises(DataInvalid, match="ts_ms"):
        load_bars(path)

    nulls = pa.array([None, *[float(row["close"]) for row in rows[1:]]])
    pq.write_table(table.set_column(5, "close", nulls), path)
    with pytest.raises(DataInvalid, match="row 1, column close: found \\(empty\\)"):
        load_bars(path)


@pytest.mark.parametrize("name", ["bars.parquet", "bars.csv", "bars.xlsx", "bars", "bars.whl"])
def test_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataInvalid):
        load_table(tmp_path / name)
    (tmp_path / name).write_bytes(b"\xff\xfenothing of the kind")
    with pytest.raises(DataInvalid):
        load_table(tmp_path / name)


HEADER = "Time,Open,High,Low,Close,Volume"
ROWS = (
    "01.01.2017 22:00:00.000,1.05236,1.05253,1.05221,1.05227,143539993.3",
    "01.01.2017 23:00:00.000,1.05227,1.05426,1.05226,1.05282,253139999.4",
    "02.01.2017 00:00:00.000,1.05283,1.05283,1.05268,1.05281,2288179932",
)


def wheel_file(path: Path, lines: tuple[str, ...], *, member: str = WHEEL_MEMBER) -> Path:
    """Write a wheel that holds some rows of the known file's form."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "\n".join(lines) + "\n")
    return path


def test_eurusd_bars_are_read_out_of_the_wheel(tmp_path: Path) -> None:
    table = load_eurusd_bars(wheel_file(tmp_path / "gym.whl", (HEADER, *ROWS)))
    bars = table.bars["EURUSD"]

    assert table.interval_ms == HOUR_MS
    assert [bar.ts_ms for bar in bars] == [1483311600000, 1483315200000, 1483318800000]
    assert bars[0].close == Decimal("1.05227")
    assert bars[2].volume == Decimal(2288179932)


@pytest.mark.parametrize(
    ("lines", "member"),
    [
        pytest.param((HEADER, *ROWS), "other.csv", id="no such member"),
        pytest.param(("Time,Open", *ROWS), WHEEL_MEMBER, id="columns"),
        pytest.param(
            (HEADER, ROWS[0].replace("01.01.", "2017-"), ROWS[1]), WHEEL_MEMBER, id="time"
        ),
        pytest.param((HEADER, ROWS[0].replace("1.05227", "x"), ROWS[1]), WHEEL_MEMBER, id="number"),
        pytest.param((HEADER, ROWS[1], ROWS[0]), WHEEL_MEMBER, id="unsorted"),
        pytest.param((HEADER,), WHEEL_MEMBER, id="no rows"),
    ],
)
def test_wheel_that_does_not_hold_the_bars_is_refused(
    tmp_path: Path, lines: tuple[str, ...], member: str
) -> None:
    with pytest.raises(DataInvalid):
        load_eurusd_bars(wheel_file(tmp_path / "gym.whl", lines, member=member))
