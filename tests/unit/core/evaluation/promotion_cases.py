"""Builds measures that pass every gate, so that a test states only what is wrong."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from detent.contracts.calibration import CalibrationMethod
from detent.core.evaluation.gates import GateResult, not_passed
from detent.core.evaluation.measures import (
    AccountMeasures,
    CalibrationMeasures,
    IntervalPpm,
    LearningMeasures,
    Measures,
    OriginMeasures,
    SampleMeasures,
    ScoreComparison,
    ServiceMeasures,
    TradingMeasures,
)
from detent.core.evaluation.readiness import (
    ActivityMeasures,
    Band,
    EmergencyMeasures,
    GuardMeasures,
    PersistenceMeasures,
    PolicyMeasures,
    ReadinessBands,
    ReadinessMeasures,
)

MODEL_HASH = "a" * 64
DATASET = "d" * 64
GIT_SHA = "c" * 40


def account(**changes: Any) -> AccountMeasures:
    good = AccountMeasures(
        bar_count=8_760,
        trade_count=400,
        turnover_ppm=500_000,
        slippage_bps_x1000=1_500,
        max_drawdown_ppm=50_000,
        pnl_volatility_ppm=150_000,
        sharpe_x1000=3_500,
        fees_of_gross_ppm=20_000,
        expectancy_ppb=900_000,
    )
    return structs.replace(good, **changes)


def comparison(**changes: Any) -> ScoreComparison:
    good = ScoreComparison(
        baseline="proxy",
        baseline_version_hash=None,
        row_count=8_000,
        is_simpler=False,
        brier_difference_ppb=-2_000_000,
        brier_upper_ppb=-900_000,
        brier_uncertainty_ppb=250_000_000,
        log_loss_difference_ppb=-4_000_000,
        log_loss_upper_ppb=-1_900_000,
        log_loss_uncertainty_ppb=693_000_000,
        ece_difference_ppm=-5_000,
        auc_difference_ppm=20_000,
        auc_p_value_ppm=1_000,
    )
    return structs.replace(good, **changes)


def good_measures() -> Measures:
    return Measures(
        origin=OriginMeasures(
            model_id="direction_v1.0.0",
            model_version_hash=MODEL_HASH,
            run_version_hash=MODEL_HASH,
            git_sha=GIT_SHA,
            artifact_dataset_id=DATASET,
            run_dataset_id=DATASET,
            run_dataset_hash=None,
            dataset_id=DATASET,
            dataset_hash=DATASET,
            dataset_finding="",
            backtest_finding="",
            calibration_method=CalibrationMethod.PLATT,
            calibration_winner=CalibrationMethod.PLATT,
        ),
        sample=SampleMeasures(
            row_count=8_000, rarer_count=3_800, bar_count=8_000, data_span_ms=31_536_000_000
        ),
        calibration=CalibrationMeasures(
            brier_ppb=246_000_000,
            brier_raw_ppb=247_000_000,
            log_loss_ppb=688_000_000,
            log_loss_raw_ppb=690_000_000,
            ece_ppm=9_000,
            ece_null_high_ppm=15_000,
            slope=IntervalPpm(low_ppm=850_000, value_ppm=1_000_000, high_ppm=1_150_000),
            intercept=IntervalPpm(low_ppm=-30_000, value_ppm=1_000, high_ppm=32_000),
        ),
        proxy=comparison(),
        champion=None,
        trading=TradingMeasures(
            model=account(),
            proxy=account(max_drawdown_ppm=60_000, sharpe_x1000=900, turnover_ppm=520_000),
            turnover_ratio_ppm=-40_000,
            turnover_ratio_upper_ppm=20_000,
            slippage_difference_bps_x1000=100,
            slippage_difference_upper_bps_x1000=400,
            drawdown_difference_ppm=-10_000,
            drawdown_difference_upper_ppm=5_000,
            trial_count=20,
            deflated_sharpe_ppm=980_000,
        ),
        learning=LearningMeasures(fill_count=400, untagged_count=0),
        service=ServiceMeasures(
            row_count=2_000,
            error_count=20,
            covered_ms=100 * 3_600_000,
            p99_us=40_000,
            p999_us=90_000,
        ),
    )


def good_readiness() -> ReadinessMeasures:
    active = ActivityMeasures(turnover_ppm=500_000, trade_count=400, drawdown_ppm=50_000)
    return ReadinessMeasures(
        emergency=EmergencyMeasures(
            executed_count=3, vetoed_count=2, wrong_count=0, replayed_otherwise_count=0
        ),
        persistence=PersistenceMeasures(
            closed_count=2, invalid_count=0, hole_count=0, record_count=900, broken_count=0
        ),
        guard=GuardMeasures(replaced_count=4, suppressed_count=9, unchanged_count=0),
        policy=PolicyMeasures(policy=active, baseline=active, finding=""),
        learning=LearningMeasures(fill_count=400, untagged_count=0),
    )


def bands() -> ReadinessBands:
    band = Band(low_ppm=500_000, high_ppm=1_500_000)
    return ReadinessBands(turnover=band, trade_count=band, drawdown=band)


def changed(part: str, measures: Measures | None = None, **changes: Any) -> Measures:
    """Give measures of which one part differs; `trading.model` names a part of a part."""
    found = measures or good_measures()
    outer, _, inner = part.partition(".")
    value = getattr(found, outer)
    if inner:
        replaced = structs.replace(getattr(value, inner), **changes)
        return structs.replace(found, **{outer: structs.replace(value, **{inner: replaced})})
    return structs.replace(found, **{outer: structs.replace(value, **changes)})


def blocking(gates: tuple[GateResult, ...]) -> dict[str, str]:
    """Give the gates that did not pass, with their verdicts."""
    return {gate.name: gate.verdict.value for gate in not_passed(gates)}
