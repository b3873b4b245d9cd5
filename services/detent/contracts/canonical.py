"""Write values in one canonical form and hash it.

The rules, published for other languages in `docs/HASHES.md`: JSON with sorted keys, no
spaces and ASCII only; integers only, never floats; decimals as plain strings without
trailing zeros or exponent; what is absent is null; the key `schema` names the type and its
version. The hash is the SHA-256 of those bytes in lowercase hex.

Source: decisions D3 and D4.
"""

import hashlib
import json
from collections.abc import Mapping

import msgspec

from detent.contracts.errors import InvalidField

_ENCODER = msgspec.json.Encoder(order="sorted")

JsonValue = None | bool | int | str | list["JsonValue"] | dict[str, "JsonValue"]


def canonical_bytes(schema: str, fields: Mapping[str, JsonValue]) -> bytes:
    """Give the canonical bytes of a typed object.

    Args:
        schema: Name and version of the type, for example `detent.model_binding.v1`.
        fields: The fields by name; our own codec wrote them, so they hold no float.
    """
    return encode_canonical({"schema": schema, **fields})


def encode_canonical(fields: Mapping[str, object]) -> bytes:
    """Write an object in canonical form; nested values may be our own types, of plain fields."""
    text = _ENCODER.encode(fields)
    # Every string of the contract is ASCII by construction, so nothing needs escaping.
    assert text.isascii()
    return text


def sha256_hex(data: bytes) -> str:
    """Hash bytes to 64 lowercase hex characters."""
    return hashlib.sha256(data).hexdigest()


def canonical_hash(schema: str, fields: Mapping[str, JsonValue]) -> str:
    """Hash a typed object in its canonical form."""
    return sha256_hex(canonical_bytes(schema, fields))


def parse_json(what: str, text: bytes) -> dict[str, JsonValue]:
    """Read a JSON object that holds no float and no key twice.

    Raises:
        InvalidField: The text is no JSON object, or holds what canonical JSON cannot.
    """

    def refuse_float(found: str) -> JsonValue:
        raise InvalidField(what, found, "integers or decimal strings, never a float")

    def unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise InvalidField(what, [key for key, _ in pairs], "each key once")
        return fields

    try:
        parsed = json.loads(
            text, parse_float=refuse_float, parse_constant=refuse_float, object_pairs_hook=unique
        )
    except (ValueError, RecursionError) as error:
        raise InvalidField(what, str(error), "a JSON object") from error
    if not isinstance(parsed, dict):
        raise InvalidField(what, type(parsed).__name__, "a JSON object")
    return parsed
