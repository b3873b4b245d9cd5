"""Sum up what one plan did, from its records alone."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import ClassVar

import msgspec

from detent.contracts.canonical import canonical_bytes
from detent.contracts.json_codec import to_json
from detent.core.ledger.chain import ChainEnd


class ReasonCount(msgspec.Struct, frozen=True, kw_only=True):
    """Counts the records under one reason."""

    reason: str
    record_count: int


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a summary needs of one record, in the order of its chain.

    Attributes:
        symbol: Instrument.
        ts_ms: Close time of the bar, Unix milliseconds.
        sequence: Place in the chain.
        record_hash: 64 hex.
        signal_source: `model` or `proxy`.
        fallback_reason: Why the proxy answered for a bound model, or None.
        weight_ppm: Final target weight.
    """

    symbol: str
    ts_ms: int
    sequence: int
    record_hash: str
    signal_source: str
    fallback_reason: str | None
    weight_ppm: int


class ResultsSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Sums up one plan; it is written once, when the plan closes.

    Attributes:
        plan_id: The plan.
        first_ts_ms: Close time of its first bar, Unix milliseconds; 0 without any.
        last_ts_ms: Close time of its last bar.
        record_count: Its records.
        model_count: Those that the model answered.
        turnover_ppm: Sum of the moves between final target weights, per symbol from flat, or
            from where the plan that it replaced had left it.
        fallbacks: How often the proxy answered for the model, by reason.
        heads: The last record of each chain.
    """

    SCHEMA: ClassVar[str] = "detent.results_summary.v1"

    plan_id: str
    first_ts_ms: int
    last_ts_ms: int
    record_count: int
    model_count: int
    turnover_ppm: int
    fallbacks: tuple[ReasonCount, ...]
    heads: tuple[ChainEnd, ...]

    @property
    def canonical(self) -> bytes:
        """Give the bytes that the ledger stores."""
        return canonical_bytes(self.SCHEMA, to_json(self))


def summarise(
    plan_id: str, rows: Iterable[RunRow], begun_ppm: Mapping[str, int] | None = None
) -> ResultsSummary:
    """Sum up the records of one plan.

    Args:
        plan_id: The plan.
        rows: Its records, each chain in its order.
        begun_ppm: Weights that symbols were taken over with from a replaced plan.
    """
    begun_ppm = begun_ppm or {}
    times: list[int] = []
    model_count = turnover_ppm = 0
    fallbacks: Counter[str] = Counter()
    heads: dict[str, RunRow] = {}
    for row in rows:
        times.append(row.ts_ms)
        model_count += row.signal_source == "model"
        if row.fallback_reason is not None:
            fallbacks[row.fallback_reason] += 1
        before = heads.get(row.symbol)
        before_ppm = before.weight_ppm if before else begun_ppm.get(row.symbol, 0)
        turnover_ppm += abs(row.weight_ppm - before_ppm)
        heads[row.symbol] = row
    return ResultsSummary(
        plan_id=plan_id,
        first_ts_ms=min(times, default=0),
        last_ts_ms=max(times, default=0),
        record_count=len(times),
        model_count=model_count,
        turnover_ppm=turnover_ppm,
        fallbacks=tuple(
            ReasonCount(reason=reason, record_count=count)
            for reason, count in sorted(fallbacks.items())
        ),
        heads=tuple(
            ChainEnd(
                plan_id=plan_id,
                symbol=symbol,
                sequence=head.sequence,
                record_hash=head.record_hash,
            )
            for symbol, head in sorted(heads.items())
        ),
    )
