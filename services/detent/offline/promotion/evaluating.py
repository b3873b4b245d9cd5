"""Evaluate an artifact: read its evidence, measure it, judge it, and say what moves it."""

from pathlib import Path

import msgspec
import numpy as np
from msgspec import structs

from detent.adapters.artifact_store import Artifact, read_artifact
from detent.adapters.serving import Serving
from detent.contracts.calibration import CalibrationMethod
from detent.contracts.units import PPM_ONE
from detent.core.evaluation.equity import EquityCurve
from detent.core.evaluation.evaluation_report import EvaluationReport, FeatureWeight
from detent.core.evaluation.measures import OriginMeasures
from detent.core.evaluation.profiles import PromotionProfile
from detent.core.evaluation.promotion import judge
from detent.offline.cells import invalid
from detent.offline.commands import verify_artifact
from detent.offline.promotion.dataset_finding import find_dataset
from detent.offline.promotion.learning_fills import read_learning
from detent.offline.promotion.measuring import Champion, measure_candidate
from detent.offline.promotion.run_folder import (
    RunFacts,
    backtest_finding,
    read_account,
    read_predictions,
    read_run,
    run_folder_of,
)
from detent.offline.promotion.scores import RESAMPLES, Predictions
from detent.offline.promotion.shadow_rows import read_service
from detent.offline.sweeping.trials import swept_trials


class EvidencePaths(msgspec.Struct, frozen=True, kw_only=True):
    """Names where the evidence of a candidate lies; None is evidence that there is not.

    Attributes:
        artifact: The candidate's directory.
        run: Folder of the run that made it; None is the folder beside it.
        dataset: Folder of the data set that the run read.
        model_backtest: Folder of the candidate's back-test.
        proxy_backtest: Folder of the proxy's over the same bars.
        fills: Files of more fills that the model was the source of; those of its back-test
            stand in the ledger of that folder.
        champion: Directory of the artifact in production, its run beside it.
        ledgers: Ledgers that hold its shadow: files, or `postgresql://` addresses.
    """

    artifact: Path
    run: Path | None = None
    dataset: Path | None = None
    model_backtest: Path | None = None
    proxy_backtest: Path | None = None
    fills: tuple[Path, ...] = ()
    champion: Path | None = None
    ledgers: tuple[str, ...] = ()


