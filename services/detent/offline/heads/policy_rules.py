"""Discover rules that say which policy did best, and keep those that hold on later rows.

For people who write policies; nothing that serves ever imports it (R256). A rule is a leaf of a
small tree: bounds on features, and the policy that did best within them.

Source: seed 003, section 12.7, use case 4; row R256.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier

from detent.contracts.canonical import canonical_bytes, parse_json
from detent.contracts.checks import check_int
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.units import BPS_ONE, INT64_MAX
from detent.offline.cells import (
    check_filled,
    columns_of,
    input_cell,
    integer_cell,
    invalid,
    invalid_at,
    raw_cells,
)
from detent.offline.walk_forward.export import floor_float32
from detent.offline.walk_forward.folds import Fold, FoldPlan, walk_forward

DEPTH_MAX = 5
LEAF_ROWS_MIN = 100
VALIDATION_ROWS_MIN = 30
# One-sided, 95%: of the share of held-out rows in which the rule was right.
Z_95 = 1.6448536269514722
KEYS = ("ts_ms", "settled_ts_ms", "best_policy")


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds one feature: above `above`, up to `up_to`; None is no bound."""

    feature: str
    above: Decimal | None
    up_to: Decimal | None


class PolicyRule(msgspec.Struct, frozen=True, kw_only=True):
    """Says which policy did best within some bounds.

    Attributes:
        bounds: On features, by name, each once.
        policy: The policy.
        rows: Rows that it was learnt from.
        right_bps: Share of those in which the policy did best.
        held_out_rows: Later rows within the bounds; 0 before validation.
        held_out_right_bps: Share of those in which it did best.
        held_out_low_bps: Lower end of a one-sided 95% bound of that share.
    """

    bounds: tuple[Bound, ...]
    policy: str
    rows: int
    right_bps: int
    held_out_rows: int = 0
    held_out_right_bps: int = 0
    held_out_low_bps: int = 0


