"""Proves that anchors find what a chain alone cannot: a suffix that was rewritten or cut off."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from tests.builders import HOUR_MS, OTHER_SYMBOL, START_MS, SYMBOL, plan_of, record_of, row_of

from detent.contracts.binding import PROXY_BINDING
from detent.contracts.canonical import sha256_hex
from detent.contracts.decision import GENESIS_HASH
from detent.core.ledger.anchor import (
    Anchor,
    TableDigest,
    digest_breaks,
    digest_row,
    fold_anchors,
)
from detent.core.ledger.chain import ChainEnd, StoredRecord, Verification, verify_chains
from detent.core.ledger.record import CHAIN_START, ChainPoint, bind_plan

Rows = list[StoredRecord]
LENGTH = 24
ANCHORED = (5, 11, 17)
BOUND = bind_plan(plan_of("plan", (SYMBOL, OTHER_SYMBOL)), PROXY_BINDING)


def chain_of(symbol: str) -> Rows:
    point, rows = CHAIN_START, []
    for bar in range(LENGTH):
        record = record_of(
            bound=BOUND, row=row_of(symbol), ts_ms=START_MS + bar * HOUR_MS, point=point
        )
        text, record_hash = record.canonical, record.record_hash
        rows.append(("plan", symbol, record.ts_ms, "bar", bar, record_hash, text))
        point = ChainPoint(sequence=bar + 1, previous_hash=record_hash, state=record.state_after)
    return rows


WHOLE = chain_of(SYMBOL)
OTHER = chain_of(OTHER_SYMBOL)


def anchors_of(*chains: Rows) -> list[Anchor]:
    anchors: list[Anchor] = []
    for index, sequence in enumerate(ANCHORED):
        anchors.append(
            Anchor(
                ledger_id="0" * 16,
                anchor_index=index,
                at_ms=START_MS + sequence * HOUR_MS,
                previous_anchor_hash=anchors[-1].anchor_hash if anchors else GENESIS_HASH,
                last_record_id=2 * (sequence + 1),
                heads=tuple(
                    ChainEnd(plan_id=row[0], symbol=row[1], sequence=sequence, record_hash=row[5])
                    for row in (chain[sequence] for chain in chains)
                ),
                tables=(),
            )
        )
    return anchors


ANCHORS = fold_anchors(anchors_of(WHOLE, OTHER))


def verified(rows: Rows) -> Verification:
    return verify_chains([*rows, *OTHER], ANCHORS.pins)


# Edits of one chain at one place


def flip(rows: Rows, at: int, chance: random.Random) -> Rows:
    text = bytearray(rows[at][6])
    text[chance.randrange(len(text))] ^= 1 << chance.randrange(8)
    return [*rows[:at], (*rows[at][:6], bytes(text)), *rows[at + 1 :]]


def delete(rows: Rows, at: int, _chance: random.Random) -> Rows:
    return rows[:at] + rows[at + 1 :]


def delete_all(_rows: Rows, _at: int, _chance: random.Random) -> Rows:
    return []


def reorder(rows: Rows, at: int, chance: random.Random) -> Rows:
    other = chance.choice([place for place in range(len(rows)) if place != at])
    moved = list(rows)
    moved[at], moved[other] = moved[other], moved[at]
    return moved


def swap(rows: Rows, at: int, chance: random.Random) -> Rows:
    """Swap what two rows say, and leave each under the other's sequence."""
    other = chance.choice([place for place in range(len(rows)) if place != at])
    moved = reorder(rows, at, random.Random(0)) if other == at else list(rows)
    moved[at] = (*rows[other][:4], at, *rows[other][5:])
    moved[other] = (*rows[at][:4], other, *rows[at][5:])
    return moved


def truncate(rows: Rows, at: int, _chance: random.Random) -> Rows:
    return rows[:at]


def rewrite(rows: Rows, at: int, chance: random.Random) -> Rows:
    """Change a record and chain everything after it anew, as whoever has the code would."""
    rewritten, previous_hash = list(rows[:at]), GENESIS_HASH
    for place in range(at, len(rows)):
        fields: dict[str, Any] = json.loads(rows[place][6])
        if place == at:
            fields["outcome"]["target_weight_final_ppm"] += chance.randrange(1, 1_000)
        else:
            fields["previous_hash"] = previous_hash
        text = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
        previous_hash = sha256_hex(text)
        rewritten.append((*rows[place][:5], previous_hash, text))
    return rewritten


Edit = Callable[[Rows, int, random.Random], Rows]
EDITS: tuple[Edit, ...] = (flip, delete, delete_all, reorder, swap, truncate, rewrite)


def assert_all_found(count: int) -> None:
    chance = random.Random(count)
    for number in range(count):
        edit, at = chance.choice(EDITS), chance.randrange(ANCHORED[-1] + 1)
        found = verified(edit(WHOLE, at, chance))
        assert found.breaks, (number, edit.__name__, at)


def test_ten_thousand_random_edits_up_to_the_last_anchor_are_all_found() -> None:
    assert_all_found(10_000)


@pytest.mark.parametrize("edit", [truncate, rewrite, delete_all])
def test_without_anchors_the_same_edit_passes(edit: Edit) -> None:
    """The control: were it found anyway, the anchors would prove nothing."""
    edited = edit(WHOLE, 7, random.Random(1))

    assert verify_chains([*edited, *OTHER]).breaks == ()
    assert verified(edited).breaks


def test_rows_after_the_last_anchor_are_said_to_be_open() -> None:
    found = verified(WHOLE)
    rewritten = verified(rewrite(WHOLE, ANCHORED[-1] + 1, random.Random(1)))

    assert (found.breaks, found.unanchored_count) == ((), 2 * (LENGTH - ANCHORED[-1] - 1))
    assert rewritten.breaks == ()


def test_rows_of_other_types_are_a_break_and_not_a_crash() -> None:
    for place in range(7):
        odd: Any = (*WHOLE[3][:place], None, *WHOLE[3][place + 1 :])
        assert verified([*WHOLE[:3], odd, *WHOLE[4:]]).breaks


# The anchors themselves


def test_anchors_cite_one_another() -> None:
    one, two, three = anchors_of(WHOLE)

    assert fold_anchors([one, two, three]).breaks == ()
    assert fold_anchors([one, three]).breaks
    assert fold_anchors([two, three]).breaks
    assert fold_anchors([one, three, two]).breaks


def test_a_table_without_chains_is_digested_row_by_row() -> None:
    rows = [(number, f"row {number}") for number in range(1, 11)]
    digest = GENESIS_HASH
    expected = {}
    for row in rows:
        digest = digest_row(row, digest)
        if row[0] in (4, 8):
            expected[row[0]] = digest

    assert digest_breaks(rows, expected) == (2, [])
    for at in range(8):
        assert digest_breaks(rows[:at] + rows[at + 1 :], expected)[1]
        assert digest_breaks([*rows[:at], (rows[at][0], "other"), *rows[at + 1 :]], expected)[1]
        assert digest_breaks(rows[:at], expected)[1]
    assert digest_breaks([*rows[:9], (10, "later")], expected) == (2, [])


def test_an_anchor_has_one_text() -> None:
    anchor = anchors_of(WHOLE)[0]

    assert TableDigest(table="fills", last_id=1, digest="0" * 64)
    assert json.loads(anchor.canonical)["schema"] == "detent.ledger_anchor.v1"
    assert anchor.anchor_hash == sha256_hex(anchor.canonical)
