"""Say whether a model is due to be trained again, and whether there is enough to train on.

Source: seed 003, section 12.13; row R260.
"""

from enum import StrEnum

import msgspec

from detent.contracts.checks import check_int, check_ts_ms
from detent.contracts.monitoring import DAY_MS, MonitorRules
from detent.contracts.units import INT64_MAX


class RetrainVerdict(StrEnum):
    """Says what to do about training."""

    NOT_DUE = "not_due"
    DUE = "due"
    TOO_FEW_SAMPLES = "too_few_samples"


class RetrainAdvice(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the advice with what it rests on.

    Attributes:
        verdict: Wait, train, or refuse because there is too little.
        due_ts_ms: When the model's age makes it due, Unix milliseconds.
        sample_count: Bars with an outcome that there are.
    """

    verdict: RetrainVerdict
    due_ts_ms: int
    sample_count: int


def retrain_advice(
    rules: MonitorRules, *, ts_ms: int, cutoff_ts_ms: int, sample_count: int, drifted: bool
) -> RetrainAdvice:
    """Advise on training; a drift makes a model due before its age does.

    Args:
        rules: Interval and least number of samples.
        ts_ms: Now, as data time.
        cutoff_ts_ms: Last instant that the model has seen.
        sample_count: Bars with an outcome.
        drifted: Whether its inputs or its errors have drifted.
    """
    check_ts_ms("ts_ms", ts_ms)
    check_ts_ms("cutoff_ts_ms", cutoff_ts_ms)
    check_int("sample_count", sample_count, 0, INT64_MAX)
    due_ts_ms = cutoff_ts_ms + rules.retrain_interval_days * DAY_MS
    verdict = RetrainVerdict.NOT_DUE
    if drifted or ts_ms >= due_ts_ms:
        enough = sample_count >= rules.training_samples_min
        verdict = RetrainVerdict.DUE if enough else RetrainVerdict.TOO_FEW_SAMPLES
    return RetrainAdvice(verdict=verdict, due_ts_ms=due_ts_ms, sample_count=sample_count)
