"""Offer what the command line does offline: load, build, verify."""

from pathlib import Path

from detent.adapters.artifact_signature import UNSIGNED_ALLOWED, SignatureTrust
from detent.adapters.artifact_store import read_artifact, read_pinned_manifest
from detent.adapters.serving import Serving, open_serving
from detent.contracts.calibration import CalibrationMethod
from detent.core.features.feature_set import FeatureSet, direction_bars_v1
from detent.offline.bars import BarTable, load_bars
from detent.offline.building import Recipe, build_direction_artifact
from detent.offline.eurusd import load_eurusd_bars
from detent.offline.event_build import EventBuildSummary, build_event_features
from detent.offline.event_files import EventFiles
from detent.offline.feature_build import BuildSummary, build_features
from detent.offline.feature_sets import find_feature_set
from detent.offline.samples import Progress


def silent(stage: str, done: int, total: int) -> None:
    """Ignore progress."""
    del stage, done, total


def load_table(path: Path) -> BarTable:
    """Read bars from a `.parquet` or `.csv` file, or from the wheel that carries EURUSD.

    Raises:
        DataInvalid: The file is not usable as it is.
    """
    return load_eurusd_bars(path) if path.suffix == ".whl" else load_bars(path)


def build_feature_file(
    data: list[Path],
    feature_set: str,
    *,
    out: Path,
    venue: str | None,
    bar_interval_ms: int,
    force: bool,
    progress: Progress = silent,
) -> tuple[BuildSummary | EventBuildSummary, int]:
    """Write the rows of features of files of bars, quotes and books.

    Args:
        data: Files, at most one of each kind.
        feature_set: Name of a feature set, or a file that holds one.
        out: The file to write.
        venue: Exchange of the books, where their file does not say.
        bar_interval_ms: Length of the bars of a set found by name, where no bars say it.
        force: Whether a file that exists is replaced.
        progress: Told of (stage, done, in all).

    Returns:
        What was made, and how many gaps the bars have.

    Raises:
        DataInvalid: A file is not usable as it is, or does not fit the set.
    """
    progress("read", 0, 1)
    files = EventFiles.of(data, venue=venue)
    table = None if files.bars is None else load_table(files.bars)
    progress("read", 1, 1)
    interval_ms = bar_interval_ms if table is None else table.interval_ms
    found = find_feature_set(feature_set, bar_interval_ms=interval_ms)
    gaps = 0 if table is None else len(table.gaps)
    if files.quotes is not None or files.books is not None or table is None:
        summary = build_event_features(files, table, found, out=out, force=force, progress=progress)
        return summary, gaps
    return (
        build_features(
            table,
            found,
            out=out,
            force=force,
            progress=progress,
        ),
        gaps,
    )


def build_artifact(
    table: BarTable,
    *,
    model_name: str,
    version: str,
    horizon_bars: int,
    horizon_id: str,
    created_at: str,
    out_dir: Path,
    feature_set: FeatureSet | None = None,
    progress: Progress = silent,
    after: Path | None = None,
    calibration_method: CalibrationMethod | None = CalibrationMethod.PLATT,
) -> Path:
    """Build, write and verify a direction artifact.

    Args:
        table: Bars of one or many symbols.
        model_name: Name of the model's line, `a-z 0-9 _`.
        version: `v<major>.<minor>.<patch>`.
        horizon_bars: How far ahead the label looks.
        horizon_id: Name of the horizon.
        created_at: UTC, `2024-01-15T10:30:00Z`; an input, so that a rebuild is identical.
        out_dir: Folder of artifacts; it is created.
        feature_set: What the model is given; by default bars only.
        progress: Told of (stage, done, in all).
        after: The predecessor's directory; the version must say what changed since then.
        calibration_method: The calibrator; None to choose it on rows held out.

    Returns:
        The artifact's directory.

    Raises:
        DataInvalid: The bars do not give enough rows.
        InvalidField: A name, version or time is malformed, or the version says less than
            what changed.
        ArtifactInvalid: The model cannot be calibrated, or the directory exists.
    """
    recipe = Recipe(
        model_name=model_name,
        model_version=version,
        horizon_bars=horizon_bars,
        horizon_id=horizon_id,
        created_at=created_at,
        feature_set=feature_set or direction_bars_v1(table.interval_ms),
        calibration_method=calibration_method,
    )
    # Read first: training takes minutes, a wrong path is found at once.
    predecessor = None if after is None else read_pinned_manifest(after).manifest
    return build_direction_artifact(
        table, recipe, out_dir=out_dir, progress=progress, predecessor=predecessor
    )


def verify_artifact(
    path: Path,
    *,
    model_version_hash: str | None = None,
    execution_provider: str = "cpu",
    trust: SignatureTrust = UNSIGNED_ALLOWED,
) -> Serving:
    """Read an artifact and let it prove itself, as the inference service would.

    Raises:
        ArtifactInvalid: It is not what it says, or not what is pinned.
    """
    artifact = read_artifact(path, model_version_hash=model_version_hash, trust=trust)
    return open_serving(artifact, execution_provider=execution_provider)
