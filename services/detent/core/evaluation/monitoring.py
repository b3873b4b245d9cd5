"""Judge a model by its decided bars: scores that know their noise, drift, and advice.

Before it: the ledger, joined with outcomes. After it: metrics, alerts, a page for people.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from detent.contracts.binding import SignalSource
from detent.contracts.monitoring import Alert, AlertKind, MonitorProfile, MonitorRules
from detent.contracts.units import BPS_ONE
from detent.core.evaluation.accuracy_drift import AccuracyDrift, accuracy_drift
from detent.core.evaluation.distances import Floats
from detent.core.evaluation.drift import (
    DriftRule,
    DriftVerdict,
    FeatureDrift,
    feature_drift,
    recent_rows,
)
from detent.core.evaluation.joining import BarKey, DecidedBar, WatchedPlan
from detent.core.evaluation.reliability import calibration_error, null_band, reliability_bins
from detent.core.evaluation.retraining import RetrainAdvice, RetrainVerdict, retrain_advice
from detent.core.evaluation.scores import Labels, accuracy, brier_score, log_loss

# Places at which the rolling scores of a history are read.
POINTS = 24
# Rows of a feature that a judgement by the default rule needs of the past.
_REFERENCE_ROWS_MIN = 100
Draws = Callable[[int], Floats]


class QualityPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the scores of the rows that end at one bar.

    Attributes:
        ts_ms: Close of the newest of them.
        row_count: How many.
        brier: Brier score.
        log_loss: Log loss, nats.
        ece: ECE, as `reliability.ece_name` defines it.
        ece_null_high: What the ECE of a perfect model with these probabilities stays below.
        accuracy: Share of rows on the right side of one half.
    """

    ts_ms: int
    row_count: int
    brier: float
    log_loss: float
    ece: float
    ece_null_high: float
    accuracy: float


class SignalQuality(msgspec.Struct, frozen=True, kw_only=True):
    """Holds how good one signal of one model has been.

    Attributes:
        signal_source: The model's answers, or the proxy's on the same bars.
        settled_count: Answers whose outcome is known.
        newest: Scores of the newest `scored_rows`; None while there are too few.
        history: The same scores as they were earlier, oldest first.
        errors: How the recent errors compare with those before.
    """

    signal_source: SignalSource
    settled_count: int
    newest: QualityPoint | None
    history: tuple[QualityPoint, ...]
    errors: AccuracyDrift


