"""Streams real bars through a feature process and compares it with the offline build.

The bars lie beside a checkout and are no part of it; without them these tests are skipped.
"""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec import structs
from tests.conftest import Artifacts
from tests.feature_process import FeatureProcess, Outcome, hash_count, parts

from detent.contracts.market import Bar
from detent.core.features.feature_set import FeatureSet, direction_bars_v1
from detent.offline.bars import BarTable, load_bars
from detent.offline.feature_build import iter_table_rows

DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = sorted(path for kind in ("bars_1h_*", "bars_15m_*") for path in DATA.glob(kind))
QUICK_FILES = [
    path for path in FILES if path.stem in ("bars_15m_binance_spot_2024", "bars_1h_eurusd_ask_2017")
]
# Asked for while they are held: an engine keeps a thousand bars of a symbol.
CLOSES_PER_STREAM = 500
QUICK_BARS = 300
BARS_MIN = 100_000
needs_data = pytest.mark.skipif(not FILES, reason="the shared bars are not beside this checkout")
Rows = dict[str, dict[int, Outcome]]


def first_part(table: BarTable) -> BarTable:
    """Give the first bars of each symbol, as many as the normal run has time for."""
    bars = {symbol: series[:QUICK_BARS] for symbol, series in table.bars.items()}
    return structs.replace(table, bars=bars)


def offline(feature_set: FeatureSet, table: BarTable) -> Rows:
    """Give what `detent features build` writes, by symbol and close."""
    rows: Rows = defaultdict(dict)
    for symbol, block in iter_table_rows(table, feature_set):
        found = zip(block.ts_ms, block.features_hashes, block.refusals, strict=True)
        for ts_ms, features_hash, refusal in found:
            outcome = features_hash or refusal
            assert outcome is not None
            rows[symbol][ts_ms] = outcome
    return rows


async def online(
    process: FeatureProcess, feature_set: FeatureSet, bars: Mapping[str, Sequence[Bar]]
) -> Rows:
    """Give what the process answers, asked as of each close."""
    closes: dict[int, list[Bar]] = defaultdict(list)
    for bar in itertools.chain.from_iterable(bars.values()):
        closes[bar.ts_ms].append(bar)
    served: Rows = defaultdict(dict)
    for part in parts(sorted(closes.items()), CLOSES_PER_STREAM):
        await process.feed(itertools.chain.from_iterable(items for _, items in part))
        asked = {ts_ms: [bar.symbol for bar in items] for ts_ms, items in part}
        for symbol, rows in (await process.rows(feature_set, asked)).items():
            served[symbol].update(rows)
    return served


@needs_data
@pytest.mark.proves("R315")
async def test_the_first_real_bars_are_served_as_training_reads_them(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    tables = [first_part(load_bars(file)) for file in QUICK_FILES]
    feature_sets = [direction_bars_v1(table.interval_ms) for table in tables]

    async with FeatureProcess(artifacts, tmp_path, feature_sets) as process:
        for table, feature_set in zip(tables, feature_sets, strict=True):
            expected = offline(feature_set, table)
            assert hash_count(expected) > QUICK_BARS // 2
            assert await online(process, feature_set, table.bars) == expected


@needs_data
@pytest.mark.long
@pytest.mark.proves("R315")
@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
async def test_every_real_bar_is_served_as_training_reads_it(
    file: Path, artifacts: Artifacts, tmp_path: Path
) -> None:
    table = load_bars(file)
    feature_set = direction_bars_v1(table.interval_ms)
    expected = offline(feature_set, table)

    async with FeatureProcess(artifacts, tmp_path, [feature_set]) as process:
        assert await online(process, feature_set, table.bars) == expected
    warming_up = len(table.bars) * (feature_set.warmup_bars_min - 1)
    assert hash_count(expected) >= table.bar_count - warming_up


@needs_data
@pytest.mark.long
def test_the_real_bars_are_enough() -> None:
    assert sum(load_bars(file).bar_count for file in FILES) >= BARS_MIN


@needs_data
async def test_one_price_that_differs_by_a_tick_is_found(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    """The comparison is worth nothing unless it notices the smallest difference."""
    table = first_part(load_bars(QUICK_FILES[0]))
    feature_set = direction_bars_v1(table.interval_ms)
    symbol = min(table.bars)
    wrong = [*table.bars[symbol]]
    high = wrong[200].high + Decimal("0.01")
    wrong[200] = structs.replace(wrong[200], high=high, close=high)
    expected = offline(feature_set, table)

    async with FeatureProcess(artifacts, tmp_path, [feature_set]) as process:
        served = await online(process, feature_set, {**table.bars, symbol: wrong})

    left, right = served.pop(symbol), expected.pop(symbol)
    differing = [index for index, ts_ms in enumerate(right) if left[ts_ms] != right[ts_ms]]
    assert served == expected
    assert differing[0] == 200
    assert len(differing) >= feature_set.engine.atr_period
