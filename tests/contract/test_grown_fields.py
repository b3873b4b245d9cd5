"""Proves that a field that a type got later changes no older text, and has one text itself."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.builders import plan_of, record_of, row_of

from detent.contracts.caller_feature import CALLER_FEATURES_MAX, CallerFeature
from detent.contracts.calls.policy import DecideTargetWeightsRequest
from detent.contracts.canonical import parse_json
from detent.contracts.decision import DecisionKind, DecisionRecord, DecisionRow
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.market import INTERVAL_MS_MAX
from detent.contracts.plan import Plan
from detent.contracts.wire import from_wire, message_class, to_wire

GRID = CallerFeature(name="grid_levels_active", value=Decimal(7))
SIZE = CallerFeature(name="position_size", value=Decimal("-2.50"))
NAMES = st.text(alphabet="abc_", min_size=1, max_size=4).filter(lambda name: name[0] != "_")
VALUES = st.decimals(min_value=-(10**6), max_value=10**6, places=3, allow_nan=False)


def one_of(name: str, value: Decimal | str = "1") -> CallerFeature:
    return CallerFeature(name=name, value=Decimal(value))


def through_the_wire(row: DecisionRow) -> DecisionRow:
    data = to_wire(row).SerializeToString()
    return from_wire(DecisionRow, message_class("DecisionRow").FromString(data))


def test_row_without_caller_features_has_no_such_key() -> None:
    assert "caller_features" not in to_json(row_of())
    assert to_json(row_of(caller_features=())) == to_json(row_of())


def test_row_with_caller_features_comes_back_equal_from_both_codecs() -> None:
    record = record_of(row=row_of(caller_features=(SIZE, GRID)))
    data = to_wire(record).SerializeToString()

    assert from_wire(DecisionRecord, message_class("DecisionRecord").FromString(data)) == record
    read = from_json(DecisionRecord, parse_json("record", record.canonical))
    assert read.canonical == record.canonical
    assert to_json(record.row)["caller_features"] == [
        {"name": "grid_levels_active", "value": "7"},
        {"name": "position_size", "value": "-2.5"},
    ]


@pytest.mark.proves("R34")
@given(said=st.dictionaries(NAMES, VALUES, min_size=1, max_size=6), data=st.data())
def test_listing_order_changes_neither_the_question_nor_its_hash(
    said: dict[str, Decimal], data: st.DataObject
) -> None:
    listed = [CallerFeature(name=name, value=value) for name, value in said.items()]
    shuffled = data.draw(st.permutations(listed))
    one, other = (row_of(caller_features=tuple(order)) for order in (listed, shuffled))

    assert one == other
    assert through_the_wire(other) == one
    assert record_of(row=one).record_hash == record_of(row=other).record_hash


@given(value=VALUES, step=st.sampled_from([Decimal("0.001"), Decimal(1)]))
def test_another_value_is_another_record(value: Decimal, step: Decimal) -> None:
    """The control of the test above: what it finds equal, it could have found different."""
    one, other = (
        row_of(caller_features=(SIZE, one_of("x", said))) for said in (value, value + step)
    )

    assert one != other
    assert record_of(row=one).record_hash != record_of(row=other).record_hash


@pytest.mark.parametrize("silent", [None, []], ids=["null", "empty"])
def test_grown_field_that_says_nothing_has_no_second_text(silent: Any) -> None:
    with pytest.raises(InvalidField) as refused:
        from_json(DecisionRow, to_json(row_of()) | {"caller_features": silent})

    assert refused.value.field == "caller_features"
    assert refused.value.expected == "something, or no such key"


def test_greatest_age_of_zero_says_something() -> None:
    """Absent is not zero: 0 asks for data of the very instant."""
    plan = plan_of("plan", max_feature_age_ms=0)

    assert "max_feature_age_ms" not in to_json(plan_of("plan"))
    assert to_json(plan)["max_feature_age_ms"] == 0
    assert from_json(Plan, to_json(plan)) == plan
    assert from_wire(Plan, to_wire(plan)) == plan
    assert from_wire(Plan, to_wire(plan_of("plan"))).max_feature_age_ms is None


@pytest.mark.parametrize("age_ms", [-1, INTERVAL_MS_MAX + 1, True])
def test_greatest_age_out_of_range_is_refused(age_ms: Any) -> None:
    with pytest.raises(InvalidField) as refused:
        plan_of("plan", max_feature_age_ms=age_ms)

    assert refused.value.field == "max_feature_age_ms"
    assert refused.value.expected == f"an integer in [0, {INTERVAL_MS_MAX}]"


@pytest.mark.parametrize(
    ("said", "found", "expected"),
    [
        pytest.param((GRID, GRID), "grid_levels_active", "each name once", id="twice"),
        pytest.param(
            tuple(one_of(f"x{number}") for number in range(CALLER_FEATURES_MAX + 1)),
            "1025 items",
            "1 to 1024 items",
            id="too many",
        ),
        pytest.param([GRID], "1 items", "1 to 1024 items", id="no tuple"),
    ],
)
def test_caller_features_that_are_no_list_of_names_are_refused(
    said: Any, found: str, expected: str
) -> None:
    with pytest.raises(InvalidField) as refused:
        row_of(caller_features=said)

    error = refused.value
    assert (error.field, error.found, error.expected) == ("caller_features", found, expected)


def test_as_many_as_allowed_are_taken() -> None:
    said = tuple(one_of(f"x{number}") for number in range(CALLER_FEATURES_MAX))

    assert len(row_of(caller_features=said).caller_features) == CALLER_FEATURES_MAX


@pytest.mark.parametrize("text", ["1e3", "+1", "NaN", "", "0x1", "1" * 41])
def test_malformed_value_on_the_wire_is_named_by_its_path(text: str) -> None:
    request = DecideTargetWeightsRequest(
        binding_hash="a" * 64,
        plan_id="plan",
        ts_ms=1_700_002_800_000,
        kind=DecisionKind.BAR,
        rows=(row_of(), row_of("GBPUSD", caller_features=(GRID, SIZE))),
    )
    message = to_wire(request)
    message.rows[1].caller_features[1].value = text

    with pytest.raises(InvalidField) as refused:
        from_wire(DecideTargetWeightsRequest, message)

    assert refused.value.field == "rows[1].caller_features[1].value"
    assert refused.value.found == text
    assert "plain decimal" in refused.value.expected


def test_row_that_was_changed_keeps_its_caller_features_sorted() -> None:
    changed = structs.replace(row_of(), caller_features=(SIZE, GRID))

    assert changed.caller_features == (GRID, SIZE)
