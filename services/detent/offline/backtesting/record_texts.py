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

from detent.contracts.decimals import format_decimal
from detent.contracts.decision import GENESIS_HASH, DecisionKind, DecisionRecord, DecisionRow
from detent.contracts.errors import InternalError
from detent.contracts.plan import OrderStyle, PolicyState, PositionState, TriggerState
from detent.contracts.reasons import Reason
from detent.contracts.units import TS_MS_MAX
from detent.core.ledger.record import ChainPoint, record_decision
from detent.core.policy.column_outcomes import ORDER_NONE, ORDER_POST_ONLY, ORDER_TAKER
from detent.core.policy.columns import ABSENT, TRIGGER_STATES, Ints, reasons_of
from detent.core.signals.choice import ModelOutcome
from detent.core.signals.proxy import SERIES_FLAT, SERIES_WARMING_UP, ProxyAnswer
from detent.offline.backtesting.engine import Setup, Stretch
from detent.offline.backtesting.record_template import WriteText, record_text
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
        self._write: WriteText | None = None
        self._reasons: dict[int, str] = {}
        prefix = f"{setup.bound.plan.plan_id}/"
        self._symbols = [(symbol, f"{prefix}{symbol}/") for symbol in symbols]

    def rows(self, stretch: Stretch) -> Iterator[Filed]:
        """Give the records of a stretch as the ledger files them, bar by bar.

        Raises:
            InternalError: The first of them is not what the scalar core writes.
        """
        plan = self._setup.bound.plan
        kind = DecisionKind.BAR.value
        columns = self._columns(stretch)
        present = stretch.walked.present.tolist()
        expected = self._first(stretch)
        hashes, sequences, write = self.head_hashes, self.sequences, self._write
        self.written = written = []
        assert write is not None
        for bar, ts_ms in enumerate(stretch.walked.ts_ms.tolist()):
            equity = format_decimal(Decimal(stretch.walked.equity_cents[bar]) / 100)
            valid_until = min(ts_ms + plan.bar_interval_ms, TS_MS_MAX)
            items = zip(present[bar], *(column[bar] for column in columns), strict=True)
            for place, (is_present, *own) in enumerate(items):
                if not is_present:
                    continue
                symbol, set_prefix = self._symbols[place]
                sequence = sequences[place]
                text = write(
                    symbol, set_prefix, sequence, hashes[place], ts_ms, valid_until, equity, *own
                )
                if expected is not None:
                    check_text(text, expected)
                    expected = None
                record_hash = hashlib.sha256(text.encode("ascii")).hexdigest()
                written.append(record_hash)
                yield plan.plan_id, symbol, ts_ms, kind, sequence, record_hash, text
                sequences[place], hashes[place] = sequence + 1, record_hash

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
        if self._write is None:
            texts = {code: f'"{reason}"' for code, reason in PROXY_REASONS.items()}
            self._write = record_text(record, texts)
        return record.canonical.decode("ascii")

    def _columns(self, stretch: Stretch) -> list[list[list[Any]]]:
        """Give what each row's own arguments are, in the order of `ARGUMENTS`, bar by bar."""
        setup, outcomes, wanted = self._setup, stretch.outcomes, stretch.wanted
        rows, model = stretch.rows, setup.signals.model
        shape = stretch.walked.present.shape
        absent = np.full(shape, ABSENT)
        active = json_text([one.trigger_id for one in setup.bound.plan.triggers])
        return [
            column.tolist() if isinstance(column, np.ndarray) else column
            for column in (
                outcomes.delta_weight_ppm,
                texts_of(outcomes.order_style, _STYLE_TEXTS),
                outcomes.tier,
                self._reason_texts(outcomes.reasons),
                wanted.signal_deadbanded_ppm,
                outcomes.target_weight_final_ppm,
                outcomes.target_weight_policy_ppm,
                wanted.target_weight_raw_ppm,
                wanted.vol_scale_ppm,
                texts_of(
                    stretch.asked.trigger,
                    {code: active if state in _DIRECTED else "[]" for code, state in _STATES},
                ),
                [list(map(close_text, bar)) for bar in setup.market.close[rows].tolist()],
                stretch.walked.current_ppm.astype(np.int64),
                texts_of(stretch.asked.trigger, dict(_STATES)),
                stretch.asked.vol_hat_ppm,
                nulls(shape) if model is None else texts_of(model.refusal[rows], _REFUSAL_TEXTS),
                nulls(shape) if model is None else hash_texts(model.features_hash, rows, shape),
                stretch.p_hat_bps,
                absent if model is None else model.p_hat_bps[rows],
                absent if model is None else model.p_hat_raw_bps[rows],
                setup.signals.proxy[rows],
                stretch.asked.strength_bps,
                stretch.states.entry_ts_ms,
                stretch.states.last_rebalance_ts_ms,
                stretch.states.trade_set_count,
            )
        ]

    def _reason_texts(self, masks: Ints) -> list[list[str]]:
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


def texts_of(codes: NDArray[Any], texts: Mapping[int, str]) -> list[list[str]]:
    """Give the text of each code."""
    return [[texts[code] for code in bar] for bar in codes.tolist()]


def nulls(shape: tuple[int, ...]) -> list[list[str]]:
    """Give rows that say nothing."""
    return [["null"] * shape[1]] * shape[0]


def hash_texts(
    hashes: NDArray[np.bytes_] | None, rows: slice, shape: tuple[int, ...]
) -> list[list[str]]:
    """Give hashes as JSON texts; null where there is none."""
    if hashes is None:
        return nulls(shape)
    return [
        [f'"{one.decode("ascii")}"' if one else "null" for one in bar]
        for bar in hashes[rows].tolist()
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
