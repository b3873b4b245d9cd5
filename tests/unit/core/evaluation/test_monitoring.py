"""What a check says: bars are settled by key, scores know their noise, advice has its bounds."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import numpy as np
import pytest
from msgspec import structs
from tests.builders import HOUR_MS, START_MS, SYMBOL, model_binding

from detent.contracts.binding import SignalSource
from detent.contracts.errors import InvalidField
from detent.contracts.monitoring import (
    DAY_MS,
    AlertKind,
    MonitorProfile,
    MonitorRules,
    ToxicityConfig,
)
from detent.contracts.trades import OutcomeLabel
from detent.core.evaluation.distances import Floats
from detent.core.evaluation.drift import DriftVerdict
from detent.core.evaluation.joining import (
    DecidedBar,
    WatchedPlan,
    labels_by_key,
    settled_outcomes,
)
from detent.core.evaluation.monitoring import Inputs, ModelReport, assess
from detent.core.evaluation.retraining import RetrainVerdict, retrain_advice

BINDING = model_binding(data_cutoff_ts_ms=START_MS - HOUR_MS)
PLAN = WatchedPlan(
    plan_id="plan",
    binding_hash=BINDING.binding_hash,
    binding=BINDING,
    bar_interval_ms=HOUR_MS,
)
NO_INPUTS = Inputs(current={}, reference={})
RULES = MonitorRules()


def bar(number: int, close: float = 100.0, **changes: object) -> DecidedBar:
    found = DecidedBar(
        plan_id="plan",
        book="book",
        symbol=SYMBOL,
        ts_ms=START_MS + number * HOUR_MS,
        close=Decimal(str(close)),
        model_p_bps=5_000,
        proxy_p_bps=5_000,
        features_hash=None,
    )
    return structs.replace(found, **changes)


def draws(rows: int) -> Floats:
    return np.random.default_rng(0).random((200, rows))


def judged(
    p_bps: list[int], up: list[bool], inputs: Inputs = NO_INPUTS, rules: MonitorRules = RULES
) -> ModelReport:
    bars = [bar(number, model_p_bps=one) for number, one in enumerate(p_bps)]
    labels = {one.key: rose for one, rose in zip(bars, up, strict=True)}
    return assess(bars, labels, PLAN, inputs, rules=rules, draws=draws)


def kinds(report: ModelReport) -> list[AlertKind]:
    return [alert.kind for alert in report.alerts if alert.kind is not AlertKind.RETRAIN_DUE]


def drawn(count: int, *, stretch: float = 1.0, repeat: int = 1) -> tuple[list[int], list[bool]]:
    """Draw answers of a model that is too sure of itself by a factor, and what came true."""
    chance = np.random.default_rng(3)
    truth = 0.5 + 0.1 * np.repeat(chance.normal(size=count // repeat), repeat)
    up = np.repeat(chance.random(count // repeat), repeat) < truth
    said = np.clip(0.5 + stretch * (truth - 0.5), 0.0, 1.0)
    return [round(one * 10_000) for one in said], up.tolist()


def test_a_bar_is_settled_by_the_close_a_horizon_later() -> None:
    closes = [100.0, 101.0, 102.0, 101.5, 99.0, 101.0]
    bars = [bar(number, close) for number, close in enumerate(closes)]
    found = settled_outcomes(bars, {"plan": PLAN}, [])

    assert [(one.ts_ms, one.label) for one in found] == [
        (bars[0].ts_ms, OutcomeLabel.DOWN),
        (bars[1].ts_ms, OutcomeLabel.FLAT),
    ]
    assert found[0].known_ts_ms == bars[4].ts_ms
    assert found[0].horizon_bars == 4


def test_a_bar_without_a_close_at_its_horizon_is_not_settled() -> None:
    """A later close would answer another question, and the next bar of the file is not it."""
    bars = [bar(0, 100), *(bar(number, 200) for number in range(5, 9))]

    assert settled_outcomes(bars, {"plan": PLAN}, []) == []


def test_the_book_brings_the_close_where_its_plan_was_replaced() -> None:
    later = bar(4, 120, plan_id="next")
    plans = {"plan": PLAN, "next": structs.replace(PLAN, plan_id="next")}
    elsewhere = structs.replace(later, book="other")

    assert [one.plan_id for one in settled_outcomes([bar(0), later], plans, [])] == ["plan"]
    assert settled_outcomes([bar(0), elsewhere], plans, []) == []


@pytest.mark.proves("R259")
def test_an_outcome_joins_by_key_however_late_it_is_known() -> None:
    bars = [bar(number, 100 + number % 3) for number in range(140)]
    early = settled_outcomes(bars[:20], {"plan": PLAN}, [])
    held = [(one.plan_id, one.symbol, one.ts_ms) for one in early]
    late = settled_outcomes(bars, {"plan": PLAN}, held)
    labels = labels_by_key([*reversed(late), *early])

    assert len(early) == 16
    assert len(late) == 120
    assert not {one.ts_ms for one in early} & {one.ts_ms for one in late}
    assert labels == {
        one.key: bars[number + 4].close > one.close for number, one in enumerate(bars[:136])
    }
    report = assess(bars, labels, PLAN, NO_INPUTS, rules=RULES, draws=draws)
    assert [signal.settled_count for signal in report.signals] == [136, 136]


def test_a_calibrated_model_does_not_alert_and_one_too_sure_of_itself_does() -> None:
    assert kinds(judged(*drawn(1_000))) == []
    assert kinds(judged(*drawn(1_000, stretch=3.0))) == [AlertKind.MISCALIBRATED]


def test_the_band_knows_that_neighbouring_outcomes_overlap() -> None:
    """The control: with a horizon of one bar the same calibrated rows would alert."""
    p_bps, up = drawn(1_000, repeat=4)
    found = judged(p_bps, up).signals[0].newest
    bars = [bar(number, model_p_bps=one) for number, one in enumerate(p_bps)]
    labels = {one.key: rose for one, rose in zip(bars, up, strict=True)}
    plan = structs.replace(PLAN, binding=model_binding(horizon_bars=1))
    naive = assess(bars, labels, plan, NO_INPUTS, rules=RULES, draws=draws).signals[0].newest

    assert found is not None
    assert naive is not None
    assert found.ece == naive.ece
    assert naive.ece_null_high < found.ece < found.ece_null_high


def test_few_rows_are_no_verdict() -> None:
    report = judged(*drawn(RULES.scored_rows_min - 1, stretch=5.0))

    assert report.signals[0].newest is None
    assert kinds(report) == []


@pytest.mark.proves("R262")
def test_accuracy_alerts_below_the_seeds_threshold_and_not_at_it() -> None:
    seed = MonitorRules(profile=MonitorProfile.SEED)
    right = [True] * 70 + [False] * 30
    one_less = [True] * 69 + [False] * 31

    assert (seed.check_interval_s, seed.accuracy_threshold_bps) == (3_600, 7_000)
    assert seed.drift_threshold_bps == 2_000
    assert AlertKind.ACCURACY_LOW not in kinds(judged([6_999] * 100, right, rules=seed))
    assert AlertKind.ACCURACY_LOW in kinds(judged([6_999] * 100, one_less, rules=seed))
    assert AlertKind.ACCURACY_LOW not in kinds(judged([6_999] * 100, one_less))


def test_grown_errors_alert() -> None:
    up = [True] * 300 + [False] * 100

    assert AlertKind.ACCURACY_DRIFT in kinds(judged([7_000] * 400, up))
    assert AlertKind.ACCURACY_DRIFT not in kinds(judged([7_000] * 400, [True] * 400))


def test_a_shifted_input_alerts_and_makes_the_model_due() -> None:
    chance = np.random.default_rng(5)
    rows = {name: chance.normal(size=1_200) for name in ("steady", "moved")}
    moved = {"steady": rows["steady"][600:], "moved": rows["moved"][600:] + 2.0}
    reference = {name: values[:600] for name, values in rows.items()}
    report = judged(*drawn(150), inputs=Inputs(current=moved, reference=reference))
    before = judged(
        *drawn(150),
        inputs=Inputs(
            current={name: values[600:] for name, values in rows.items()}, reference=reference
        ),
    )

    assert [one.verdict for one in report.features] == [DriftVerdict.STEADY, DriftVerdict.DRIFTED]
    assert kinds(report) == [AlertKind.FEATURE_DRIFT]
    assert report.retrain.verdict is RetrainVerdict.TOO_FEW_SAMPLES
    assert before.retrain.verdict is RetrainVerdict.NOT_DUE
    assert kinds(before) == []


def test_missing_inputs_are_said_and_not_guessed() -> None:
    report = judged(*drawn(200))

    assert report.features == ()
    assert report.features_unknown == "0 kept inputs, expected at least 500"


@pytest.mark.proves("R260")
def test_training_is_due_after_seven_days_and_with_ten_thousand_samples() -> None:
    cutoff_ts_ms = START_MS

    def verdict(age_ms: int, samples: int, *, drifted: bool = False) -> RetrainVerdict:
        return retrain_advice(
            RULES,
            ts_ms=cutoff_ts_ms + age_ms,
            cutoff_ts_ms=cutoff_ts_ms,
            sample_count=samples,
            drifted=drifted,
        ).verdict

    assert verdict(7 * DAY_MS - 1, 10_000) is RetrainVerdict.NOT_DUE
    assert verdict(7 * DAY_MS, 10_000) is RetrainVerdict.DUE
    assert verdict(7 * DAY_MS, 9_999) is RetrainVerdict.TOO_FEW_SAMPLES
    assert verdict(DAY_MS, 10_000, drifted=True) is RetrainVerdict.DUE
    assert verdict(DAY_MS, 9_999, drifted=True) is RetrainVerdict.TOO_FEW_SAMPLES


@pytest.mark.proves("R261")
def test_toxicity_windows_are_the_seeds_and_refuse_what_is_none() -> None:
    assert ToxicityConfig() == ToxicityConfig(
        lookback_windows=(10, 30, 60), prediction_horizon_s=60
    )
    for wrong in ((), (30, 10), (10, 10), (0, 10)):
        with pytest.raises(InvalidField, match="lookback_windows"):
            ToxicityConfig(lookback_windows=wrong)
    with pytest.raises(InvalidField, match="prediction_horizon_s"):
        ToxicityConfig(prediction_horizon_s=0)


@pytest.mark.parametrize("field", [*MonitorRules.__struct_fields__[1:]])
def test_rules_that_are_none_are_refused(field: str) -> None:
    with pytest.raises(InvalidField, match=field):
        MonitorRules(**{field: -1})


def test_a_report_is_json() -> None:
    report = judged(*drawn(300))
    found = msgspec.json.decode(msgspec.json.encode(report), type=ModelReport)

    assert found == report
    assert found.signals[0].signal_source is SignalSource.MODEL
