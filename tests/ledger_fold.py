"""Decides a whole ledger a second time: folds its text into cases for the reference.

It reads what an auditor reads, the canonical text of the records, and none of the product's
code: what policy remembers between bars is kept here a second time, from the rules alone.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from tests.reference_policy import (
    EXIT_ONLY,
    INACTIVE,
    LONG,
    NO_INTENT,
    NONE,
    SHORT,
    WITH_RULE,
    WITHOUT_RULE,
    Cases,
    Weights,
)

TRIGGERS = {
    "inactive": INACTIVE,
    "long_allowed": LONG,
    "short_allowed": SHORT,
    "exit_only": EXIT_ONLY,
}
# Plan, symbol, bar, kind.
Key = tuple[str, str, int, str]


class Fold(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a ledger asked and what it answered, one entry per record.

    Attributes:
        keys: Of the records.
        cases: What they asked.
        found: What they answered.
        turned_count: Positions that were seen to have been turned around.
    """

    keys: list[Key]
    cases: Cases
    found: Weights
    turned_count: int


def fold(
    records: Sequence[Mapping[str, Any]], plans: Mapping[str, Any], standing: set[Key]
) -> Fold:
    """Turn records, in the order of writing, into cases and answers.

    Args:
        records: Rows with their canonical text.
        plans: The canonical plans by name, as JSON.
        standing: The bars on which the service, and not the row, stood a symbol down.
    """
    memory: dict[tuple[str, str], dict[str, int | None]] = {}
    rows: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    keys: list[Key] = []
    turned_count = 0
    for stored in records:
        record = json.loads(stored["canonical"])
        plan = plans[record["plan_id"]]
        symbol = record["row"]["symbol"]
        key = (record["plan_id"], symbol, record["ts_ms"], record["kind"])
        past = memory.setdefault((record["plan_id"], symbol), _taken_over(record))
        turned_count += _look(record, past)
        rows.append(_case(record, plan, past, stands=key in standing))
        answers.append(_answer(record))
        keys.append(key)
        _remember(record, past)
    return Fold(
        keys=keys,
        cases=Cases(**{name: _column(rows, name) for name in Cases.__struct_fields__}),
        found=Weights(**{name: _column(answers, name) for name in Weights.__struct_fields__}),
        turned_count=turned_count,
    )


def _taken_over(record: Mapping[str, Any]) -> dict[str, int | None]:
    """Begin where the plan that was replaced had ended; only a first record says so."""
    state = record["carried"]["state"] if "carried" in record else {}
    names = {
        "rebalance": "last_rebalance_ts_ms",
        "entry": "entry_ts_ms",
        "latch": "latched_ts_ms",
        "left": "reversing_from_ppm",
    }
    return {name: state.get(key) for name, key in names.items()}


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    values = [row[name] for row in rows]
    return np.array(values, dtype=bool if isinstance(values[0], bool) else np.int64)


def _case(
    record: Mapping[str, Any], plan: Mapping[str, Any], past: Mapping[str, Any], *, stands: bool
) -> dict[str, Any]:
    row, config, limits = record["row"], plan["policy_config"], plan["risk_limits"]
    ts_ms, overrides = record["ts_ms"], row["risk_overrides"] or {}
    asked = overrides.get("stand_down")
    caps = {cap["symbol"]: cap["max_weight_ppm"] for cap in limits["symbol_caps"]}
    alphas = {one["horizon_id"]: one["alpha_ppm"] for one in config["alpha_by_horizon"]}
    long_shut, short_shut = _shut(plan.get("l2_limits"), row.get("l2_snapshot"), ts_ms)
    intents = [row["exit_intent"], *row.get("further_exit_intents", [])]
    intents = [intent for intent in intents if intent is not None]
    return {
        "trigger": TRIGGERS[row["trigger_state"]],
        "known": _known(row, plan),
        "strength_bps": _strength(record["signal"]),
        "vol_hat_ppm": row["vol_hat_ppm"] or 0,
        "current_ppm": row["position"]["current_weight_ppm"],
        "equity_cents": _cents(row["position"]["equity"]),
        "intent": _emergency(intents),
        "emergency_only": record["kind"] == "emergency",
        "override_cap_ppm": _or_none(overrides.get("max_weight_ppm")),
        "stands_down": stands or (asked is not None and ts_ms < asked["until_ts_ms"]),
        "tau_bps": config["tau_bps"],
        "vol_target_ppm": config["vol_target_ppm"],
        "w_min_ppm": config["w_min_ppm"],
        "w_max_ppm": config["w_max_ppm"],
        "alpha_ppm": alphas.get(config["horizon_id"], 300_000),
        "epsilon_ppm": config["epsilon_w_ppm"],
        "min_notional_cents": _cents(config["min_trade_notional"]),
        "cooldown_bars": config["rebalance_cooldown_bars"],
        "min_hold_bars": config["min_hold_bars"],
        "allowed": not config["symbol_allowlist"] or row["symbol"] in config["symbol_allowlist"],
        "max_weight_ppm": limits["max_weight_ppm"],
        "symbol_cap_ppm": _or_none(caps.get(row["symbol"])),
        "bars_since_rebalance": _bars_since(past.get("rebalance"), ts_ms, plan),
        "bars_since_entry": _bars_since(past.get("entry"), ts_ms, plan),
        "no_new_long": long_shut,
        "no_new_short": short_shut,
        "latched": past.get("latch") is not None,
        "reduce_ppm": max([intent.get("reduce_ppm", NONE) for intent in intents], default=NONE),
        "risk_off": any(intent["kind"] == "risk_off" for intent in intents),
    }


