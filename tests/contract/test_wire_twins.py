"""Holds every domain type to its protobuf twin: the same names, the same kinds."""

import importlib
import re
import typing
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec
import pytest
from google.protobuf.descriptor import FieldDescriptor

from detent.contracts import (
    binding,
    caller_feature,
    certificate,
    decision,
    kill_switch,
    learning,
    market,
    plan,
    replanning,
    rollout,
    signals,
    snapshots,
    trades,
)
from detent.contracts.calls import (
    decision_stream,
    feature,
    inference,
    ledger,
    policy,
    signal_columns,
)
from detent.contracts.calls import replanning as replanning_calls
from detent.contracts.calls import rollout as rollout_calls
from detent.contracts.json_codec import is_domain_type, unwrap_optional
from detent.contracts.wire import PROTO_MODULES, message_class, wire_fields

MODULES = (
    binding,
    caller_feature,
    certificate,
    decision,
    kill_switch,
    learning,
    market,
    plan,
    replanning,
    rollout,
    signals,
    snapshots,
    trades,
    decision_stream,
    feature,
    inference,
    ledger,
    policy,
    replanning_calls,
    rollout_calls,
    signal_columns,
)
TWINS = {
    kind.__name__: kind
    for module in MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
}
TEXT, BYTES, MESSAGE, ENUM, BOOL, INT32, INT64 = (
    FieldDescriptor.TYPE_STRING,
    FieldDescriptor.TYPE_BYTES,
    FieldDescriptor.TYPE_MESSAGE,
    FieldDescriptor.TYPE_ENUM,
    FieldDescriptor.TYPE_BOOL,
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
)


def messages() -> dict[str, Any]:
    """List every message of the package by name."""
    found = {}
    for name in PROTO_MODULES:
        module = importlib.import_module(f"detent.api.v1.{name}_pb2")
        found.update(module.DESCRIPTOR.message_types_by_name)
    return found


def wire_types(hint: Any) -> set[int]:
    """Give the wire types that a domain type may travel as."""
    if typing.get_origin(hint) is tuple:
        return wire_types(unwrap_optional(typing.get_args(hint)[0])[0])
    if typing.get_origin(hint) is dict or is_domain_type(hint):
        return {MESSAGE}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {ENUM}
    plain = {bool: {BOOL}, int: {INT32, INT64}, str: {TEXT}, Decimal: {TEXT}, bytes: {BYTES}}
    return plain[hint]


def test_every_message_has_a_domain_type_and_every_domain_type_a_message() -> None:
    assert set(messages()) == set(TWINS)


@pytest.mark.proves("R314", "R1", "R10", "R20")
@pytest.mark.parametrize("name", sorted(TWINS))
def test_a_domain_type_has_the_fields_of_its_message(name: str) -> None:
    fields = messages()[name].fields_by_name
    hints = dict(wire_fields(TWINS[name]))

    assert set(hints) == set(fields)
    for field_name, hint in hints.items():
        bare, optional = unwrap_optional(hint)
        field = fields[field_name]
        assert field.type in wire_types(bare), field_name
        assert field.is_repeated == (typing.get_origin(bare) in (tuple, dict)), field_name
        if field.has_presence and bare in (bool, int, str, Decimal):
            assert optional, f"{field_name} may lack on the wire"


@pytest.mark.proves("R1")
def test_the_feature_snapshot_has_the_seeds_twelve_fields() -> None:
    fields = messages()["FeatureSnapshot"].fields

    assert [(field.number, field.name, field.type) for field in fields] == [
        (1, "ts", INT64),
        (2, "symbol", TEXT),
        (3, "mid_price", TEXT),
        (4, "spread_bps", INT32),
        (5, "imbalance_l1_bps", INT32),
        (6, "thin_l1", TEXT),
        (7, "natr_bps", INT32),
        (8, "atr", TEXT),
        (9, "sum_abs_returns_bps", INT32),
        (10, "net_return_bps", INT32),
        (11, "range_score", INT32),
        (12, "warmup_bars", INT32),
    ]


@pytest.mark.proves("R10")
def test_the_book_snapshot_has_the_seeds_fourteen_names_in_json() -> None:
    fields = messages()["L2FeatureSnapshot"].fields

    assert [field.json_name if "top_n" in field.name else field.name for field in fields] == [
        "ts_ms",
        "symbol",
        "venue",
        "depth",
        "depth_bid_qty_topN",
        "depth_ask_qty_topN",
        "depth_imbalance_topN_bps",
        "impact_buy_topN_bps",
        "impact_sell_topN_bps",
        "impact_buy_topN_insufficient_depth",
        "impact_sell_topN_insufficient_depth",
        "wall_bid_score_topN_x1000",
        "wall_ask_score_topN_x1000",
        "qty_ref",
    ]
    own = snapshots.L2FeatureSnapshot.JSON_NAMES
    assert own == {f.name: f.json_name for f in fields if "top_n" in f.name}


# Words that a field for side, price or timing would have in its name.
SIDE_OR_TIMING = re.compile(
    r"(^|_)(side|sides|buy|sell|long|short|order|orders|entry|exit|action|position|weight|size|"
    r"qty|quantity|price|when|delay|expiry|valid|until|urgency|timing|trigger)(_|$)"
)
# The heaviest features have weights: of features, in the explanation.
EXPLAINED = {"top_feature_weights_x1000"}


def signal_fields(descriptor: Any) -> set[str]:
    """List the fields of a message and of every message inside it."""
    inside = [field.message_type for field in descriptor.fields if field.message_type is not None]
    names = {field.name for field in descriptor.fields}
    return names.union(*(signal_fields(message) for message in inside))


@pytest.mark.proves("R20", "R252")
def test_no_head_has_a_field_for_side_or_timing() -> None:
    signal = messages()["MlSignalSnapshot"]
    heads = {field.name for field in signal.oneofs_by_name["answer"].fields}
    names = signal_fields(signal) - EXPLAINED

    assert heads == {"direction", "regime", "toxicity", "fill", "brackets"}
    assert {"p_fill_bps", "p_unified_bps", "next_regime", "predicted_regime"} <= names
    assert not {name for name in names if SIDE_OR_TIMING.search(name)}


@pytest.mark.parametrize("message", ["Plan", "DecisionRow", "Decision", "ExitIntent"])
def test_the_search_for_side_and_timing_finds_them_where_they_are(message: str) -> None:
    """The control: what is about trading has such fields."""
    assert {name for name in signal_fields(messages()[message]) if SIDE_OR_TIMING.search(name)}


@pytest.mark.proves("R319")
@pytest.mark.parametrize(
    "name",
    [
        "OpenPlan",
        "ClosePlan",
        "DecideTargetWeights",
        "StreamDecisions",
        "ReportLocalAnswers",
        "RecordFills",
        "RecordOutcomes",
        "ReplacePlan",
        "RecordReplanSkips",
        "GetFeatureSnapshots",
        "DescribeFeatureSet",
        "InferSignals",
        "DescribeArtifact",
    ],
)
def test_the_binding_hash_is_field_one_on_the_path_of_a_decision(name: str) -> None:
    for side in ("Request", "Response"):
        assert messages()[name + side].fields_by_number[1].name == "binding_hash"


def test_a_message_that_nobody_declares_is_not_found() -> None:
    with pytest.raises(LookupError):
        message_class("NoSuchMessage")
