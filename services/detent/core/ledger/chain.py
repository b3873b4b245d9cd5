"""Verify the hash chain of the ledger, one chain per plan and symbol, against its anchors."""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from detent.contracts.canonical import parse_json, sha256_hex
from detent.contracts.decision import GENESIS_HASH
from detent.contracts.errors import InvalidField

BREAKS_MAX = 100
# What a row is found by: the chain's place and the bar's key.
KEYS = ("plan_id", "symbol", "ts_ms", "kind", "sequence")
ChainKey = tuple[str, str]
# The hash that an anchor holds at some sequences of a chain.
Pins = Mapping[int, str]
# One row as it stands in the store: the keys in the order of `KEYS`, the hash, the bytes.
StoredRecord = tuple[str, str, int, str, int, str, bytes]
_TYPES = (str, str, int, str, int, str, bytes)
UNFIT = "a column holds what it was not declared to hold"


class Break(msgspec.Struct, frozen=True, kw_only=True):
    """Names one place where a chain does not hold, and what was found there."""

    plan_id: str
    symbol: str
    sequence: int
    message: str


class ChainEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Names the last record of a chain."""

    plan_id: str
    symbol: str
    sequence: int
    record_hash: str


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a walk over the chains found; no breaks means that they are whole.

    Attributes:
        record_count: The rows that were read.
        unanchored_count: The rows after the last anchor of their chain: whoever rewrote all of
            them at once is not found yet.
        breaks: The first breaks.
        heads: The last record of each chain.
    """

    record_count: int
    unanchored_count: int
    breaks: tuple[Break, ...]
    heads: tuple[ChainEnd, ...]


def chain_end(is_there: Callable[[int], bool], *, near: int) -> int:
    """Find the last sequence of a chain, which begins at 0 and has no gap.

    Args:
        is_there: Says whether the chain has a record at a sequence; it has one at 0.
        near: A sequence to begin with; the closer to the end, the fewer questions.
    """
    low, high, step = 0, max(1, near), 1
    while is_there(high):
        low, high, step = high, high + step, 2 * step
    # There is a record at the lower one, and none at the higher.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_there(middle) else (low, middle)
    return low


class _Row(msgspec.Struct, frozen=True, gc=False):
    """Holds whose bar a record says that it is."""

    symbol: str


class _Cited(msgspec.Struct, frozen=True, gc=False):
    """Holds which record of a replaced plan a first record goes on from."""

    plan_id: str
    record_hash: str


class _Link(msgspec.Struct, frozen=True, gc=False):
    """Holds what a record says of its own place; whatever else it says is skipped."""

    plan_id: str
    row: _Row
    ts_ms: int
    kind: str
    sequence: int
    previous_hash: str
    carried: _Cited | None = None


_read_link = msgspec.json.Decoder(_Link).decode


class _Chain:
    """Holds where the walk stands in one chain."""

    __slots__ = ("head_hash", "last_pin", "pins", "sequence")

    def __init__(self, pins: Pins) -> None:
        self.sequence = -1
        self.head_hash = GENESIS_HASH
        self.pins = pins
        self.last_pin = max(pins, default=-1)


def verify_chains(
    records: Iterable[StoredRecord], anchored: Mapping[ChainKey, Pins] | None = None
) -> Verification:
    """Recompute every hash and every link, and hold the chains against their anchors.

    Args:
        records: All rows of the chains, each chain in order of its sequence.
        anchored: What anchors hold of them; None when there are none.

    Returns:
        The counts, the first breaks, and the head of each chain.
    """
    anchored = anchored or {}
    chains: dict[ChainKey, _Chain] = {}
    breaks: list[Break] = []
    record_count = unanchored_count = 0
    for row in records:
        record_count += 1
        plan_id, symbol, _, _, sequence, record_hash, _ = row
        chain = chains.get((plan_id, symbol))
        if chain is None:
            chain = chains[plan_id, symbol] = _Chain(anchored.get((plan_id, symbol), {}))
        if not _follows(row, chain, chains):
            if not _is_typed(row):
                _note(breaks, (str(plan_id), str(symbol), 0, "", -1, "", b""), UNFIT)
                continue
            _note(breaks, row, _broken(row, chain, chains))
        if sequence > chain.last_pin:
            unanchored_count += 1
        elif chain.pins.get(sequence, record_hash) != record_hash:
            _note(breaks, row, f"the hash is {record_hash}, an anchor says {chain.pins[sequence]}")
        chain.sequence, chain.head_hash = sequence, record_hash
    for key in sorted(anchored.keys() | chains.keys(), key=str):
        _note_end(breaks, key, chains.get(key), anchored.get(key, {}))
    return Verification(
        record_count=record_count,
        unanchored_count=unanchored_count,
        breaks=tuple(breaks[:BREAKS_MAX]),
        heads=tuple(
            ChainEnd(
                plan_id=str(plan_id),
                symbol=str(symbol),
                sequence=chain.sequence,
                record_hash=chain.head_hash,
            )
            for (plan_id, symbol), chain in chains.items()
        ),
    )


