"""Offer what `detent heads` does."""

from pathlib import Path

from detent.contracts.errors import InvalidField
from detent.offline.cells import invalid
from detent.offline.datasets.folder import read_dataset
from detent.offline.heads.brackets import BracketsFold, read_events, train_brackets
from detent.offline.heads.class_heads import TrainedHead, train_class_head
from detent.offline.heads.fill import FillFold, read_orders, train_fill
from detent.offline.heads.policy_rules import (
    RuleSet,
    discover_rules,
    read_policy_rows,
    rules_bytes,
)
from detent.offline.heads.spacing import (
    SpacingGoal,
    SpacingTarget,
    best_spacings,
    read_outcomes,
)
from detent.offline.packing import Identity
from detent.offline.samples import Progress
from detent.offline.walk_forward.folds import FoldPlan


def train_class_folder(
    folder: Path,
    *,
    out_dir: Path,
    created_at: str,
    model_name: str,
    version: str,
    seed: int,
    fold_count: int,
    spacing: Path | None,
    spacing_target: str,
    drawdown_max: float,
    progress: Progress,
) -> TrainedHead:
    """Train a head of three classes on a data set; see `train_class_head`.

    Args:
        folder: The data set's folder.
        out_dir: Folder of artifacts.
        created_at: UTC, an input.
        model_name: Name of the model's line.
        version: Version of the model.
        seed: Seed of every fit.
        fold_count: Test blocks.
        spacing: What each spacing earned; None for a spacing of 1.
        spacing_target: What the best spacing has most of, one of `SpacingTarget`.
        drawdown_max: A spacing whose drawdown was larger is out.
        progress: Told of (stage, done, in all).

    Raises:
        DetentError: As `read_dataset` and `train_class_head`.
    """
    if spacing_target not in set(SpacingTarget):
        raise InvalidField("spacing_target", spacing_target, f"one of {', '.join(SpacingTarget)}")
    dataset = read_dataset(folder)
    manifest = dataset.manifest
    goal = SpacingGoal(
        target=SpacingTarget(spacing_target), constraints=(("max_dd", 0.0, drawdown_max),)
    )
    spacings = None if spacing is None else best_spacings(read_outcomes(spacing), goal)
    identity = Identity(
        model_name=model_name,
        model_version=version,
        created_at=created_at,
        horizon_bars=manifest.horizon_bars,
        horizon_id=manifest.horizon_id,
        dataset_id=manifest.dataset_id,
    )
    return train_class_head(
        dataset,
        identity,
        FoldPlan(fold_count=fold_count, embargo_ms=manifest.bar_interval_ms),
        seed=seed,
        out_dir=out_dir,
        progress=progress,
        spacings=spacings,
    )


def train_fill_file(
    orders: Path,
    *,
    out_dir: Path,
    created_at: str,
    model_name: str,
    version: str,
    seed: int,
    fold_count: int,
    bar_interval_ms: int,
    progress: Progress,
) -> tuple[Path, tuple[FillFold, ...]]:
    """Train the fill head on a file of orders; see `train_fill`.

    Args:
        orders: The file.
        out_dir: Folder of artifacts.
        created_at: UTC, an input.
        model_name: Name of the model's line.
        version: Version of the model.
        seed: Seed of every fit.
        fold_count: Test blocks.
        bar_interval_ms: Length of the bars of the plans that will ask.
        progress: Told of (stage, done, in all).

    Raises:
        DetentError: As `read_orders` and `train_fill`.
    """
    identity = Identity(
        model_name=model_name,
        model_version=version,
        created_at=created_at,
        horizon_bars=1,
        horizon_id="order",
    )
    return train_fill(
        read_orders(orders),
        identity,
        FoldPlan(fold_count=fold_count, embargo_ms=0),
        bar_interval_ms=bar_interval_ms,
        seed=seed,
        out_dir=out_dir,
        progress=progress,
    )


def train_brackets_file(
    events: Path,
    *,
    out_dir: Path,
    created_at: str,
    model_name: str,
    version: str,
    seed: int,
    fold_count: int,
    bar_interval_ms: int,
    progress: Progress,
) -> tuple[Path, tuple[BracketsFold, ...]]:
    """Train exclusive outcomes on a file of events; see `train_brackets`.

    Args:
        events: The file.
        out_dir: Folder of artifacts.
        created_at: UTC, an input.
        model_name: Name of the model's line.
        version: Version of the model.
        seed: Seed of every fit.
        fold_count: Test blocks.
        bar_interval_ms: Length of the bars of the plans that will ask.
        progress: Told of (stage, done, in all).

    Raises:
        DetentError: As `read_events` and `train_brackets`.
    """
    identity = Identity(
        model_name=model_name,
        model_version=version,
        created_at=created_at,
        horizon_bars=1,
        horizon_id="event",
    )
    return train_brackets(
        read_events(events),
        identity,
        FoldPlan(fold_count=fold_count, embargo_ms=0),
        bar_interval_ms=bar_interval_ms,
        seed=seed,
        out_dir=out_dir,
        progress=progress,
    )


def discover_rule_file(data: Path, *, out: Path, seed: int) -> RuleSet:
    """Discover rules and write those that hold.

    Args:
        data: Conditions, and the policy that did best in each.
        out: The file to write; it must not exist.
        seed: Seed of the tree.

    Raises:
        DataInvalid: A file is not usable, or there are too few rows.
    """
    if out.exists():
        raise invalid(out.name, "a file of that name", "none")
    rules = discover_rules(read_policy_rows(data), FoldPlan(fold_count=1, embargo_ms=0), seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(rules_bytes(rules))
    return rules
