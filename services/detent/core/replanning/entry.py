"""Account for one replan: what was asked, what became of it, and what was carried over."""

from typing import ClassVar

import msgspec

from detent.contracts.canonical import canonical_bytes
from detent.contracts.json_codec import to_json
from detent.contracts.replanning import ReplanCause, ReplanOutcome, ReplanSkipReason


class CarriedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Names the record where the state of one symbol goes on from."""

    symbol: str
    record_hash: str


class ReplanEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one replan as the ledger keeps it.

    Attributes:
        book: Book of both plans.
        plan_id: The plan that decided.
        new_plan_id: The plan that should replace it; empty for one that was never made.
        ts_ms: The instant of which it was, Unix milliseconds in data time.
        outcome: What became of it.
        cause: What made the strategist replan; None for one that was never made.
        note: Why, in words.
        skip_reason: Why it was skipped, or None.
        changed: The material parts in which the new plan differs.
        only_tightens: Whether it permits nothing that the old plan did not.
        material_hash: Hash of what counts of the new plan; empty for one that was never made.
        carried: Where each symbol goes on from, for one that replaced a plan.
    """

    SCHEMA: ClassVar[str] = "detent.replan.v1"

    book: str
    plan_id: str
    new_plan_id: str
    ts_ms: int
    outcome: ReplanOutcome
    cause: ReplanCause | None = None
    note: str = ""
    skip_reason: ReplanSkipReason | None = None
    changed: tuple[str, ...] = ()
    only_tightens: bool = False
    material_hash: str = ""
    carried: tuple[CarriedRecord, ...] = ()

    @property
    def canonical(self) -> bytes:
        """Give the bytes that the ledger stores."""
        return canonical_bytes(self.SCHEMA, to_json(self))
