"""Fit the two monotone tables: isotonic and Venn-Abers.

Both follow from counts of rows alone, so the same rows give the same table everywhere.

Source: Zadrozny and Elkan 2002; Vovk, Petej and Fedorova 2015; QUANT section A1.
"""

from decimal import Decimal

import numpy as np

from detent.contracts.calibration import IsotonicSpec, VennAbersSpec
from detent.contracts.calibration_tables import KNOTS_MAX
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason
from detent.core.signals.binary_maps import Floats, clipped
from detent.core.signals.calibration import PARAMETER_STEP, Labels
from detent.core.signals.score_groups import (
    Block,
    Point,
    ScoreGroups,
    pool_violators,
    shares_as_hit,
    shares_as_miss,
)


def fit_isotonic(p_hat_raw: Floats, labels: Labels) -> IsotonicSpec:
    """Fit the best monotone map, with straight lines between its blocks.

    A block at an end may hold one class only, and a share of 0 or 1 would claim to be
    certain: values stay within 1 / (n + 2) of either end, as if one row of each class had
    been seen before.

    Args:
        p_hat_raw: Shape (n,), float64, each in [0, 1], of rows that training did not see.
        labels: Shape (n,), bool, up or not.

    Raises:
        ArtifactInvalid: There are no rows, or the best map is a constant.
    """
    groups = _groups(p_hat_raw, labels, None)
    knots = isotonic_knots(groups)
    if len(knots) > KNOTS_MAX:
        knots = isotonic_knots(_groups(p_hat_raw, labels, KNOTS_MAX // 2))
    if len({block.first for _, block in knots}) == 1:
        raise _failed(f"{len(labels)} rows without an order", "a map that is no constant")
    low, high = Decimal(1) / (len(labels) + 2), 1 - Decimal(1) / (len(labels) + 2)
    shares = [Decimal(block.ups) / Decimal(block.rows) for _, block in knots]
    return IsotonicSpec(
        x=tuple(Decimal(str(place)) for place, _ in knots),
        y=tuple(_rounded(min(max(share, low), high)) for share in shares),
    )


def isotonic_knots(groups: ScoreGroups) -> list[tuple[float, Block]]:
    """Give both ends of every block of the best monotone map, in ascending order."""
    knots = []
    for block in pool_violators(groups.rows, groups.ups):
        ends = {groups.low[block.first], groups.high[block.last]}
        knots += [(place, block) for place in sorted(ends)]
    return knots


def fit_venn_abers(p_hat_raw: Floats, labels: Labels) -> VennAbersSpec:
    """Fit the map of an inductive Venn-Abers predictor, as a table.

    Args:
        p_hat_raw: Shape (n,), float64, each in [0, 1], of rows that training did not see.
        labels: Shape (n,), bool, up or not.

    Raises:
        ArtifactInvalid: There are no rows.
    """
    groups = _groups(p_hat_raw, labels, None)
    if len(groups.rows) > KNOTS_MAX:
        # A group of several scores takes two places of the table.
        groups = _groups(p_hat_raw, labels, KNOTS_MAX // 2)
    at, between = venn_abers_shares(groups)
    places: list[tuple[float, Decimal]] = []
    gaps = [_rounded(between[0])]
    for group, share in enumerate(at):
        value, above = _rounded(share), _rounded(between[group + 1])
        low, high = groups.low[group], groups.high[group]
        for place, gap in ((low, value), (high, above)) if low < high else ((low, above),):
            places.append((place, value))
            gaps.append(gap)
    kept = [
        index
        for index, (_, value) in enumerate(places)
        if index == 0 or not gaps[index] == value == gaps[index + 1]
    ]
    return VennAbersSpec(
        x=tuple(Decimal(str(places[index][0])) for index in kept),
        at=tuple(places[index][1] for index in kept),
        between=(gaps[0], *(gaps[index + 1] for index in kept)),
    )


def venn_abers_shares(groups: ScoreGroups) -> tuple[list[Decimal], list[Decimal]]:
    """Give p1 / (1 - p0 + p1) at every group, and below, between and above the groups.

    A score between two groups is one more row of the group above it if it is a hit, and of
    the group below it if it is a miss.
    """
    hits = shares_as_hit(groups.rows, groups.ups)
    misses = shares_as_miss(groups.rows, groups.ups)
    at = [_merged(miss, hit) for miss, hit in zip(misses, hits, strict=True)]
    neighbours = zip([(0, 1), *misses], [*hits, (1, 1)], strict=True)
    return at, [_merged(miss, hit) for miss, hit in neighbours]


def _merged(miss: Point, hit: Point) -> Decimal:
    """Give p1 / (1 - p0 + p1) of p0 = miss and p1 = hit, each (ups, rows)."""
    hit_share = hit[0] * miss[1]
    return Decimal(hit_share) / Decimal((miss[1] - miss[0]) * hit[1] + hit_share)


def _groups(p_hat_raw: Floats, labels: Labels, groups_max: int | None) -> ScoreGroups:
    if len(labels) == 0 or p_hat_raw.shape != labels.shape:
        raise _failed(f"{p_hat_raw.shape} scores for {labels.shape} labels", "a score each")
    if not np.all((p_hat_raw >= 0.0) & (p_hat_raw <= 1.0)):
        raise _failed("a score that is no probability", "probabilities in [0, 1]")
    return ScoreGroups.of(clipped(p_hat_raw), labels, groups_max=groups_max)


def _rounded(share: Decimal) -> Decimal:
    return share.quantize(PARAMETER_STEP)


def _failed(found: str, expected: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"calibration: found {found}, expected {expected}",
        gate_reason=Reason.CALIBRATION_FAILED,
        found=found,
        expected=expected,
    )