class Evaluated(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds a report with what its pictures are drawn from."""

    report: EvaluationReport
    predictions: Predictions | None
    model: EquityCurve | None
    proxy: EquityCurve | None


def evaluate_artifact(
    paths: EvidencePaths,
    profile: PromotionProfile,
    *,
    at_ms: int,
    resamples: int = RESAMPLES,
) -> Evaluated:
    """Evaluate an artifact; what evidence it lacks refuses it, and does not stop this.

    Args:
        paths: Where its evidence lies.
        profile: The bounds.
        at_ms: The time, Unix milliseconds.
        resamples: How often bars are drawn anew.

    Raises:
        ArtifactInvalid: The artifact, or the champion's, is not what it says.
        DataInvalid: Evidence is there and cannot be read.
        InvalidField: The back-tests are of other bars, or the champion's rows are.
    """
    serving = verify_artifact(paths.artifact)
    manifest = serving.artifact.manifest
    run_folder = paths.run or run_folder_of(paths.artifact)
    run, predictions = read_run(run_folder), read_predictions(run_folder)
    # Both accounts from where the model had seen nothing on: before, it was fitted to the bars.
    model, proxy = (
        read_account(folder, after_ts_ms=manifest.data_cutoff_ts_ms)
        for folder in (paths.model_backtest, paths.proxy_backtest)
    )
    measures = measure_candidate(
        _origin(serving.artifact, run, paths),
        predictions,
        model=model,
        proxy=proxy,
        data_span_ms=_span_ms(predictions, manifest.bar_interval_ms),
        bar_interval_ms=manifest.bar_interval_ms,
        horizon_bars=manifest.horizon_bars,
        trial_count=_tried(run, paths.artifact),
        learning=read_learning(list(paths.fills), paths.model_backtest),
        champion=None if paths.champion is None else read_champion(paths.champion),
        architecture_id=manifest.architecture_id,
        resamples=resamples,
    )
    service = read_service(
        paths.ledgers, serving.artifact.pinned.binding_hash, manifest.bar_interval_ms
    )
    measures = structs.replace(measures, service=service)
    method, weights = feature_weights(serving)
    report = EvaluationReport(
        evaluated_at_ms=at_ms,
        profile=profile,
        measures=measures,
        gates=judge(profile, measures),
        weight_method=method,
        weights=weights,
    )
    return Evaluated(report=report, predictions=predictions, model=model, proxy=proxy)


def read_champion(path: Path) -> Champion:
    """Read the model in production with what its run predicted.

    Raises:
        ArtifactInvalid: It is not what it says.
        DataInvalid: Its run predicted nothing.
    """
    manifest = read_artifact(path).manifest
    predictions = read_predictions(run_folder_of(path))
    if predictions is None:
        name = run_folder_of(path).name
        raise invalid(name, "no predictions", "the champion's rows, to compare with")
    return Champion(
        model_id=manifest.model_id,
        model_version_hash=manifest.model_version_hash,
        architecture_id=manifest.architecture_id,
        predictions=predictions,
    )


def feature_weights(serving: Serving) -> tuple[str | None, tuple[FeatureWeight, ...]]:
    """Give how much each feature moves the score: mean magnitudes over the golden rows.

    They are our own Shapley values, exact where the graph's form is known; otherwise the method
    says that each feature was left out in turn.
    """
    explainer = serving.explainer
    if explainer is None:
        return None, ()
    rows = [np.frombuffer(row.values, "<f4") for row in serving.artifact.golden.rows]
    # Of the last class: for a direction, what moves the score of "up".
    column = len(serving.artifact.manifest.output_classes) - 1
    found = np.stack([explainer.contributions(row, column) for row in rows])
    means = np.nanmean(np.abs(found), axis=0)
    total = float(np.sum(means))
    shares = means / total if total > 0.0 else means
    order = sorted(range(len(shares)), key=lambda place: (-shares[place], place))
    return explainer.method.value, tuple(
        FeatureWeight(name=explainer.names[place], weight_ppm=round(shares[place] * PPM_ONE))
        for place in order
    )


def _tried(run: RunFacts, artifact: Path) -> int | None:
    """Count every trial: of the run, and of each sweep of its policy; None where nobody did."""
    return None if run.trial_count is None else run.trial_count + swept_trials(artifact)


def _origin(artifact: Artifact, run: RunFacts, paths: EvidencePaths) -> OriginMeasures:
    manifest, choice = artifact.manifest, artifact.calibration.choice
    verified = find_dataset(paths.dataset)
    winner: CalibrationMethod | None = None if choice is None else choice.chosen
    return OriginMeasures(
        model_id=manifest.model_id,
        model_version_hash=manifest.model_version_hash,
        run_version_hash=run.model_version_hash,
        git_sha=manifest.git_sha,
        artifact_dataset_id=manifest.dataset_id,
        run_dataset_id=run.dataset_id,
        run_dataset_hash=run.dataset_hash,
        dataset_id=verified.dataset_id,
        dataset_hash=verified.dataset_hash,
        dataset_finding=verified.finding,
        backtest_finding=backtest_finding(
            paths.model_backtest, paths.proxy_backtest, artifact.pinned.binding
        ),
        calibration_method=manifest.calibration_method,
        calibration_winner=winner,
    )


def _span_ms(predictions: Predictions | None, bar_interval_ms: int) -> int:
    """Give the time from the first bar predicted to the last, both included."""
    if predictions is None:
        return 0
    return int(predictions.ts_ms.max() - predictions.ts_ms.min()) + bar_interval_ms
