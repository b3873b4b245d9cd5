"""Look for rows that know the future: against the bars, and by what no honest feature can do.

Source: QUANT C1: on bars of minutes to hours the area under the curve of a direction is .52 to
.60; a single input far beyond that is not foresight but the outcome in disguise.
"""

import numpy as np
from numpy.typing import NDArray

from detent.contracts.calls.feature import ModelInput
from detent.contracts.errors import DataInvalid
from detent.core.features.offline_rows import iter_model_inputs
from detent.offline.bars import BarTable
from detent.offline.datasets.folder import Dataset

# Above this, or as far below one half, a single input says too much.
AUC_MAX = 0.80
SAMPLED_ROWS = 64


def check_rows_against_bars(dataset: Dataset, table: BarTable) -> int:
    """Compute rows again from bars that end with them, by the code that serves live.

    Args:
        dataset: A verified data set of bars.
        table: The bars that it says it was made from.

    Returns:
        How many rows were computed again.

    Raises:
        DataInvalid: The bars are others, or a row is not what was known at its time.
    """
    if table.data_hash != dataset.manifest.data_hash:
        raise _knows(f"bars with hash {table.data_hash}", dataset.manifest.data_hash)
    rows, feature_set = dataset.rows, dataset.feature_set
    reach = max(feature_set.warmup_bars_min, feature_set.engine.snapshot_bars) + 1
    places = {
        symbol: {bar.ts_ms: place for place, bar in enumerate(bars)}
        for symbol, bars in table.bars.items()
    }
    chosen = np.linspace(0, len(rows) - 1, min(SAMPLED_ROWS, len(rows))).round().astype(np.int64)
    for row in np.unique(chosen).tolist():
        symbol, ts_ms = rows.symbols[row], int(rows.ts_ms[row])
        place = places.get(symbol, {}).get(ts_ms)
        if place is None:
            raise _knows(f"row {row + 1} of {symbol} at {ts_ms}", "a bar that closes then")
        bars = table.bars[symbol][max(0, place + 1 - reach) : place + 1]
        *_, last = iter_model_inputs(feature_set, bars)
        expected = last.values if isinstance(last, ModelInput) else b""
        if rows.values[row].tobytes() != expected:
            found = f"row {row + 1} of {symbol} at {ts_ms}"
            raise _knows(found, "what the bars up to then give")
    return len(np.unique(chosen))


def check_plausible(
    values: NDArray[np.float32], labels: NDArray[np.bool_], names: tuple[str, ...]
) -> None:
    """Refuse an input that alone tells the outcome better than a market allows.

    Args:
        values: Shape (n, features).
        labels: Shape (n,).
        names: Names of the features, for the error.

    Raises:
        DataInvalid: Names the feature.
    """
    for index, name in enumerate(names):
        found = auc(values[:, index], labels)
        if max(found, 1.0 - found) > AUC_MAX:
            expected = f"between {1.0 - AUC_MAX:.2f} and {AUC_MAX:.2f}: it knows the outcome"
            raise _knows(f"{name} with an area under the curve of {found:.3f}", expected)


def auc(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> float:
    """Give the share of pairs of one up and one down that a score puts in order; ties are half."""
    ordered, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2.0)[inverse]
    assert len(ordered) == len(counts)
    up = int(np.count_nonzero(labels))
    down = len(labels) - up
    if not up or not down:
        return 0.5
    return float((ranks[labels].sum() - up * (up + 1) / 2.0) / (up * down))


def _knows(found: str, expected: str) -> DataInvalid:
    message = f"rows: found {found}, expected {expected}"
    return DataInvalid(message, rule="leakage", found=found, expected=expected)
