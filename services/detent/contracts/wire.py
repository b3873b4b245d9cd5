"""Turn domain values into protobuf messages and back.

Every message of `detent.api.v1` that carries domain data has a frozen dataclass with the
same name and the same fields, so one generic codec serves them all. It is compiled per
class on first use into one expression per field. Nothing else in the house touches a protobuf
object, but for the generic server and client plumbing.
"""

import functools
import importlib
import typing
from collections.abc import Callable, Iterable
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

import msgspec
from google.protobuf.message import Message

from detent.contracts.compiled import compile_function
from detent.contracts.decimals import format_decimal, parse_decimal
from detent.contracts.errors import InvalidField, shown
from detent.contracts.json_codec import field_hints, is_domain_type, unwrap_optional

T = TypeVar("T")
Write = Callable[[Any], dict[str, Any]]
Read = Callable[[Any, str], Any]
ReadAll = Callable[[Any], tuple[Any, ...]]

# Protobuf's wire type of messages and text, and the bits of a byte that are a number's.
LENGTH_DELIMITED = 2
LOW_BITS = 0x7F
PROTO_MODULES = (
    "caller_feature",
    "learning",
    "trade_facts",
    "market",
    "feature_snapshot",
    "model_binding",
    "ml_signal_snapshot",
    "plan",
    "replanning",
    "decision_record",
    "feature_service",
    "inference_service",
    "policy_service",
    "ledger_service",
    "rollout",
    "rollout_service",
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
    # Nested messages are given as their fields: protobuf fills them in place, without a copy.
    return message_class(kind.__name__)(**_writer_of(kind)(value))


def to_bytes(value: Any) -> bytes:
    """Give the bytes of the message of a domain value, as protobuf itself writes them.

    A type may name its last field, a list, in `WRITTEN_ONCE`: each item then remembers its
    bytes, and a value that is sent again and again is written once. Protobuf writes a list as
    its items one after the other, each behind the tag of the field and its own length.
    """
    kind: Any = type(value)
    name = getattr(kind, "WRITTEN_ONCE", None)
    if name is None:
        return bytes(to_wire(value).SerializeToString())
    number = _number_of(kind, name)
    head = to_wire(msgspec.structs.replace(value, **{name: ()})).SerializeToString()
    return b"".join([head, *[_remembered(item, number) for item in getattr(value, name)]])


def write_ahead(kind: Any, items: Iterable[Any]) -> None:
    """Have items of the list that a type names in `WRITTEN_ONCE` remember their bytes by now."""
    number = _number_of(kind, kind.WRITTEN_ONCE)
    for item in items:
        _remembered(item, number)


@functools.cache
def _number_of(kind: Any, name: str) -> int:
    return int(message_class(kind.__name__).DESCRIPTOR.fields_by_name[name].number)


def _remembered(item: Any, number: int) -> bytes:
    """Give an item of a list as it stands in the message; what it remembers is not its value."""
    memory, key = vars(item), f"written as {number}"
    written = memory.get(key)
    if written is None:
        content = to_wire(item).SerializeToString()
        tag = number << 3 | LENGTH_DELIMITED
        written = memory[key] = _varint(tag) + _varint(len(content)) + content
    return bytes(written)


def _varint(number: int) -> bytes:
    """Write a number seven bits at a time, the lowest first, as the protobuf encoding does."""
    groups = []
    while number > LOW_BITS:
        groups.append(number & LOW_BITS | LOW_BITS + 1)
        number >>= 7
    return bytes([*groups, number])


def from_wire(kind: type[T], message: Any) -> T:
    """Read a domain value from a protobuf message.

    Raises:
        InvalidField: A field is missing, unknown to its enum, or out of range; the error
            names it by its path.
    """
    cached: Any = kind
    return typing.cast("T", _reader_of(cached)(message, ""))


def wire_fields(kind: type) -> list[tuple[str, Any]]:
    """List the fields of a domain type that travel, derived ones included."""
    derived = [(name, str) for name in sorted(getattr(kind, "DERIVED", ()))]
    return [*field_hints(kind), *derived]


@functools.cache
def _writer_of(kind: Any) -> Write:
    """Compile a type: what gives the fields of its message by name; None is unset."""
    fields = message_class(kind.__name__).DESCRIPTOR.fields_by_name
    names: dict[str, object] = {"format_decimal": format_decimal}
    lines = []
    for name, hint in wire_fields(kind):
        bare, optional = unwrap_optional(hint)
        source = f"value.{name}"
        written = _written(bare, fields[name], source, names)
        if optional and written != source:
            written = f"None if {source} is None else {written}"
        lines.append(f"        {name!r}: {written},")
    body = "\n".join(["    return {", *lines, "    }"])
    return compile_function("write(value)", body, names)


def _written(hint: Any, field: Any, source: str, names: dict[str, object]) -> str:
    """Give the expression that makes a value what protobuf takes."""
    if typing.get_origin(hint) is tuple:
        item = _written(_item_hint(hint)[0], field, "item", names)
        if _is_enum(_item_hint(hint)[0]) and _may_lack(hint):
            numbers: dict[Any, int] = _enum_numbers(_item_hint(hint)[0], field.enum_type)
            names[f"numbers_{field.name}"] = {None: 0, **numbers}
        return source if item == "item" else f"[{item} for item in {source}]"
    if hint is Decimal:
        return f"format_decimal({source})"
    if _is_enum(hint):
        names[f"numbers_{field.name}"] = _enum_numbers(hint, field.enum_type)
        return f"numbers_{field.name}[{source}]"
    if is_domain_type(hint):
        names[f"write_{field.name}"] = _writer_of(hint)
        return f"write_{field.name}({source})"
    return source


@functools.cache
def _reader_of(kind: Any) -> Read:
    """Compile a type: what makes its value of a message and of the path to it."""
    made, names = _made_of(kind)
    body = [
        "    has = message.HasField",
        "    try:",
        f"        return {made}",
        "    except InvalidField as error:",
        "        raise (error.under(path) if path else error)",
    ]
    return compile_function("read(message, path)", "\n".join(body), names)


@functools.cache
def _all_reader_of(kind: Any) -> ReadAll:
    """Compile a type: what makes its values of a list of messages, without any path."""
    made, names = _made_of(kind)
    looped = "for message in messages for has in (message.HasField,)"
    body = f"    return tuple([{made} {looped}])"
    return compile_function("read_all(messages)", body, names)


@functools.cache
def _made_of(kind: Any) -> tuple[str, dict[str, object]]:
    """Give the expression that makes a value of a type from `message`, and what it names.

    `has` is the message's own `HasField`: to look it up costs as much as to call it.
    """
    fields = message_class(kind.__name__).DESCRIPTOR.fields_by_name
    names: dict[str, object] = {
        "kind": kind,
        "InvalidField": InvalidField,
        "missing": _missing,
        "parse_decimal": parse_decimal,
        "read_each": _read_each,
        "read_items": _read_items,
    }
    lines = []
    for name, hint in field_hints(kind):
        bare, optional = unwrap_optional(hint)
        read = _read(bare, fields[name], optional=optional, names=names)
        if fields[name].has_presence:
            absent = "None" if optional else f"missing({name!r})"
            read = f"{read} if has({name!r}) else {absent}"
        lines.append(f"            {name}={read},")
    return "\n".join(["kind(", *lines, "        )"]), names


def _read(hint: Any, field: Any, *, optional: bool, names: dict[str, object]) -> str:
    """Give the expression that reads a field of a message."""
    name = field.name
    source = f"message.{name}"
    if typing.get_origin(hint) is tuple:
        item, judged_alone = _item_hint(hint)
        if _is_enum(item):
            names[f"read_{name}"] = _members_reader(name, item, field, optional=_may_lack(hint))
            return f"read_{name}({source})"
        read_item = _reader_of(item) if is_domain_type(item) else None
        if read_item is None:
            # A slice is taken at once, where an iterator would be asked item by item.
            return f"tuple({source}[:])"
        names[f"read_{name}"] = read_item
        if judged_alone:
            return f"read_each(read_{name}, {source})"
        names[f"read_all_{name}"] = _all_reader_of(item)
        # Most lists of most messages are empty.
        return f"read_items(read_all_{name}, read_{name}, {name!r}, {source}) if {source} else ()"
    if typing.get_origin(hint) is dict:
        return f"dict({source})"
    if hint is Decimal:
        return f"parse_decimal({name!r}, {source})"
    if _is_enum(hint):
        names[f"members_{name}"] = _Members(name, hint, field.enum_type, optional=optional)
        return f"members_{name}[{source}]"
    if is_domain_type(hint):
        names[f"read_{name}"] = _reader_of(hint)
        return f"read_{name}({source}, {name!r})"
    return source


def _item_hint(hint: Any) -> tuple[Any, bool]:
    """Give the type of a list's items, and whether each of them is judged alone.

    A list says so by its type: `tuple[Item | InvalidField, ...]`.
    """
    item = typing.get_args(hint)[0]
    return unwrap_optional(item)[0], InvalidField in typing.get_args(item)


def _may_lack(hint: Any) -> bool:
    """Say whether the items of a list may be None, as those of an enum travel as 0."""
    return unwrap_optional(typing.get_args(hint)[0])[1]


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, StrEnum)


