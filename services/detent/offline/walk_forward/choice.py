"""Choose among candidates by what they said out of fold; of two that tie, the simpler stays.

A more complex candidate takes the place of a simpler one only if the upper end of a one-sided
95% bound of its log loss minus the other's lies below zero: paired by bar, a bar being the mean
over its symbols, with the variance of Newey and West because labels overlap.

Source: QUANT A9 and C5; rows R163 and R164.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import msgspec

from detent.contracts.errors import DataInvalid
from detent.core.evaluation.paired_loss import (
    CONFIDENCE,
    Ints,
    bar_means,
    hac_mean,
    log_losses,
)
from detent.core.evaluation.scores import Floats, Labels
from detent.core.evaluation.simplicity import is_simpler

PPB_ONE = 10**9
_QUANTILE = NormalDist().inv_cdf(CONFIDENCE)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Records how a candidate did beside the one that it would replace.

    Attributes:
        architecture_id: The more complex one.
        beside: The simpler one.
        difference_ppb: Mean log loss of the first minus that of the second, 1e-9 nats.
        bound_ppb: What the difference stays below, with 95% confidence.
        replaced: Whether the more complex one was taken: the bound is below zero.
    """

    architecture_id: str
    beside: str
    difference_ppb: int
    bound_ppb: int
    replaced: bool


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Records what was chosen and why.

    Attributes:
        architecture_id: The choice.
        comparisons: In the order in which they were made.
        reason: The same in words.
    """

    architecture_id: str
    comparisons: tuple[Comparison, ...]
    reason: str


def choose(said: Mapping[str, Floats], labels: Labels, ts_ms: Ints, *, horizon_bars: int) -> Choice:
    """Choose a candidate.

    Args:
        said: By architecture, shape (n,): calibrated probabilities out of fold.
        labels: Shape (n,).
        ts_ms: Shape (n,): close of the bar of each row.
        horizon_bars: How far labels look ahead, and so how many neighbours depend.

    Raises:
        DataInvalid: There is no candidate.
    """
    if not said:
        expected = "at least one candidate with a calibration in every fold"
        raise DataInvalid(f"found no candidate, expected {expected}", expected=expected)
    first, *others = simplest_first(tuple(said))
    kept, comparisons = first, []
    for other in others:
        found = compare(other, kept, said, labels, ts_ms, horizon_bars=horizon_bars)
        comparisons.append(found)
        kept = other if found.replaced else kept
    return Choice(
        architecture_id=kept,
        comparisons=tuple(comparisons),
        reason=_reason(kept, comparisons),
    )


def simplest_first(architecture_ids: Sequence[str]) -> list[str]:
    """Order architectures by how simple they are; ties stay in their order."""

    def order(first: str, second: str) -> int:
        return -1 if is_simpler(first, second) else int(is_simpler(second, first))

    return sorted(architecture_ids, key=functools.cmp_to_key(order))


def compare(
    architecture_id: str,
    beside: str,
    said: Mapping[str, Floats],
    labels: Labels,
    ts_ms: Ints,
    *,
    horizon_bars: int,
) -> Comparison:
    """Bound the difference of two candidates' log losses."""
    excess = log_losses(said[architecture_id], labels) - log_losses(said[beside], labels)
    means = bar_means(ts_ms, excess)
    # As many neighbours as labels overlap, and no fewer than the usual rule of thumb.
    lags = max(horizon_bars, math.ceil(4.0 * (len(means) / 100.0) ** (2.0 / 9.0)))
    found = hac_mean(means, lags)
    bound_ppb = round((found.mean + _QUANTILE * found.standard_error) * PPB_ONE)
    return Comparison(
        architecture_id=architecture_id,
        beside=beside,
        difference_ppb=round(found.mean * PPB_ONE),
        bound_ppb=bound_ppb,
        replaced=bound_ppb < 0,
    )


def _reason(kept: str, comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return f"{kept}: the only candidate"
    words = []
    for one in comparisons:
        verdict = "takes its place" if one.replaced else "is no better"
        words.append(
            f"{one.architecture_id} beside {one.beside}: {one.difference_ppb} ppb of log loss, "
            f"below {one.bound_ppb} with 95%, so {verdict}"
        )
    return f"{kept}. " + "; ".join(words)
