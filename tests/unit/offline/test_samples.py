"""Labelled rows: the outcome is what the definition says, and no part sees another's."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from tests.unit.artifacts import HOUR_MS, bar_table, raw_bars

from detent.contracts.errors import DataInvalid
from detent.core.features.feature_set import direction_bars_v1
from detent.offline.bars import table_of
from detent.offline.commands import silent
from detent.offline.labels import direction_label_definition, direction_labels
from detent.offline.samples import PART_ROWS_MIN, Samples, direction_samples, split_by_time

FEATURES = direction_bars_v1(HOUR_MS)


def samples_of(horizon_bars: int) -> Samples:
    """Give the rows of the synthetic bars."""
    return direction_samples(bar_table(), FEATURES, horizon_bars=horizon_bars, progress=silent)


def test_label_definition_names_horizon_and_interval() -> None:
    text = direction_label_definition(horizon_bars=4, bar_interval_ms=HOUR_MS)

    assert "close[t+4]" in text
    assert "3600000 ms" in text
    assert text != direction_label_definition(horizon_bars=5, bar_interval_ms=HOUR_MS)


@pytest.mark.proves("R159")
@pytest.mark.parametrize(
    ("closes", "horizon_bars", "expected"),
    [
        ([10, 11, 11, 9], 1, [True, False, False, None]),
        ([10, 11, 11, 9], 2, [True, False, None, None]),
        ([10, 11], 3, [None, None]),
        ([], 1, []),
    ],
)
def test_label_is_up_only_when_the_close_is_above(
    closes: list[int], horizon_bars: int, expected: list[bool | None]
) -> None:
    prices = [Decimal(close) for close in closes]

    assert direction_labels(prices, horizon_bars=horizon_bars) == expected


@pytest.mark.proves("R159")
@pytest.mark.parametrize("horizon_bars", [1, 5])
def test_rows_carry_the_label_that_the_definition_gives(horizon_bars: int) -> None:
    """Recomputed from the bars alone, in floats, by time and not by position."""
    closes = {bar.ts_ms: float(bar.close) for bar in bar_table().bars["BTCUSDT"]}
    samples = samples_of(horizon_bars)

    assert len(samples) > 1_000
    for ts_ms, settled_ts_ms, label in zip(
        samples.ts_ms, samples.label_ts_ms, samples.labels, strict=True
    ):
        assert settled_ts_ms == ts_ms + horizon_bars * HOUR_MS
        assert label == (closes[int(settled_ts_ms)] / closes[int(ts_ms)] - 1.0 > 0.0)


@pytest.mark.proves("R159")
def test_inputs_do_not_know_what_comes_after_them() -> None:
    """The same bars with another future give the same inputs up to where it begins."""
    cut = 700
    other = [*raw_bars(1_500)[:cut], *raw_bars(1_500, seed=8)[cut:]]
    other_table = table_of("x", other)
    mine = samples_of(1)
    theirs = direction_samples(other_table, FEATURES, horizon_bars=1, progress=silent)
    before = mine.ts_ms <= bar_table().bars["BTCUSDT"][cut - 1].ts_ms

    assert before.sum() > 600
    assert np.array_equal(mine.values[before], theirs.values[: before.sum()])
    assert not np.array_equal(mine.values, theirs.values)


@pytest.mark.proves("R168")
@pytest.mark.parametrize("horizon_bars", [1, 4, 24])
def test_parts_follow_one_another_and_share_no_outcome(horizon_bars: int) -> None:
    samples = samples_of(horizon_bars)
    parts = split_by_time(samples)

    assert parts.train.label_ts_ms.max() < parts.calibration.ts_ms.min()
    assert parts.calibration.label_ts_ms.max() < parts.test.ts_ms.min()
    kept = len(parts.train) + len(parts.calibration) + len(parts.test)
    assert kept == len(samples) - 2 * horizon_bars
    assert 0.55 < len(parts.train) / len(samples) < 0.62


def test_progress_counts_every_bar() -> None:
    seen: list[tuple[str, int, int]] = []
    direction_samples(
        table_of("x", raw_bars(60)),
        FEATURES,
        horizon_bars=1,
        progress=lambda *step: seen.append(step),
    )

    assert seen[0] == ("features", 1, 60)
    assert seen[-1] == ("features", 60, 60)


@pytest.mark.parametrize("count", [2, 20, 200])
def test_too_few_bars_are_refused_with_the_count_needed(count: int) -> None:
    with pytest.raises(DataInvalid) as caught:
        split_by_time(
            direction_samples(
                table_of("x", raw_bars(count)), FEATURES, horizon_bars=2, progress=silent
            )
        )

    assert "rows" in caught.value.message or "bars" in caught.value.message


def test_part_of_one_class_is_refused() -> None:
    """A price that only rises teaches nothing that could be tested."""
    count = 6 * PART_ROWS_MIN
    samples = Samples(
        ts_ms=np.arange(count, dtype=np.int64),
        label_ts_ms=np.arange(count, dtype=np.int64) + 1,
        values=np.zeros((count, 1), dtype=np.float32),
        labels=np.ones(count, dtype=np.bool_),
    )

    with pytest.raises(DataInvalid, match="both classes"):
        split_by_time(samples)
