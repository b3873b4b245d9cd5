"""Make the text of a record with holes, and what fills them: one compiled function per plan.

The text around the holes is taken from a record that the core has written, so a field that no
back-test varies stands in it whether or not it was thought of here.
"""

import re
from collections.abc import Callable
from typing import Any

from detent.contracts.canonical import JsonValue, canonical_bytes
from detent.contracts.compiled import compile_function
from detent.contracts.decision import DecisionRecord
from detent.contracts.json_codec import to_json

# What differs from row to row, by its path in the record's JSON, and what is written there. The
# names are the arguments of the function; those of one symbol are texts that it always has.
HOLES: dict[tuple[str, ...], str] = {
    ("outcome", "delta_weight_ppm"): "{delta}",
    ("outcome", "order_style"): '"{style}"',
    ("outcome", "precedence_tier"): "{tier}",
    ("outcome", "reasons"): "{reasons}",
    ("outcome", "signal_deadbanded_ppm"): "{deadbanded}",
    ("outcome", "target_weight_capped_ppm"): "{final}",
    ("outcome", "target_weight_final_ppm"): "{final}",
    ("outcome", "target_weight_policy_ppm"): "{policy}",
    ("outcome", "target_weight_raw_ppm"): "{raw}",
    ("outcome", "vol_scale_ppm"): "{scale}",
    ("previous_hash",): '"{previous}"',
    ("row", "active_trigger_ids"): "{triggers}",
    ("row", "bar_close"): '"{close}"',
    ("row", "position", "current_weight_ppm"): "{current}",
    ("row", "position", "equity"): '"{equity}"',
    ("row", "symbol"): '"{symbol}"',
    ("row", "trigger_state"): '"{state}"',
    ("row", "vol_hat_ppm"): "{vol if vol > 0 else 'null'}",
    ("sequence",): "{sequence}",
    ("signal", "fallback_reason"): "{fallback}",
    ("signal", "features_hash"): "{features_hash}",
    ("signal", "p_hat_bps"): "{p_hat}",
    ("signal", "p_hat_calibrated_bps"): "{calibrated if calibrated >= 0 else 'null'}",
    ("signal", "p_hat_raw_bps"): "{p_raw if p_raw >= 0 else 'null'}",
    ("signal", "proxy_p_hat_bps"): "{proxy if proxy >= 0 else 5000}",
    ("signal", "proxy_reason"): "{proxy_reasons[proxy] if proxy < 0 else 'null'}",
    ("signal", "signal_source"): "{'\"model\"' if calibrated >= 0 else '\"proxy\"'}",
    ("signal", "signal_strength_bps"): "{strength}",
    ("state_after", "entry_ts_ms"): "{entry if entry >= 0 else 'null'}",
    ("state_after", "last_rebalance_ts_ms"): "{rebalanced if rebalanced >= 0 else 'null'}",
    ("state_after", "last_target_weight_ppm"): "{final}",
    ("state_after", "trade_set_count"): "{set_count}",
    ("trade_set_id",): '"{set_prefix}{set_count}"',
    ("ts_ms",): "{ts_ms}",
    ("valid_until_ts_ms",): "{valid_until}",
}
ARGUMENTS = (
    # Of a row's chain and symbol, then of its bar, then of itself.
    "symbol, set_prefix, sequence, previous, ts_ms, valid_until, equity,"
    " delta, style, tier, reasons, deadbanded, final, policy, raw, scale, triggers, close,"
    " current, state, vol, fallback, features_hash, p_hat, calibrated, p_raw, proxy, strength,"
    " entry, rebalanced, set_count"
)
_MARK = "@@{}@@"
_MARKED = re.compile(r'"@@([0-9]+)@@"')

WriteText = Callable[..., str]


def record_text(sample: DecisionRecord, proxy_reasons: dict[int, str]) -> WriteText:
    """Compile what writes the text of a record of the sample's plan.

    Args:
        sample: Any record of the plan.
        proxy_reasons: JSON texts of the proxy's reasons, by what its series holds for them.

    Returns:
        A function of `ARGUMENTS` that gives the canonical text.
    """
    fields = to_json(sample)
    for number, path in enumerate(HOLES):
        _put(fields, path, _MARK.format(number))
    text = canonical_bytes(DecisionRecord.SCHEMA, fields).decode("ascii")
    names: dict[str, object] = {"proxy_reasons": proxy_reasons}
    parts = []
    # What is written around the holes goes in by name: no source holds what a caller chose.
    for number, piece in enumerate(re.split(_MARKED, text)):
        if number % 2:
            parts.append(list(HOLES.values())[int(piece)])
        else:
            names[f"piece_{number}"] = piece
            parts.append(f"{{piece_{number}}}")
    return compile_function(f"text({ARGUMENTS})", f"    return f'''{''.join(parts)}'''", names)


def _put(fields: dict[str, JsonValue], path: tuple[str, ...], mark: str) -> None:
    place: Any = fields
    for name in path[:-1]:
        place = place[name]
    assert path[-1] in place, path
    place[path[-1]] = mark