def _answer(record: Mapping[str, Any]) -> dict[str, Any]:
    outcome = record["outcome"]
    return {
        "raw_ppm": outcome["target_weight_raw_ppm"],
        "policy_ppm": outcome["target_weight_policy_ppm"],
        "capped_ppm": outcome["target_weight_capped_ppm"],
        "final_ppm": outcome["target_weight_final_ppm"],
        "trades": outcome["order_style"] != "none",
        "tier": outcome["precedence_tier"],
        "preempted": "emergency_exit_preempts_entry" in outcome["reasons"],
        "latched": record["state_after"].get("latched_ts_ms") is not None,
    }


def _look(record: Mapping[str, Any], past: dict[str, int | None]) -> bool:
    """See whether a position that was to be turned around was; it was entered when ordered."""
    held, left = record["row"]["position"]["current_weight_ppm"], past.get("left")
    if left is None or (held != 0 and (held > 0) == (left > 0)):
        return False
    past["left"] = None
    past["entry"] = past.get("rebalance") if held else None
    return held != 0


def _remember(record: Mapping[str, Any], past: dict[str, int | None]) -> None:
    """Keep what the next bar depends on: last rebalance, entry, latch, a side that is left."""
    ts_ms, row, outcome = record["ts_ms"], record["row"], record["outcome"]
    held = row["position"]["current_weight_ppm"]
    trades = outcome["order_style"] != "none"
    if trades:
        past["rebalance"], past["left"] = ts_ms, None
    after = outcome["target_weight_final_ppm"] if trades else held
    if after and held and (after > 0) != (held > 0):
        past["left"] = held
    if after == 0:
        past["entry"] = None
    elif held == 0:
        past["entry"] = ts_ms
    assert record["state_after"]["entry_ts_ms"] == past.get("entry"), record
    intents = [row["exit_intent"], *row.get("further_exit_intents", [])]
    if any(intent and intent["kind"] == "risk_off" for intent in intents):
        past["latch"] = ts_ms
    elif record["kind"] == "bar" and row["trigger_state"] in ("inactive", "exit_only"):
        past["latch"] = None


def _known(row: Mapping[str, Any], plan: Mapping[str, Any]) -> bool:
    named = {trigger["trigger_id"] for trigger in plan["triggers"]}
    active = set(row["active_trigger_ids"])
    needed = row["trigger_state"] in ("long_allowed", "short_allowed")
    return active <= named and (bool(active) or not needed)


def _strength(signal: Mapping[str, Any]) -> int:
    unusable = signal["signal_source"] == "proxy" and signal["proxy_reason"] == "PROXY_WARMING_UP"
    return NONE if unusable else int(signal["signal_strength_bps"])


def _shut(limits: Any, book: Any, ts_ms: int) -> tuple[bool, bool]:
    """Say which sides the book shuts: rows R327 and R328, whatever the code."""
    if limits is None:
        return False, False
    if book is None:
        return (limits["missing_l2"] == "block",) * 2
    worst_bps = min(limits["entry_impact_bps"], limits["exec_impact_bps"])
    age_ms = ts_ms - book["ts_ms"]
    late = age_ms < 0 or age_ms > limits["exec_max_age_ms"]
    long_shut, short_shut = (
        late
        or book[f"impact_{side}_topN_insufficient_depth"] == 1
        or book[f"impact_{side}_topN_bps"] >= worst_bps
        for side in ("buy", "sell")
    )
    return long_shut, short_shut


def _emergency(intents: Sequence[Mapping[str, Any]]) -> int:
    rules = [intent["exit_rule_id"] for intent in intents if intent["kind"] == "emergency"]
    if not rules:
        return NO_INTENT
    return WITH_RULE if any(rule.strip() for rule in rules) else WITHOUT_RULE


def _bars_since(then_ms: int | None, ts_ms: int, plan: Mapping[str, Any]) -> int:
    return NONE if then_ms is None else (ts_ms - then_ms) // int(plan["bar_interval_ms"])


def _cents(text: str) -> int:
    whole, _, part = text.partition(".")
    return int(whole) * 100 + int((part + "00")[:2])


def _or_none(value: int | None) -> int:
    return NONE if value is None else value
