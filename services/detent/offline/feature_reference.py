"""Turn the feature file of a training into the rows that a monitor compares with."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from detent.offline.cells import invalid
from detent.offline.feature_files import HASHES, KEYS
from detent.offline.parquet import read_parquet


def write_reference(features: Path, out: Path) -> int:
    """Write the rows of a feature file that were not refused, in its order.

    Args:
        features: A `.parquet` file of `detent features build`.
        out: The `.npy` file, float32, one column per value of the model's input.

    Returns:
        How many rows were written.

    Raises:
        DataInvalid: It is no such file, holds no row, or cannot be written.
    """
    try:
        table = read_parquet(features)
        names = [name for name in table.column_names if name not in (*KEYS, *HASHES)]
        columns = [table.column(name).cast(pa.float32()).drop_null() for name in names]
        rows = np.column_stack([column.to_numpy() for column in columns])
    except (OSError, ValueError, pa.ArrowException) as error:
        cause = type(error).__name__
        raise invalid(features.name, cause, "a .parquet file of `detent features build`") from error
    if not len(rows):
        raise invalid(features.name, "no row", "rows of features")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        np.save(out, rows)
    except OSError as error:
        raise invalid(out.name, type(error).__name__, "a file that can be written") from error
    return len(rows)
