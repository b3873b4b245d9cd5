"""Make the text of a record with holes: what stands around them, and what is put there.

The text around the holes is taken from a record that the core has written, so a field that no
back-test varies stands in it whether or not it was thought of here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from detent.contracts.canonical import JsonValue, canonical_bytes
from detent.contracts.decision import DecisionRecord
from detent.contracts.json_codec import to_json

# What differs from row to row: its path in the record's JSON, the column of texts that is put
# there, and whether quotes stand around it; the others are JSON texts as they are.
HOLES: dict[tuple[str, ...], tuple[str, bool]] = {
    ("outcome", "delta_weight_ppm"): ("delta", False),
    ("outcome", "order_style"): ("style", True),
    ("outcome", "precedence_tier"): ("tier", False),
    ("outcome", "reasons"): ("reasons", False),
    ("outcome", "signal_deadbanded_ppm"): ("deadbanded", False),
    ("outcome", "target_weight_capped_ppm"): ("final", False),
    ("outcome", "target_weight_final_ppm"): ("final", False),
    ("outcome", "target_weight_policy_ppm"): ("policy", False),
    ("outcome", "target_weight_raw_ppm"): ("raw", False),
    ("outcome", "vol_scale_ppm"): ("scale", False),
    ("previous_hash",): ("previous", True),
    ("row", "active_trigger_ids"): ("triggers", False),
    ("row", "bar_close"): ("close", True),
    ("row", "position", "current_weight_ppm"): ("current", False),
    ("row", "position", "equity"): ("equity", True),
    ("row", "symbol"): ("symbol", True),
    ("row", "trigger_state"): ("state", True),
    ("row", "vol_hat_ppm"): ("vol", False),
    ("sequence",): ("sequence", False),
    ("signal", "fallback_reason"): ("fallback", False),
    ("signal", "features_hash"): ("features_hash", False),
    ("signal", "p_hat_bps"): ("p_hat", False),
    ("signal", "p_hat_calibrated_bps"): ("calibrated", False),
    ("signal", "p_hat_raw_bps"): ("p_raw", False),
    ("signal", "proxy_p_hat_bps"): ("proxy", False),
    ("signal", "proxy_reason"): ("proxy_reason", False),
    ("signal", "signal_source"): ("source", True),
    ("signal", "signal_strength_bps"): ("strength", False),
    ("state_after", "entry_ts_ms"): ("entry", False),
    ("state_after", "last_rebalance_ts_ms"): ("rebalanced", False),
    ("state_after", "last_target_weight_ppm"): ("remembered", False),
    ("state_after", "trade_set_count"): ("set_count", False),
    ("trade_set_id",): ("set_id", True),
    ("ts_ms",): ("ts_ms", False),
    ("valid_until_ts_ms",): ("valid_until", False),
}
PREVIOUS = "previous"
_MARK = "@@{}@@"
_MARKED = re.compile(r'"@@([0-9]+)@@"')


class RecordTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the text of a plan's records.

    Attributes:
        pieces: What stands around the holes, one more than there are holes.
        columns: Name of the column of each hole, in the order of the text.
    """

    pieces: tuple[str, ...]
    columns: tuple[str, ...]

    def filled(self, columns: Mapping[str, Sequence[str]]) -> "RecordTemplate":
        """Write into the text what is the same in all of some rows, at least one.

        Args:
            columns: The texts of every column, by name; the hole of `PREVIOUS` stays one.
        """
        pieces, left = [self.pieces[0]], list[str]()
        for name, piece in zip(self.columns, self.pieces[1:], strict=True):
            if name != PREVIOUS and is_same(columns[name]):
                pieces[-1] += columns[name][0] + piece
            else:
                left.append(name)
                pieces.append(piece)
        return RecordTemplate(pieces=tuple(pieces), columns=tuple(left))

    def parts(self) -> list[str]:
        """Give the text in parts, the holes at odd places and empty."""
        parts = [""] * (2 * len(self.columns) + 1)
        parts[::2] = self.pieces
        return parts


def is_same(texts: Sequence[str]) -> bool:
    """Say whether texts, at least one, are all the same."""
    first = texts[0]
    # Most columns differ at their ends already.
    return texts[-1] == first and texts.count(first) == len(texts)


def record_template(sample: DecisionRecord) -> RecordTemplate:
    """Take the text from any record of a plan."""
    fields = to_json(sample)
    for number, path in enumerate(HOLES):
        _put(fields, path, _MARK.format(number))
    text = canonical_bytes(DecisionRecord.SCHEMA, fields).decode("ascii")
    pieces: list[str] = []
    columns: list[str] = []
    quote = ""
    for number, piece in enumerate(re.split(_MARKED, text)):
        if number % 2:
            column, is_quoted = list(HOLES.values())[int(piece)]
            columns.append(column)
            quote = '"' if is_quoted else ""
            pieces[-1] += quote
        else:
            pieces.append(quote + piece)
    return RecordTemplate(pieces=tuple(pieces), columns=tuple(columns))


def _put(fields: dict[str, JsonValue], path: tuple[str, ...], mark: str) -> None:
    place: Any = fields
    for name in path[:-1]:
        place = place[name]
    assert path[-1] in place, path
    place[path[-1]] = mark
