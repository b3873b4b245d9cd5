"""Say which features have drifted, by a rule that is named.

Seed 003's rule calls every feature drifted whose last 100 rows differ from the rows before by a
KS test at 5%. Market features remember: at an autocorrelation of .9 that rule rings on three
checks of four where nothing has changed, and with fifteen features it never stops. The default
asks the same question of as many rows as would be left if they were thinned until they are
independent, and then bounds the share of false alarms among the features that are called. The
distance is still taken over all rows, because thinning itself throws away what they say.

Source: seed 003, section 12.11; Sokal 1997 (autocorrelation time); Benjamini and Hochberg 1995;
QUANT 0.4 and A8; decision D19.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec
import numpy as np

from detent.contracts.checks import check_int
from detent.contracts.errors import InvalidField
from detent.contracts.units import INT32_MAX
from detent.core.evaluation.distances import (
    Floats,
    bin_shares,
    jensen_shannon_distance,
    ks_distance,
    ks_p_value,
    population_stability_index,
    psi_null_band,
    wasserstein_distance,
)

SEED_RECENT_ROWS = 100
SEED_P_VALUE = 0.05
STANDARD_RECENT_ROWS = 500
FALSE_DISCOVERY_RATE = 0.05
# A single row says nothing of a distribution; with two and more the exact test knows how little.
EFFECTIVE_ROWS_MIN = 2
# How many autocorrelation times a sum of autocorrelations spans before it is noise.
_SOKAL_WINDOW = 5.0


class DriftRule(StrEnum):
    """Names what calls a feature drifted; the list may grow."""

    STANDARD = "effective_rows_fdr"
    SEED = "seed_ks"


class DriftVerdict(StrEnum):
    """Says what a rule found of one feature."""

    STEADY = "steady"
    DRIFTED = "drifted"
    TOO_FEW_ROWS = "too_few_rows"


class FeatureDrift(msgspec.Struct, frozen=True, kw_only=True):
    """Holds how far one feature's recent rows lie from the reference.

    Attributes:
        feature: Name.
        verdict: What the rule says.
        reference_rows: Rows of the reference.
        current_rows: Recent rows.
        effective_rows: How many independent rows the recent ones are worth.
        ks: KS distance.
        p_value: Its p-value by the rule; None with too few rows.
        wasserstein: Wasserstein distance, in units of the feature.
        psi: Population stability index over quantile bins of the reference.
        psi_high: What the PSI of so many effective rows stays below with chance .95.
        js: Jensen-Shannon distance over the same bins, base 2.
    """

    feature: str
    verdict: DriftVerdict
    reference_rows: int
    current_rows: int
    effective_rows: int
    ks: float
    p_value: float | None
    wasserstein: float
    psi: float
    psi_high: float
    js: float


def recent_rows(rule: DriftRule) -> int:
    """Give how many of the newest rows a rule looks at."""
    return SEED_RECENT_ROWS if rule is DriftRule.SEED else STANDARD_RECENT_ROWS


def feature_drift(
    reference: Mapping[str, Floats], current: Mapping[str, Floats], *, rule: DriftRule
) -> tuple[FeatureDrift, ...]:
    """Judge every feature of the reference against its recent rows.

    The guarantee is per check: whoever checks every hour sees the false alarms of every hour.

    Args:
        reference: Per feature, rows in the order of time; shape (n,), float64, finite.
        current: The same features, rows after those; shape (m,), m at least 1.
        rule: What calls a feature drifted.

    Returns:
        One entry per feature, in the order of the reference.

    Raises:
        InvalidField: The features differ, or a sample is empty or not finite.
    """
    if set(reference) != set(current):
        raise InvalidField("current", sorted(current), f"the features {sorted(reference)}")
    measured = [_measured(name, reference[name], current[name], rule) for name in reference]
    if rule is DriftRule.SEED:
        called = [one.p_value is not None and one.p_value < SEED_P_VALUE for one in measured]
    else:
        called = false_discovery_calls([one.p_value for one in measured])
    return tuple(
        msgspec.structs.replace(one, verdict=DriftVerdict.DRIFTED) if drifted else one
        for one, drifted in zip(measured, called, strict=True)
    )


def false_discovery_calls(
    p_values: Sequence[float | None], *, rate: float = FALSE_DISCOVERY_RATE
) -> list[bool]:
    """Call what Benjamini and Hochberg's procedure calls; None is never called nor counted."""
    known = sorted(value for value in p_values if value is not None)
    bound = max(
        (
            value
            for rank, value in enumerate(known, start=1)
            if value <= rate * rank / max(1, len(known))
        ),
        default=-1.0,
    )
    return [value is not None and value <= bound for value in p_values]


def memory_rows(values: Floats) -> float:
    """Give how many rows are worth one independent row to a comparison of distributions.

    Returns hardly remember their sign and long remember their size, and a distribution is both:
    the longer of the two memories counts.

    Args:
        values: Shape (n,), float64, in the order of time.
    """
    size = np.abs(values - np.median(values))
    return max(autocorrelation_time(values), autocorrelation_time(size))


def autocorrelation_time(values: Floats) -> float:
    """Give how many rows of a series are worth one independent row, at least 1.

    The sum of the autocorrelations, cut at the first lag that is five times the sum so far
    (Sokal's window). A constant series gives 1: it has nothing to remember.

    Args:
        values: Shape (n,), float64, in the order of time.
    """
    centred = values - np.mean(values)
    count = len(centred)
    spectrum = np.fft.rfft(centred, 2 * count)
    products = np.fft.irfft(spectrum * np.conj(spectrum), 2 * count)[:count]
    if products[0] <= 0.0:
        return 1.0
    sums = 2.0 * np.cumsum(products / products[0]) - 1.0
    far_enough = np.flatnonzero(np.arange(count) >= _SOKAL_WINDOW * sums)
    cut = far_enough[0] if len(far_enough) else count - 1
    return max(1.0, float(sums[cut]))


def _measured(name: str, reference: Floats, current: Floats, rule: DriftRule) -> FeatureDrift:
    distance = ks_distance(reference, current)
    rows = (len(reference), len(current))
    if rule is DriftRule.STANDARD:
        # Of the reference alone: a shift within the recent rows would look like memory.
        memory = memory_rows(reference)
        rows = (max(1, int(rows[0] / memory)), max(1, int(rows[1] / memory)))
    for count in rows:
        check_int(name, count, 1, INT32_MAX)
    enough = rule is DriftRule.SEED or min(rows) >= EFFECTIVE_ROWS_MIN
    shares = bin_shares(reference, current)
    _, psi_high = psi_null_band(*rows, bin_count=max(2, len(shares[0])))
    return FeatureDrift(
        feature=name,
        verdict=DriftVerdict.STEADY if enough else DriftVerdict.TOO_FEW_ROWS,
        reference_rows=len(reference),
        current_rows=len(current),
        effective_rows=rows[1],
        ks=distance,
        p_value=ks_p_value(distance, *rows) if enough else None,
        wasserstein=wasserstein_distance(reference, current),
        psi=population_stability_index(*shares),
        psi_high=psi_high,
        js=jensen_shannon_distance(*shares),
    )
