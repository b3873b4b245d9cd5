"""Hold what a training run did, and write it beside the artifact.

Every number is an integer with its unit in its name; the same run gives the same bytes.
"""

import io
import os
import shutil
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from detent.contracts.canonical import canonical_bytes, parse_json
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.offline.cells import invalid
from detent.offline.walk_forward.choice import Choice
from detent.offline.walk_forward.search import Study

RUN_SUFFIX = ".run"
RUN_FILE = "run.json"
PREDICTIONS_FILE = "predictions.parquet"
PREDICTIONS = pa.schema(
    [
        pa.field("ts_ms", pa.int64(), nullable=False),
        pa.field("label_ts_ms", pa.int64(), nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("fold", pa.int32(), nullable=False),
        pa.field("p_raw", pa.float64(), nullable=False),
        pa.field("p_hat_bps", pa.int32(), nullable=False),
        pa.field("proxy_p_hat_bps", pa.int32(), nullable=False),
        pa.field("label", pa.bool_(), nullable=False),
    ]
)


class FoldRecord(msgspec.Struct, frozen=True, kw_only=True):
    """States the bounds of a fold, in milliseconds: close of the first and of the last row."""

    number: int
    train_start_ts_ms: int
    train_end_ts_ms: int
    train_settled_ts_ms: int
    train_rows: int
    calibration_start_ts_ms: int
    calibration_end_ts_ms: int
    calibration_settled_ts_ms: int
    calibration_rows: int
    test_start_ts_ms: int
    test_end_ts_ms: int
    test_rows: int


class FoldScore(msgspec.Struct, frozen=True, kw_only=True):
    """Scores a candidate on the test rows of one fold."""

    number: int
    calibration_method: str
    log_loss_ppm: int
    brier_ppm: int


class CandidateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Records a candidate.

    Attributes:
        architecture_id: Which.
        params: What it was fitted with.
        refusal: Why it was out; None for one that was judged.
        log_loss_ppm: Calibrated, over the test rows of all folds; 0 where refused.
        brier_ppm: The same.
        graph_bytes: Size of its largest graph.
        parity_e9: Largest distance between library and graph, 1e-9.
        folds: Scores by fold; none where refused.
    """

    architecture_id: str
    params: dict[str, int]
    refusal: str | None
    log_loss_ppm: int
    brier_ppm: int
    graph_bytes: int
    parity_e9: int
    folds: tuple[FoldScore, ...]


class FeatureWeight(msgspec.Struct, frozen=True, kw_only=True):
    """Says how much a feature matters.

    Attributes:
        name: The feature.
        log_loss_rise_ppm: By how much the log loss of test rows rises when the feature is
            shuffled among them.
    """

    name: str
    log_loss_rise_ppm: int


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the content of `run.json`.

    Attributes:
        model_id: The artifact.
        model_version_hash: Its hash.
        dataset_id: What it was trained on.
        dataset_hash: Hash of that data set's manifest.
        data_hash: Hash of the bars.
        row_count: Rows used.
        seed: Seed of every fit and search.
        embargo_ms: What lies between the last outcome of a part and the next part.
        purge_bars: How far labels look ahead.
        folds: The folds.
        candidates: What was tried.
        trial_count: Everything that was tried, searches included.
        studies: The searches.
        choice: What was chosen and why.
        weights: How much each feature matters to it, the most first.
        proxy_log_loss_ppm: The proxy's, on the same rows.
        base_log_loss_ppm: That of a constant, the share of up in each fold's training rows.
        library_versions: What fitted and exported, as `name==version`.
    """

    SCHEMA: ClassVar[str] = "detent.training_run.v1"

    model_id: str
    model_version_hash: str
    dataset_id: str
    dataset_hash: str
    data_hash: str
    row_count: int
    seed: int
    embargo_ms: int
    purge_bars: int
    folds: tuple[FoldRecord, ...]
    candidates: tuple[CandidateRecord, ...]
    trial_count: int
    studies: tuple[Study, ...]
    choice: Choice
    weights: tuple[FeatureWeight, ...]
    proxy_log_loss_ppm: int
    base_log_loss_ppm: int
    library_versions: tuple[str, ...]


def run_bytes(record: RunRecord) -> bytes:
    """Give the content of `run.json`."""
    return canonical_bytes(RunRecord.SCHEMA, to_json(record))


def parse_run(text: bytes) -> RunRecord:
    """Read `run.json`.

    Raises:
        InvalidField: The text is no such record.
    """
    fields = parse_json("run", text)
    if fields.get("schema") != RunRecord.SCHEMA:
        raise InvalidField("schema", fields.get("schema"), RunRecord.SCHEMA)
    return from_json(RunRecord, fields)


def predictions_bytes(columns: dict[str, np.ndarray[tuple[int], np.dtype[np.generic]]]) -> bytes:
    """Give the content of `predictions.parquet`; the same rows give the same bytes."""
    arrays = [pa.array(columns[field.name], field.type) for field in PREDICTIONS]
    out = io.BytesIO()
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=PREDICTIONS),
        out,
        compression="zstd",
        write_statistics=False,
        use_dictionary=["symbol"],
    )
    return out.getvalue()


def run_folder(out_dir: Path, model_id: str) -> Path:
    """Name the folder of a run: beside the artifact."""
    return out_dir / f"{model_id}{RUN_SUFFIX}"


def check_free(folder: Path) -> None:
    """Refuse a name that is taken.

    Raises:
        DataInvalid: There is something.
    """
    if os.path.lexists(folder):
        raise invalid(folder.name, "a folder of that name", "none: what was made never changes")


def write_run(folder: Path, record: RunRecord, predictions: bytes) -> Path:
    """Write a run, whole or not at all."""
    check_free(folder)
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        (partial / RUN_FILE).write_bytes(run_bytes(record))
        (partial / PREDICTIONS_FILE).write_bytes(predictions)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
