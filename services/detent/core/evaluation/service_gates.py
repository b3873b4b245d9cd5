"""Judge how a candidate answered while it ran unused: how long, how late, how often not.

The forerunner's runbooks asked a person to look these numbers up. Here they are counted from the
rows of the shadow, and a shadow that is too short or too thin is no evidence.

Source: FORMULAS, runbook gates (GRINDER runbooks 18 and 19); decision D13; row R332.
"""

from collections.abc import Callable, Collection, Iterable

import msgspec

from detent.contracts.reasons import Reason
from detent.contracts.units import PPM_ONE
from detent.core.evaluation.gates import GateResult, Verdict, choice, percent, unmeasured
from detent.core.evaluation.measures import ServiceMeasures
from detent.core.evaluation.profiles import PromotionProfile, ServiceBounds
from detent.core.rollout.latch import MEANT

_HOUR_MS = 3_600_000
_THOUSAND = 1_000


class ShadowRow(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what one row of a shadow says of the service.

    Attributes:
        ts_ms: Close of the bar.
        latency_us: How long asking took, microseconds.
        reason: Why there is no answer; None with one.
    """

    ts_ms: int
    latency_us: int
    reason: Reason | None


def measure_service(rows: Iterable[ShadowRow], *, bar_interval_ms: int) -> ServiceMeasures | None:
    """Count what a shadow's rows say; None without a row.

    A row that nobody was to answer, because somebody wanted the model off, is no row. Every
    other one without an answer is an error, whoever is at fault, and its latency counts.

    Args:
        rows: Rows of one binding, in any order.
        bar_interval_ms: Length of a bar: each bar that was asked for covers so much time.
    """
    asked = [row for row in rows if row.reason not in MEANT]
    if not asked:
        return None
    latencies = sorted(row.latency_us for row in asked)
    return ServiceMeasures(
        row_count=len(asked),
        error_count=sum(row.reason is not None for row in asked),
        covered_ms=len({row.ts_ms for row in asked}) * bar_interval_ms,
        p99_us=nearest_rank(latencies, 990),
        p999_us=nearest_rank(latencies, 999),
    )


def nearest_rank(ordered: Collection[int], permille: int) -> int:
    """Give the quantile that at least so many of a thousand values do not exceed.

    Args:
        ordered: Values, rising, at least one.
        permille: Share, (0, 1000].
    """
    values = tuple(ordered)
    return values[-(-len(values) * permille // _THOUSAND) - 1]


def service_gates(
    profile: PromotionProfile, found: ServiceMeasures | None
) -> tuple[GateResult, ...]:
    """Judge the shadow by a profile; one that asks for none has no gate here."""
    bounds = profile.service
    if bounds is None:
        return ()
    results = [_enough(bounds, found)]
    is_thin = results[0].verdict is not Verdict.PASSED
    results.append(_long(bounds, found))
    asked: tuple[tuple[str, int, Callable[[ServiceMeasures], int], Callable[[int], str], str], ...]
    asked = (
        ("shadow_p99", bounds.p99_below_us, lambda one: one.p99_us, _milliseconds, "slowest 1%"),
        (
            "shadow_p999",
            bounds.p999_below_us,
            lambda one: one.p999_us,
            _milliseconds,
            "slowest 0.1%",
        ),
        ("shadow_errors", bounds.errors_below_ppm, _errors_ppm, percent, "rows without an answer"),
    )
    for name, below, value_of, written, evidence in asked:
        bound = f"< {written(below)}"
        if found is None:
            results.append(unmeasured(name, bound, evidence))
            continue
        gate = choice(
            name, written(value_of(found)), bound, evidence, passes=value_of(found) < below
        )
        if is_thin and gate.verdict is Verdict.PASSED:
            gate = msgspec.structs.replace(
                gate, verdict=Verdict.INSUFFICIENT, evidence=f"{evidence}; too few to tell"
            )
        results.append(gate)
    return tuple(results)


def _enough(bounds: ServiceBounds, found: ServiceMeasures | None) -> GateResult:
    bound, evidence = f">= {bounds.row_count_min}", "rows of the shadow"
    if found is None:
        return unmeasured("shadow_rows", bound, evidence)
    is_enough = found.row_count >= bounds.row_count_min
    return GateResult(
        name="shadow_rows",
        number=str(found.row_count),
        bound=bound,
        verdict=Verdict.PASSED if is_enough else Verdict.INSUFFICIENT,
        evidence=evidence,
    )


def _long(bounds: ServiceBounds, found: ServiceMeasures | None) -> GateResult:
    bound, evidence = f">= {bounds.covered_ms_min / _HOUR_MS:g}", "hours of bars in the shadow"
    if found is None:
        return unmeasured("shadow_hours", bound, evidence)
    is_long = found.covered_ms >= bounds.covered_ms_min
    return GateResult(
        name="shadow_hours",
        number=f"{found.covered_ms / _HOUR_MS:.2f}",
        bound=bound,
        verdict=Verdict.PASSED if is_long else Verdict.INSUFFICIENT,
        evidence=evidence,
    )


def _errors_ppm(found: ServiceMeasures) -> int:
    # Rounded up: a share just below a bound never reads as below it by rounding.
    return -(-found.error_count * PPM_ONE // found.row_count)


def _milliseconds(value_us: int) -> str:
    return f"{value_us / _THOUSAND:.3f} ms"