class ModelReport(msgspec.Struct, frozen=True, kw_only=True):
    """Holds all that was found of one binding.

    Attributes:
        binding_hash: The binding.
        model_id: Its model.
        bar_count: Bars that were decided under it.
        newest_ts_ms: Close of the newest of them.
        signals: The model's quality and the proxy's.
        features: Drift per feature; empty when there are no inputs to judge by.
        features_unknown: Why there is no such judgement; empty where there is one.
        retrain: Advice.
        alerts: What a person should look at.
    """

    binding_hash: str
    model_id: str
    bar_count: int
    newest_ts_ms: int
    signals: tuple[SignalQuality, ...]
    features: tuple[FeatureDrift, ...]
    features_unknown: str
    retrain: RetrainAdvice
    alerts: tuple[Alert, ...]


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a model was given, per feature and in the order of time.

    Attributes:
        current: Rows that were served; each shape (m,), float64.
        reference: Rows of its training; empty where none were given, and then what was served
            before the recent rows stands for them.
    """

    current: Mapping[str, Floats]
    reference: Mapping[str, Floats]


def assess(
    bars: Sequence[DecidedBar],
    labels: Mapping[BarKey, bool],
    plan: WatchedPlan,
    inputs: Inputs,
    *,
    rules: MonitorRules,
    draws: Draws,
) -> ModelReport:
    """Judge one binding.

    Args:
        bars: Its decided bars in the order of time, at least one.
        labels: Whether a bar went up, by key.
        plan: Any plan under the binding.
        inputs: What the model was given.
        rules: What alerts.
        draws: Gives uniform draws on [0, 1), shape (resamples, n), for a number n.
    """
    # Labels of neighbours overlap: within a horizon a symbol brings one surprise and not many.
    span_ms = plan.binding.horizon_bars * plan.bar_interval_ms
    signals = tuple(
        _quality(source, bars, labels, rules, lambda found: _shared(draws, found, span_ms))
        for source in (SignalSource.MODEL, SignalSource.PROXY)
    )
    features, unknown = _features(inputs, rules)
    drifted = [one.feature for one in features if one.verdict is DriftVerdict.DRIFTED]
    model = signals[0]
    retrain = retrain_advice(
        rules,
        ts_ms=bars[-1].ts_ms,
        cutoff_ts_ms=plan.binding.data_cutoff_ts_ms,
        sample_count=model.settled_count,
        drifted=bool(drifted) or model.errors.drifted,
    )
    alerts = [
        Alert(
            kind=kind,
            binding_hash=plan.binding_hash,
            signal_source=source,
            message=message,
        )
        for kind, source, message in (
            *_quality_alerts(model, rules),
            *(
                [(AlertKind.FEATURE_DRIFT, None, f"drifted: {', '.join(drifted)}")]
                if drifted
                else []
            ),
            *_retrain_alerts(retrain, rules),
        )
    ]
    return ModelReport(
        binding_hash=plan.binding_hash,
        model_id=plan.binding.model_id,
        bar_count=len(bars),
        newest_ts_ms=bars[-1].ts_ms,
        signals=signals,
        features=features,
        features_unknown=unknown,
        retrain=retrain,
        alerts=tuple(alerts),
    )


def _answer(source: SignalSource, bar: DecidedBar) -> int | None:
    return bar.model_p_bps if source is SignalSource.MODEL else bar.proxy_p_bps


def _quality(
    source: SignalSource,
    bars: Sequence[DecidedBar],
    labels: Mapping[BarKey, bool],
    rules: MonitorRules,
    shared: Callable[[Sequence[DecidedBar]], Floats],
) -> SignalQuality:
    said = [(bar, p_bps) for bar in bars if (p_bps := _answer(source, bar)) is not None]
    settled = [(bar, p_bps) for bar, p_bps in said if bar.key in labels]
    p = np.array([p_bps / BPS_ONE for _, p_bps in settled])
    up = np.array([labels[bar.key] for bar, _ in settled], dtype=np.bool_)
    points = []
    for end in reversed(_ends(len(settled), rules.scored_rows_min)):
        rows = slice(max(0, end - rules.scored_rows), end)
        drawn = shared([bar for bar, _ in settled[rows]])
        points.append(_point(settled[end - 1][0].ts_ms, p[rows], up[rows], drawn))
    errors = [
        abs(p_bps - BPS_ONE * labels[bar.key]) if bar.key in labels else None for bar, p_bps in said
    ]
    return SignalQuality(
        signal_source=source,
        settled_count=len(settled),
        newest=points[-1] if points else None,
        history=tuple(points),
        errors=accuracy_drift(errors, threshold_bps=rules.drift_threshold_bps),
    )


def _ends(count: int, first: int) -> list[int]:
    """Give where the rows end that are scored together, the newest first."""
    step = max(1, -(-count // POINTS))
    return [end for end in range(count, 0, -step) if end >= first]


def _shared(draws: Draws, bars: Sequence[DecidedBar], span_ms: int) -> Floats:
    """Give the draws of rows, the same one for a symbol's rows within one horizon.

    Rows of different symbols draw for themselves, as if markets did not move together.
    """
    blocks: dict[tuple[str, int], int] = {}
    places = [blocks.setdefault((bar.symbol, bar.ts_ms // span_ms), len(blocks)) for bar in bars]
    found: Floats = draws(len(blocks))[:, places]
    return found


def _point(ts_ms: int, p: Floats, up: Labels, drawn: Floats) -> QualityPoint:
    return QualityPoint(
        ts_ms=ts_ms,
        row_count=len(p),
        brier=brier_score(p, up),
        log_loss=log_loss(p, up),
        ece=calibration_error(reliability_bins(p, up)),
        ece_null_high=null_band(p, drawn).ece_high,
        accuracy=accuracy(p, up),
    )


def _features(inputs: Inputs, rules: MonitorRules) -> tuple[tuple[FeatureDrift, ...], str]:
    rule = DriftRule.SEED if rules.profile is MonitorProfile.SEED else DriftRule.STANDARD
    newest = recent_rows(rule)
    served = min((len(rows) for rows in inputs.current.values()), default=0)
    if served < newest:
        return (), f"{served} kept inputs, expected at least {newest}"
    reference = inputs.reference or {name: rows[:-newest] for name, rows in inputs.current.items()}
    past = min(len(rows) for rows in reference.values())
    if past < _REFERENCE_ROWS_MIN:
        return (), f"{past} rows of reference, expected at least {_REFERENCE_ROWS_MIN}"
    recent = {name: rows[-newest:] for name, rows in inputs.current.items()}
    return feature_drift(reference, recent, rule=rule), ""


Found = tuple[AlertKind, SignalSource | None, str]


def _quality_alerts(model: SignalQuality, rules: MonitorRules) -> list[Found]:
    found: list[Found] = []
    newest, source = model.newest, model.signal_source
    if newest is not None and newest.ece > newest.ece_null_high:
        message = f"ECE {newest.ece:.4f}, expected at most {newest.ece_null_high:.4f}"
        found.append((AlertKind.MISCALIBRATED, source, message))
    if model.errors.drifted:
        message = f"errors grew by more than {rules.drift_threshold_bps / BPS_ONE:.0%}"
        found.append((AlertKind.ACCURACY_DRIFT, source, message))
    wanted = rules.accuracy_threshold_bps / BPS_ONE
    if rules.profile is MonitorProfile.SEED and newest is not None and newest.accuracy < wanted:
        message = f"accuracy {newest.accuracy:.3f}, expected at least {wanted:.3f}"
        found.append((AlertKind.ACCURACY_LOW, source, message))
    return found


def _retrain_alerts(retrain: RetrainAdvice, rules: MonitorRules) -> list[Found]:
    match retrain.verdict:
        case RetrainVerdict.DUE:
            message = f"train again: {retrain.sample_count} samples"
        case RetrainVerdict.TOO_FEW_SAMPLES:
            wanted = rules.training_samples_min
            message = f"due, but {retrain.sample_count} samples, expected at least {wanted}"
        case RetrainVerdict.NOT_DUE:
            return []
    return [(AlertKind.RETRAIN_DUE, None, message)]
