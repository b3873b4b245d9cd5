"""Proves that what policy got later changes no older text, and travels by both codecs."""

from typing import Any

import msgspec
import pytest
from msgspec import structs
from tests.builders import START_MS, emergency, plan_of, record_of, row_of
from tests.unit.core.rollout.test_book_gates import book

from detent.contracts.canonical import parse_json
from detent.contracts.decision import DecisionRecord
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.plan import (
    STATE_INITIAL,
    ExitIntent,
    ExitKind,
    L2Limits,
    MissingL2,
    RiskOverrides,
    StandDown,
    StandDownSource,
)
from detent.contracts.wire import from_wire, message_class, to_wire
from detent.core.ledger.record import carried_from

HALF = ExitIntent(kind=ExitKind.RISK_REDUCE, exit_rule_id="trim", reduce_ppm=500_000)
STAND_DOWN = StandDown(until_ts_ms=START_MS + 1, reason="news", source=StandDownSource.OPS)
# A value that says nothing, the field that it got, and what it may say there.
GROWN = [
    pytest.param(row_of(), "l2_snapshot", book(), id="book"),
    pytest.param(row_of(exit_intent=HALF), "further_exit_intents", (HALF,), id="further exits"),
    pytest.param(emergency(), "reduce_ppm", None, id="share"),
    pytest.param(STATE_INITIAL, "latched_ts_ms", START_MS, id="latch"),
    pytest.param(STATE_INITIAL, "reversing_from_ppm", -150_000, id="reversal"),
    pytest.param(plan_of("p"), "l2_limits", L2Limits(missing_l2=MissingL2.BLOCK), id="limits"),
    pytest.param(record_of(), "stand_down", STAND_DOWN, id="stand-down"),
    pytest.param(
        record_of(), "carried", carried_from(record_of(), record_of().record_hash), id="carried"
    ),
]


@pytest.mark.parametrize(("silent", "field", "said"), GROWN)
def test_a_field_that_came_later_is_no_key_until_it_says_something(
    silent: msgspec.Struct, field: str, said: Any
) -> None:
    kind = type(silent)
    assert field not in to_json(silent)
    for nothing in (None, []):
        with pytest.raises(InvalidField) as refused:
            from_json(kind, to_json(silent) | {field: nothing})
        assert refused.value.field == field
    if said is None:
        return
    saying = structs.replace(silent, **{field: said})
    assert field in to_json(saying)
    assert from_json(kind, to_json(saying)) == saying
    data = to_wire(saying).SerializeToString()
    assert from_wire(kind, message_class(kind.__name__).FromString(data)) == saying


def test_a_record_with_all_of_it_comes_back_from_its_text() -> None:
    row = row_of(
        exit_intent=emergency(),
        further_exit_intents=(HALF,),
        l2_snapshot=book(),
        risk_overrides=RiskOverrides(stand_down=STAND_DOWN),
    )
    record = record_of(row=row)

    assert record.stand_down == STAND_DOWN
    read = from_json(DecisionRecord, parse_json("record", record.canonical))
    assert (read, read.canonical) == (record, record.canonical)
