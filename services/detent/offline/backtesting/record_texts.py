"""Write the records of a stretch of bars: the text that `record_decision` writes, much quicker.

What all records of a plan share, and what all of a symbol do, is written once; of a row only its
own numbers are. The first row of every stretch is decided again by the scalar core, and its bytes
must be the same: a text that drifts from the core stops the run.
"""

import hashlib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.binding import SignalSource
from detent.contracts.decimals import format_decimal
from detent.contracts.decision import GENESIS_HASH, DecisionKind, DecisionRecord, DecisionRow
from detent.contracts.errors import InternalError
from detent.contracts.plan import OrderStyle, PolicyState, PositionState, TriggerState
from detent.contracts.reasons import Reason
from detent.contracts.units import BPS_HALF, TS_MS_MAX
from detent.core.ledger.record import ChainPoint, record_decision
from detent.core.policy.column_outcomes import ORDER_NONE, ORDER_POST_ONLY, ORDER_TAKER
from detent.core.policy.columns import ABSENT, TRIGGER_STATES, Flags, Floats, Ints, reasons_of
from detent.core.signals.choice import ModelOutcome
from detent.core.signals.proxy import SERIES_FLAT, SERIES_WARMING_UP, ProxyAnswer
from detent.offline.backtesting.engine import Setup, Stretch
from detent.offline.backtesting.record_template import PREVIOUS, RecordTemplate, record_template
from detent.offline.backtesting.signals import REFUSALS

_STYLE_TEXTS = {
    ORDER_NONE: OrderStyle.NONE.value,
    ORDER_TAKER: OrderStyle.TAKER.value,
    ORDER_POST_ONLY: OrderStyle.POST_ONLY.value,
}
_STATES = tuple((code, state.value) for code, state in TRIGGER_STATES.items())
_REFUSAL_TEXTS = {ABSENT: "null"} | {code: f'"{reason}"' for code, reason in enumerate(REFUSALS)}
PROXY_REASONS = {
    SERIES_WARMING_UP: Reason.PROXY_WARMING_UP,
    SERIES_FLAT: Reason.PROXY_FLAT,
}
_PROXY_TEXTS = {code: f'"{reason}"' for code, reason in PROXY_REASONS.items()}
_SOURCE_TEXTS = {True: SignalSource.MODEL.value, False: SignalSource.PROXY.value}
# One row of `decision_records`.
Filed = tuple[str, str, int, str, int, str, str]
_DIRECTED = frozenset({TriggerState.LONG_ALLOWED, TriggerState.SHORT_ALLOWED})


