"""Compare two forms of a batch of vectors: `python -m benchmarks.features.encoding`.

One is the contract's: a message per row, with its values as bytes and its hashes as text. The
other packs columns: one bytes field of rows x width, hashes raw. Both start from the same
values and end in the same values, and at each size they take turns.
"""

import hashlib
import os
import random
import struct
import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.decide.timing import Timing, timing_of
from detent.contracts.calls.feature import FeatureRow, GetFeatureSnapshotsResponse, ModelInput
from detent.contracts.wire import from_wire, message_class, to_wire

ROWS = (1, 100, 1_000)
WIDTHS = (12, 250)
TS_MS = 1_700_002_800_000
HASH = "a" * 64
RAW_HASH_BYTES = 32
MICRO = 1e6
Batch = GetFeatureSnapshotsResponse
_FIELD = descriptor_pb2.FieldDescriptorProto


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """Gives one form of a batch on the wire.

    Attributes:
        name: What it is called.
        encode: Makes bytes of a batch.
        decode: Makes the batch of the bytes: every row a value, checked.
        matrix: Makes the float32 matrix of the bytes, and no rows.
    """

    name: str
    encode: Callable[[Batch], bytes]
    decode: Callable[[bytes], Batch]
    matrix: Callable[[bytes], Any]


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what one form of one size costs."""

    form: str
    rows: int
    width: int
    size_bytes: int
    encode: Timing
    decode: Timing
    matrix: Timing


def batch_of(rows: int, width: int) -> Batch:
    """Make a batch of vectors that do not compress."""
    draw = random.Random(rows * 1_000 + width)  # noqa: S311 - figures, not secrets
    inputs = [
        ModelInput(
            ts_ms=TS_MS,
            values=struct.pack(f"<{width}f", *(draw.gauss(0, 1) for _ in range(width))),
            snapshot_hashes=(hashlib.sha256(f"s{row}".encode()).hexdigest(),),
            features_hash=hashlib.sha256(f"f{row}".encode()).hexdigest(),
        )
        for row in range(rows)
    ]
    return Batch(
        binding_hash=HASH,
        feature_version=HASH,
        rows=tuple(
            FeatureRow(symbol=f"SYMBOL{row}", model_input=one) for row, one in enumerate(inputs)
        ),
    )


def _columns_class() -> Any:
    """Declare the packed message; it is no part of the contract."""
    file = descriptor_pb2.FileDescriptorProto(
        name="packed.proto", package="benchmarks.features", syntax="proto3"
    )
    packed = file.message_type.add(name="PackedRows")
    fields = (
        ("binding_hash", _FIELD.TYPE_STRING, _FIELD.LABEL_OPTIONAL),
        ("feature_version", _FIELD.TYPE_STRING, _FIELD.LABEL_OPTIONAL),
        ("ts_ms", _FIELD.TYPE_INT64, _FIELD.LABEL_OPTIONAL),
        ("symbols", _FIELD.TYPE_STRING, _FIELD.LABEL_REPEATED),
        ("values", _FIELD.TYPE_BYTES, _FIELD.LABEL_OPTIONAL),
        ("snapshot_hashes", _FIELD.TYPE_BYTES, _FIELD.LABEL_REPEATED),
        ("features_hashes", _FIELD.TYPE_BYTES, _FIELD.LABEL_REPEATED),
    )
    for number, (name, kind, label) in enumerate(fields, start=1):
        packed.field.add(name=name, number=number, type=kind, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("benchmarks.features.PackedRows")
    )


Columns = _columns_class()
Messages: Any = message_class("GetFeatureSnapshotsResponse")


def _encode_messages(batch: Batch) -> bytes:
    return bytes(to_wire(batch).SerializeToString())


def _decode_messages(content: bytes) -> Batch:
    return from_wire(Batch, Messages.FromString(content))


def _matrix_of_messages(content: bytes) -> Any:
    rows = Messages.FromString(content).rows
    joined = b"".join([row.model_input.values for row in rows])
    return np.frombuffer(joined, "<f4").reshape(len(rows), -1)


def _encode_columns(batch: Batch) -> bytes:
    inputs = [row.model_input for row in batch.rows if row.model_input is not None]
    packed = Columns(
        binding_hash=batch.binding_hash,
        feature_version=batch.feature_version,
        ts_ms=inputs[0].ts_ms,
        symbols=[row.symbol for row in batch.rows],
        values=b"".join([one.values for one in inputs]),
        snapshot_hashes=[bytes.fromhex(one.snapshot_hashes[0]) for one in inputs],
        features_hashes=[bytes.fromhex(one.features_hash) for one in inputs],
    )
    return bytes(packed.SerializeToString())


def _decode_columns(content: bytes) -> Batch:
    packed = Columns.FromString(content)
    values, size = packed.values, len(packed.values) // len(packed.symbols)
    columns = zip(packed.symbols, packed.snapshot_hashes, packed.features_hashes, strict=True)
    rows = [
        FeatureRow(
            symbol=symbol,
            model_input=ModelInput(
                ts_ms=packed.ts_ms,
                values=values[row * size : (row + 1) * size],
                snapshot_hashes=(snapshot_hash.hex(),),
                features_hash=features_hash.hex(),
            ),
        )
        for row, (symbol, snapshot_hash, features_hash) in enumerate(columns)
    ]
    return Batch(
        binding_hash=packed.binding_hash, feature_version=packed.feature_version, rows=tuple(rows)
    )


def _matrix_of_columns(content: bytes) -> Any:
    packed = Columns.FromString(content)
    return np.frombuffer(packed.values, "<f4").reshape(len(packed.symbols), -1)


FORMS = (
    Form(
        name="messages",
        encode=_encode_messages,
        decode=_decode_messages,
        matrix=_matrix_of_messages,
    ),
    Form(name="columns", encode=_encode_columns, decode=_decode_columns, matrix=_matrix_of_columns),
)


def measure(rows: int, width: int, *, rounds: int) -> list[Cost]:
    """Measure both forms of one size, in turn."""
    batch = batch_of(rows, width)
    contents = {form.name: form.encode(batch) for form in FORMS}
    times_us: dict[tuple[str, str], list[float]] = {}
    for form in FORMS:
        assert form.decode(contents[form.name]) == batch, "both forms carry the same"
    for _ in range(rounds):
        for form in FORMS:
            content = contents[form.name]
            steps: tuple[tuple[str, Callable[[Any], object], object], ...] = (
                ("encode", form.encode, batch),
                ("decode", form.decode, content),
                ("matrix", form.matrix, content),
            )
            for step, function, argument in steps:
                started_s = time.perf_counter()
                function(argument)
                elapsed_us = (time.perf_counter() - started_s) * MICRO
                times_us.setdefault((form.name, step), []).append(elapsed_us)
    return [
        Cost(
            form=form.name,
            rows=rows,
            width=width,
            size_bytes=len(contents[form.name]),
            encode=timing_of(times_us[form.name, "encode"]),
            decode=timing_of(times_us[form.name, "decode"]),
            matrix=timing_of(times_us[form.name, "matrix"]),
        )
        for form in FORMS
    ]


def table_of(costs: list[Cost]) -> Table:
    """Lay the figures out: medians in microseconds, 99th percentiles in brackets."""
    headings = ("rows x width", "form", "bytes", "encode", "decode to rows", "decode to matrix")
    table = Table(*headings, title="fastest / median / 99th percentile, us")
    for cost in costs:
        steps = (cost.encode, cost.decode, cost.matrix)
        table.add_row(
            f"{cost.rows} x {cost.width}",
            cost.form,
            f"{cost.size_bytes:,}",
            *(f"{one.min_us:,.0f} / {one.p50_us:,.0f} / {one.p99_us:,.0f}" for one in steps),
        )
    return table


def main(
    *,
    rounds: Annotated[int, typer.Option(help="How often the forms take turns.", min=1)] = 200,
) -> None:
    """Measure both forms at every size."""
    load_before = os.getloadavg()[0]
    console = Console(stderr=True)
    sizes = [(rows, width) for rows in ROWS for width in WIDTHS]
    costs = [
        cost
        for rows, width in track(sizes, "measuring", console=console, transient=True)
        for cost in measure(rows, width, rounds=rounds)
    ]
    Console().print(table_of(costs))
    Console().print(f"load {load_before:.1f} before, {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    typer.run(main)
