"""Offer what the command line does with data sets."""

from pathlib import Path

from detent.contracts.binding import Head
from detent.contracts.errors import InvalidField
from detent.core.features.feature_set import FeatureSet, direction_bars_v1
from detent.offline.commands import load_table
from detent.offline.datasets.building import DatasetRequest, build_dataset
from detent.offline.datasets.folder import Dataset, read_dataset
from detent.offline.datasets.manifest import DatasetSource
from detent.offline.datasets.promotion import require_promotion_dataset
from detent.offline.feature_sets import find_feature_set
from detent.offline.samples import Progress
from detent.offline.score_labels import TOXICITY_DEFAULT, toxicity_bars_v1
from detent.offline.walk_forward.leakage import check_rows_against_bars

HORIZON_BARS_DEFAULT = 4


def build_dataset_folder(
    data: Path,
    *,
    out_dir: Path,
    dataset_id: str,
    created_at: str,
    source: str,
    head: Head,
    feature_set: str | None,
    horizon_bars: int | None,
    horizon_id: str,
    cadence_evidence: Path | None,
    progress: Progress,
) -> Path:
    """Build a data set of a file of bars; see `build_dataset`.

    Args:
        data: The bars.
        out_dir: Folder of data sets.
        dataset_id: Its name.
        created_at: UTC, an input.
        source: One of `DatasetSource`.
        head: The question that its labels answer.
        feature_set: Name of a feature set, or a file; None for the head's own.
        horizon_bars: How far ahead the label looks; None for `HORIZON_BARS_DEFAULT`. That of
            toxicity is fixed in seconds.
        horizon_id: Name of the horizon; empty names it by its bars, as in `h4`.
        cadence_evidence: Why the bars are not of the default length.
        progress: Told of (stage, done, in all).

    Raises:
        DetentError: As `build_dataset`.
        InvalidField: A horizon is asked for that the head does not have.
    """
    if source not in set(DatasetSource):
        raise InvalidField("source", source, f"one of {', '.join(DatasetSource)}")
    progress("read", 0, 1)
    table = load_table(data)
    progress("read", 1, 1)
    if head is Head.TOXICITY:
        if horizon_bars is not None:
            seconds = TOXICITY_DEFAULT.prediction_horizon_s
            raise InvalidField(
                "horizon_bars", horizon_bars, f"none: {head} looks {seconds} s ahead"
            )
        horizon_bars = TOXICITY_DEFAULT.horizon_bars(table.interval_ms)
    elif horizon_bars is None:
        horizon_bars = HORIZON_BARS_DEFAULT
    request = DatasetRequest(
        dataset_id=dataset_id,
        source=DatasetSource(source),
        created_at=created_at,
        head=head,
        horizon_bars=horizon_bars,
        horizon_id=horizon_id or f"h{horizon_bars}",
        evidence=cadence_evidence,
    )
    found = _feature_set(head, feature_set, table.interval_ms)
    return build_dataset(table, found, request, out_dir=out_dir, progress=progress)


def verify_dataset(
    folder: Path, *, bars: Path | None = None, for_promotion: bool = False
) -> tuple[Dataset, int]:
    """Read and verify a data set.

    Args:
        folder: Its folder.
        bars: The bars that it was made from, to compute rows again; None not to.
        for_promotion: Whether it must also cover what a promotion asks for.

    Returns:
        The data set, and how many rows were computed again.

    Raises:
        DataInvalid: It is not what it says, or covers too little.
    """
    dataset = read_dataset(folder)
    if for_promotion:
        require_promotion_dataset(dataset)
    if bars is None:
        return dataset, 0
    return dataset, check_rows_against_bars(dataset, load_table(bars))


def _feature_set(head: Head, name: str | None, interval_ms: int) -> FeatureSet:
    if name is not None:
        return find_feature_set(name, bar_interval_ms=interval_ms)
    if head is Head.TOXICITY:
        return toxicity_bars_v1(interval_ms)
    return direction_bars_v1(interval_ms)