def _members_reader(name: str, hint: Any, field: Any, *, optional: bool) -> ReadAll:
    """Give what reads a list of members of an enum."""
    members = _Members("", hint, field.enum_type, optional=optional)

    def read(numbers: Any) -> tuple[Any, ...]:
        try:
            return tuple([members[number] for number in numbers[:]])
        except InvalidField as error:
            # The place is only worth knowing when something is wrong there.
            index = next(index for index, number in enumerate(numbers) if number not in members)
            raise InvalidField(f"{name}[{index}]", error.found, error.expected) from error

    return read


def _read_items(read_all: ReadAll, read: Read, name: str, values: Any) -> tuple[Any, ...]:
    try:
        # The path of an item is only worth writing when something is wrong with one.
        return read_all(values)
    except InvalidField:
        return _read_list(read, name, values)


def _read_list(read: Read, name: str, values: Any) -> tuple[Any, ...]:
    return tuple([read(value, f"{name}[{index}]") for index, value in enumerate(values)])


def _read_each(read: Read, values: Any) -> tuple[Any, ...]:
    """Read the items of a list one by one; a malformed one leaves its error in its place."""
    items: list[Any] = []
    for value in values:
        try:
            items.append(read(value, ""))
        except InvalidField as error:
            error.metadata |= _named(value)
            # It is a value from here on: what was on the stack need not live as long.
            items.append(error.with_traceback(None))
    return tuple(items)


