"""Hold what a data set says of itself: its bars, its features, its label, its files.

Source: FORMULAS section 3 (M8-04); rows R335, R336, R159, R160, R172.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar

import msgspec

from detent.contracts.binding import HORIZON_BARS_MAX, Head
from detent.contracts.canonical import canonical_bytes, parse_json, sha256_hex
from detent.contracts.checks import (
    check_count,
    check_hash16,
    check_hash64,
    check_int,
    check_name,
    check_symbols,
    check_text,
    check_ts_ms,
    check_unique,
)
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.manifest import FEATURES_MAX, check_created_at
from detent.contracts.market import INTERVAL_MS_MAX

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
ROWS_FILE = "rows.parquet"
FEATURE_SET_FILE = "feature_set.json"
# The files that a manifest lists, in its order: by name.
LISTED_FILES = (FEATURE_SET_FILE, ROWS_FILE)
ROWS_MIN, ROWS_MAX = 10, 10_000_000
FILE_BYTES_MAX = 2**32
# Bars of this length need no reason; any other needs its evidence (R172).
CADENCE_MS_DEFAULT = 900_000
ID_FORM = "3 to 65 of a-z 0-9 . _ -, a letter or digit first"
_DATASET_ID = re.compile(r"[a-z0-9][a-z0-9._-]{2,64}")


class DatasetSource(StrEnum):
    """Says where the data come from."""

    SYNTHETIC = "synthetic"
    BACKTEST = "backtest"
    EXPORT = "export"
    MANUAL = "manual"


class DatasetFile(msgspec.Struct, frozen=True, kw_only=True):
    """Pins the content of one file."""

    path: str
    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        """Refuse a path that is not the plain name of a file that a data set has."""
        if self.path not in LISTED_FILES:
            raise InvalidField("path", self.path, f"one of {', '.join(LISTED_FILES)}")
        check_hash64("sha256", self.sha256)
        check_int("size_bytes", self.size_bytes, 1, FILE_BYTES_MAX)


class DatasetManifest(msgspec.Struct, frozen=True, kw_only=True):
    """States everything about a data set; its hash is `dataset_hash`.

    Attributes:
        schema_version: Version of this form.
        dataset_id: Its name, which is its folder's too.
        source: Where the data come from.
        created_at: UTC, an input, so that a rebuild is byte-identical.
        head: The question that its labels answer.
        bar_interval_ms: Length of the bars: the cadence.
        symbols: Instruments, sorted.
        first_ts_ms: Close of the bar of the first row.
        last_ts_ms: Close of the bar of the last row.
        feature_version: Hash of the feature set.
        input_features: Names of the values of a row, in order.
        feature_order_hash: First 16 hex of the hash of those names, see `feature_order_hash`.
        label_definition: What the label says, in words that are bound.
        horizon_id: Name of the horizon.
        horizon_bars: How far ahead the label looks.
        proxy_version: Parameters of the proxy whose answers stand beside the labels.
        row_count: Labelled rows.
        bar_count: Bars that they were made from.
        gap_count: Places where bars are missing.
        data_hash: SHA-256 of the bars, or of the orders.
        cadence_evidence: SHA-256 of the file that says why the cadence is not the default;
            None for the default.
        files: Every other file, by name.
    """

    SCHEMA: ClassVar[str] = "detent.dataset.v1"

    schema_version: int
    dataset_id: str
    source: DatasetSource
    created_at: str
    head: Head
    bar_interval_ms: int
    symbols: tuple[str, ...]
    first_ts_ms: int
    last_ts_ms: int
    feature_version: str
    input_features: tuple[str, ...]
    feature_order_hash: str
    label_definition: str
    horizon_id: str
    horizon_bars: int
    proxy_version: str
    row_count: int
    bar_count: int
    gap_count: int
    data_hash: str
    cadence_evidence: str | None
    files: tuple[DatasetFile, ...]

    def __post_init__(self) -> None:
        """Refuse a manifest that leaves anything open or contradicts itself."""
        check_int("schema_version", self.schema_version, SCHEMA_VERSION, SCHEMA_VERSION)
        check_dataset_id(self.dataset_id)
        check_created_at(self.created_at)
        check_int("bar_interval_ms", self.bar_interval_ms, 1, INTERVAL_MS_MAX)
        check_symbols("symbols", self.symbols)
        check_ts_ms("first_ts_ms", self.first_ts_ms)
        check_ts_ms("last_ts_ms", self.last_ts_ms)
        if self.last_ts_ms <= self.first_ts_ms:
            raise InvalidField("last_ts_ms", self.last_ts_ms, f"after {self.first_ts_ms}")
        check_hash64("feature_version", self.feature_version)
        check_count("input_features", self.input_features, 1, FEATURES_MAX)
        check_unique("input_features", self.input_features)
        check_hash16("feature_order_hash", self.feature_order_hash)
        expected = feature_order_hash(self.input_features)
        if self.feature_order_hash != expected:
            raise InvalidField("feature_order_hash", self.feature_order_hash, expected)
        check_text("label_definition", self.label_definition)
        check_name("horizon_id", self.horizon_id)
        check_int("horizon_bars", self.horizon_bars, 1, HORIZON_BARS_MAX)
        check_hash64("proxy_version", self.proxy_version)
        check_int("row_count", self.row_count, ROWS_MIN, ROWS_MAX)
        check_int("bar_count", self.bar_count, 0, ROWS_MAX)
        check_int("gap_count", self.gap_count, 0, ROWS_MAX)
        check_hash64("data_hash", self.data_hash)
        if self.cadence_evidence is not None:
            check_hash64("cadence_evidence", self.cadence_evidence)
        needs_evidence = self.bar_interval_ms != CADENCE_MS_DEFAULT
        if needs_evidence and self.cadence_evidence is None:
            expected = f"the SHA-256 of the evidence for bars other than {CADENCE_MS_DEFAULT} ms"
            raise InvalidField("cadence_evidence", None, expected)
        found = tuple(file.path for file in self.files)
        if found != LISTED_FILES:
            raise InvalidField("files", found, f"exactly {', '.join(LISTED_FILES)}")

    def file(self, path: str) -> DatasetFile:
        """Give the entry of a file that every data set has."""
        return next(file for file in self.files if file.path == path)

    @property
    def dataset_hash(self) -> str:
        """Hash the manifest, in canonical form, to 64 hex; it covers every file."""
        return sha256_hex(dataset_manifest_bytes(self))


def feature_order_hash(names: Sequence[str]) -> str:
    """Hash the names of the values of a row in their order to 16 hex.

    The text is a JSON list with the spaces that Python writes by default: the hash that data
    sets of the seeds carry.
    """
    return hashlib.sha256(json.dumps(list(names)).encode("ascii")).hexdigest()[:16]


def check_dataset_id(dataset_id: str) -> None:
    """Refuse a name that could be a path, or none at all."""
    if not _DATASET_ID.fullmatch(dataset_id) or ".." in dataset_id:
        raise InvalidField("dataset_id", dataset_id, ID_FORM)


def dataset_manifest_bytes(manifest: DatasetManifest) -> bytes:
    """Give the content of `manifest.json`; any other byte string is not this manifest."""
    return canonical_bytes(DatasetManifest.SCHEMA, to_json(manifest))


def parse_dataset_manifest(text: bytes) -> DatasetManifest:
    """Read `manifest.json`.

    Raises:
        InvalidField: A field is missing, unknown or out of range, or the text is not in
            canonical form.
    """
    fields = parse_json("manifest", text)
    if fields.get("schema") != DatasetManifest.SCHEMA:
        raise InvalidField("schema", fields.get("schema"), DatasetManifest.SCHEMA)
    manifest = from_json(DatasetManifest, fields)
    if text != dataset_manifest_bytes(manifest):
        expected = f"canonical JSON, with SHA-256 {manifest.dataset_hash}"
        raise InvalidField("manifest", sha256_hex(text), expected)
    return manifest