def joined(parts: Iterable[Verification]) -> Verification:
    """Give what walks over different chains found together; heads by their chains' names."""
    walks = tuple(parts)
    return Verification(
        record_count=sum(walk.record_count for walk in walks),
        unanchored_count=sum(walk.unanchored_count for walk in walks),
        breaks=tuple(broken for walk in walks for broken in walk.breaks)[:BREAKS_MAX],
        heads=tuple(
            sorted(
                (head for walk in walks for head in walk.heads),
                key=lambda head: (head.plan_id, head.symbol),
            )
        ),
    )


def _follows(row: StoredRecord, chain: _Chain, chains: Mapping[ChainKey, _Chain]) -> bool:
    """Say whether a row plainly follows; one that does not is looked at more closely."""
    plan_id, symbol, ts_ms, kind, sequence, record_hash, canonical = row
    try:
        link = _read_link(canonical)
        return (
            sha256_hex(canonical) == record_hash
            and link.sequence == sequence == chain.sequence + 1
            and link.previous_hash == chain.head_hash
            and link.ts_ms == ts_ms
            and link.row.symbol == symbol
            and link.plan_id == plan_id
            and link.kind == kind
            and (link.carried is None or _is_end(link, chains))
        )
    except (msgspec.MsgspecError, TypeError, UnicodeError):
        return False


def _is_end(link: _Link, chains: Mapping[ChainKey, _Chain]) -> bool:
    """Say whether what a record goes on from is the end of the chain that it cites.

    A chain that was not walked says nothing against it: one plan may be verified by itself.
    """
    cited = link.carried
    if cited is None:
        return True
    other = chains.get((cited.plan_id, link.row.symbol))
    return link.sequence == 0 and (other is None or other.head_hash == cited.record_hash)


def _is_typed(row: StoredRecord) -> bool:
    """Say whether each column holds what it is declared to hold; SQLite takes anything."""
    return tuple(map(type, row)) == _TYPES


def _note(breaks: list[Break], row: StoredRecord, message: str | None) -> None:
    if message is not None and len(breaks) < BREAKS_MAX:
        plan_id, symbol, _, _, sequence, *_ = row
        breaks.append(Break(plan_id=plan_id, symbol=symbol, sequence=sequence, message=message))


def _note_end(breaks: list[Break], key: ChainKey, chain: _Chain | None, pins: Pins) -> None:
    """Report a chain that ends before what an anchor has seen of it."""
    last_pin = max(pins, default=-1)
    found = chain.sequence if chain is not None else -1
    if found < last_pin:
        message = f"the chain ends at {found}, an anchor has seen {last_pin}"
        plan_id, symbol = key
        breaks.append(Break(plan_id=plan_id, symbol=symbol, sequence=found, message=message))


def _broken(row: StoredRecord, chain: _Chain, chains: Mapping[ChainKey, _Chain]) -> str | None:
    """Say what is wrong with one row, or None."""
    *keys, record_hash, canonical = row
    sequence = row[4]
    # (1) The bytes are those that were hashed.
    found_hash = sha256_hex(canonical)
    if found_hash != record_hash:
        return f"the bytes hash to {found_hash}, the row says {record_hash}"
    # (2) The row is filed under the record's own keys: a moved row would hide a bar.
    try:
        fields = parse_json("record", canonical)
    except InvalidField as error:
        return error.message
    asked = fields.get("row")
    own = {**fields, "symbol": asked.get("symbol") if isinstance(asked, dict) else None}
    found = [own.get(name) for name in KEYS]
    if found != keys:
        return f"the record says {tuple(found)}, the row is filed under {tuple(keys)}"
    # (3) The record follows the one before.
    if sequence != chain.sequence + 1:
        return f"sequence {sequence} follows, expected {chain.sequence + 1}"
    if fields.get("previous_hash") != chain.head_hash:
        return f"previous_hash is {fields.get('previous_hash')}, expected {chain.head_hash}"
    # (4) A first record goes on from the end of the chain that it cites.
    try:
        holds = _is_end(_read_link(canonical), chains)
    except msgspec.MsgspecError as error:
        return str(error)
    return None if holds else "carried cites a record that does not end its chain"
