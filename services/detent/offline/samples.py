"""Make labelled rows out of bars, and split them by time.

The inputs come from the code that serves live; a label is only used in a part if all of it
was known before the next part begins.
"""

from collections.abc import Callable, Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.errors import DataInvalid
from detent.contracts.reasons import Reason
from detent.core.features.feature_set import FeatureSet
from detent.core.features.offline_rows import iter_model_inputs
from detent.offline.bars import BarTable
from detent.offline.labels import direction_labels

Progress = Callable[[str, int, int], None]

TRAIN_SHARE = 0.6
CALIBRATION_SHARE = 0.2
# Fewer rows than this fit noise, and a test on them says nothing.
PART_ROWS_MIN = 100


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Holds labelled rows in the order of time.

    Attributes:
        ts_ms: Shape (n,), int64: close of the bar that the input was read at.
        label_ts_ms: Shape (n,), int64: close of the bar that settled the label.
        values: Shape (n, features), little-endian float32: the model inputs.
        labels: Shape (n,), bool.
    """

    ts_ms: NDArray[np.int64]
    label_ts_ms: NDArray[np.int64]
    values: NDArray[np.float32]
    labels: NDArray[np.bool_]

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.ts_ms)

    def where(self, chosen: NDArray[np.bool_]) -> "Samples":
        """Give some of the rows, in the same order."""
        return Samples(
            ts_ms=self.ts_ms[chosen],
            label_ts_ms=self.label_ts_ms[chosen],
            values=self.values[chosen],
            labels=self.labels[chosen],
        )

    def inputs(self) -> list[bytes]:
        """Give each row as the wire carries it."""
        return [row.tobytes() for row in self.values]


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Holds rows that follow one another in time without sharing a label.

    Attributes:
        train: The model is fitted on these.
        calibration: Later: the calibrator is fitted on these.
        test: Later still: nothing was fitted on these.
    """

    train: Samples
    calibration: Samples
    test: Samples


def direction_samples(
    table: BarTable, feature_set: FeatureSet, *, horizon_bars: int, progress: Progress
) -> Samples:
    """Make one row per bar that has both an input and an outcome.

    Args:
        table: The bars.
        feature_set: What the model is given.
        horizon_bars: How far ahead the label looks.
        progress: Told of (stage, bars done, bars in all).

    Raises:
        DataInvalid: No bar has both.
    """
    rows = sorted(_rows(table, feature_set, horizon_bars=horizon_bars, progress=progress))
    if not rows:
        found = f"{table.bar_count} bars and {len(table.gaps)} gaps, and no row out of them"
        expected = f"more than {feature_set.warmup_bars_min + horizon_bars} bars of a symbol"
        raise _too_few(found, expected)
    return Samples(
        ts_ms=np.array([row[0] for row in rows], dtype=np.int64),
        label_ts_ms=np.array([row[2] for row in rows], dtype=np.int64),
        values=np.array([np.frombuffer(row[3], dtype="<f4") for row in rows], dtype="<f4"),
        labels=np.array([row[4] for row in rows], dtype=np.bool_),
    )


def split_by_time(samples: Samples) -> Parts:
    """Split into train, calibration and test, in this order of time.

    A row is dropped from a part when its label was settled after the next part began: the
    last `horizon_bars` of each symbol, so that no outcome is seen on both sides.

    Raises:
        DataInvalid: A part is too small, or holds one class only.
    """
    instants = np.unique(samples.ts_ms)
    calibration_ts_ms = instants[int(TRAIN_SHARE * len(instants))]
    test_ts_ms = instants[int((TRAIN_SHARE + CALIBRATION_SHARE) * len(instants))]
    known_ts_ms = samples.label_ts_ms
    parts = Parts(
        train=samples.where(known_ts_ms < calibration_ts_ms),
        calibration=samples.where(
            (samples.ts_ms >= calibration_ts_ms) & (known_ts_ms < test_ts_ms)
        ),
        test=samples.where(samples.ts_ms >= test_ts_ms),
    )
    for name in Parts.__struct_fields__:
        part: Samples = getattr(parts, name)
        up_count = int(part.labels.sum())
        if len(part) < PART_ROWS_MIN or up_count in (0, len(part)):
            found = f"{len(part)} rows for {name}, {up_count} of them up"
            raise _too_few(found, f"at least {PART_ROWS_MIN} rows, of both classes")
    return parts


def _rows(
    table: BarTable, feature_set: FeatureSet, *, horizon_bars: int, progress: Progress
) -> Iterator[tuple[int, str, int, bytes, bool]]:
    done = 0
    for symbol, bars in sorted(table.bars.items()):
        labels = direction_labels([bar.close for bar in bars], horizon_bars=horizon_bars)
        inputs = iter_model_inputs(feature_set, bars)
        for index, (model_input, label) in enumerate(zip(inputs, labels, strict=True)):
            done += 1
            progress("features", done, table.bar_count)
            if label is None or isinstance(model_input, Reason):
                continue
            settled_ts_ms = bars[index + horizon_bars].ts_ms
            yield model_input.ts_ms, symbol, settled_ts_ms, model_input.values, label


def _too_few(found: str, expected: str) -> DataInvalid:
    return DataInvalid(f"found {found}, expected {expected}", found=found, expected=expected)
