"""Verify a whole ledger: its chains, its anchors, and the tables that have no chain."""

from collections.abc import Sequence
from functools import partial

import msgspec

from detent.adapters.ledger_anchors import DIGESTED
from detent.adapters.ledger_reading import LedgerReader, check_plan_known
from detent.adapters.ledger_spans import SHARED_ROWS_MIN, Span, spread
from detent.contracts.calls.ledger import ChainBreak, ChainHead, VerifyLedgerResponse
from detent.contracts.units import ROWS_MAX
from detent.core.ledger.anchor import Anchored, digest_breaks
from detent.core.ledger.chain import (
    BREAKS_MAX,
    ChainKey,
    Pins,
    Verification,
    joined,
    verify_chains,
)


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a whole verification found.

    Attributes:
        chains: What the walk over the chains found.
        anchor_count: The anchors that were held against it.
        later_count: Rows of other tables after the last anchor; None where none was held
            against it, because there is no anchor or one plan was asked for.
        breaks: What does not hold of the anchors and the tables without chains.
    """

    chains: Verification
    anchor_count: int
    later_count: int | None
    breaks: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Say whether nothing was found."""
        return not self.chains.breaks and not self.breaks

    @property
    def response(self) -> VerifyLedgerResponse:
        """Say it as the wire does; a break of the anchors names no plan."""
        chains = self.chains
        of_chains = [
            ChainBreak(
                plan_id=one.plan_id,
                symbol=one.symbol,
                sequence=one.sequence,
                message=one.message,
            )
            for one in chains.breaks
        ]
        of_anchors = [
            ChainBreak(plan_id="", symbol="", sequence=0, message=message)
            for message in self.breaks
        ]
        return VerifyLedgerResponse(
            record_count=chains.record_count,
            chain_count=len(chains.heads),
            breaks=tuple([*of_anchors, *of_chains][:BREAKS_MAX]),
            heads=tuple(
                ChainHead(
                    plan_id=head.plan_id,
                    symbol=head.symbol,
                    sequence=head.sequence,
                    record_hash=head.record_hash,
                )
                for head in chains.heads[:ROWS_MAX]
            ),
            unanchored_count=chains.unanchored_count,
            anchor_count=self.anchor_count,
        )


def audit(
    reader: LedgerReader,
    anchored: Sequence[Anchored],
    plan_id: str = "",
    *,
    shipped_from: Sequence[LedgerReader] = (),
    workers: int = 1,
    shared_rows_min: int = SHARED_ROWS_MIN,
) -> Audit:
    """Verify chains, and with anchors also what was before them, table by table.

    Args:
        reader: Where the ledger lies.
        anchored: The anchors of each ledger whose rows are read; none says nothing of suffixes.
        plan_id: Only this plan; empty verifies all.
        shipped_from: Ledgers that may know a plan of which nothing has arrived here yet.
        workers: Processes that share the chains; a service verifies in its own.
        shared_rows_min: Records from which on they do.

    Raises:
        PlanNotFound: Neither the ledger nor an anchor has heard of the plan.
        LedgerUnavailable: It cannot be read.
    """
    pins = {
        key: held for one in anchored for key, held in one.pins.items() if plan_id in ("", key[0])
    }
    walk = partial(_walk, reader, plan_id, pins)
    counts = reader.symbol_counts(plan_id) if workers > 1 else ()
    chains = joined(spread(walk, counts, workers=workers, shared_rows_min=shared_rows_min))
    if plan_id and not chains.record_count and not pins:
        check_plan_known((reader, *shipped_from), plan_id)
    breaks = [broken for one in anchored for broken in one.breaks]
    later_count = None
    for one in anchored:
        if plan_id or one.last is None:
            continue
        later_count = later_count or 0
        # A table that held nothing at any anchor is in none of them.
        for table in DIGESTED:
            expected = one.tables.get(table, {})
            later, found = digest_breaks(reader.table(table, one.last.ledger_id), expected)
            later_count += later
            breaks += [f"{table}: {broken}" for broken in found]
    return Audit(
        chains=chains,
        anchor_count=sum(one.count for one in anchored),
        later_count=later_count,
        breaks=tuple(breaks),
    )


def _walk(
    reader: LedgerReader, plan_id: str, pins: dict[ChainKey, Pins], span: Span
) -> Verification:
    held = {key: of_chain for key, of_chain in pins.items() if span.holds(key[1])}
    return verify_chains(reader.stored(plan_id, span), held)
