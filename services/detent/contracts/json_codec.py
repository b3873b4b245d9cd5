"""Turn domain values into JSON values and back, under the seeds' names.

Integers stay numbers (protobuf's own JSON would quote 64-bit ones), decimals are strings in
canonical form, enums are their values, what is absent is null, bytes are lowercase hex. A
class may rename fields (`JSON_NAMES`), lay nested answers flat (`JSON_FLAT`), or name the
fields that it got after its hashes were published (`JSON_GROWN`): these are left out when they
say nothing, so that older values keep their text (ADR 0016). Reading is strict: an unknown or
missing key and a float are refused by name, and so is a grown field that says nothing.
"""

import functools
import types
import typing
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from detent.contracts.canonical import JsonValue, encode_canonical
from detent.contracts.compiled import compile_function
from detent.contracts.decimals import format_decimal, parse_decimal
from detent.contracts.errors import InvalidField

T = TypeVar("T")
# A domain type as the caches see it: the type checker does not take `type[T]` for hashable.
Kind = Any
Write = Callable[[Any], dict[str, JsonValue]]
Decode = Callable[[str, JsonValue], Any]


def to_json(value: Any) -> dict[str, JsonValue]:
    """Give the JSON object of a domain value."""
    kind: Kind = type(value)
    return _writer_of(kind)(value)


def to_canonical(value: Any) -> bytes:
    """Give the canonical bytes of a domain value that names its schema.

    They are those of `canonical_bytes(value.SCHEMA, to_json(value))`, at a third of the price:
    for what is written by the thousand.
    """
    kind: Kind = type(value)
    return encode_canonical(_canonical_writer_of(kind, kind.SCHEMA)(value))


def from_json(kind: type[T], fields: Mapping[str, JsonValue]) -> T:
    """Read a domain value from its JSON object.

    Raises:
        InvalidField: A key is unknown or missing, or a value is not of its type or range.
    """
    cached: Kind = kind
    flat = _flat_names(cached)
    grown = _grown_names(cached)
    unread = {key: value for key, value in fields.items() if key != "schema"}
    arguments: dict[str, Any] = {}
    for name, json_name, decode, optional in _decoders(cached):
        if name in flat:
            arguments[name] = _take_flat(flat[name], unread)
        elif json_name not in unread:
            if name in grown:
                continue
            raise InvalidField(json_name, "(missing)", "the field")
        else:
            item = unread.pop(json_name)
            if name in grown and item in (None, []):
                raise InvalidField(json_name, item, "something, or no such key")
            if item is None and not optional:
                raise InvalidField(json_name, None, "a value")
            arguments[name] = None if item is None else decode(json_name, item)
    if unread:
        raise InvalidField(min(unread), "(unknown field)", f"a field of {kind.__name__}")
    return kind(**arguments)