def _named(message: Any) -> dict[str, str]:
    """Give symbol and event time of a message, or of the one thing that it carries, as found."""
    choices = [message.WhichOneof(choice.name) for choice in message.DESCRIPTOR.oneofs]
    parts = [message, *(getattr(message, name) for name in choices if name is not None)]
    return {
        name: shown(getattr(part, name))
        for name in ("symbol", "ts_ms")
        for part in parts
        if hasattr(part, name)
    }


def _missing(name: str) -> typing.NoReturn:
    raise InvalidField(name, "(missing)", "the field")


class _Members(dict[int, StrEnum | None]):
    """Maps the numbers of an enum on the wire to its members; 0 is None where that may be."""

    def __init__(self, name: str, hint: type[StrEnum], enum: Any, *, optional: bool) -> None:
        numbers = _enum_numbers(hint, enum)
        super().__init__({number: member for member, number in numbers.items()})
        if optional:
            self[0] = None
        self._name = name
        self._hint = hint

    def __missing__(self, number: int) -> typing.NoReturn:
        """Refuse what is not a member, by the name of the field."""
        found = number or "(unspecified)"
        raise InvalidField(self._name, found, f"one of {', '.join(self._hint)}")


def _enum_numbers(hint: type[StrEnum], enum: Any) -> dict[StrEnum, int]:
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {member: enum.values_by_name[prefix + member.name].number for member in hint}