class RecordWriter:
    """Writes the records of one plan, stretch by stretch, and keeps its chains.

    Attributes:
        head_hashes: Hash of the last record of each symbol.
        sequences: Sequence of the next record of each symbol.
        written: Hashes of the records of the last stretch, in the order of writing.
    """

    def __init__(self, setup: Setup) -> None:
        """Start every chain at its beginning."""
        self._setup = setup
        symbols = setup.bound.plan.symbols
        self.head_hashes = [GENESIS_HASH] * len(symbols)
        self.sequences = [0] * len(symbols)
        self.written: list[str] = []
        self._template: RecordTemplate | None = None
        self._reasons: dict[int, str] = {}

    def rows(self, stretch: Stretch) -> Iterator[Filed]:
        """Give the records of a stretch as the ledger files them, bar by bar.

        Raises:
            InternalError: The first of them is not what the scalar core writes.
        """
        self.written = written = []
        expected = self._first(stretch)
        if expected is None:
            return
        assert self._template is not None
        plan, kind = self._setup.bound.plan, DecisionKind.BAR.value
        bars, places = np.nonzero(stretch.walked.present)
        sequences = self._sequences(stretch.walked.present)
        columns = self._columns(stretch, bars, places, sequences)
        texts = zip(*(columns[name] for name in self._template.columns), strict=True)
        keys = zip(
            places.tolist(),
            columns["symbol"],
            stretch.walked.ts_ms[bars].tolist(),
            sequences.tolist(),
            texts,
            strict=True,
        )
        parts, hashes, sha256 = self._template.parts(), self.head_hashes, hashlib.sha256
        previous_at = 2 * self._template.columns.index(PREVIOUS) + 1
        for place, symbol, ts_ms, sequence, own in keys:
            parts[1::2] = own
            parts[previous_at] = hashes[place]
            text = "".join(parts)
            if expected is not None:
                check_text(text, expected)
                expected = None
            hashes[place] = record_hash = sha256(text.encode("ascii")).hexdigest()
            written.append(record_hash)
            yield plan.plan_id, symbol, ts_ms, kind, sequence, record_hash, text

    def _first(self, stretch: Stretch) -> str | None:
        """Have the scalar core write the first row, and take the text of all from its."""
        found = np.argwhere(stretch.walked.present)
        if not len(found):
            return None
        bar, place = (int(one) for one in found[0])
        point = ChainPoint(
            sequence=self.sequences[place],
            previous_hash=self.head_hashes[place],
            state=state_before(stretch, bar, place),
        )
        record = scalar_record(self._setup, stretch, bar, place, point)
        if self._template is None:
            self._template = record_template(record)
        return record.canonical.decode("ascii")

    def _sequences(self, present: Flags) -> Ints:
        """Number the rows of each symbol on, in the order of writing."""
        counts = np.cumsum(present, axis=0)
        numbers = counts - 1 + np.array(self.sequences)
        self.sequences = (np.array(self.sequences) + counts[-1]).tolist()
        return np.asarray(numbers[present])

    def _columns(
        self, stretch: Stretch, bars: Ints, places: Ints, sequences: Ints
    ) -> dict[str, list[str]]:
        """Give the texts of all rows by column, in the order of writing."""
        setup, outcomes, wanted = self._setup, stretch.outcomes, stretch.wanted
        plan, at = setup.bound.plan, (bars, places)
        symbols = list(map(plan.symbols.__getitem__, places.tolist()))
        prefixes = [f"{plan.plan_id}/{symbol}/" for symbol in plan.symbols]
        active = json_text([one.trigger_id for one in plan.triggers])
        trigger = stretch.asked.trigger[at].tolist()
        set_counts = int_texts(stretch.states.trade_set_count[at])
        times_ms = stretch.walked.ts_ms
        ends_ms = np.minimum(times_ms + plan.bar_interval_ms, TS_MS_MAX)
        of_bar = bars.tolist()
        equity = [format_decimal(Decimal(cents) / 100) for cents in stretch.walked.equity_cents]
        triggers = {code: active if state in _DIRECTED else "[]" for code, state in _STATES}
        states = dict(_STATES)
        return self._signal_columns(stretch, at) | {
            "delta": int_texts(outcomes.delta_weight_ppm[at]),
            "style": texts_of(outcomes.order_style[at], _STYLE_TEXTS),
            "tier": int_texts(outcomes.tier[at]),
            "reasons": self._reason_texts(outcomes.reasons[at]),
            "deadbanded": int_texts(wanted.signal_deadbanded_ppm[at]),
            "final": int_texts(outcomes.target_weight_final_ppm[at]),
            "policy": int_texts(outcomes.target_weight_policy_ppm[at]),
            "raw": int_texts(wanted.target_weight_raw_ppm[at]),
            "scale": int_texts(wanted.vol_scale_ppm[at]),
            PREVIOUS: [""] * len(of_bar),
            "triggers": list(map(triggers.__getitem__, trigger)),
            "close": close_texts(setup.market.close[stretch.rows][at]),
            "current": int_texts(stretch.walked.current_ppm[at].astype(np.int64)),
            "equity": list(map(equity.__getitem__, of_bar)),
            "symbol": symbols,
            "state": list(map(states.__getitem__, trigger)),
            "vol": int_texts(stretch.asked.vol_hat_ppm[at], absent_below=1),
            "sequence": int_texts(sequences),
            "entry": int_texts(stretch.states.entry_ts_ms[at], absent_below=0),
            "rebalanced": int_texts(stretch.states.last_rebalance_ts_ms[at], absent_below=0),
            "set_count": set_counts,
            "set_id": list(
                map(str.__add__, map(prefixes.__getitem__, places.tolist()), set_counts)
            ),
            "ts_ms": list(map(int_texts(times_ms).__getitem__, of_bar)),
            "valid_until": list(map(int_texts(ends_ms).__getitem__, of_bar)),
        }

    def _signal_columns(self, stretch: Stretch, at: tuple[Ints, Ints]) -> dict[str, list[str]]:
        """Give the texts of what model and proxy said."""
        rows, model = stretch.rows, self._setup.signals.model
        proxy = self._setup.signals.proxy[rows][at]
        nulls = ["null"] * len(proxy)
        columns = {
            "p_hat": int_texts(stretch.p_hat_bps[at]),
            "proxy": int_texts(np.where(proxy < 0, BPS_HALF, proxy)),
            "proxy_reason": [_PROXY_TEXTS.get(code, "null") for code in proxy.tolist()],
            "strength": int_texts(stretch.asked.strength_bps[at]),
        }
        if model is None:
            silent = ("fallback", "features_hash", "calibrated", "p_raw")
            source = [SignalSource.PROXY.value] * len(proxy)
            return columns | dict.fromkeys(silent, nulls) | {"source": source}
        calibrated = model.p_hat_bps[rows][at]
        hashes = model.features_hash
        return columns | {
            "fallback": texts_of(model.refusal[rows][at], _REFUSAL_TEXTS),
            "features_hash": nulls if hashes is None else hash_texts(hashes[rows][at]),
            "calibrated": int_texts(calibrated, absent_below=0),
            "p_raw": int_texts(model.p_hat_raw_bps[rows][at], absent_below=0),
            "source": [_SOURCE_TEXTS[said] for said in (calibrated >= 0).tolist()],
        }

    def _reason_texts(self, masks: Ints) -> list[str]:
        known = self._reasons
        for mask in np.unique(masks).tolist():
            if mask not in known:
                known[mask] = json_text(list(reasons_of(mask)))
        return texts_of(masks, known)


