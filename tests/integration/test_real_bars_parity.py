"""Streams real bars through the feature service and compares it with what training reads.

The bars lie beside a checkout and are no part of it; without them these tests are skipped.
"""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec import structs
from tests.feature_host import FeatureHost, message_of

from detent.contracts.calls.feature import GetFeatureSnapshotsRequest, ModelInput, SnapshotView
from detent.contracts.market import Bar
from detent.contracts.reasons import Reason
from detent.core.features.feature_set import FeatureSet, direction_bars_v1
from detent.core.features.offline_rows import iter_model_inputs
from detent.offline.bars import BarTable, load_bars

DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = sorted(path for kind in ("bars_1h_*", "bars_15m_*") for path in DATA.glob(kind))
HELD = "a" * 64
# Asked for while they are held: an engine keeps a thousand bars of a symbol.
CLOSES_PER_STREAM = 500
CALLS_AT_ONCE = 16
QUICK_BARS = 400
BARS_MIN = 100_000
needs_data = pytest.mark.skipif(not FILES, reason="the shared bars are not beside this checkout")
Outcome = str | Reason
T = TypeVar("T")


def by_close(bars: Mapping[str, Sequence[Bar]]) -> list[tuple[int, list[Bar]]]:
    """Give the bars of all symbols by the time at which they close, oldest first."""
    closes = defaultdict(list)
    for bar in itertools.chain.from_iterable(bars.values()):
        closes[bar.ts_ms].append(bar)
    return sorted(closes.items())


def outcome_of(row: ModelInput | Reason) -> Outcome:
    """Give what two rows have to agree in."""
    return row if isinstance(row, Reason) else row.features_hash


def offline(feature_set: FeatureSet, bars: Mapping[str, Sequence[Bar]]) -> dict[str, list[Outcome]]:
    """Give what training reads, bar by bar of each symbol."""
    return {
        symbol: [outcome_of(row) for row in iter_model_inputs(feature_set, series)]
        for symbol, series in bars.items()
    }


async def online(
    feature_set: FeatureSet, bars: Mapping[str, Sequence[Bar]]
) -> dict[str, list[Outcome]]:
    """Give what the service answers over gRPC, asked as of each close."""
    served: dict[str, list[Outcome]] = defaultdict(list)
    async with FeatureHost({HELD: feature_set}) as host:
        for closes in _parts(by_close(bars), CLOSES_PER_STREAM):
            streamed = list(itertools.chain.from_iterable(items for _, items in closes))
            messages = [message_of(part) for part in _parts(streamed, CLOSES_PER_STREAM)]
            answer = await host.ingest(*messages)
            assert (answer.accepted_count, answer.refused_count) == (len(streamed), 0)
            for part in _parts(closes, CALLS_AT_ONCE):
                queries = [_query(ts_ms, items) for ts_ms, items in part]
                for found in await asyncio.gather(*(host.ask(query) for query in queries)):
                    for row in found.rows:
                        outcome = row.model_input or row.refusal
                        assert outcome is not None
                        served[row.symbol].append(outcome_of(outcome))
    return served


def _query(ts_ms: int, bars: Iterable[Bar]) -> GetFeatureSnapshotsRequest:
    return GetFeatureSnapshotsRequest(
        binding_hash=HELD,
        as_of_ts_ms=ts_ms,
        symbols=tuple(bar.symbol for bar in bars),
        view=SnapshotView.INPUT,
    )


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def first_part(table: BarTable) -> dict[str, tuple[Bar, ...]]:
    """Give the first bars of each symbol, as many as the normal run has time for."""
    return {symbol: series[:QUICK_BARS] for symbol, series in table.bars.items()}


def hashes(rows: Mapping[str, Sequence[Outcome]]) -> int:
    """Count the rows that carry a hash."""
    return sum(not isinstance(row, Reason) for series in rows.values() for row in series)


@needs_data
@pytest.mark.proves("R315")
@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
async def test_the_first_real_bars_are_served_as_training_reads_them(file: Path) -> None:
    table = load_bars(file)
    feature_set, bars = direction_bars_v1(table.interval_ms), first_part(table)
    expected = offline(feature_set, bars)

    assert await online(feature_set, bars) == expected
    assert hashes(expected) > QUICK_BARS // 2


@needs_data
@pytest.mark.long
@pytest.mark.proves("R315")
async def test_every_real_bar_is_served_as_training_reads_it() -> None:
    compared = 0
    for file in FILES:
        table = load_bars(file)
        feature_set = direction_bars_v1(table.interval_ms)
        expected = offline(feature_set, table.bars)
        assert await online(feature_set, table.bars) == expected, file.name
        compared += hashes(expected)
    assert compared >= BARS_MIN


@needs_data
async def test_one_price_that_differs_by_a_tick_is_found() -> None:
    """The comparison is worth nothing unless it notices the smallest difference."""
    table = load_bars(FILES[0])
    feature_set, bars = direction_bars_v1(table.interval_ms), first_part(table)
    symbol = min(bars)
    wrong = [*bars[symbol]]
    high = wrong[200].high + Decimal("0.01")
    wrong[200] = structs.replace(wrong[200], high=high, close=high)
    expected = offline(feature_set, bars)

    served = await online(feature_set, bars | {symbol: wrong})

    pairs = zip(served.pop(symbol), expected.pop(symbol), strict=True)
    differing = [index for index, (left, right) in enumerate(pairs) if left != right]
    assert served == expected
    assert differing[0] == 200
    assert len(differing) >= feature_set.engine.atr_period
