"""Hold the requests and responses of `LedgerService`."""

import dataclasses

from detent.contracts.checks import check_hash64, check_int
from detent.contracts.decision import DecisionRecord

PAGE_SIZE_MAX = 1_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GetDecisionRequest:
    """Asks for one record."""

    record_hash: str

    def __post_init__(self) -> None:
        """Refuse what is no hash."""
        check_hash64("record_hash", self.record_hash)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GetDecisionResponse:
    """Gives one record and the canonical JSON that was hashed."""

    record: DecisionRecord
    canonical_json: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ListDecisionsRequest:
    """Asks for a page of records; empty names list all."""

    plan_id: str
    symbol: str
    page_size: int
    page_token: str

    def __post_init__(self) -> None:
        """Refuse a page without bounds."""
        check_int("page_size", self.page_size, 1, PAGE_SIZE_MAX)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ListDecisionsResponse:
    """Gives a page of records; an empty token ends the list."""

    records: tuple[DecisionRecord, ...]
    next_page_token: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VerifyLedgerRequest:
    """Asks for a verification; an empty name verifies all."""

    plan_id: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChainBreak:
    """Names one place where a chain does not hold."""

    plan_id: str
    symbol: str
    sequence: int
    message: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChainHead:
    """Names the last record of a chain."""

    plan_id: str
    symbol: str
    sequence: int
    record_hash: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VerifyLedgerResponse:
    """Reports a verification; no breaks means that the ledger is whole."""

    record_count: int
    chain_count: int
    breaks: tuple[ChainBreak, ...]
    heads: tuple[ChainHead, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReplayDecisionRequest:
    """Asks for a replay of one record."""

    record_hash: str

    def __post_init__(self) -> None:
        """Refuse what is no hash."""
        check_hash64("record_hash", self.record_hash)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReplayDecisionResponse:
    """Reports a replay; equal hashes mean that it reproduced the record."""

    record_hash: str
    replayed_hash: str
    recorded_json: str
    replayed_json: str
