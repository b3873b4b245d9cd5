"""Say which data set is on disk, or why none that may promote is (R170, R335, R336)."""

from pathlib import Path

import msgspec

from detent.contracts.errors import DataInvalid
from detent.offline.datasets.folder import read_dataset
from detent.offline.datasets.promotion import require_promotion_dataset


class DatasetFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Says which data set was read, or why none was.

    Attributes:
        dataset_id: Its id; None where it is not what it says, or may promote nothing.
        dataset_hash: SHA-256 of its manifest, 64 hex; likewise.
        finding: What is wrong; empty where nothing is.
    """

    dataset_id: str | None = None
    dataset_hash: str | None = None
    finding: str = ""


def find_dataset(folder: Path | None) -> DatasetFinding:
    """Read every byte of a data set, as training does, and say which one it is.

    Its rows have to cover what promotion asks for: no model is promoted on a short time, on one
    regime, or on data that were made up.
    """
    if folder is None:
        return DatasetFinding()
    try:
        dataset = read_dataset(folder)
        require_promotion_dataset(dataset)
    except DataInvalid as error:
        return DatasetFinding(finding=f"{folder.name}: {error.message}")
    manifest = dataset.manifest
    return DatasetFinding(dataset_id=manifest.dataset_id, dataset_hash=manifest.dataset_hash)