def unwrap_optional(hint: Any) -> tuple[Any, bool]:
    """Split `X | None` into X and True; anything else is itself and False."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        present = [arm for arm in typing.get_args(hint) if arm is not type(None)]
        return present[0], True
    return hint, False


def is_domain_type(hint: Any) -> bool:
    """Say whether a type is one of ours, with fields of its own."""
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def field_hints(kind: type[msgspec.Struct]) -> list[tuple[str, Any]]:
    """List the fields of a domain type with their resolved types, in order."""
    hints = typing.get_type_hints(kind)
    return [(name, hints[name]) for name in kind.__struct_fields__]


@functools.cache
def _flat_names(kind: Kind) -> dict[str, type]:
    names = getattr(kind, "JSON_FLAT", ())
    hints = dict(field_hints(kind))
    return {name: unwrap_optional(hints[name])[0] for name in names}


def _grown_names(kind: Kind) -> frozenset[str]:
    """Name the fields that a type got after its hashes were published."""
    return getattr(kind, "JSON_GROWN", frozenset())


@functools.cache
def _writer_of(kind: Kind) -> Write:
    """Compile a type: what gives its JSON object, with what is laid flat laid flat."""
    renamed = getattr(kind, "JSON_NAMES", {})
    flat = _flat_names(kind)
    grown = _grown_names(kind)
    names: dict[str, object] = {"format_decimal": format_decimal}
    lines = []
    for name, hint in field_hints(kind):
        bare, optional = unwrap_optional(hint)
        source = f"value.{name}"
        written = _written(bare, name, source, names)
        if name in flat:
            lines.append(f"        **({{}} if {source} is None else {written}),")
            continue
        key = renamed.get(name, name)
        if name in grown:
            lines.append(f"        **({{}} if {source} in (None, ()) else {{{key!r}: {written}}}),")
            continue
        if optional and written != source:
            written = f"None if {source} is None else {written}"
        lines.append(f"        {key!r}: {written},")
    body = "\n".join(["    return {", *lines, "    }"])
    return compile_function("write(value)", body, names)


@functools.cache
def _canonical_writer_of(kind: Kind, schema: str | None = None) -> Write:
    """Compile a type: what gives an object that the canonical encoder writes as its JSON object.

    Its keys come sorted, so that the encoder finds nothing to sort, and values that are plain
    are left to the encoder. What is laid flat and what grew comes last, where there is any.
    """
    renamed = getattr(kind, "JSON_NAMES", {})
    flat, grown = _flat_names(kind), _grown_names(kind)
    names: dict[str, object] = {"format_decimal": format_decimal}
    entries = {} if schema is None else {"schema": repr(schema)}
    rare = []
    for name, hint in field_hints(kind):
        bare, optional = unwrap_optional(hint)
        source, key = f"value.{name}", renamed.get(name, name)
        written = source
        if name in flat or not _is_plain(bare):
            written = _written(bare, name, source, names, nested=_canonical_writer_of)
        if name in flat:
            rare.append(f"    if {source} is not None:\n        fields.update({written})")
        elif name in grown:
            rare.append(f"    if {source} not in (None, ()):\n        fields[{key!r}] = {written}")
        elif optional and written != source:
            entries[key] = f"None if {source} is None else {written}"
        else:
            entries[key] = written
    lines = [f"        {key!r}: {written}," for key, written in sorted(entries.items())]
    body = "\n".join(["    fields = {", *lines, "    }", *rare, "    return fields"])
    return compile_function("write(value)", body, names)


@functools.cache
def _is_plain(hint: Any) -> bool:
    """Say whether the encoder itself writes values of a type as their JSON is."""
    if typing.get_origin(hint) is tuple:
        return _is_plain(typing.get_args(hint)[0])
    if not is_domain_type(hint):
        return isinstance(hint, type) and issubclass(hint, int | str)
    if hasattr(hint, "JSON_NAMES") or _flat_names(hint) or _grown_names(hint):
        return False
    return all(_is_plain(unwrap_optional(inner)[0]) for _, inner in field_hints(hint))


def _written(
    hint: Any,
    name: str,
    source: str,
    names: dict[str, object],
    *,
    nested: Callable[[Kind], Write] = _writer_of,
) -> str:
    """Give the expression that makes a value what JSON takes; `nested` writes nested types."""
    if typing.get_origin(hint) is tuple:
        item = _written(typing.get_args(hint)[0], name, "item", names, nested=nested)
        return f"list({source})" if item == "item" else f"[{item} for item in {source}]"
    if typing.get_origin(hint) is dict:
        return f"dict({source})"
    if hint is Decimal:
        return f"format_decimal({source})"
    if hint is bytes:
        return f"{source}.hex()"
    if is_domain_type(hint):
        names[f"write_{name}"] = nested(hint)
        return f"write_{name}({source})"
    return source


@functools.cache
def _decoders(kind: Kind) -> list[tuple[str, str, Decode, bool]]:
    renamed = getattr(kind, "JSON_NAMES", {})
    return [
        (name, renamed.get(name, name), _decoder(bare), optional)
        for name, hint in field_hints(kind)
        for bare, optional in [unwrap_optional(hint)]
    ]


def _decoder(hint: Any) -> Decode:
    if typing.get_origin(hint) is tuple:
        return functools.partial(_decode_list, _decoder(typing.get_args(hint)[0]))
    if typing.get_origin(hint) is dict:
        return functools.partial(_decode_map, _decoder(typing.get_args(hint)[1]))
    if hint is Decimal:
        return lambda field, item: parse_decimal(field, typing.cast("str", item))
    if hint is bytes:
        return _decode_hex
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return functools.partial(_decode_enum, hint)
    if is_domain_type(hint):
        return functools.partial(_decode_object, hint)
    return functools.partial(_decode_plain, hint)


def _decode_list(decode: Decode, field: str, item: JsonValue) -> tuple[Any, ...]:
    if not isinstance(item, list):
        raise InvalidField(field, item, "a list")
    return tuple(decode(f"{field}[{index}]", entry) for index, entry in enumerate(item))


def _decode_map(decode: Decode, field: str, item: JsonValue) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise InvalidField(field, item, "an object")
    return {key: decode(f"{field}.{key}", entry) for key, entry in item.items()}


def _decode_hex(field: str, item: JsonValue) -> bytes:
    try:
        return bytes.fromhex(typing.cast("str", item))
    except (ValueError, TypeError) as error:
        raise InvalidField(field, item, "lowercase hex") from error


def _decode_enum(hint: type[StrEnum], field: str, item: JsonValue) -> StrEnum:
    try:
        return hint(typing.cast("str", item))
    except ValueError as error:
        raise InvalidField(field, item, f"one of {', '.join(hint)}") from error


def _decode_object(hint: Any, field: str, item: JsonValue) -> Any:
    if not isinstance(item, dict):
        raise InvalidField(field, item, "an object")
    try:
        return from_json(hint, item)
    except InvalidField as error:
        raise error.under(field) from error


def _decode_plain(hint: type, field: str, item: JsonValue) -> JsonValue:
    if type(item) is not hint:
        raise InvalidField(field, item, f"a JSON {hint.__name__}")
    return item


def _take_flat(kind: type, unread: dict[str, JsonValue]) -> Any:
    names = [json_name for _, json_name, _, _ in _decoders(kind)]
    if not any(name in unread for name in names):
        return None
    return from_json(kind, {name: unread.pop(name) for name in names if name in unread})
