"""Proves that whatever is done to stored records between two heads is found."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.builders import HOUR_MS, OTHER_SYMBOL, START_MS, SYMBOL, plan_of, record_of, row_of

from detent.contracts.binding import PROXY_BINDING
from detent.contracts.canonical import parse_json, sha256_hex
from detent.contracts.decision import DecisionRecord
from detent.contracts.json_codec import from_json
from detent.core.ledger.chain import ChainEnd, StoredRecord, chain_end, verify_chains
from detent.core.ledger.record import (
    CHAIN_START,
    ChainPoint,
    bind_plan,
    carried_from,
    chain_start,
)

Chain = list[StoredRecord]
COLUMNS = ("plan_id", "symbol", "ts_ms", "kind", "sequence", "record_hash", "canonical")
BOUND = bind_plan(plan_of("plan", (SYMBOL, OTHER_SYMBOL)), PROXY_BINDING)


def stored(record: DecisionRecord) -> StoredRecord:
    return (
        record.plan_id,
        record.row.symbol,
        record.ts_ms,
        record.kind.value,
        record.sequence,
        record.record_hash,
        record.canonical,
    )


def changed(row: StoredRecord, **changes: Any) -> Any:
    return tuple({**dict(zip(COLUMNS, row, strict=True)), **changes}.values())


def chain_of(length: int, symbol: str = SYMBOL) -> Chain:
    point, rows = CHAIN_START, []
    for bar in range(length):
        record = record_of(
            bound=BOUND, row=row_of(symbol), ts_ms=START_MS + bar * HOUR_MS, point=point
        )
        rows.append(stored(record))
        point = ChainPoint(
            sequence=bar + 1, previous_hash=record.record_hash, state=record.state_after
        )
    return rows


WHOLE = chain_of(12)


def test_a_whole_chain_verifies_and_gives_its_head() -> None:
    found = verify_chains(WHOLE)

    assert (found.record_count, found.breaks) == (12, ())
    assert found.heads == (
        ChainEnd(plan_id="plan", symbol=SYMBOL, sequence=11, record_hash=WHOLE[-1][5]),
    )


def test_chains_are_verified_one_by_one() -> None:
    found = verify_chains([*WHOLE, *chain_of(5, OTHER_SYMBOL)])

    assert (found.record_count, found.breaks, len(found.heads)) == (17, (), 2)


def successor(cited: DecisionRecord, **changes: Any) -> StoredRecord:
    """Give the first record of a plan that replaced the one of a record."""
    bound = bind_plan(structs.replace(BOUND.plan, plan_id="next"), BOUND.binding)
    carried = structs.replace(carried_from(cited, cited.record_hash), **changes)
    ts_ms = cited.ts_ms + HOUR_MS
    return stored(record_of(bound=bound, ts_ms=ts_ms, point=chain_start(carried)))


LAST, BEFORE = (
    from_json(DecisionRecord, parse_json("record", row[6])) for row in (WHOLE[-1], WHOLE[-2])
)


def test_a_plan_that_replaced_another_goes_on_from_the_end_of_its_chain() -> None:
    found = verify_chains([*WHOLE, successor(LAST)])

    assert (found.record_count, found.breaks, len(found.heads)) == (13, (), 2)
    # One plan may be verified by itself.
    assert verify_chains([successor(LAST)]).breaks == ()


@pytest.mark.parametrize(
    "row",
    [successor(BEFORE), successor(LAST, record_hash="0" * 64)],
    ids=["not the end", "no such record"],
)
def test_a_plan_that_goes_on_from_elsewhere_is_a_break(row: StoredRecord) -> None:
    (broken,) = verify_chains([*WHOLE, row]).breaks

    assert (broken.plan_id, broken.sequence) == ("next", 0)
    assert broken.message == "carried cites a record that does not end its chain"


def flipped(chain: Chain, at: int) -> Chain:
    """Flip one bit of the bytes."""
    content = bytearray(chain[at][6])
    content[len(content) // 2] ^= 1
    return replaced(chain, at, canonical=bytes(content))


def rehashed(chain: Chain, at: int) -> Chain:
    """Change the bytes and the row's hash with them."""
    text = chain[at][6].replace(b'"book"', b'"look"')
    return replaced(chain, at, canonical=text, record_hash=sha256_hex(text))