class RuleSet(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the rules that hold, and how many did not.

    Attributes:
        features: Names of the features.
        rules: The rules that hold, the widest first.
        dropped: Rules that did not.
    """

    SCHEMA: ClassVar[str] = "detent.policy_rules.v1"

    features: tuple[str, ...]
    rules: tuple[PolicyRule, ...]
    dropped: int


class PolicyRows(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds market conditions and the policy that did best in them, in the order of time."""

    ts_ms: NDArray[np.int64]
    settled_ts_ms: NDArray[np.int64]
    features: tuple[str, ...]
    values: NDArray[np.float32]
    best: NDArray[np.str_]


def read_policy_rows(path: Path) -> PolicyRows:
    """Read a file with `KEYS`; every other column is a feature.

    Raises:
        DataInvalid: A row is not what it should be; the error names it.
    """
    features = tuple(name for name in columns_of(path) if name not in KEYS)
    if not features:
        raise invalid(path.name, "no feature", f"columns beside {', '.join(KEYS)}")
    found: list[tuple[int, int, list[float], str]] = []
    for row, cells in raw_cells(path, (*KEYS, *features)):
        check_filled(path.name, row, cells, (*KEYS, *features))
        try:
            placed, settled = (integer_cell(name, cells[name]) for name in KEYS[:2])
            check_int("settled_ts_ms", settled, placed + 1, INT64_MAX)
            values = [input_cell(name, cells[name]) for name in features]
        except InvalidField as error:
            raise invalid_at(path.name, row, error) from error
        found.append((placed, settled, values, str(cells["best_policy"])))
    found.sort(key=lambda row: row[0])
    return PolicyRows(
        ts_ms=np.array([row[0] for row in found], dtype=np.int64),
        settled_ts_ms=np.array([row[1] for row in found], dtype=np.int64),
        features=features,
        values=np.array([row[2] for row in found], dtype=np.float32),
        best=np.array([row[3] for row in found], dtype=np.str_),
    )


def discover_rules(rows: PolicyRows, plan: FoldPlan, *, seed: int) -> RuleSet:
    """Learn rules on the training rows of the last fold, and validate each on its test rows.

    Raises:
        DataInvalid: There are too few rows.
    """
    fold: Fold = walk_forward(rows.ts_ms, rows.settled_ts_ms, plan)[-1]
    learnt = learn_rules(rows.values[fold.train], rows.best[fold.train], rows.features, seed=seed)
    judged = [
        validated(rule, rows.values[fold.test], rows.best[fold.test], rows.features)
        for rule in learnt
    ]
    shares = {name: float(np.mean(rows.best[fold.train] == name)) for name in set(rows.best)}
    kept = [rule for rule in judged if holds(rule, shares[rule.policy])]
    return RuleSet(
        features=rows.features,
        rules=tuple(sorted(kept, key=lambda rule: (-rule.rows, rule.policy))),
        dropped=len(learnt) - len(kept),
    )


def learn_rules(
    values: NDArray[np.float32], best: NDArray[np.str_], features: Sequence[str], *, seed: int
) -> list[PolicyRule]:
    """Fit the tree and read a rule off each of its leaves."""
    tree = DecisionTreeClassifier(
        max_depth=DEPTH_MAX, min_samples_leaf=LEAF_ROWS_MIN, random_state=seed
    ).fit(values, best)
    tree.tree_.threshold[:] = floor_float32(tree.tree_.threshold)
    return list(_leaves(tree, features))


def _leaves(tree: Any, features: Sequence[str]) -> Iterable[PolicyRule]:
    nodes = tree.tree_
    waiting: list[tuple[int, dict[str, tuple[Decimal | None, Decimal | None]]]] = [(0, {})]
    while waiting:
        node, held = waiting.pop()
        left, right = int(nodes.children_left[node]), int(nodes.children_right[node])
        if left < 0:
            shares = nodes.value[node][0] / nodes.value[node][0].sum()
            place = int(np.argmax(shares))
            yield PolicyRule(
                bounds=tuple(
                    Bound(feature=name, above=above, up_to=up_to)
                    for name, (above, up_to) in sorted(held.items())
                ),
                policy=str(tree.classes_[place]),
                rows=int(nodes.n_node_samples[node]),
                right_bps=round(float(shares[place]) * BPS_ONE),
            )
            continue
        name, cut = features[int(nodes.feature[node])], _decimal(nodes.threshold[node])
        above, up_to = held.get(name, (None, None))
        waiting.append((right, held | {name: (cut, up_to)}))
        waiting.append((left, held | {name: (above, cut)}))


def _decimal(threshold: float) -> Decimal:
    """Give the shortest text that reads back as the same float32."""
    return Decimal(str(np.float32(threshold)))


def within(
    rule: PolicyRule, values: NDArray[np.float32], features: Sequence[str]
) -> NDArray[np.bool_]:
    """Say of each row whether a rule covers it."""
    covered = np.ones(len(values), dtype=np.bool_)
    for bound in rule.bounds:
        column = values[:, list(features).index(bound.feature)]
        if bound.above is not None:
            covered &= column > np.float32(bound.above)
        if bound.up_to is not None:
            covered &= column <= np.float32(bound.up_to)
    return covered


def validated(
    rule: PolicyRule,
    values: NDArray[np.float32],
    best: NDArray[np.str_],
    features: Sequence[str],
) -> PolicyRule:
    """Measure a rule on rows that it was not learnt from."""
    covered = within(rule, values, features)
    count = int(covered.sum())
    right = int(np.sum(best[covered] == rule.policy))
    return msgspec.structs.replace(
        rule,
        held_out_rows=count,
        held_out_right_bps=round(right / count * BPS_ONE) if count else 0,
        held_out_low_bps=round(wilson_low(right, count) * BPS_ONE),
    )


def holds(rule: PolicyRule, base_share: float) -> bool:
    """Say whether a rule held: enough later rows, and right more often than saying it always."""
    enough = rule.held_out_rows >= VALIDATION_ROWS_MIN
    return enough and rule.held_out_low_bps > round(base_share * BPS_ONE)


def wilson_low(right: int, count: int) -> float:
    """Give the lower end of Wilson's one-sided 95% bound of a share; 0 where nothing was seen."""
    if count == 0:
        return 0.0
    share, square = right / count, Z_95 * Z_95
    middle = share + square / (2 * count)
    reach = Z_95 * float(np.sqrt(share * (1 - share) / count + square / (4 * count * count)))
    return max(0.0, (middle - reach) / (1 + square / count))


def rules_bytes(rules: RuleSet) -> bytes:
    """Give the rules as canonical JSON."""
    return canonical_bytes(RuleSet.SCHEMA, to_json(rules))


def parse_rules(text: bytes) -> RuleSet:
    """Read rules.

    Raises:
        InvalidField: The text holds none.
    """
    fields = parse_json("policy_rules", text)
    if fields.get("schema") != RuleSet.SCHEMA:
        raise InvalidField("schema", fields.get("schema"), RuleSet.SCHEMA)
    return from_json(RuleSet, fields)


def rule_text(rule: PolicyRule) -> str:
    """Write a rule for a person."""
    words = []
    for bound in rule.bounds:
        low = "" if bound.above is None else f"{bound.above:.6g} < "
        high = "" if bound.up_to is None else f" <= {bound.up_to:.6g}"
        words.append(f"{low}{bound.feature}{high}")
    return f"{' and '.join(words) or 'always'}: {rule.policy}"
