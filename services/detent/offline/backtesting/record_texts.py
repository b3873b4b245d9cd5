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

from detent.adapters.ledger_bulk import FILED
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

PROXY_REASONS = {
    SERIES_WARMING_UP: Reason.PROXY_WARMING_UP,
    SERIES_FLAT: Reason.PROXY_FLAT,
}
_DIRECTED = frozenset({TriggerState.LONG_ALLOWED, TriggerState.SHORT_ALLOWED})
# Rows whose texts are made together: enough to pay for arrays, few enough for their many small
# texts to be in a processor's cache when they are joined.
ROWS_AT_ONCE = 6_144
# Integers below this in size have their texts ready.
SMALL = 16_384
# Records that are handed on together, while their texts are in a processor's cache.
RECORDS_AT_ONCE = 64
# Texts by number; what a number below 0 stands for is at the end.
Table = NDArray[np.object_]


def table_of(texts: Mapping[int, str]) -> Table:
    """Lay texts out by their numbers, so that many are taken at once."""
    table = np.full(max(texts) + 1 - min(0, *texts), "", dtype=np.object_)
    for number, text in texts.items():
        table[number] = text
    return table


_SMALL_TEXTS = table_of({number: str(number) for number in range(-SMALL, SMALL)})
_STYLE_TEXTS = table_of(
    {
        ORDER_NONE: OrderStyle.NONE.value,
        ORDER_TAKER: OrderStyle.TAKER.value,
        ORDER_POST_ONLY: OrderStyle.POST_ONLY.value,
    }
)
_STATE_TEXTS = table_of({code: state.value for code, state in TRIGGER_STATES.items()})
_REFUSAL_TEXTS = table_of(
    {ABSENT: "null"} | {code: f'"{reason}"' for code, reason in enumerate(REFUSALS)}
)
_PROXY_TEXTS = table_of(
    {0: "null"} | {code: f'"{reason}"' for code, reason in PROXY_REASONS.items()}
)
_SOURCE_TEXTS = table_of({0: SignalSource.PROXY.value, 1: SignalSource.MODEL.value})


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
        plan, times_ms = setup.bound.plan, setup.market.ts_ms
        active = json_text([one.trigger_id for one in plan.triggers])
        self._triggers = table_of(
            {code: active if state in _DIRECTED else "[]" for code, state in TRIGGER_STATES.items()}
        )
        self._symbols = table_of(dict(enumerate(symbols)))
        self._sets = table_of(
            {place: f"{plan.plan_id}/{symbol}/" for place, symbol in enumerate(symbols)}
        )
        self._times = table_of({ABSENT: "null"} | dict(enumerate(int_texts(times_ms))))
        ends_ms = np.minimum(times_ms + plan.bar_interval_ms, TS_MS_MAX)
        self._ends = table_of(dict(enumerate(int_texts(ends_ms))))

    def batches(self, stretch: Stretch) -> Iterator[list[object]]:
        """Give the records of a stretch, bar by bar, some at once.

        Returns:
            Lists of what `decision_records` holds beside plan and kind, one record after the
            other: symbol, time, sequence, hash and text.

        Raises:
            InternalError: The first of them is not what the scalar core writes.
        """
        self.written = written = []
        batch: list[object] = []
        full = RECORDS_AT_ONCE * len(FILED)
        expected = self._first(stretch)
        if expected is None:
            return
        assert self._template is not None
        hashes, sha256 = self.head_hashes, hashlib.sha256
        present = stretch.walked.present
        every, sequences = np.flatnonzero(present), self._sequences(present)
        for start in range(0, len(every), ROWS_AT_ONCE):
            at = every[start : start + ROWS_AT_ONCE]
            numbers = sequences[start : start + ROWS_AT_ONCE]
            bars, places = np.divmod(at, present.shape[1])
            columns = self._columns(stretch, at, bars, places) | self._signal_columns(stretch, at)
            columns["sequence"] = int_texts(numbers)
            template = self._template.filled(columns)
            parts, previous_at = template.parts(), 2 * template.columns.index(PREVIOUS) + 1
            rows = zip(
                places.tolist(),
                columns["symbol"],
                stretch.walked.ts_ms[bars].tolist(),
                numbers.tolist(),
                zip(*(columns[name] for name in template.columns), strict=True),
                strict=True,
            )
            for place, symbol, ts_ms, sequence, own in rows:
                parts[1::2] = own
                parts[previous_at] = hashes[place]
                text = "".join(parts)
                if expected is not None:
                    check_text(text, expected)
                    expected = None
                hashes[place] = record_hash = sha256(text.encode("ascii")).hexdigest()
                written.append(record_hash)
                batch += symbol, ts_ms, sequence, record_hash, text
                if len(batch) == full:
                    yield batch
                    batch = []
        if batch:
            yield batch

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
        self, stretch: Stretch, at: Ints, bars: Ints, places: Ints
    ) -> dict[str, list[str]]:
        """Give the texts of what was asked, decided and remembered, by column.

        Args:
            stretch: The bars.
            at: Shape (n,): places of some rows in the stretch's arrays, in the order of writing.
            bars: Shape (n,): their bars in the stretch.
            places: Shape (n,): their symbols.
        """
        walked, outcomes, wanted = stretch.walked, stretch.outcomes, stretch.wanted
        states, trigger = stretch.states, stretch.asked.trigger.take(at)
        first, cents = bars[0], walked.equity_cents[bars[0] : bars[-1] + 1]
        equity = table_of(
            {bar: format_decimal(Decimal(one) / 100) for bar, one in enumerate(cents)}
        )
        set_counts = int_texts(states.trade_set_count.take(at))
        final = int_texts(outcomes.target_weight_final_ppm.take(at))
        return {
            "delta": int_texts(outcomes.delta_weight_ppm.take(at)),
            "style": texts_of(outcomes.order_style.take(at), _STYLE_TEXTS),
            "tier": int_texts(outcomes.tier.take(at)),
            "reasons": reason_texts(outcomes.reasons.take(at)),
            "deadbanded": int_texts(wanted.signal_deadbanded_ppm.take(at)),
            "final": final,
            "policy": int_texts(outcomes.target_weight_policy_ppm.take(at)),
            "raw": int_texts(wanted.target_weight_raw_ppm.take(at)),
            "scale": int_texts(wanted.vol_scale_ppm.take(at)),
            PREVIOUS: [""] * len(at),
            "triggers": texts_of(trigger, self._triggers),
            "close": close_texts(self._setup.market.close[stretch.rows].take(at)),
            "current": int_texts(walked.current_ppm.take(at).astype(np.int64)),
            "equity": texts_of(bars - first, equity),
            "symbol": texts_of(places, self._symbols),
            "state": texts_of(trigger, _STATE_TEXTS),
            "vol": int_texts(stretch.asked.vol_hat_ppm.take(at), absent_below=1),
            "entry": self._time_texts(states.entry_ts_ms.take(at)),
            "remembered": with_reversals(final, states.reversing_from_ppm.take(at)),
            "rebalanced": self._time_texts(states.last_rebalance_ts_ms.take(at)),
            "set_count": set_counts,
            "set_id": list(map(str.__add__, texts_of(places, self._sets), set_counts)),
            "ts_ms": texts_of(stretch.rows.start + bars, self._times),
            "valid_until": texts_of(stretch.rows.start + bars, self._ends),
        }

    def _signal_columns(self, stretch: Stretch, at: Ints) -> dict[str, list[str]]:
        """Give the texts of what model and proxy said."""
        rows, model = stretch.rows, self._setup.signals.model
        proxy = self._setup.signals.proxy[rows].take(at)
        nulls = ["null"] * len(proxy)
        columns = {
            "p_hat": int_texts(stretch.p_hat_bps.take(at)),
            "proxy": int_texts(np.where(proxy < 0, BPS_HALF, proxy)),
            "proxy_reason": texts_of(np.minimum(proxy, 0), _PROXY_TEXTS),
            "strength": int_texts(stretch.asked.strength_bps.take(at)),
        }
        if model is None:
            silent = ("fallback", "features_hash", "calibrated", "p_raw")
            source = [SignalSource.PROXY.value] * len(proxy)
            return columns | dict.fromkeys(silent, nulls) | {"source": source}
        calibrated = model.p_hat_bps[rows].take(at)
        hashes = model.features_hash
        return columns | {
            "fallback": texts_of(model.refusal[rows].take(at), _REFUSAL_TEXTS),
            "features_hash": nulls if hashes is None else hash_texts(hashes[rows].take(at)),
            "calibrated": int_texts(calibrated, absent_below=0),
            "p_raw": int_texts(model.p_hat_raw_bps[rows].take(at), absent_below=0),
            "source": texts_of(calibrated >= 0, _SOURCE_TEXTS),
        }

    def _time_texts(self, times_ms: Ints) -> list[str]:
        """Write instants of the market's bars; what is before them all, as `ABSENT` is, is null."""
        found = np.searchsorted(self._setup.market.ts_ms, times_ms, side="right") - 1
        return texts_of(found, self._times)


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