def replaced(chain: Chain, at: int, **changes: Any) -> Chain:
    return [*chain[:at], changed(chain[at], **changes), *chain[at + 1 :]]


def deleted(chain: Chain, at: int) -> Chain:
    return [*chain[:at], *chain[at + 1 :]]


def swapped(chain: Chain, at: int) -> Chain:
    """Swap two rows, each with the sequence of the place that it is put in."""
    one, other = chain[at], chain[at + 1]
    return [
        *chain[:at],
        changed(other, sequence=one[4]),
        changed(one, sequence=other[4]),
        *chain[at + 2 :],
    ]


def doubled(chain: Chain, at: int) -> Chain:
    return [*chain[: at + 1], *chain[at:]]


def refiled(chain: Chain, at: int) -> Chain:
    """Move a row to another bar without touching its bytes."""
    return replaced(chain, at, ts_ms=chain[at][2] + 1)


def rekinded(chain: Chain, at: int) -> Chain:
    return replaced(chain, at, kind="emergency")


def emptied(chain: Chain, at: int) -> Chain:
    return replaced(chain, at, canonical=b"")


def binary(chain: Chain, at: int) -> Chain:
    return replaced(chain, at, canonical=b"\xff\xfe\x00")


EDITS: Sequence[Callable[[Chain, int], Chain]] = (
    flipped,
    rehashed,
    deleted,
    swapped,
    doubled,
    refiled,
    rekinded,
    emptied,
    binary,
)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
@pytest.mark.parametrize("at", [0, 1, 5, 10])
def test_an_edit_before_the_head_is_found(edit: Callable[[Chain, int], Chain], at: int) -> None:
    found = verify_chains(edit(WHOLE, at))

    assert found.breaks
    assert found.breaks[0].sequence in (at, at + 1)
    assert found.breaks[0].message


@given(st.integers(0, len(WHOLE) - 1), st.data())
def test_no_bit_of_a_record_can_be_flipped_unseen(at: int, data: st.DataObject) -> None:
    content = bytearray(WHOLE[at][6])
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    assert verify_chains(replaced(WHOLE, at, canonical=bytes(content))).breaks


def test_ten_thousand_random_edits_are_all_found() -> None:
    chance = random.Random(1)
    for _ in range(10_000):
        edit, at = chance.choice(EDITS), chance.randrange(len(WHOLE) - 1)
        assert verify_chains(edit(WHOLE, at)).breaks, (edit.__name__, at)


def test_a_cut_tail_shows_in_the_head() -> None:
    """Within the file nothing is wrong with it: whoever noted the head before sees it."""
    cut = verify_chains(WHOLE[:-1])

    assert cut.breaks == ()
    assert cut.heads != verify_chains(WHOLE).heads


def test_breaks_are_listed_up_to_a_bound() -> None:
    chain = [changed(row, record_hash="0" * 64) for row in WHOLE * 20]

    assert len(verify_chains(chain).breaks) == 100


@given(end=st.integers(0, 10_000), near=st.integers(0, 10_000))
def test_the_end_of_a_chain_is_found_from_wherever_one_begins(end: int, near: int) -> None:
    asked: list[int] = []

    def is_there(sequence: int) -> bool:
        asked.append(sequence)
        return sequence <= end

    assert chain_end(is_there, near=near) == end
    assert len(asked) <= 30


def test_the_end_of_a_chain_as_long_as_the_last_one_costs_two_questions() -> None:
    asked: list[int] = []
    assert chain_end(lambda at: asked.append(at) or at <= 500, near=500) == 500
    assert asked == [500, 501]
