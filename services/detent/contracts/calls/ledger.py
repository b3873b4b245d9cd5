"""Hold the requests and responses of `LedgerService`."""

import msgspec

from detent.contracts.checks import check_hash_shown, check_int, check_ts_ms
from detent.contracts.decision import DecisionRecord
from detent.contracts.reasons import Reason

PAGE_SIZE_MAX = 1_000


class GetDecisionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for one record by its hash, 64 hex or the 16 of its display form."""

    record_hash: str

    def __post_init__(self) -> None:
        """Refuse what is no hash."""
        check_hash_shown("record_hash", self.record_hash)


class GetDecisionResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Gives one record and the canonical JSON that was hashed."""

    record: DecisionRecord
    canonical_json: str


class ListDecisionsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a page of records; what is empty or None does not select.

    Attributes:
        plan_id: Only this plan.
        symbol: Only this instrument.
        page_size: Bounds the page, [1, 1000].
        page_token: Continues after an earlier page of the same question.
        from_ts_ms: Only bars that closed at this instant or later, Unix milliseconds.
        until_ts_ms: Only bars that closed before this instant.
        reason: Only records that name it, wherever: as fallback, of the proxy, or as a rule.
    """

    plan_id: str
    symbol: str
    page_size: int
    page_token: str
    from_ts_ms: int | None = None
    until_ts_ms: int | None = None
    reason: Reason | None = None

    def __post_init__(self) -> None:
        """Refuse a page without bounds, and instants that are none."""
        check_int("page_size", self.page_size, 1, PAGE_SIZE_MAX)
        for name in ("from_ts_ms", "until_ts_ms"):
            if getattr(self, name) is not None:
                check_ts_ms(name, getattr(self, name))


class ListDecisionsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Gives a page of records; an empty token ends the list."""

    records: tuple[DecisionRecord, ...]
    next_page_token: str


class VerifyLedgerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a verification; an empty name verifies all."""

    plan_id: str


class ChainBreak(msgspec.Struct, frozen=True, kw_only=True):
    """Names one place where a chain does not hold."""

    plan_id: str
    symbol: str
    sequence: int
    message: str


class ChainHead(msgspec.Struct, frozen=True, kw_only=True):
    """Names the last record of a chain."""

    plan_id: str
    symbol: str
    sequence: int
    record_hash: str


class VerifyLedgerResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Reports a verification; no breaks means that the ledger is whole.

    Attributes:
        record_count: The records that were read.
        chain_count: Their chains, one per plan and symbol.
        breaks: The first 100 breaks; one of the anchors themselves names no plan.
        heads: The head of every chain, at most 5000.
        unanchored_count: The records after the last anchor of their chain.
        anchor_count: The signed anchors that the ledger was held against.
    """

    record_count: int
    chain_count: int
    breaks: tuple[ChainBreak, ...]
    heads: tuple[ChainHead, ...]
    unanchored_count: int = 0
    anchor_count: int = 0


class ReplayDecisionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a replay of one record by its hash, 64 hex or the 16 of its display form."""

    record_hash: str

    def __post_init__(self) -> None:
        """Refuse what is no hash."""
        check_hash_shown("record_hash", self.record_hash)


class ReplayDecisionResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Reports a replay; equal hashes mean that it reproduced the record."""

    record_hash: str
    replayed_hash: str
    recorded_json: str
    replayed_json: str
