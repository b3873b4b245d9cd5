"""Make the demo's model as any other is made: a data set, and a run that walks forward over it."""

from pathlib import Path

from detent.contracts.binding import Head
from detent.core.features.feature_set import direction_bars_v1
from detent.offline.bars import BarTable
from detent.offline.datasets.building import DatasetRequest, build_dataset
from detent.offline.datasets.folder import read_dataset
from detent.offline.datasets.manifest import CADENCE_MS_DEFAULT, DatasetSource
from detent.offline.samples import Progress
from detent.offline.walk_forward.engine import Engine
from detent.offline.walk_forward.training import Trained, TrainingRequest, train

# Few folds and no search: the demo shows how it goes, not what it could bring.
FOLDS = 2
EVIDENCE = "The demo takes the bars that it is given; nothing is promoted on them.\n"


def train_demo_model(
    table: BarTable, *, created_at: str, horizon_bars: int, out_dir: Path, progress: Progress
) -> Trained:
    """Build a data set of some bars and train on it: the simplest model that none beats.

    Args:
        table: Bars of one symbol.
        created_at: UTC, the instant of the last bar: the same bars give the same bytes.
        horizon_bars: How far ahead the label looks.
        out_dir: Gets `datasets` and `artifacts`.
        progress: Told of (stage, done, in all).

    Raises:
        DetentError: The bars do not give enough rows.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    evidence: Path | None = None
    if table.interval_ms != CADENCE_MS_DEFAULT:
        evidence = out_dir / "cadence.txt"
        evidence.write_text(EVIDENCE, "utf-8")
    request = DatasetRequest(
        dataset_id="demo",
        source=DatasetSource.EXPORT,
        created_at=created_at,
        head=Head.DIRECTION,
        horizon_bars=horizon_bars,
        horizon_id=f"h{horizon_bars}",
        evidence=evidence,
    )
    folder = build_dataset(
        table,
        direction_bars_v1(table.interval_ms),
        request,
        out_dir=out_dir / "datasets",
        progress=progress,
    )
    asked = TrainingRequest(
        model_name="direction",
        model_version="v1.0.0",
        created_at=created_at,
        fold_count=FOLDS,
        trial_count=0,
    )
    return train(
        read_dataset(folder),
        asked,
        out_dir=out_dir / "artifacts",
        engine=Engine(),
        progress=progress,
    )
