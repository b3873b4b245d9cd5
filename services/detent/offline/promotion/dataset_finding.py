"""Say which data set is on disk, or why none is (R335, R336)."""

from pathlib import Path

import msgspec

from detent.contracts.errors import DataInvalid
from detent.offline.datasets.folder import read_dataset


class DatasetFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Says which data set was read, or why none was.

    Attributes:
        dataset_id: Its id; None where it is not what it says.
        dataset_hash: SHA-256 of its manifest, 64 hex; likewise.
        finding: What is wrong; empty where nothing is.
    """

    dataset_id: str | None = None
    dataset_hash: str | None = None
    finding: str = ""


def find_dataset(folder: Path | None) -> DatasetFinding:
    """Read every byte of a data set, as training does, and say which one it is."""
    if folder is None:
        return DatasetFinding()
    try:
        manifest = read_dataset(folder).manifest
    except DataInvalid as error:
        return DatasetFinding(finding=f"{folder.name}: {error.message}")
    return DatasetFinding(dataset_id=manifest.dataset_id, dataset_hash=manifest.dataset_hash)
