"""Offer what `detent train` does."""

from pathlib import Path

from detent.contracts.errors import DataInvalid
from detent.offline.datasets.folder import read_dataset
from detent.offline.samples import Progress
from detent.offline.walk_forward.engine import Engine
from detent.offline.walk_forward.training import Trained, TrainingRequest, train


def train_folder(
    folder: Path,
    request: TrainingRequest,
    *,
    out_dir: Path,
    engine: Engine,
    progress: Progress,
    dataset_id: str | None = None,
    predecessor: Path | None = None,
) -> Trained:
    """Verify a data set and train on it.

    Args:
        folder: The data set's folder.
        request: What a person decided.
        out_dir: Folder of artifacts; it is created.
        engine: Where fits run.
        progress: Told of (stage, done, in all).
        dataset_id: The only data set to accept; None for any.
        predecessor: Artifact that the version is measured against.

    Raises:
        DetentError: As `read_dataset` and `train`.
    """
    dataset = read_dataset(folder)
    found = dataset.manifest.dataset_id
    if dataset_id not in (None, found):
        message = f"dataset_id: found {found}, expected {dataset_id}"
        raise DataInvalid(message, found=found, expected=dataset_id)
    return train(
        dataset,
        request,
        out_dir=out_dir,
        engine=engine,
        progress=progress,
        predecessor=predecessor,
    )
