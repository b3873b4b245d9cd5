"""Write a data set once, and read it only if every byte is what its manifest pins.

Each file is opened once, through one open directory and never through a link; what is used is
the bytes that were hashed.

Source: rows R335 and R336.
"""

import os
import shutil
import stat
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from detent.contracts.binding import Head
from detent.contracts.canonical import sha256_hex
from detent.contracts.errors import DataInvalid, InvalidField
from detent.core.features.feature_set import FeatureSet, parse_feature_set
from detent.offline.datasets.manifest import (
    FEATURE_SET_FILE,
    FILE_BYTES_MAX,
    LISTED_FILES,
    MANIFEST_FILE,
    ROWS_FILE,
    DatasetFile,
    DatasetManifest,
    check_dataset_id,
    dataset_manifest_bytes,
    parse_dataset_manifest,
)
from detent.offline.datasets.rows import CLOSE, SETTLED_CLOSE, Rows, parse_rows

T = TypeVar("T")
DATASET_FILES = (MANIFEST_FILE, *LISTED_FILES)
MANIFEST_BYTES_MAX = 4 * 2**20
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Non-blocking, because opening a pipe that nobody writes to would wait for ever.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Dataset(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds a verified data set.

    Attributes:
        manifest: What it says of itself.
        feature_set: What a model is given.
        rows: The labelled rows.
    """

    manifest: DatasetManifest
    feature_set: FeatureSet
    rows: Rows


def write_dataset(parent: Path, manifest: DatasetManifest, contents: Mapping[str, bytes]) -> Path:
    """Write a data set once, whole or not at all.

    Args:
        parent: Folder of data sets; it is created.
        manifest: The manifest.
        contents: Content of each of `LISTED_FILES`.

    Returns:
        Its folder.

    Raises:
        DataInvalid: It would be refused when read, or its folder exists: a data set never
            changes, another one has another name.
    """
    everything = {**contents, MANIFEST_FILE: dataset_manifest_bytes(manifest)}
    _verified(manifest.dataset_id, everything)
    parent.mkdir(parents=True, exist_ok=True)
    target = parent / manifest.dataset_id
    if os.path.lexists(target):
        raise _refused(target.name, "a folder of that name", "none: a data set never changes")
    partial = parent / f".{manifest.dataset_id}.partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        for name in DATASET_FILES:
            (partial / name).write_bytes(everything[name])
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def read_dataset(path: Path) -> Dataset:
    """Read a data set and verify every byte of it.

    Raises:
        DataInvalid: A file is missing, unlisted, a link, changed, or contradicts the
            manifest; or the labels are not what their definition gives.
    """
    return _verified(path.name, _read_files(path))


def files_of(contents: Mapping[str, bytes]) -> tuple[DatasetFile, ...]:
    """Give the manifest's entries for the content of `LISTED_FILES`."""
    return tuple(
        DatasetFile(path=path, sha256=sha256_hex(contents[path]), size_bytes=len(contents[path]))
        for path in LISTED_FILES
    )


def _verified(name: str, contents: Mapping[str, bytes]) -> Dataset:
    manifest = _parsed(MANIFEST_FILE, parse_dataset_manifest, contents[MANIFEST_FILE])
    if name != manifest.dataset_id:
        raise _refused("folder", name, manifest.dataset_id)
    # (1) Every byte is what the manifest pins; nothing is parsed before that.
    for entry in manifest.files:
        content = contents[entry.path]
        if len(content) != entry.size_bytes:
            raise _refused(entry.path, f"{len(content)} bytes", f"{entry.size_bytes} bytes")
        found = sha256_hex(content)
        if found != entry.sha256:
            raise _refused(entry.path, f"SHA-256 {found}", f"SHA-256 {entry.sha256}")
    # (2) The features are those that the manifest names.
    feature_set = _parsed(FEATURE_SET_FILE, parse_feature_set, contents[FEATURE_SET_FILE])
    if feature_set.feature_version != manifest.feature_version:
        raise _refused("feature_version", feature_set.feature_version, manifest.feature_version)
    if feature_set.input_names != manifest.input_features:
        expected = ", ".join(feature_set.input_names)
        raise _refused("input_features", ", ".join(manifest.input_features), expected)
    if feature_set.engine.bar_interval_ms != manifest.bar_interval_ms:
        found = f"{manifest.bar_interval_ms}"
        raise _refused("bar_interval_ms", found, f"{feature_set.engine.bar_interval_ms}")
    # (3) The rows are as many, as old and of what the manifest says.
    rows = parse_rows(manifest.head, manifest.input_features, contents[ROWS_FILE])
    _check_rows(manifest, rows)
    return Dataset(manifest=manifest, feature_set=feature_set, rows=rows)


def _check_rows(manifest: DatasetManifest, rows: Rows) -> None:
    if len(rows) != manifest.row_count:
        raise _refused("row_count", f"{len(rows)} rows", f"{manifest.row_count} rows")
    window = (int(rows.ts_ms.min()), int(rows.ts_ms.max()))
    if window != (manifest.first_ts_ms, manifest.last_ts_ms):
        expected = f"{manifest.first_ts_ms} to {manifest.last_ts_ms}"
        raise _refused("span", f"{window[0]} to {window[1]}", expected)
    symbols = tuple(sorted(set(rows.symbols)))
    if symbols != manifest.symbols:
        raise _refused("symbols", ", ".join(symbols), ", ".join(manifest.symbols))
    order = np.lexsort((rows.symbols.astype(str), rows.ts_ms))
    if not np.array_equal(order, np.arange(len(rows))):
        raise _refused("rows", "rows out of order", "rows by time, then by symbol")
    if not np.all(rows.label_ts_ms > rows.ts_ms):
        raise _refused("label_ts_ms", "a label that is known at once", "labels of the future")
    if manifest.head is Head.DIRECTION:
        _check_direction(rows)


def _check_direction(rows: Rows) -> None:
    """Compute every label again from the closes that stand beside it."""
    prices = {text: Decimal(text) for text in {*rows.targets[CLOSE], *rows.targets[SETTLED_CLOSE]}}
    pairs = zip(rows.targets[CLOSE], rows.targets[SETTLED_CLOSE], strict=True)
    expected = np.array([prices[after] > prices[before] for before, after in pairs])
    wrong = np.flatnonzero(expected != rows.labels)
    if len(wrong):
        row = int(wrong[0])
        found = f"{rows.labels[row]} in row {row + 1}"
        raise _refused("label", found, f"{expected[row]}, as the closes beside it say")


def _read_files(path: Path) -> dict[str, bytes]:
    try:
        check_dataset_id(path.name)
    except InvalidField as error:
        raise _refused("folder", path.name, error.expected) from error
    try:
        directory = os.open(path, _DIRECTORY_FLAGS)
    except OSError as error:
        raise _refused("folder", f"{path.name}: {error.strerror}", "a folder, no link") from error
    try:
        found = os.listdir(directory)  # noqa: PTH208 (a descriptor, not a path)
        for name in sorted(set(found) - set(DATASET_FILES)):
            raise _refused(name, "a file that no manifest lists", ", ".join(DATASET_FILES))
        for name in DATASET_FILES:
            if name not in found:
                raise _refused(name, "(missing)", "the file")
        return {name: _read_file(directory, name) for name in DATASET_FILES}
    finally:
        os.close(directory)


def _read_file(directory: int, name: str) -> bytes:
    try:
        descriptor = os.open(name, _FILE_FLAGS, dir_fd=directory)
    except OSError as error:
        raise _refused(name, error.strerror, "a plain file, no link") from error
    limit = MANIFEST_BYTES_MAX if name == MANIFEST_FILE else FILE_BYTES_MAX
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refused(name, "not a plain file", "a plain file")
        if status.st_nlink != 1:
            raise _refused(name, f"{status.st_nlink} hard links", "a file of its own (copy it)")
        if status.st_size > limit:
            raise _refused(name, f"{status.st_size} bytes", f"at most {limit}")
        return file.read(limit)


def _parsed(name: str, parse: Callable[[bytes], T], text: bytes) -> T:
    try:
        return parse(text)
    except InvalidField as error:
        raise DataInvalid(
            f"{name}: {error.message}",
            file=name,
            field=error.field,
            found=error.found,
            expected=error.expected,
        ) from error


def _refused(what: str, found: object, expected: str) -> DataInvalid:
    message = f"{what}: found {found}, expected {expected}"
    return DataInvalid(message, file=what, found=found, expected=expected)
