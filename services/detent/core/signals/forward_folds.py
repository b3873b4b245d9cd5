"""Cut rows in the order of time into blocks that are scored by fits on earlier blocks."""

from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason

Fold = tuple[int, slice]


def forward_folds(row_count: int, *, fold_count: int, purge_rows: int = 0) -> list[Fold]:
    """Cut rows into blocks of one size, each but the first to be scored.

    Args:
        row_count: Rows, in the order of time.
        fold_count: Blocks that are scored.
        purge_rows: Rows left out before each of them: those whose labels reach into it.

    Returns:
        Per scored block how many of the first rows may be fitted on, and its own rows.

    Raises:
        ArtifactInvalid: A fold has nothing to be fitted on, or nothing to score.
    """
    edges = [block * row_count // (fold_count + 1) for block in range(fold_count + 2)]
    if fold_count < 1 or purge_rows < 0 or edges[1] - purge_rows < 1:
        raise no_choice(f"{row_count} rows for {fold_count} folds, {purge_rows} rows apart")
    return [
        (edges[block] - purge_rows, slice(edges[block], edges[block + 1]))
        for block in range(1, fold_count + 1)
    ]


def scored_rows(folds: list[Fold]) -> slice:
    """Give the rows that are scored: all but those of the first block."""
    return slice(folds[0][1].start, folds[-1][1].stop)


def no_choice(found: str) -> ArtifactInvalid:
    """Say that rows do not suffice for a choice."""
    return ArtifactInvalid(
        f"calibration: found {found}, expected a choice on held-out rows",
        gate_reason=Reason.CALIBRATION_FAILED,
        found=found,
        expected="a choice on held-out rows",
    )
