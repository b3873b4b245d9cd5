"""Hold what was measured of a candidate, in integers, for the gates of promotion to judge.

What was not measured is None: no gate takes that for a pass. The unit is the suffix of a name:
`_ppb` parts per billion, `_ppm` parts per million, `_x1000` thousandths. A comparison holds the
candidate less the baseline, so that below 0 is better, with the bound that the true difference
stays below with 95% confidence.
"""

import msgspec

from detent.contracts.calibration import CalibrationMethod
from detent.contracts.checks import check_int
from detent.contracts.units import INT64_MAX


class SampleMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Says how much there is to judge by.

    Attributes:
        row_count: Rows whose probability was given out of fold.
        rarer_count: Rows of the class with fewer.
        bar_count: Bars that have such rows.
        data_span_ms: Time from the first bar that was predicted out of fold to the last.
    """

    row_count: int
    rarer_count: int
    bar_count: int
    data_span_ms: int


class IntervalPpm(msgspec.Struct, frozen=True, kw_only=True):
    """Holds an estimate with its two-sided 95% interval."""

    low_ppm: int
    value_ppm: int
    high_ppm: int


class CalibrationMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Says how good the candidate's probabilities are on rows that it has not seen.

    Attributes:
        brier_ppb: Brier score, calibrated.
        brier_raw_ppb: The same before calibration.
        log_loss_ppb: Log loss in nats, calibrated.
        log_loss_raw_ppb: The same before calibration.
        ece_ppm: `ece_positive_width15`.
        ece_null_high_ppm: 95% quantile of the ECE of a perfect model with these probabilities.
        slope: Slope of the line of calibration; None where none can be fitted.
        intercept: Its intercept.
    """

    brier_ppb: int
    brier_raw_ppb: int
    log_loss_ppb: int
    log_loss_raw_ppb: int
    ece_ppm: int
    ece_null_high_ppm: int
    slope: IntervalPpm | None
    intercept: IntervalPpm | None


class ScoreComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Compares the candidate with a baseline on the rows that both have.

    Attributes:
        baseline: Who it is: the proxy, or a model's id.
        baseline_version_hash: Manifest hash of that model, 64 hex; None for the proxy.
        row_count: Rows that both have.
        is_simpler: Whether the candidate is simpler than the baseline.
        brier_difference_ppb: Difference of the Brier scores.
        brier_upper_ppb: Bound of that.
        brier_uncertainty_ppb: Brier score of the share of ups: what margins are a part of.
        log_loss_difference_ppb: Difference of the log losses, nats.
        log_loss_upper_ppb: Bound of that.
        log_loss_uncertainty_ppb: Log loss of the share of ups.
        ece_difference_ppm: Difference of the ECEs.
        auc_difference_ppm: AUC less the baseline's; reported and not judged.
        auc_p_value_ppm: Two-sided p value of that, rows taken for independent.
    """

    baseline: str
    baseline_version_hash: str | None
    row_count: int
    is_simpler: bool
    brier_difference_ppb: int
    brier_upper_ppb: int
    brier_uncertainty_ppb: int
    log_loss_difference_ppb: int
    log_loss_upper_ppb: int
    log_loss_uncertainty_ppb: int
    ece_difference_ppm: int
    auc_difference_ppm: int | None
    auc_p_value_ppm: int | None


class AccountMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Says what one account did in a back-test.

    Attributes:
        bar_count: Bars of the curve.
        trade_count: Fills.
        turnover_ppm: Two-way turnover of a day.
        slippage_bps_x1000: Slippage of what was traded; None where nothing was.
        max_drawdown_ppm: Deepest drawdown, at least 0.
        pnl_volatility_ppm: Annualised standard deviation of returns; None where none varies.
        sharpe_x1000: Annualised Sharpe ratio; None where no return varies.
        fees_of_gross_ppm: Fees over the profit before fees and slippage; None without profit.
        expectancy_ppb: Net profit of a fill over starting equity; None without fills.
    """

    bar_count: int
    trade_count: int
    turnover_ppm: int
    slippage_bps_x1000: int | None
    max_drawdown_ppm: int
    pnl_volatility_ppm: int | None
    sharpe_x1000: int | None
    fees_of_gross_ppm: int | None
    expectancy_ppb: int | None


class TradingMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Compares the candidate's account with the proxy's, over the same bars.

    Attributes:
        model: The candidate's account.
        proxy: The proxy's.
        turnover_ratio_ppm: Relative difference of turnover; None where the proxy traded nothing.
        turnover_ratio_upper_ppm: Bound of that.
        slippage_difference_bps_x1000: Difference of slippage; None where either traded nothing.
        slippage_difference_upper_bps_x1000: Bound of that.
        drawdown_difference_ppm: Difference of the deepest drawdowns.
        drawdown_difference_upper_ppm: Bound of that.
        trial_count: Trials that the candidate is the best of; None where nobody counted.
        deflated_sharpe_ppm: Deflated Sharpe ratio; None where it is not defined.
    """

    model: AccountMeasures
    proxy: AccountMeasures
    turnover_ratio_ppm: int | None
    turnover_ratio_upper_ppm: int | None
    slippage_difference_bps_x1000: int | None
    slippage_difference_upper_bps_x1000: int | None
    drawdown_difference_ppm: int
    drawdown_difference_upper_ppm: int
    trial_count: int | None
    deflated_sharpe_ppm: int | None


class OriginMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Says what the candidate is and what it was made from.

    Attributes:
        model_id: The artifact's name.
        model_version_hash: Hash of its manifest, 64 hex.
        run_version_hash: Manifest hash that the run names; None where it names none.
        git_sha: Commit that it was built from; None when unknown.
        artifact_dataset_id: Data set that its manifest names; None when unnamed.
        run_dataset_id: Data set that its run names.
        run_dataset_hash: Hash of that data set's manifest, 64 hex; None where the run does not
            say, or names the data set by its hash.
        dataset_id: Data set that was read, and is what its manifest says; None where none was,
            or it is not.
        dataset_hash: Hash of its manifest, 64 hex.
        dataset_finding: Why it is not; empty where nothing was found.
        backtest_finding: Why the back-tests are not of this artifact and the proxy under the
            same conditions; empty where they are, None where there are none.
        calibration_method: How it is calibrated; None where it is not.
        calibration_winner: Method that won on held-out rows; None where nothing was compared.
    """

    model_id: str
    model_version_hash: str
    run_version_hash: str | None
    git_sha: str | None
    artifact_dataset_id: str | None
    run_dataset_id: str | None
    run_dataset_hash: str | None
    dataset_id: str | None
    dataset_hash: str | None
    dataset_finding: str
    backtest_finding: str | None
    calibration_method: CalibrationMethod | None
    calibration_winner: CalibrationMethod | None


class LearningMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Says whether the trades that the model was the source of kept learning apart.

    Attributes:
        fill_count: Fills that were looked at.
        untagged_count: Those of a learning book without tags, or of another book with some.
    """

    fill_count: int
    untagged_count: int


class ServiceMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Says how the candidate answered while it ran unused.

    Attributes:
        row_count: Rows that it was asked for, at least 1.
        error_count: Those without an answer.
        covered_ms: Bars that it was asked for, times their length.
        p99_us: Latency that 99 of 100 rows do not exceed, microseconds.
        p999_us: Latency that 999 of 1000 do not.
    """

    row_count: int
    error_count: int
    covered_ms: int
    p99_us: int
    p999_us: int

    def __post_init__(self) -> None:
        """Refuse a measure of no row, and more errors than rows."""
        check_int("row_count", self.row_count, 1, INT64_MAX)
        check_int("error_count", self.error_count, 0, self.row_count)
        for name in ("covered_ms", "p99_us", "p999_us"):
            check_int(name, getattr(self, name), 0, INT64_MAX)


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """Gathers everything that the gates judge; None is what nobody measured."""

    origin: OriginMeasures
    sample: SampleMeasures | None
    calibration: CalibrationMeasures | None
    proxy: ScoreComparison | None
    champion: ScoreComparison | None
    trading: TradingMeasures | None
    learning: LearningMeasures | None
    service: ServiceMeasures | None = None
