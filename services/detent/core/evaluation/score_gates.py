"""Judge how good the probabilities are: against the proxy, the model in production, and chance."""

from detent.contracts.units import PPM_ONE
from detent.core.evaluation.gates import GateResult, Verdict, choice, percent, unmeasured
from detent.core.evaluation.measures import (
    CalibrationMeasures,
    IntervalPpm,
    ScoreComparison,
)
from detent.core.evaluation.profiles import PromotionProfile

_BETTER = "upper 95% bound < 0"
_BRIER, _LOG_LOSS = "Brier score less that of", "log loss less that of"


def score_gates(
    profile: PromotionProfile,
    calibration: CalibrationMeasures | None,
    proxy: ScoreComparison | None,
    champion: ScoreComparison | None,
) -> tuple[GateResult, ...]:
    """Judge the probabilities by a profile.

    The seeds ask for a Brier score and an ECE that are no worse than the proxy's, as measured.
    The standard asks for proper scores that are better with confidence, than the proxy's and
    than those of the model in production; and a calibrator that helps, a line of calibration
    that cannot be told from the diagonal, an ECE inside what a perfect model would show.
    """
    if not profile.is_statistical:
        return (
            _no_worse("brier_vs_proxy", proxy, "brier_difference_ppb", _BRIER),
            _no_worse("ece_vs_proxy", proxy, "ece_difference_ppm", "ECE less that of"),
            _ece_constant(profile, calibration),
        )
    against_champion: tuple[GateResult, ...] = ()
    if champion is not None:
        margin_ppm = profile.simpler_margin_ppm if champion.is_simpler else None
        against_champion = (
            _better("brier_vs_champion", champion, profile, margin_ppm),
            _better("log_loss_vs_champion", champion, profile, margin_ppm),
        )
    return (
        _better("brier_vs_proxy", proxy, profile, None),
        _better("log_loss_vs_proxy", proxy, profile, None),
        *against_champion,
        _improvement(calibration),
        _overlap(
            "calibration_slope",
            None if calibration is None else calibration.slope,
            profile.slope_low_ppm,
            profile.slope_high_ppm,
        ),
        _overlap(
            "calibration_intercept",
            None if calibration is None else calibration.intercept,
            -profile.intercept_max_ppm,
            profile.intercept_max_ppm,
        ),
        _ece_band(calibration),
    )


def _no_worse(name: str, proxy: ScoreComparison | None, field: str, evidence: str) -> GateResult:
    if proxy is None:
        return unmeasured(name, "<= 0", f"{evidence} the proxy")
    value = getattr(proxy, field)
    number = _nats(value) if field.endswith("_ppb") else percent(value)
    return choice(name, number, "<= 0", f"{evidence} {proxy.baseline}", passes=value <= 0)


def _better(
    name: str, found: ScoreComparison | None, profile: PromotionProfile, margin_ppm: int | None
) -> GateResult:
    """Judge a proper score: better with confidence, or not worse by a margin if simpler."""
    score, _, _ = name.partition("_vs_")
    evidence = _BRIER if score == "brier" else _LOG_LOSS
    if found is None:
        return unmeasured(name, _BETTER, f"{evidence} the proxy")
    point = getattr(found, f"{score}_difference_ppb")
    upper = getattr(found, f"{score}_upper_ppb")
    allowed = 0
    bound = _BETTER
    if margin_ppm is not None:
        allowed = getattr(found, f"{score}_uncertainty_ppb") * margin_ppm // PPM_ONE
        bound = f"upper 95% bound < {_nats(allowed)} (simpler)"
    is_known = found.row_count >= profile.row_count_min
    verdict = Verdict.PASSED if is_known else Verdict.INSUFFICIENT
    if upper >= allowed:
        verdict = Verdict.INSUFFICIENT if point < allowed or not is_known else Verdict.FAILED
    return GateResult(
        name=name,
        number=f"{_nats(point)}, bound {_nats(upper)}",
        bound=bound,
        verdict=verdict,
        evidence=f"{evidence} {found.baseline}, {found.row_count} rows",
    )


def _improvement(found: CalibrationMeasures | None) -> GateResult:
    evidence = "log loss that calibration takes away"
    if found is None:
        return unmeasured("post_hoc_improvement", ">= 0", evidence)
    gained = found.log_loss_raw_ppb - found.log_loss_ppb
    return choice("post_hoc_improvement", _nats(gained), ">= 0", evidence, passes=gained >= 0)


def _overlap(name: str, found: IntervalPpm | None, low: int, high: int) -> GateResult:
    bound = f"95% interval meets [{low / PPM_ONE:g}, {high / PPM_ONE:g}]"
    evidence = "line of calibration"
    if found is None:
        return unmeasured(name, bound, evidence)
    values = (found.low_ppm, found.value_ppm, found.high_ppm)
    below, value, above = (f"{one / PPM_ONE:.4f}" for one in values)
    meets = found.low_ppm <= high and found.high_ppm >= low
    return choice(name, f"{value} [{below}, {above}]", bound, evidence, passes=meets)


def _ece_band(found: CalibrationMeasures | None) -> GateResult:
    evidence = "ECE beside that of a perfect model"
    if found is None:
        return unmeasured("ece_null_band", "inside the band", evidence)
    bound = f"<= {percent(found.ece_null_high_ppm)}"
    passes = found.ece_ppm <= found.ece_null_high_ppm
    return choice("ece_null_band", percent(found.ece_ppm), bound, evidence, passes=passes)


def _ece_constant(profile: PromotionProfile, found: CalibrationMeasures | None) -> GateResult:
    assert profile.ece_max_ppm is not None
    bound = f"<= {percent(profile.ece_max_ppm)}"
    if found is None:
        return unmeasured("ece", bound, "ECE")
    passes = found.ece_ppm <= profile.ece_max_ppm
    return choice("ece", percent(found.ece_ppm), bound, "ECE", passes=passes)


def _nats(value_ppb: int) -> str:
    return f"{value_ppb / 1e9:+.6f}"
