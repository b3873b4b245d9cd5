"""State where every chain of a ledger stands, so that nobody can rewrite what was before.

An anchor names the chains that moved since the one before it, digests the tables that have no
chain of their own, and cites the anchor before. It is signed and kept outside the database
(decision D23, `adapters/ledger_anchors`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import msgspec

from detent.contracts.canonical import canonical_bytes, sha256_hex
from detent.contracts.checks import check_hash64, check_int
from detent.contracts.decision import GENESIS_HASH
from detent.contracts.json_codec import to_json
from detent.contracts.units import INT64_MAX, TS_MS_MAX
from detent.core.ledger.chain import ChainEnd, ChainKey

_ENCODER = msgspec.json.Encoder()


class TableDigest(msgspec.Struct, frozen=True, kw_only=True):
    """Digests every row of one table up to a number.

    Attributes:
        table: Name of the table.
        last_id: Number of the last row that is covered.
        digest: Fold of SHA-256 over the rows, 64 hex; see `digest_row`.
    """

    table: str
    last_id: int
    digest: str


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """Holds where a ledger stood at one moment.

    Attributes:
        ledger_id: Which ledger, 16 hex; drawn once when its file was made.
        anchor_index: Counts the anchors of the ledger from 0.
        at_ms: Wall clock, Unix milliseconds.
        previous_anchor_hash: Hash of the anchor before, 64 hex; zeros for the first.
        last_record_id: Number of the last record that is covered.
        heads: The chains that moved since the anchor before.
        tables: The tables that hold anything.
    """

    SCHEMA: ClassVar[str] = "detent.ledger_anchor.v1"

    ledger_id: str
    anchor_index: int
    at_ms: int
    previous_anchor_hash: str
    last_record_id: int
    heads: tuple[ChainEnd, ...]
    tables: tuple[TableDigest, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be an anchor."""
        check_int("anchor_index", self.anchor_index, 0, INT64_MAX)
        check_int("at_ms", self.at_ms, 0, TS_MS_MAX)
        check_int("last_record_id", self.last_record_id, 0, INT64_MAX)
        check_hash64("previous_anchor_hash", self.previous_anchor_hash)

    @property
    def canonical(self) -> bytes:
        """Give the bytes that are hashed and signed."""
        return canonical_bytes(self.SCHEMA, to_json(self))

    @property
    def anchor_hash(self) -> str:
        """Hash the canonical bytes to 64 hex."""
        return sha256_hex(self.canonical)


class Anchored(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what all anchors of a ledger say together.

    Attributes:
        count: The anchors.
        last: The newest, or None.
        pins: The hashes that they hold, by chain and sequence.
        tables: The digests that they hold, by table and number of the last row.
        breaks: Where the anchors themselves do not hold.
    """

    count: int
    last: Anchor | None
    pins: Mapping[ChainKey, Mapping[int, str]]
    tables: Mapping[str, Mapping[int, str]]
    breaks: tuple[str, ...]


def fold_anchors(anchors: Sequence[Anchor]) -> Anchored:
    """Join the anchors of one ledger, oldest first, and check that none is missing."""
    pins: dict[ChainKey, dict[int, str]] = {}
    tables: dict[str, dict[int, str]] = {}
    breaks: list[str] = []
    index, before = 0, GENESIS_HASH
    for anchor in anchors:
        if (anchor.anchor_index, anchor.previous_anchor_hash) != (index, before):
            breaks.append(
                f"anchor {anchor.anchor_index} cites {anchor.previous_anchor_hash},"
                f" expected anchor {index} to cite {before}"
            )
        if anchor.ledger_id != anchors[0].ledger_id:
            breaks.append(f"anchor {anchor.anchor_index} is of ledger {anchor.ledger_id}")
        for head in anchor.heads:
            pins.setdefault((head.plan_id, head.symbol), {})[head.sequence] = head.record_hash
        for table in anchor.tables:
            tables.setdefault(table.table, {})[table.last_id] = table.digest
        index, before = anchor.anchor_index + 1, anchor.anchor_hash
    return Anchored(
        count=len(anchors),
        last=anchors[-1] if anchors else None,
        pins=pins,
        tables=tables,
        breaks=tuple(breaks),
    )


def digest_row(row: Sequence[object], digest: str) -> str:
    """Fold one more row into a digest: the SHA-256 of the digest before and the row as JSON."""
    return sha256_hex(digest.encode() + _ENCODER.encode(row))


def digest_breaks(
    rows: Iterable[Sequence[object]], expected: Mapping[int, str]
) -> tuple[int, list[str]]:
    """Compare the rows of a table with what anchors digest of it.

    Args:
        rows: Every row in the order of the numbers, which come first in each.
        expected: Digest by number of the last row covered.

    Returns:
        How many rows come after the last anchor, and what does not hold.
    """
    due = sorted(expected.items(), reverse=True)
    digest, last_id, later_count = GENESIS_HASH, 0, 0
    breaks: list[str] = []
    for row in rows:
        number = int(str(row[0]))
        while due and due[-1][0] < number:
            breaks += _digest_break(last_id, digest, *due.pop())
        if not due:
            later_count += 1
        digest = digest_row(row, digest)
        last_id = number
    while due:
        breaks += _digest_break(last_id, digest, *due.pop())
    return later_count, breaks


def _digest_break(last_id: int, found: str, expected_id: int, expected: str) -> list[str]:
    if found == expected:
        return []
    return [
        (
            f"up to row {last_id} the rows digest to {found}, an anchor says {expected}"
            f" up to row {expected_id}"
        )
    ]