def texts_of(numbers: NDArray[Any], table: Table) -> list[str]:
    """Give the text of each number."""
    texts: list[str] = table.take(numbers).tolist()
    return texts


def with_reversals(targets: list[str], reversing_from_ppm: Ints) -> list[str]:
    """Write the last targets, each with what is being turned around, the key that follows it."""
    places = np.flatnonzero(reversing_from_ppm).tolist()
    if not places:
        return targets
    texts = targets.copy()
    for place in places:
        texts[place] += f',"reversing_from_ppm":{reversing_from_ppm[place]}'
    return texts


def reason_texts(masks: Ints) -> list[str]:
    """Write the reasons of bit masks."""
    found, numbers = np.unique(masks, return_inverse=True)
    texts = [json_text(list(reasons_of(mask))) for mask in found.tolist()]
    return texts_of(numbers, np.array(texts, dtype=np.object_))


def int_texts(items: NDArray[Any], *, absent_below: int | None = None) -> list[str]:
    """Write integers, shape (n,), n at least 1; those below a bound are null."""
    if items.min() >= -SMALL and items.max() < SMALL:
        texts = texts_of(items, _SMALL_TEXTS)
    else:
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
    text = msgspec.json.encode(prices.tolist()).decode("ascii")
    if "e" in text:
        return list(map(close_text, prices.tolist()))
    # Each is followed by a comma, so what ends on .0 is found without a look at every one.
    return f"{text[1:-1]},".replace(".0,", ",")[:-1].split(",")


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
        reversing_from_ppm=int(states.reversing_from_ppm[at]) or None,
    )
