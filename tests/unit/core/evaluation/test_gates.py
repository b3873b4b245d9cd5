"""Promotion gates: each alone blocks, boundaries are where they are said to be, nothing passes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.core.evaluation.promotion_cases import (
    blocking,
    changed,
    comparison,
    good_measures,
)

from detent.contracts.calibration import CalibrationMethod
from detent.contracts.errors import InvalidField
from detent.core.evaluation.gates import is_promotable, not_passed
from detent.core.evaluation.measures import IntervalPpm, Measures
from detent.core.evaluation.profiles import PROFILES, SEED, STANDARD, profile_named
from detent.core.evaluation.promotion import judge

FAILED, UNKNOWN = "failed", "insufficient_evidence"
DAY_MS = 86_400_000


def interval(low_x1000: int, high_x1000: int) -> IntervalPpm:
    middle = (low_x1000 + high_x1000) // 2
    return IntervalPpm(
        low_ppm=low_x1000 * 1_000, value_ppm=middle * 1_000, high_ppm=high_x1000 * 1_000
    )


# Per gate: profile, part, what is wrong with it, the verdict.
BAD: tuple[tuple[str, str, str, dict[str, Any], str], ...] = (
    ("artifact", "standard", "origin", {"run_version_hash": "b" * 64}, FAILED),
    ("artifact", "standard", "origin", {"run_version_hash": None}, UNKNOWN),
    ("dataset", "standard", "origin", {"run_dataset_id": "e" * 64}, FAILED),
    ("dataset", "standard", "origin", {"artifact_dataset_id": "e" * 64}, FAILED),
    ("dataset", "standard", "origin", {"run_dataset_hash": "e" * 64}, FAILED),
    ("dataset", "standard", "origin", {"dataset_hash": "e" * 64}, FAILED),
    ("dataset", "standard", "origin", {"dataset_finding": "a link"}, FAILED),
    ("dataset", "standard", "origin", {"dataset_id": None}, UNKNOWN),
    ("backtests", "standard", "origin", {"backtest_finding": "other fee_bps"}, FAILED),
    ("backtests", "standard", "origin", {"backtest_finding": None}, UNKNOWN),
    ("provenance", "standard", "origin", {"git_sha": None}, UNKNOWN),
    ("calibrated", "standard", "origin", {"calibration_method": None}, FAILED),
    (
        "calibrated",
        "standard",
        "origin",
        {"calibration_method": CalibrationMethod.IDENTITY, "calibration_winner": None},
        FAILED,
    ),
    ("data_span", "standard", "sample", {"data_span_ms": 182 * DAY_MS}, UNKNOWN),
    ("row_count", "standard", "sample", {"row_count": 999}, UNKNOWN),
    ("rarer_count", "standard", "sample", {"rarer_count": 99}, UNKNOWN),
    ("brier_vs_proxy", "standard", "proxy", {"brier_upper_ppb": 0}, UNKNOWN),
    (
        "brier_vs_proxy",
        "standard",
        "proxy",
        {"brier_difference_ppb": 1, "brier_upper_ppb": 9},
        FAILED,
    ),
    ("log_loss_vs_proxy", "standard", "proxy", {"log_loss_upper_ppb": 0}, UNKNOWN),
    ("brier_vs_champion", "standard", "champion", {"brier_upper_ppb": 0}, UNKNOWN),
    ("log_loss_vs_champion", "standard", "champion", {"log_loss_upper_ppb": 0}, UNKNOWN),
    ("post_hoc_improvement", "standard", "calibration", {"log_loss_raw_ppb": 1}, FAILED),
    ("calibration_slope", "standard", "calibration", {"slope": None}, UNKNOWN),
    ("calibration_slope", "standard", "calibration", {"slope": interval(500, 799)}, FAILED),
    ("calibration_slope", "standard", "calibration", {"slope": interval(1_251, 1_900)}, FAILED),
    ("calibration_intercept", "standard", "calibration", {"intercept": None}, UNKNOWN),
    ("calibration_intercept", "standard", "calibration", {"intercept": interval(51, 90)}, FAILED),
    ("ece_null_band", "standard", "calibration", {"ece_ppm": 15_001}, FAILED),
    ("turnover", "standard", "trading", {"turnover_ratio_upper_ppm": 100_001}, UNKNOWN),
    ("turnover", "standard", "trading", {"turnover_ratio_ppm": None}, UNKNOWN),
    ("slippage", "standard", "trading", {"slippage_difference_upper_bps_x1000": 1_001}, UNKNOWN),
    ("drawdown", "standard", "trading", {"drawdown_difference_upper_ppm": 20_001}, UNKNOWN),
    ("deflated_sharpe", "standard", "trading", {"deflated_sharpe_ppm": 949_999}, UNKNOWN),
    ("deflated_sharpe", "standard", "trading", {"deflated_sharpe_ppm": 400_000}, FAILED),
    ("deflated_sharpe", "standard", "trading", {"trial_count": None}, UNKNOWN),
    ("capital_resolved", "standard", "trading.model", {"trade_count": 39}, UNKNOWN),
    ("capital_expectancy", "standard", "trading.model", {"expectancy_ppb": 0}, FAILED),
    ("capital_drawdown", "standard", "trading.model", {"max_drawdown_ppm": 90_000}, FAILED),
    ("capital_slippage", "standard", "trading", {"slippage_difference_bps_x1000": 25_000}, FAILED),
    ("shadow_rows", "standard", "service", {"row_count": 999}, UNKNOWN),
    ("shadow_hours", "standard", "service", {"covered_ms": DAY_MS - 1}, UNKNOWN),
    ("shadow_p99", "standard", "service", {"p99_us": 100_000}, FAILED),
    ("shadow_p999", "standard", "service", {"p999_us": 250_000}, FAILED),
    ("shadow_errors", "standard", "service", {"error_count": 100}, FAILED),
    ("learning_isolation", "standard", "learning", {"untagged_count": 1}, FAILED),
    ("learning_isolation", "standard", "learning", {"fill_count": 0}, UNKNOWN),
    ("brier_vs_proxy", "seed", "proxy", {"brier_difference_ppb": 1}, FAILED),
    ("ece_vs_proxy", "seed", "proxy", {"ece_difference_ppm": 1}, FAILED),
    ("ece", "seed", "calibration", {"ece_ppm": 90_001}, FAILED),
    ("turnover", "seed", "trading", {"turnover_ratio_ppm": 100_001}, FAILED),
    ("slippage", "seed", "trading", {"slippage_difference_bps_x1000": 1_001}, FAILED),
    ("drawdown", "seed", "trading", {"drawdown_difference_ppm": 20_001}, FAILED),
    ("sharpe", "seed", "trading.model", {"sharpe_x1000": 1_999}, FAILED),
    ("sharpe", "seed", "trading.model", {"sharpe_x1000": None}, UNKNOWN),
    ("max_drawdown", "seed", "trading.model", {"max_drawdown_ppm": 120_001}, FAILED),
    ("fees", "seed", "trading.model", {"fees_of_gross_ppm": 50_001}, FAILED),
    ("fees", "seed", "trading.model", {"fees_of_gross_ppm": None}, FAILED),
)
# What two gates judge by different bounds cannot break one of them alone.
ALSO = {
    "capital_slippage": {"slippage"},
    "max_drawdown": {"capital_drawdown"},
    # Too few rows say nothing of the slowest either.
    "shadow_rows": {"shadow_p99", "shadow_p999", "shadow_errors"},
}


@pytest.mark.proves("R131")
@pytest.mark.parametrize(
    ("gate", "profile", "part", "changes", "verdict"),
    [pytest.param(*case, id=f"{case[1]}-{case[0]}-{index}") for index, case in enumerate(BAD)],
)
def test_each_gate_alone_blocks(
    gate: str, profile: str, part: str, changes: dict[str, Any], verdict: str
) -> None:
    measures = structs.replace(good_measures(), champion=comparison(baseline="tcn_v1.0.0"))
    found = blocking(judge(profile_named(profile), changed(part, measures, **changes)))

    assert found.pop(gate) == verdict
    assert set(found) <= ALSO.get(gate, set())


@pytest.mark.parametrize("name", PROFILES)
def test_every_gate_is_among_those_that_were_broken(name: str) -> None:
    """A gate that no case above breaks could be one that never blocks."""
    measures = structs.replace(good_measures(), champion=comparison(baseline="tcn_v1.0.0"))
    gates = judge(profile_named(name), measures)

    assert {gate.name for gate in gates} <= {gate for gate, *_ in BAD}
    assert is_promotable(gates)


@pytest.mark.proves("R131")
@pytest.mark.parametrize("name", PROFILES)
def test_an_empty_run_passes_nothing_that_needs_a_number(name: str) -> None:
    empty = Measures(
        origin=structs.replace(
            good_measures().origin,
            run_version_hash=None,
            run_dataset_id=None,
            dataset_id=None,
            git_sha=None,
            backtest_finding=None,
        ),
        sample=None,
        calibration=None,
        proxy=None,
        champion=None,
        trading=None,
        learning=None,
    )
    gates = judge(profile_named(name), empty)

    assert {gate.name for gate in gates} - {gate.name for gate in not_passed(gates)} == {
        "calibrated"
    }
    assert not is_promotable(gates)
    assert all(gate.number is None for gate in not_passed(gates))
    assert not is_promotable(())


@pytest.mark.proves("R135", "R354")
@pytest.mark.parametrize(
    ("gate", "profile", "part", "changes"),
    [
        pytest.param("turnover", "seed", "trading", {"turnover_ratio_ppm": 100_000}, id="churn"),
        pytest.param(
            "turnover", "standard", "trading", {"turnover_ratio_upper_ppm": 100_000}, id="churn-95"
        ),
        pytest.param(
            "slippage", "seed", "trading", {"slippage_difference_bps_x1000": 1_000}, id="slippage"
        ),
        pytest.param(
            "drawdown", "seed", "trading", {"drawdown_difference_ppm": 20_000}, id="drawdown"
        ),
        pytest.param("ece", "seed", "calibration", {"ece_ppm": 90_000}, id="ece"),
        pytest.param("sharpe", "seed", "trading.model", {"sharpe_x1000": 2_000}, id="sharpe"),
        pytest.param("fees", "seed", "trading.model", {"fees_of_gross_ppm": 50_000}, id="fees"),
        pytest.param(
            "deflated_sharpe", "standard", "trading", {"deflated_sharpe_ppm": 950_000}, id="dsr"
        ),
        pytest.param("brier_vs_proxy", "standard", "proxy", {"brier_upper_ppb": -1}, id="brier"),
        pytest.param("row_count", "standard", "sample", {"row_count": 1_000}, id="rows"),
        pytest.param("rarer_count", "standard", "sample", {"rarer_count": 100}, id="rarer"),
        pytest.param("data_span", "standard", "sample", {"data_span_ms": 15_778_800_000}, id="6m"),
        pytest.param(
            "capital_resolved", "standard", "trading.model", {"trade_count": 40}, id="resolved"
        ),
        pytest.param(
            "capital_expectancy", "standard", "trading.model", {"expectancy_ppb": 1}, id="gain"
        ),
        pytest.param(
            "capital_drawdown", "standard", "trading.model", {"max_drawdown_ppm": 89_999}, id="dd"
        ),
    ],
)
def test_a_bound_itself_passes(gate: str, profile: str, part: str, changes: dict[str, Any]) -> None:
    """One unit beyond each of these blocks: see the cases above."""
    assert gate not in blocking(judge(profile_named(profile), changed(part, **changes)))


@pytest.mark.proves("R354")
def test_slippage_just_below_the_capital_gate_passes_that_one() -> None:
    measures = changed("trading", slippage_difference_bps_x1000=24_999)

    assert "capital_slippage" not in blocking(judge(SEED, measures))


@pytest.mark.proves("R132")
@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("turnover_ratio", 300_000, id="churn"),
        pytest.param("slippage_difference", 3_000, id="slippage"),
    ],
)
def test_a_better_brier_score_does_not_buy_churn_or_slippage(
    name: str, field: str, value: int
) -> None:
    unit = "_ppm" if field == "turnover_ratio" else "_bps_x1000"
    measures = changed("trading", **{f"{field}{unit}": value, f"{field}_upper{unit}": value + 1})
    assert measures.proxy is not None
    assert measures.proxy.brier_upper_ppb < 0

    found = blocking(judge(profile_named(name), measures))

    assert list(found.values()) == [FAILED]


@pytest.mark.proves("R128")
@pytest.mark.parametrize("field", ["brier_difference_ppb", "ece_difference_ppm"])
def test_a_worse_brier_score_or_ece_than_the_proxys_is_refused(field: str) -> None:
    assert not is_promotable(judge(SEED, changed("proxy", **{field: 1})))


@pytest.mark.proves("R164")
def test_of_two_that_tie_the_simpler_stays() -> None:
    """Against the model in production: a tie promotes only what is simpler than that."""
    tie = {
        "baseline": "tcn_v1.0.0",
        "baseline_version_hash": "b" * 64,
        "brier_difference_ppb": 0,
        "brier_upper_ppb": 499_999,
        "log_loss_difference_ppb": 0,
        "log_loss_upper_ppb": 1_385_999,
    }
    measures = {
        is_simpler: structs.replace(
            good_measures(), champion=comparison(is_simpler=is_simpler, **tie)
        )
        for is_simpler in (False, True)
    }

    assert set(blocking(judge(STANDARD, measures[False]))) == {
        "brier_vs_champion",
        "log_loss_vs_champion",
    }
    assert is_promotable(judge(STANDARD, measures[True]))
    # Two tenths of a percent of the uncertainty, and no more.
    worse = structs.replace(
        measures[True], champion=comparison(is_simpler=True, **{**tie, "brier_upper_ppb": 500_000})
    )
    assert set(blocking(judge(STANDARD, worse))) == {"brier_vs_champion"}


@pytest.mark.proves("R336")
def test_a_data_set_named_by_its_id_is_pinned_by_the_hash_of_the_run() -> None:
    named = {"artifact_dataset_id": "eurusd_15m", "run_dataset_id": "eurusd_15m"}
    good = changed("origin", **named, dataset_id="eurusd_15m", run_dataset_hash="d" * 64)
    unpinned = changed("origin", **named, dataset_id="eurusd_15m", run_dataset_hash=None)
    rebuilt = changed("origin", good, dataset_hash="e" * 64)

    assert is_promotable(judge(STANDARD, good))
    assert blocking(judge(STANDARD, unpinned)) == {"dataset": FAILED}
    assert blocking(judge(STANDARD, rebuilt)) == {"dataset": FAILED}


@pytest.mark.proves("R140")
def test_identity_passes_only_as_the_recorded_winner() -> None:
    identity = CalibrationMethod.IDENTITY
    won = changed("origin", calibration_method=identity, calibration_winner=identity)
    lost = changed(
        "origin", calibration_method=identity, calibration_winner=CalibrationMethod.PLATT
    )

    assert is_promotable(judge(STANDARD, won))
    assert blocking(judge(STANDARD, lost)) == {"calibrated": FAILED}


@pytest.mark.proves("R170")
def test_a_day_less_than_six_months_is_refused() -> None:
    short = changed("sample", data_span_ms=15_778_800_000 - DAY_MS)

    assert not is_promotable(judge(STANDARD, short))
    assert is_promotable(judge(STANDARD, changed("sample", data_span_ms=15_778_800_000)))


def test_few_rows_in_common_with_production_are_no_evidence() -> None:
    few = structs.replace(
        good_measures(), champion=comparison(baseline="tcn_v1.0.0", row_count=999)
    )

    assert set(blocking(judge(STANDARD, few)).values()) == {UNKNOWN}
    assert set(blocking(judge(STANDARD, few))) == {"brier_vs_champion", "log_loss_vs_champion"}


def test_too_little_is_never_called_bad_and_never_passes() -> None:
    bad = changed("proxy", brier_difference_ppb=9, brier_upper_ppb=9)
    thin = changed("sample", bad, row_count=500)

    assert blocking(judge(STANDARD, bad)) == {"brier_vs_proxy": FAILED}
    assert blocking(judge(STANDARD, thin)) == {"brier_vs_proxy": UNKNOWN, "row_count": UNKNOWN}


@given(
    name=st.sampled_from(sorted(PROFILES)),
    dropped=st.sets(
        st.sampled_from(["sample", "calibration", "proxy", "trading", "learning"]), min_size=1
    ),
)
def test_whatever_is_missing_refuses(name: str, dropped: set[str]) -> None:
    measures = structs.replace(good_measures(), **dict.fromkeys(dropped))

    assert not is_promotable(judge(profile_named(name), measures))


def test_a_profile_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidField, match="standard or seed"):
        profile_named("lenient")
