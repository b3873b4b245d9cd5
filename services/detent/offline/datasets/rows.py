"""Hold the labelled rows of a data set, and lay them out as a file.

The columns beside the features are what a label can be checked by, and what the proxy said on
the same bars.
"""

import io
from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from detent.contracts.binding import Head
from detent.contracts.errors import DataInvalid
from detent.offline.parquet import read_parquet

Ints = NDArray[np.int64]
KEYS = ("ts_ms", "label_ts_ms", "symbol")
PROXY = "proxy_p_hat_bps"
LABEL = "label"
# Closes of the bar of the row and of the bar that settled it: what a label is checked by.
CLOSE, SETTLED_CLOSE = "bar_close", "label_close"
# What is to be learnt, by head: from these a fold makes its classes.
SCORE, NEXT_SCORE = "score_bps", "next_score_bps"
TARGETS: dict[Head, tuple[tuple[str, pa.DataType], ...]] = {
    Head.DIRECTION: (
        (CLOSE, pa.string()),
        (SETTLED_CLOSE, pa.string()),
        (PROXY, pa.int32()),
        (LABEL, pa.bool_()),
    ),
    Head.REGIME: ((SCORE, pa.float64()),),
    Head.TOXICITY: ((SCORE, pa.float64()), (NEXT_SCORE, pa.float64())),
}


class Rows(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds labelled rows, in the order of time and, within an instant, of symbols.

    Attributes:
        ts_ms: Shape (n,), int64: close of the bar that the input was read at.
        label_ts_ms: Shape (n,), int64: when all that the label says was known.
        symbols: Shape (n,), instruments.
        values: Shape (n, features), little-endian float32: the model inputs.
        targets: Shape (n,) each: what is to be learnt, and what it is checked by, by column.
    """

    ts_ms: Ints
    label_ts_ms: Ints
    symbols: NDArray[np.object_]
    values: NDArray[np.float32]
    targets: dict[str, NDArray[np.generic]]

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.ts_ms)

    @property
    def labels(self) -> NDArray[np.bool_]:
        """Give the label of a head that has two classes."""
        return np.asarray(self.targets[LABEL], dtype=np.bool_)

    def newest(self, count: int) -> "Rows":
        """Give the last rows; all, where there are no more."""
        part = slice(max(0, len(self) - count), None)
        return Rows(
            ts_ms=self.ts_ms[part],
            label_ts_ms=self.label_ts_ms[part],
            symbols=self.symbols[part],
            values=self.values[part],
            targets={name: column[part] for name, column in self.targets.items()},
        )


def rows_schema(head: Head, features: Sequence[str]) -> pa.Schema:
    """Give the columns of `rows.parquet`, in order."""
    return pa.schema(
        [
            pa.field("ts_ms", pa.int64(), nullable=False),
            pa.field("label_ts_ms", pa.int64(), nullable=False),
            pa.field("symbol", pa.string(), nullable=False),
            *(pa.field(name, pa.float32(), nullable=False) for name in features),
            *(pa.field(name, kind, nullable=False) for name, kind in TARGETS[head]),
        ]
    )


def rows_bytes(head: Head, features: Sequence[str], rows: Rows) -> bytes:
    """Give the content of `rows.parquet`; the same rows give the same bytes."""
    schema = rows_schema(head, features)
    columns = [rows.ts_ms, rows.label_ts_ms, rows.symbols]
    columns += [rows.values[:, index] for index in range(len(features))]
    columns += [rows.targets[name] for name, _ in TARGETS[head]]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    out = io.BytesIO()
    # Statistics of a column add nothing that is read, and differ between versions.
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=schema),
        out,
        compression="zstd",
        write_statistics=False,
        use_dictionary=["symbol"],
    )
    return out.getvalue()


def parse_rows(head: Head, features: Sequence[str], text: bytes) -> Rows:
    """Read `rows.parquet`.

    Raises:
        DataInvalid: The file is no Parquet, or has other columns.
    """
    schema = rows_schema(head, features)
    try:
        table = read_parquet(pa.BufferReader(text))
    except (OSError, pa.ArrowException) as error:
        raise _unlike(type(error).__name__, "a Parquet file") from error
    if table.schema.names != schema.names or table.schema.types != schema.types:
        raise _unlike(f"columns {', '.join(table.schema.names)}", f"{', '.join(schema.names)}")
    if any(column.null_count for column in table.columns):
        raise _unlike("an empty cell", "a value in every cell")
    columns = {name: table.column(name).to_numpy() for name in schema.names}
    values = np.empty((table.num_rows, len(features)), dtype="<f4")
    for index, name in enumerate(features):
        values[:, index] = columns[name]
    if not np.all(np.isfinite(values)):
        raise _unlike("a value that is not finite", "finite values")
    return Rows(
        ts_ms=columns["ts_ms"],
        label_ts_ms=columns["label_ts_ms"],
        symbols=columns["symbol"].astype(object),
        values=values,
        targets={name: columns[name] for name, _ in TARGETS[head]},
    )


def _unlike(found: str, expected: str) -> DataInvalid:
    message = f"rows.parquet: found {found}, expected {expected}"
    return DataInvalid(message, file="rows.parquet", found=found, expected=expected)