def check_text(text: str, expected: str) -> None:
    """Refuse a record that is not what the scalar core writes.

    Raises:
        InternalError: They differ.
    """
    if text != expected:
        raise InternalError(f"a record: found {text}, expected {expected}")


def json_text(items: list[Any]) -> str:
    """Give the canonical text of a list of names."""
    return msgspec.json.encode(items).decode("ascii")


def texts_of(codes: NDArray[Any], texts: Mapping[int, str]) -> list[str]:
    """Give the text of each code."""
    return list(map(texts.__getitem__, codes.tolist()))


def int_texts(items: NDArray[Any], *, absent_below: int | None = None) -> list[str]:
    """Write integers, shape (n,), n at least 1; those below a bound are null."""
    texts = msgspec.json.encode(items.tolist()).decode("ascii")[1:-1].split(",")
    if absent_below is not None:
        for place in np.flatnonzero(items < absent_below).tolist():
            texts[place] = "null"
    return texts


def hash_texts(hashes: NDArray[np.bytes_]) -> list[str]:
    """Give hashes as JSON texts; null where there is none."""
    return [f'"{one.decode("ascii")}"' if one else "null" for one in hashes.tolist()]


def close_texts(prices: Floats) -> list[str]:
    """Write prices, shape (n,), n at least 1, as `close_text` does."""
    texts = msgspec.json.encode(prices.tolist()).decode("ascii")[1:-1].split(",")
    return [
        text[:-2] if text.endswith(".0") else close_text(float(text)) if "e" in text else text
        for text in texts
    ]


def close_text(price: float) -> str:
    """Write a price as a canonical decimal: the shortest that reads the same."""
    text = repr(price)
    if "e" in text:
        return format_decimal(Decimal(text))
    return text.removesuffix(".0")


def row_of(setup: Setup, stretch: Stretch, bar: int, place: int) -> DecisionRow:
    """Give the row that a strategist asks for one bar of one symbol."""
    plan, market = setup.bound.plan, setup.market
    trigger = TRIGGER_STATES[int(stretch.asked.trigger[bar, place])]
    directed = trigger in _DIRECTED
    vol_hat_ppm = int(stretch.asked.vol_hat_ppm[bar, place])
    return DecisionRow(
        symbol=plan.symbols[place],
        bar_close=close_of(float(market.close[stretch.rows.start + bar, place])),
        trigger_state=trigger,
        active_trigger_ids=tuple(one.trigger_id for one in plan.triggers) if directed else (),
        exit_intent=None,
        position=PositionState(
            current_weight_ppm=int(stretch.walked.current_ppm[bar, place]),
            equity=Decimal(stretch.walked.equity_cents[bar]) / 100,
        ),
        vol_hat_ppm=vol_hat_ppm if vol_hat_ppm > 0 else None,
        vol_unit=plan.policy_config.vol_unit,
        risk_overrides=None,
    )


def close_of(price: float) -> Decimal:
    """Give the decimal that a price is the float of: the shortest that reads the same."""
    return Decimal(repr(price))


def scalar_record(
    setup: Setup, stretch: Stretch, bar: int, place: int, point: ChainPoint
) -> DecisionRecord:
    """Decide one row with the scalar core."""
    at = stretch.rows.start + bar, place
    proxy = int(setup.signals.proxy[at])
    model = setup.signals.model
    outcome = None
    if model is not None:
        answered = model.p_hat_bps[at] != ABSENT
        hashed = model.features_hash[at].decode("ascii") if model.features_hash is not None else ""
        outcome = ModelOutcome(
            features_hash=hashed or None,
            p_hat_raw_bps=int(model.p_hat_raw_bps[at]) if answered else None,
            p_hat_bps=int(model.p_hat_bps[at]) if answered else None,
            reason=None if answered else REFUSALS[model.refusal[at]],
        )
    return record_decision(
        bound=setup.bound,
        ts_ms=int(stretch.walked.ts_ms[bar]),
        kind=DecisionKind.BAR,
        row=row_of(setup, stretch, bar, place),
        proxy=ProxyAnswer(
            p_hat_bps=proxy if proxy >= 0 else 5_000, reason=PROXY_REASONS.get(proxy)
        ),
        model=outcome,
        point=point,
    )


def state_before(stretch: Stretch, bar: int, place: int) -> PolicyState:
    """Give what policy remembered of a symbol before one bar."""
    states, at = (stretch.before, (place,)) if bar == 0 else (stretch.states, (bar - 1, place))

    def known(column: Any) -> int | None:
        return None if column[at] == ABSENT else int(column[at])

    return PolicyState(
        # The core does not look at the last target; the check reads states of its own text.
        last_target_weight_ppm=0,
        last_rebalance_ts_ms=known(states.last_rebalance_ts_ms),
        entry_ts_ms=known(states.entry_ts_ms),
        trade_set_count=int(states.trade_set_count[at]),
    )
