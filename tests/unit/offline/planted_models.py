"""Plants candidates whose worth is known: good ones, and ones with one thing wrong each.

Outcomes of a good one are drawn systematically: sorted by their probability, ups are spread as
evenly as their sum allows, so that the sample itself is calibrated and not only its law.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from msgspec import structs
from tests.unit.core.evaluation.promotion_cases import good_measures

from detent.contracts.calibration import CalibrationMethod
from detent.core.evaluation.equity import EquityCurve, bar_returns, max_drawdown
from detent.core.evaluation.measures import LearningMeasures, Measures, OriginMeasures
from detent.core.evaluation.scores import Floats, Labels
from detent.offline.promotion.measuring import measure_candidate
from detent.offline.promotion.scores import Predictions

HOUR_MS = 3_600_000
START_MS = 1_700_002_800_000
BARS = 5_000
THIN_BARS = 400
YEAR_MS = 365 * 24 * HOUR_MS
MOVE = 0.004
FEE = 0.0001
SLIP = 0.0001
RESAMPLES = 200


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """Holds everything that is measured of a candidate."""

    predictions: Predictions
    model: EquityCurve
    proxy: EquityCurve
    origin: OriginMeasures
    learning: LearningMeasures
    data_span_ms: int = YEAR_MS
    trial_count: int = 20


def sigmoid(logits: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def logit(p: Floats) -> Floats:
    return np.asarray(np.log(p) - np.log1p(-p))


def slow(chance: np.random.Generator, count: int, *, hold: float) -> Floats:
    """Draw a series of variance 1 that keeps part of its last value."""
    noise = chance.normal(size=count) * np.sqrt(1.0 - hold**2)
    values = np.empty(count)
    last = 0.0
    for index in range(count):
        last = hold * last + noise[index]
        values[index] = last
    return values


def even_outcomes(p: Floats, chance: np.random.Generator) -> Labels:
    order = np.argsort(p + chance.normal(0.0, 1e-9, len(p)))
    reached = np.floor(np.cumsum(p[order]) + chance.random())
    ups = np.diff(np.concatenate(([np.floor(0.0)], reached))) > 0
    labels = np.empty(len(p), dtype=np.bool_)
    labels[order] = ups
    return labels


def account(p: Floats, labels: Labels, *, slip: float = SLIP, churn: float = 1.0) -> EquityCurve:
    """Hold twice the edge of each bar, and pay for every change of that."""
    weights = np.clip(2.0 * (p - 0.5), -1.0, 1.0)
    traded = np.abs(np.diff(weights, prepend=0.0)) * churn
    costs = traded * (FEE + slip)
    earned = np.where(labels, MOVE, -MOVE) * weights
    equity = 100_000.0 * np.cumprod(1.0 + earned - costs)
    notional = traded * equity
    return EquityCurve(
        ts_ms=times(len(p)),
        equity=equity,
        traded=notional,
        fees=notional * FEE,
        slippage=notional * slip,
        trades=(traded > 0.0).astype(np.int64),
    )


def times(count: int) -> Any:
    return START_MS + HOUR_MS * np.arange(count, dtype=np.int64)


def chance_outcomes(p: Floats, chance: np.random.Generator) -> Labels:
    return np.asarray(chance.random(len(p)) < p)


def good(
    seed: int,
    *,
    bars: int = BARS,
    outcomes: Callable[[Floats, np.random.Generator], Labels] = even_outcomes,
) -> Candidate:
    chance = np.random.default_rng(seed)
    p = sigmoid(0.5 * slow(chance, bars, hold=0.9))
    proxy_p = sigmoid(0.5 * slow(chance, bars, hold=0.85))
    labels = outcomes(p, chance)
    predictions = Predictions(
        ts_ms=times(bars),
        symbols=np.full(bars, "BTCUSDT"),
        p_raw=sigmoid(1.4 * logit(p)),
        p=p,
        proxy_p=proxy_p,
        labels=labels,
    )
    return Candidate(
        predictions=predictions,
        model=account(p, labels),
        proxy=account(proxy_p, labels),
        origin=good_measures().origin,
        learning=LearningMeasures(fill_count=bars, untagged_count=0),
    )


def said(candidate: Candidate, p: Floats) -> Candidate:
    """Give a candidate that says something else of the same rows, and trades by it."""
    return structs.replace(
        candidate,
        predictions=structs.replace(candidate.predictions, p=p),
        model=account(p, candidate.predictions.labels),
    )


def traded(candidate: Candidate, **changes: float) -> Candidate:
    found = candidate.predictions
    return structs.replace(candidate, model=account(found.p, found.labels, **changes))


def crashed(candidate: Candidate) -> Candidate:
    """Lose in two days what the proxy loses in all of its time, and a twentieth more."""
    curve = candidate.model
    kept = 1.0 + max_drawdown(bar_returns(candidate.proxy)) - 0.05
    falls = np.ones(len(curve.ts_ms))
    falls[2_000:2_048] = kept ** (1 / 48)
    return structs.replace(
        candidate, model=structs.replace(curve, equity=curve.equity * np.cumprod(falls))
    )


def lucky(candidate: Candidate) -> Candidate:
    """Trade almost at random, and be the best of ten million trials."""
    found = candidate.predictions
    noise = np.roll(found.p, len(found) // 2) + 0.15 * (found.p - 0.5)
    return structs.replace(candidate, model=account(noise, found.labels), trial_count=10_000_000)


def named(candidate: Candidate, **changes: Any) -> Candidate:
    return structs.replace(candidate, origin=structs.replace(candidate.origin, **changes))


# Per fault: what plants it, and the gate that has to see it.
FAULTS: dict[str, tuple[Callable[[Candidate], Candidate], str]] = {
    "sign-flipped": (lambda c: said(c, 1.0 - c.predictions.p), "brier_vs_proxy"),
    "overconfident": (
        lambda c: said(c, sigmoid(3.0 * logit(c.predictions.p))),
        "calibration_slope",
    ),
    "leaked-look-alike": (
        lambda c: said(c, np.roll(c.predictions.p, len(c.predictions) // 3)),
        "log_loss_vs_proxy",
    ),
    "biased": (
        lambda c: said(c, sigmoid(logit(c.predictions.p) + 0.4)),
        "calibration_intercept",
    ),
    "constant": (lambda c: said(c, np.full(len(c.predictions), 0.5)), "capital_resolved"),
    "churny": (lambda c: traded(c, churn=1.6), "turnover"),
    "slipping": (lambda c: traded(c, slip=5 * SLIP), "slippage"),
    "deep": (crashed, "drawdown"),
    "uncalibrated": (
        lambda c: named(c, calibration_method=CalibrationMethod.IDENTITY, calibration_winner=None),
        "calibrated",
    ),
    "untagged": (
        lambda c: structs.replace(c, learning=LearningMeasures(fill_count=BARS, untagged_count=1)),
        "learning_isolation",
    ),
    "other-dataset": (lambda c: named(c, run_dataset_id="0" * 64), "dataset"),
    "other-backtest": (lambda c: named(c, backtest_finding="bound to another"), "backtests"),
    "lucky": (lucky, "deflated_sharpe"),
}


def measured(candidate: Candidate, *, resamples: int = RESAMPLES) -> Measures:
    measures = measure_candidate(
        candidate.origin,
        candidate.predictions,
        model=candidate.model,
        proxy=candidate.proxy,
        data_span_ms=candidate.data_span_ms,
        bar_interval_ms=HOUR_MS,
        horizon_bars=1,
        trial_count=candidate.trial_count,
        learning=candidate.learning,
        resamples=resamples,
    )
    # Its shadow is nobody's question here.
    return structs.replace(measures, service=good_measures().service)
