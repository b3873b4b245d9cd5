"""Read of a ledger what a monitor needs: plans, the newest bars, outcomes, kept model inputs.

Every pass reads the newest so many bars again, so that it depends on the ledger alone: a monitor
that starts anew, or a second one, says the same.
"""

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal

import msgspec
import numpy as np

from detent.adapters.ledger_reading import LedgerReader, SqliteReader
from detent.contracts.binding import ModelBinding, SignalSource
from detent.contracts.canonical import parse_json
from detent.contracts.decision import DecisionKind
from detent.contracts.json_codec import from_json
from detent.contracts.plan import Plan
from detent.contracts.trades import Outcome
from detent.core.evaluation.distances import Floats
from detent.core.evaluation.joining import DecidedBar, WatchedPlan

_BAR = (
    "plan_id, book, symbol, ts_ms, bar_close, p_hat_calibrated_bps, proxy_p_hat_bps, features_hash"
)
_FLOAT_BYTES = 4
# A statement names no more values than SQLite allows in any version.
_KEYS_PER_READ = 500


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what one pass read.

    Attributes:
        plans: Every plan that binds a model, by its name.
        bars: The newest decided bars of those plans, oldest first.
        outcomes: Outcomes of those plans that the ledger has.
    """

    plans: Mapping[str, WatchedPlan]
    bars: Sequence[DecidedBar]
    outcomes: Sequence[Outcome]


def read_watched(reader: LedgerReader, *, bars_max: int) -> Watched:
    """Read what is needed to settle and to score.

    Args:
        reader: The ledger.
        bars_max: The newest so many bars.

    Raises:
        LedgerUnavailable: It cannot be read.
    """
    plans = {one.plan_id: one for one in _plans(reader)}
    rows = reader.query(
        f"SELECT {_BAR} FROM bar_decisions WHERE kind = ? ORDER BY ts_ms DESC LIMIT ?",
        (DecisionKind.BAR.value, bars_max),
    )
    bars = [
        DecidedBar(
            plan_id=plan_id,
            book=book,
            symbol=symbol,
            ts_ms=ts_ms,
            close=Decimal(close),
            model_p_bps=model_p_bps,
            proxy_p_bps=proxy_p_bps,
            features_hash=features_hash,
        )
        for plan_id, book, symbol, ts_ms, close, model_p_bps, proxy_p_bps, features_hash in rows
        if plan_id in plans
    ]
    bars.sort(key=lambda bar: (bar.ts_ms, bar.plan_id, bar.symbol))
    since_ms = bars[0].ts_ms if bars else 0
    texts = reader.query("SELECT canonical FROM outcomes WHERE ts_ms >= ?", (since_ms,))
    return Watched(
        plans=plans,
        bars=bars,
        outcomes=[
            from_json(Outcome, parse_json("outcome", str(text).encode())) for (text,) in texts
        ],
    )


def read_inputs(
    reader: LedgerReader, bars: Sequence[DecidedBar], names: Collection[str]
) -> dict[str, Floats]:
    """Give what a model was given on some bars, per feature, in the order of the bars.

    Of an input that spans several rows only the newest counts: the others were newest before.

    Args:
        reader: The ledger; only the owner's file has inputs (decision D4).
        bars: Bars under one binding.
        names: The features of its model, in their order.

    Returns:
        One array per feature; all empty where no inputs are kept.
    """
    hashes = [bar.features_hash for bar in bars if bar.features_hash is not None]
    held: dict[str, bytes] = {}
    if isinstance(reader, SqliteReader):
        for start in range(0, len(hashes), _KEYS_PER_READ):
            part = hashes[start : start + _KEYS_PER_READ]
            sql = (
                "SELECT features_hash, model_input FROM model_inputs WHERE features_hash"
                f" IN ({', '.join('?' * len(part))})"
            )
            held.update(dict(reader.query(sql, part)))
    newest = len(names) * _FLOAT_BYTES
    rows = b"".join(held[one][-newest:] for one in hashes if one in held)
    matrix = np.frombuffer(rows, "<f4").reshape(-1, len(names)).astype(np.float64)
    return {name: matrix[:, place] for place, name in enumerate(names)}


def _plans(reader: LedgerReader) -> Sequence[WatchedPlan]:
    found = []
    sql = "SELECT plan, binding FROM plan_log WHERE event = 'opened'"
    for plan_text, binding_text in reader.query(sql):
        binding = from_json(ModelBinding, parse_json("binding", str(binding_text).encode()))
        if binding.signal_source is SignalSource.PROXY:
            continue
        plan = from_json(Plan, parse_json("plan", str(plan_text).encode()))
        one = WatchedPlan(
            plan_id=plan.plan_id,
            binding_hash=binding.binding_hash,
            binding=binding,
            bar_interval_ms=plan.bar_interval_ms,
        )
        found.append(one)
    return found
