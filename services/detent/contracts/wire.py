"""Turn domain values into protobuf messages and back.

Every message of `detent.api.v1` that carries domain data has a frozen dataclass with the
same name and the same fields, so one generic codec serves them all. It is compiled per
class on first use: a list of field names with a converter each. Nothing else in the house
touches a protobuf object, but for the generic server and client plumbing.
"""

import dataclasses
import functools
import importlib
import typing
from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.message import Message

from detent.contracts.decimals import format_decimal, parse_decimal
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import ReadAll, field_hints, read_all, unwrap_optional

T = TypeVar("T")
ToWire = Callable[[Any], Any]
FromWire = Callable[[str, Any], Any]
Reader = tuple[tuple[str, ...], ReadAll, tuple[tuple[str, bool | None, FromWire], ...]]
Writer = tuple[type[Message], tuple[str, ...], ReadAll, tuple[tuple[str, ToWire], ...]]

PROTO_MODULES = (
    "market",
    "feature_snapshot",
    "model_binding",
    "ml_signal_snapshot",
    "plan",
    "decision_record",
    "feature_service",
    "inference_service",
    "policy_service",
    "ledger_service",
)


@functools.cache
def message_class(name: str) -> type[Message]:
    """Find the generated class of a message by its name.

    Raises:
        LookupError: No file of the package declares it.
    """
    for module_name in PROTO_MODULES:
        module = importlib.import_module(f"detent.api.v1.{module_name}_pb2")
        found = getattr(module, name, None)
        if found is not None:
            return typing.cast("type[Message]", found)
    raise LookupError(name)


def to_wire(value: Any) -> Any:
    """Give the protobuf message of a domain value."""
    kind: Any = type(value)
    make, names, read, converted = _writer_of(kind)
    # Plain values are taken over as they are, all in one step; None leaves a field unset.
    arguments = dict(zip(names, read(value), strict=True))
    for name, convert in converted:
        item = arguments[name]
        if item is not None:
            arguments[name] = convert(item)
    return make(**arguments)


def from_wire(kind: type[T], message: Any) -> T:
    """Read a domain value from a protobuf message.

    Raises:
        InvalidField: A field is missing, unknown to its enum, or out of range; the error
            names it by its path.
    """
    cached: Any = kind
    plain, read, others = _reader_of(cached)
    arguments: dict[str, Any] = dict(zip(plain, read(message), strict=True))
    for name, present, convert in others:
        if present is not None and not message.HasField(name):
            if present:
                raise InvalidField(name, "(missing)", "the field")
            arguments[name] = None
        else:
            arguments[name] = convert(name, getattr(message, name))
    return kind(**arguments)


def wire_fields(kind: type) -> list[tuple[str, Any]]:
    """List the fields of a domain type that travel, derived ones included."""
    derived = [(name, str) for name in sorted(getattr(kind, "DERIVED", ()))]
    return [*field_hints(kind), *derived]


@functools.cache
def _writer_of(kind: Any) -> Writer:
    """Compile a type: its message class, field names, a reader of all fields, converters."""
    make = message_class(kind.__name__)
    fields = make.DESCRIPTOR.fields_by_name
    names = tuple(name for name, _ in wire_fields(kind))
    writers = [
        (name, _writer(unwrap_optional(h)[0], fields[name])) for name, h in wire_fields(kind)
    ]
    converted = tuple((name, convert) for name, convert in writers if convert is not None)
    return make, names, read_all(names), converted


@functools.cache
def _reader_of(kind: Any) -> Reader:
    """Compile a type: the fields taken as they are, a reader of all of them, and the others.

    The presence rule of the others is None where a value is always there, True where it is
    required, False where it may lack.
    """
    fields = message_class(kind.__name__).DESCRIPTOR.fields_by_name
    plain: list[str] = []
    others: list[tuple[str, bool | None, FromWire]] = []
    for name, hint in field_hints(kind):
        bare, optional = unwrap_optional(hint)
        field = fields[name]
        convert = _reader(bare, field, optional=optional)
        rule = (not optional) if field.has_presence else None
        if convert is None and rule is None:
            plain.append(name)
        else:
            others.append((name, rule, convert or _as_it_is))
    return tuple(plain), read_all(tuple(plain)), tuple(others)


def _as_it_is(_name: str, value: Any) -> Any:
    return value


def _writer(hint: Any, field: Any) -> ToWire | None:
    """Give what converts a value of a type; None for what protobuf takes as it is."""
    if typing.get_origin(hint) is tuple:
        convert = _writer(typing.get_args(hint)[0], field)
        return None if convert is None else lambda items: [convert(item) for item in items]
    if hint is Decimal:
        return format_decimal
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        numbers = _enum_numbers(hint, field.enum_type)
        return numbers.__getitem__
    if dataclasses.is_dataclass(hint):
        return to_wire
    return None


def _reader(hint: Any, field: Any, *, optional: bool) -> FromWire | None:
    """Give what converts a value from the wire; None for what is taken as it is."""
    if typing.get_origin(hint) is tuple:
        item = _reader(typing.get_args(hint)[0], field, optional=False)
        return functools.partial(_read_list, item)
    if typing.get_origin(hint) is dict:
        return lambda _name, value: dict(value)
    if hint is Decimal:
        return parse_decimal
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        numbers = _enum_numbers(hint, field.enum_type)
        members = {number: member for member, number in numbers.items()}
        return functools.partial(_read_enum, hint, members, 0 if optional else None)
    if dataclasses.is_dataclass(hint):
        return functools.partial(_read_message, hint)
    return None


def _enum_numbers(hint: type[StrEnum], enum: Any) -> dict[StrEnum, int]:
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {member: enum.values_by_name[prefix + member.name].number for member in hint}


def _read_enum(
    hint: type[StrEnum], members: dict[int, StrEnum], absent: int | None, name: str, number: int
) -> StrEnum | None:
    if number == absent:
        return None
    if number not in members:
        raise InvalidField(name, number or "(unspecified)", f"one of {', '.join(hint)}")
    return members[number]


def _read_list(item: FromWire | None, name: str, values: Any) -> tuple[Any, ...]:
    if item is None:
        return tuple(values)
    try:
        # The path of an item is only worth writing when something is wrong with one.
        return tuple([item("", value) for value in values])
    except InvalidField:
        return tuple([item(f"{name}[{index}]", value) for index, value in enumerate(values)])


def _read_message(hint: Any, name: str, message: Any) -> Any:
    try:
        return from_wire(hint, message)
    except InvalidField as error:
        raise error.under(name) from error
