"""Refuse data sets on which no model may be promoted: too short, one-sided, or made up.

Source: rows R170 and R336.
"""

from decimal import Decimal

from detent.contracts.errors import DataInvalid
from detent.offline.bars import RawBar
from detent.offline.coverage import MONTHS_MIN, REGIMES_MIN, Coverage, coverage_of
from detent.offline.datasets.folder import Dataset
from detent.offline.datasets.manifest import DatasetSource
from detent.offline.datasets.rows import CLOSE


def require_promotion_dataset(dataset: Dataset) -> tuple[Coverage, ...]:
    """Measure what the rows cover, symbol by symbol, and refuse too little.

    The rows are measured and not what the manifest says of them.

    Raises:
        DataInvalid: A symbol covers less than six months or two regimes, or the data are
            synthetic or not of bars.
    """
    manifest, rows = dataset.manifest, dataset.rows
    if manifest.source is DatasetSource.SYNTHETIC:
        raise _refused(manifest.dataset_id, "synthetic data", "what a market did")
    if CLOSE not in rows.targets:
        raise _refused(manifest.dataset_id, f"a data set of {manifest.head}", "one of direction")
    found = []
    for symbol in manifest.symbols:
        chosen = rows.symbols == symbol
        raws = [
            RawBar(
                row=1,
                open_ts_ms=int(ts_ms) - manifest.bar_interval_ms,
                symbol=symbol,
                numbers=(close, close, close, close, Decimal(0)),
            )
            for ts_ms, text in zip(rows.ts_ms[chosen], rows.targets[CLOSE][chosen], strict=True)
            for close in [Decimal(text)]
        ]
        one = coverage_of(symbol, raws, manifest.bar_interval_ms)
        if not one.suffices:
            what = f"{symbol} with {one.months:.1f} months and {len(one.regimes)} regimes"
            raise _refused(what, what, f"{MONTHS_MIN} months and {REGIMES_MIN} regimes")
        found.append(one)
    return tuple(found)


def _refused(what: str, found: str, expected: str) -> DataInvalid:
    message = f"{what}: found {found}, expected {expected}, for promotion"
    return DataInvalid(message, found=found, expected=expected)
