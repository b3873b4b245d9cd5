"""Hold what a build wants remembered: data, versions, scores, the reliability curve.

Every number is an integer with its unit in its name, so that the file is canonical JSON
and a rebuild gives the same bytes.

Source: row R145.
"""

from typing import ClassVar

import msgspec

from detent.contracts.canonical import canonical_bytes, parse_json
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.manifest import Metric


class ClassCount(msgspec.Struct, frozen=True, kw_only=True):
    """Counts the rows of one class in one part."""

    part: str
    output_class: str
    count: int


class ReportBin(msgspec.Struct, frozen=True, kw_only=True):
    """Describes one bin of the reliability curve, in parts per million.

    Attributes:
        low_ppm: Lower edge, outside the bin.
        high_ppm: Upper edge, inside the bin.
        count: Test rows in it.
        p_mean_ppm: What was said on average.
        up_share_ppm: What happened.
        null_low_ppm: Lower end of what a perfect model would see there, 95% of the time.
        null_high_ppm: Upper end.
    """

    low_ppm: int
    high_ppm: int
    count: int
    p_mean_ppm: int
    up_share_ppm: int
    null_low_ppm: int
    null_high_ppm: int


class TrainReport(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the content of `train_report.json`.

    Attributes:
        model_id: The artifact's name.
        created_at: As in the manifest.
        dataset_id: SHA-256 of the bars, 64 hex.
        symbols: Instruments in the bars.
        bar_count: Bars of all symbols.
        gap_count: Places where bars are missing.
        n_samples: Rows of all parts.
        n_features: Width of the model input.
        seed: Seed of the fit.
        train_accuracy_bps: Accuracy on the rows that it was fitted on.
        class_distribution: Rows by part and class.
        metrics: Scores on the test rows; `_raw` before calibration, `_base` of a constant.
        reliability_raw: Reliability curve before calibration.
        reliability: Reliability curve after calibration.
        model_sha256: SHA-256 of `model.onnx`.
        onnx_opset_version: Operator set of the graph.
        sklearn_version: What fitted it.
        skl2onnx_version: What exported it.
    """

    SCHEMA: ClassVar[str] = "detent.train_report.v1"

    model_id: str
    created_at: str
    dataset_id: str
    symbols: tuple[str, ...]
    bar_count: int
    gap_count: int
    n_samples: int
    n_features: int
    seed: int
    train_accuracy_bps: int
    class_distribution: tuple[ClassCount, ...]
    metrics: tuple[Metric, ...]
    reliability_raw: tuple[ReportBin, ...]
    reliability: tuple[ReportBin, ...]
    model_sha256: str
    onnx_opset_version: int
    sklearn_version: str
    skl2onnx_version: str


def train_report_bytes(report: TrainReport) -> bytes:
    """Give the content of `train_report.json`."""
    return canonical_bytes(TrainReport.SCHEMA, to_json(report))


def parse_train_report(text: bytes) -> TrainReport:
    """Read `train_report.json`.

    Raises:
        InvalidField: The text is not such a report.
    """
    fields = parse_json("train_report", text)
    if fields.get("schema") != TrainReport.SCHEMA:
        raise InvalidField("schema", fields.get("schema"), TrainReport.SCHEMA)
    return from_json(TrainReport, fields)
