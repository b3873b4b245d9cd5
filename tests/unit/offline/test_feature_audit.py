"""The completeness audit: a table per symbol and month whose counts add up."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from msgspec import structs
from tests.unit.artifacts import HOUR_MS, raw_bars

from detent.contracts.errors import DataInvalid
from detent.core.features.engine import BarSource
from detent.core.features.feature_set import direction_bars_v1
from detent.core.features.feature_spec import FeatureTransform, feature
from detent.offline.bars import BarTable, table_of
from detent.offline.commands import silent
from detent.offline.feature_audit import (
    AuditRow,
    audit_features,
    check_reconciled,
    write_audit,
)
from detent.offline.feature_build import build_features
from detent.offline.feature_sets import find_feature_set

HOURLY = direction_bars_v1(HOUR_MS)


def two_symbols(count: int = 1_000) -> BarTable:
    """Give hourly bars of two symbols, from 2020-09-13 on."""
    return table_of("x", [*raw_bars(count), *raw_bars(count, symbol="ETHUSDT", seed=2)])


def audit() -> tuple[AuditRow, ...]:
    return audit_features(two_symbols(), HOURLY, progress=silent)


@pytest.mark.proves("R300")
def test_counts_reconcile_with_the_build(tmp_path: Path) -> None:
    rows = audit()
    summary = build_features(two_symbols(), HOURLY, out=tmp_path / "rows.parquet", progress=silent)

    assert [(row.symbol, row.window) for row in rows] == [
        (symbol, window) for symbol in ("BTCUSDT", "ETHUSDT") for window in ("2020-09", "2020-10")
    ]
    assert sum(row.rows for row in rows) == summary.rows == 2_000
    assert sum(row.served for row in rows) == summary.served
    assert rows[0].refused == {"FEATURES_WARMING_UP": 24}
    assert rows[1].refused == {}


@pytest.mark.proves("R300")
def test_each_feature_is_counted_by_itself() -> None:
    """A long window does not make the short ones incomplete."""
    first, second, *_ = audit()

    assert first.present["return_pct_1"] == first.rows - 1
    assert first.present["natr_pct"] == first.rows - 14
    assert first.present["return_pct_24"] == first.rows - 24 == first.served
    assert set(second.present.values()) == {second.rows}


def test_feature_that_is_never_there_is_seen() -> None:
    """Bars have no spread: every row is refused, and the audit says for whose sake."""
    spread = (feature(FeatureTransform.SPREAD_PCT),)
    wanting = structs.replace(HOURLY, features=HOURLY.features + spread)
    rows = audit_features(two_symbols(100), wanting, progress=silent)

    assert [row.served for row in rows] == [0, 0]
    assert rows[0].refused == {"FEATURES_MISSING": 76, "FEATURES_WARMING_UP": 24}
    assert rows[0].present["spread_pct"] == 0
    assert rows[0].present["return_pct_24"] == 76


@pytest.mark.parametrize("name", ["direction_bars_v1", "grinder_feature_order_v1"])
def test_every_set_that_ships_can_be_described_and_audited(name: str) -> None:
    found = find_feature_set(name, bar_interval_ms=HOUR_MS)
    engine = structs.replace(found.engine, bar_source=BarSource.READY_MADE)
    rows = audit_features(two_symbols(50), structs.replace(found, engine=engine), progress=silent)

    assert set(rows[0].present) == set(found.feature_names)


@pytest.mark.proves("R300")
def test_file_holds_every_count(tmp_path: Path) -> None:
    rows, out = audit(), tmp_path / "new" / "audit.csv"
    write_audit(out, rows, force=False)
    with out.open(encoding="ascii", newline="") as source:
        lines = list(csv.DictReader(source))

    for line, row in zip(lines, rows, strict=True):
        assert (line["symbol"], line["window"]) == (row.symbol, row.window)
        assert int(line["rows"]) == int(line["served"]) + int(line["refused_FEATURES_WARMING_UP"])
        assert {name: int(line[f"present_{name}"]) for name in row.present} == row.present
    with pytest.raises(DataInvalid, match="--force"):
        write_audit(out, rows, force=False)
    write_audit(out, rows, force=True)


@pytest.mark.proves("R300")
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param({"served": 1}, id="served"),
        pytest.param({"rows": 999}, id="rows"),
        pytest.param({"refused": {"FEATURES_STALE": 3}}, id="refused"),
        pytest.param({"present": {"natr_pct": 1}}, id="too few present"),
        pytest.param({"present": {"natr_pct": 10_000}}, id="too many present"),
    ],
)
def test_counts_that_do_not_add_up_are_refused(spoil: dict[str, object]) -> None:
    rows = audit()
    check_reconciled(rows, bar_count=2_000)

    with pytest.raises(DataInvalid, match="add up"):
        check_reconciled([structs.replace(rows[0], **spoil), *rows[1:]], bar_count=2_000)
    with pytest.raises(DataInvalid, match="all windows"):
        check_reconciled(rows[1:], bar_count=2_000)
