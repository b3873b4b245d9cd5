"""Data files: every defect is found where it was planted, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.artifacts import HOUR_MS, START_MS, raw_bars
from tests.unit.offline.test_bars import Cells, cells, csv_file, parquet_file

from detent.contracts.errors import DataInvalid
from detent.offline.commands import silent
from detent.offline.coverage import Regime, coverage_of, months_between
from detent.offline.data_check import DataReport, check_data, require_promotion_data
from detent.offline.findings import DEFECTS, EXAMPLES_MAX, Finding

DATA = Path(__file__).parents[4] / "shared" / "data"
DAY_MS = 24 * HOUR_MS


def found(report: DataReport) -> dict[Finding, int]:
    """Give what was found at all."""
    return {one.finding: one.count for one in report.findings if one.count}


def check(path: Path) -> DataReport:
    return check_data(path, progress=silent)


def _set(column: str, value: str, row: int = 7) -> Callable[[list[Cells]], list[Cells]]:
    def change(rows: list[Cells]) -> list[Cells]:
        rows[row - 1][column] = value
        return rows

    return change


def test_sound_files_have_no_findings(tmp_path: Path) -> None:
    reports = [
        check(csv_file(tmp_path / "bars.csv", cells(50))),
        check(parquet_file(tmp_path / "bars.parquet", cells(50))),
    ]

    assert [found(report) for report in reports] == [{}, {}]
    assert all(report.usable and report.interval_ms == HOUR_MS for report in reports)
    assert reports[0].coverage == reports[1].coverage


@pytest.mark.proves("R170")
@pytest.mark.parametrize(
    ("plant", "finding"),
    [
        pytest.param(_set("close", "ten"), Finding.UNREADABLE, id="word"),
        pytest.param(_set("close", ""), Finding.UNREADABLE, id="empty"),
        pytest.param(_set("close", "nan"), Finding.UNREADABLE, id="nan"),
        pytest.param(_set("ts_ms", "1600000000"), Finding.UNREADABLE, id="seconds"),
        pytest.param(_set("symbol", "btc usdt"), Finding.UNREADABLE, id="symbol"),
        pytest.param(_set("ts_ms", str(START_MS + 5 * HOUR_MS)), Finding.DUPLICATE, id="duplicate"),
        pytest.param(
            lambda rows: [*rows[:6], *rows[7:20], rows[6], *rows[20:]],
            Finding.UNSORTED,
            id="unsorted",
        ),
        pytest.param(
            _set("ts_ms", str(START_MS + 6 * HOUR_MS + 1)), Finding.OFF_GRID, id="off the grid"
        ),
        pytest.param(_set("low", "0"), Finding.NON_POSITIVE_PRICE, id="zero price"),
        pytest.param(_set("open", "-3"), Finding.NON_POSITIVE_PRICE, id="negative price"),
        pytest.param(_set("volume", "-1"), Finding.NEGATIVE_VOLUME, id="negative volume"),
        pytest.param(_set("high", "1"), Finding.OHLC_INCONSISTENT, id="high below the rest"),
        pytest.param(_set("low", "99999"), Finding.OHLC_INCONSISTENT, id="low above the rest"),
        pytest.param(_set("high", "1" + "0" * 60), Finding.OUT_OF_RANGE, id="too many digits"),
        pytest.param(lambda rows: rows[:6] + rows[9:], Finding.GAP, id="gap"),
        pytest.param(_set("volume", "0.00"), Finding.ZERO_VOLUME, id="zero volume"),
    ],
)
def test_each_finding_is_found_where_it_was_planted(
    tmp_path: Path, plant: Callable[[list[Cells]], list[Cells]], finding: Finding
) -> None:
    report = check(csv_file(tmp_path / "bars.csv", plant(cells(50))))
    counted = found(report)

    assert counted.pop(finding) == 1
    # A bar that is taken out leaves a gap, and nothing else comes with it.
    assert set(counted) <= {Finding.GAP}
    assert report.usable is (finding not in DEFECTS)
    example = next(one for one in report.findings if one.finding is finding).examples[0]
    assert example.row in (7, 20)
    if finding in DEFECTS:
        with pytest.raises(DataInvalid, match="defects"):
            require_promotion_data(report)


def test_many_findings_are_counted_and_few_are_shown(tmp_path: Path) -> None:
    rows = [dict(row, volume="0") for row in cells(50)]
    report = check(csv_file(tmp_path / "bars.csv", rows))

    assert found(report) == {Finding.ZERO_VOLUME: 50}
    assert len(report.findings[-1].examples) == EXAMPLES_MAX


def test_file_without_a_sound_row_is_not_usable(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "bars.csv", cells(1))
    report = check(path)

    assert (report.usable, report.suffices_for_promotion) == (False, False)
    with pytest.raises(DataInvalid, match="no sound bar"):
        require_promotion_data(report)
    with pytest.raises(DataInvalid):
        check(tmp_path / "bars.xlsx")


def waves(days: int) -> list[Cells]:
    """Give daily bars that rise for thirty days and fall for thirty."""
    rows = cells(days)
    for index, row in enumerate(rows):
        level = 100 + abs(30 - index % 60)
        row.update(dict.fromkeys(("open", "high", "low", "close"), str(level)))
        row["ts_ms"] = str(1_577_836_800_000 + index * DAY_MS)
    return rows


@pytest.mark.proves("R170")
def test_less_than_six_months_are_refused_for_promotion(tmp_path: Path) -> None:
    """From the first of January, the last day of June makes six months."""
    enough = check(csv_file(tmp_path / "enough.csv", waves(182)))
    short = check(csv_file(tmp_path / "short.csv", waves(181)))

    assert enough.coverage[0].months == 6.0
    assert enough.suffices_for_promotion
    require_promotion_data(enough)
    assert short.usable
    assert not short.suffices_for_promotion
    with pytest.raises(DataInvalid, match="6 months"):
        require_promotion_data(short)


@pytest.mark.proves("R170")
def test_one_short_symbol_refuses_the_file(tmp_path: Path) -> None:
    other = [dict(row, symbol="ETHUSDT") for row in waves(100)]
    report = check(csv_file(tmp_path / "bars.csv", waves(400) + other))

    assert [one.suffices for one in report.coverage] == [True, False]
    with pytest.raises(DataInvalid, match="ETHUSDT"):
        require_promotion_data(report)


@pytest.mark.proves("R170")
def test_one_regime_is_refused_for_promotion(tmp_path: Path) -> None:
    rising = [
        dict(row, **dict.fromkeys(("open", "high", "low", "close"), str(100 + index)))
        for index, row in enumerate(waves(366))
    ]
    report = check(csv_file(tmp_path / "bars.csv", rising))

    assert report.coverage[0].regimes == {Regime.RISE: 12}
    with pytest.raises(DataInvalid, match="months and 1 regimes"):
        require_promotion_data(report)


@pytest.mark.proves("R170")
def test_days_far_apart_are_no_months() -> None:
    """A weekend with a holiday is no hole; half a year is."""
    raws = [raw for raw in raw_bars(24 * 400) if raw.row <= 48 or raw.row > 24 * 398]
    apart = coverage_of("BTCUSDT", raws, HOUR_MS)
    weekly = coverage_of(
        "BTCUSDT", [raw for raw in raw_bars(24 * 400) if raw.row // 24 % 7 < 4], HOUR_MS
    )

    assert apart.months < 0.2
    assert apart.missing_bars == 24 * 396
    assert weekly.months > 13


def test_months_are_those_of_the_calendar() -> None:
    january, july = 1_577_836_800_000, 1_593_561_600_000

    assert months_between(january, july) == pytest.approx(6.0)
    assert months_between(january, july - HOUR_MS) < 6.0
    assert months_between(january, january) == pytest.approx(0.0)


@pytest.mark.skipif(not DATA.exists(), reason="needs the market data beside the checkout")
@pytest.mark.parametrize(
    ("name", "expected", "suffices"),
    [
        pytest.param("15m_binance_spot_2024", {}, True, id="no gap"),
        pytest.param("15m_binance_usdm_2025q1_funding", {}, False, id="six weeks"),
        pytest.param(
            "1h_binance_spot_btc_2017_2023",
            {Finding.GAP: 28, Finding.ZERO_VOLUME: 4},
            True,
            id="outages",
        ),
        pytest.param(
            "1h_coinbase_btcusd_2017_2019_vwap", {Finding.ZERO_VOLUME: 28}, True, id="no trades"
        ),
        pytest.param("1h_eurusd_ask_2017", {Finding.GAP: 52}, True, id="weekends"),
        pytest.param("1m_coinbase_2017_2018_spread", {Finding.GAP: 7}, False, id="single days"),
    ],
)
def test_known_state_of_real_files_is_found(
    name: str, expected: dict[Finding, int], suffices: bool
) -> None:
    report = check(DATA / f"bars_{name}.parquet")

    assert found(report) == expected
    assert report.usable
    assert report.suffices_for_promotion is suffices
