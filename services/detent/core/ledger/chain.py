"""Verify the hash chain of the ledger, one chain per plan and symbol."""

from collections.abc import Iterable

import msgspec

from detent.contracts.canonical import parse_json, sha256_hex
from detent.contracts.decision import GENESIS_HASH
from detent.contracts.errors import InvalidField

BREAKS_MAX = 100
# What a row is found by: the chain's place and the bar's key.
KEYS = ("plan_id", "symbol", "ts_ms", "kind", "sequence")


class StoredRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one row as it stands in the store: the keys, the hash, the bytes."""

    plan_id: str
    symbol: str
    ts_ms: int
    kind: str
    sequence: int
    record_hash: str
    canonical: bytes


class Break(msgspec.Struct, frozen=True, kw_only=True):
    """Names one place where a chain does not hold, and what was found there."""

    plan_id: str
    symbol: str
    sequence: int
    message: str


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a walk over the chains found; no breaks means that they are whole."""

    record_count: int
    breaks: tuple[Break, ...]
    heads: tuple[StoredRecord, ...]


def verify_chains(records: Iterable[StoredRecord]) -> Verification:
    """Recompute every hash and every link.

    Args:
        records: All rows of the chains, each chain in order of its sequence.

    Returns:
        The count, the first breaks, and the head of each chain.
    """
    heads: dict[tuple[str, str], StoredRecord] = {}
    breaks: list[Break] = []
    count = 0
    for record in records:
        count += 1
        key = (record.plan_id, record.symbol)
        message = _broken(record, heads.get(key))
        if message is not None and len(breaks) < BREAKS_MAX:
            breaks.append(
                Break(
                    plan_id=record.plan_id,
                    symbol=record.symbol,
                    sequence=record.sequence,
                    message=message,
                )
            )
        heads[key] = record
    return Verification(record_count=count, breaks=tuple(breaks), heads=tuple(heads.values()))


def _broken(record: StoredRecord, before: StoredRecord | None) -> str | None:
    """Say what is wrong with one row, or None."""
    # (1) The bytes are those that were hashed.
    found_hash = sha256_hex(record.canonical)
    if found_hash != record.record_hash:
        return f"the bytes hash to {found_hash}, the row says {record.record_hash}"
    # (2) The row is filed under the record's own keys: a moved row would hide a bar.
    try:
        fields = parse_json("record", record.canonical)
    except InvalidField as error:
        return error.message
    row = fields.get("row")
    own = {**fields, "symbol": row.get("symbol") if isinstance(row, dict) else None}
    found = tuple(own.get(name) for name in KEYS)
    expected = tuple(getattr(record, name) for name in KEYS)
    if found != expected:
        return f"the record says {found}, the row is filed under {expected}"
    # (3) The record follows the one before.
    expected_sequence = before.sequence + 1 if before is not None else 0
    if record.sequence != expected_sequence:
        return f"sequence {record.sequence} follows, expected {expected_sequence}"
    expected_hash = before.record_hash if before is not None else GENESIS_HASH
    if fields.get("previous_hash") != expected_hash:
        return f"previous_hash is {fields.get('previous_hash')}, expected {expected_hash}"
    return None
