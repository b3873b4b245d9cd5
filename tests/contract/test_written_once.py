"""Proves that what remembers its bytes is written exactly as protobuf writes it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from detent.contracts import wire
from detent.contracts.calls.feature import FeatureRow, GetFeatureSnapshotsResponse, ModelInput
from detent.contracts.reasons import Reason
from detent.contracts.wire import from_wire, message_class, to_bytes, to_wire, write_ahead

HASH = "ab" * 32
REFUSALS = (Reason.SYMBOL_UNKNOWN, Reason.FEATURES_STALE, Reason.FEATURES_WARMING_UP)


def plain_bytes(value: Any) -> bytes:
    return bytes(to_wire(value).SerializeToString())


def row_of(symbol: str, values: bytes) -> FeatureRow:
    """Give a row with these values; without any, one that is refused."""
    if not values:
        return FeatureRow(symbol=symbol, refusal=REFUSALS[len(symbol) % len(REFUSALS)])
    model_input = ModelInput(
        ts_ms=1_700_002_800_000,
        values=values,
        snapshot_hashes=(HASH,),
        features_hash=HASH,
    )
    return FeatureRow(symbol=symbol, model_input=model_input)


def response_of(rows: tuple[FeatureRow, ...]) -> GetFeatureSnapshotsResponse:
    return GetFeatureSnapshotsResponse(binding_hash=HASH, feature_version=HASH, rows=rows)


# Sizes on both sides of one, two and three bytes of length.
SIZES = st.sampled_from([0, 4, 60, 120, 128, 1_000, 16_000, 16_384, 40_000])


@given(sizes=st.lists(SIZES, max_size=6))
def test_remembered_rows_are_written_as_protobuf_writes_them(sizes: list[int]) -> None:
    rows = tuple(row_of(f"S{index}", bytes(size)) for index, size in enumerate(sizes))
    response = response_of(rows)

    first, again = to_bytes(response), to_bytes(structs.replace(response, rows=rows[::-1]))

    assert first == plain_bytes(response)
    assert again == plain_bytes(response_of(rows[::-1]))
    read = message_class("GetFeatureSnapshotsResponse").FromString(first)
    assert from_wire(GetFeatureSnapshotsResponse, read) == response


def test_row_that_is_sent_again_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    row = row_of("BTCUSDT", bytes(40))
    written: list[str] = []

    def counted(value: Any) -> Any:
        written.append(type(value).__name__)
        return to_wire(value)

    monkeypatch.setattr(wire, "to_wire", counted)
    for _ in range(3):
        to_bytes(response_of((row,)))

    assert written.count("FeatureRow") == 1


def test_row_that_was_written_ahead_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (row_of("BTCUSDT", bytes(40)), row_of("ETHUSDT", b""))
    expected = plain_bytes(response_of(rows))
    write_ahead(GetFeatureSnapshotsResponse, rows)
    written: list[str] = []

    def counted(value: Any) -> Any:
        written.append(type(value).__name__)
        return to_wire(value)

    monkeypatch.setattr(wire, "to_wire", counted)

    assert to_bytes(response_of(rows)) == expected
    assert "FeatureRow" not in written


def test_what_a_row_remembers_is_no_part_of_its_value() -> None:
    sent, unsent = row_of("BTCUSDT", bytes(40)), row_of("BTCUSDT", bytes(40))
    to_bytes(response_of((sent,)))

    assert sent == unsent
    assert hash(sent) == hash(unsent)
    assert structs.asdict(sent) == structs.asdict(unsent)
    # A changed copy must not be sent as what it was copied from.
    other = structs.replace(sent, symbol="ETHUSDT")
    assert to_bytes(response_of((other,))) == plain_bytes(response_of((other,)))


def test_list_that_is_written_once_is_the_last_field_and_has_a_memory() -> None:
    """What is appended stands where protobuf would have written it."""
    kind = GetFeatureSnapshotsResponse
    numbers = {one.name: one.number for one in message_class(kind.__name__).DESCRIPTOR.fields}

    assert numbers[kind.WRITTEN_ONCE] == max(numbers.values())
    assert vars(row_of("BTCUSDT", b"")) == {}


def test_other_messages_are_written_as_they_are() -> None:
    row = row_of("BTCUSDT", bytes(40))

    assert to_bytes(row) == plain_bytes(row)
