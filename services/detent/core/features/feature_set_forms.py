"""Knows the two written forms of a feature set, so that a hash outlives what is added later.

Canonical JSON leaves no key out (docs/HASHES.md), so a new field would give every set that was
ever trained another `feature_version`. Version 1 is the form without sources, normalisation and
window rows; a set that uses none of them is always written so, and one that does in version 2.
Each set has exactly one form (ADR 0012).
"""

from detent.contracts.canonical import JsonValue
from detent.contracts.errors import InvalidField

Fields = dict[str, JsonValue]

# What version 2 added, with the value that says nothing.
_SET_ADDED: Fields = {"window_rows": 1}
_FEATURE_ADDED: Fields = {"sources": [], "normalisation": None}


def write_form(fields: Fields) -> tuple[int, Fields]:
    """Give the version in which a set is written, and its fields there.

    Args:
        fields: All fields of the set.
    """
    features = _features(fields)
    if _uses(fields, _SET_ADDED) or any(_uses(one, _FEATURE_ADDED) for one in features):
        return 2, fields
    plain = _without(fields, _SET_ADDED)
    plain["features"] = [_without(one, _FEATURE_ADDED) for one in features]
    return 1, plain


def read_form(version: int, fields: Fields) -> Fields:
    """Give all fields of a set that is written in a version.

    Raises:
        InvalidField: A key belongs to the other version, or the set to the other form.
    """
    if version == 1:
        return _filled_in(fields)
    if all(isinstance(one, dict) for one in _list(fields)) and write_form(fields)[0] == 1:
        raise InvalidField("schema", "version 2", "version 1 for a set that uses nothing newer")
    return fields


def _filled_in(fields: Fields) -> Fields:
    _refuse_added("", fields, _SET_ADDED)
    whole = fields | _SET_ADDED
    if not isinstance(fields.get("features"), list):
        return whole
    features: list[JsonValue] = []
    for index, one in enumerate(_list(fields)):
        if isinstance(one, dict):
            _refuse_added(f"features[{index}].", one, _FEATURE_ADDED)
        features.append(one | _FEATURE_ADDED if isinstance(one, dict) else one)
    return whole | {"features": features}


def _refuse_added(path: str, fields: Fields, added: Fields) -> None:
    for name in added:
        if name in fields:
            raise InvalidField(f"{path}{name}", fields[name], "no such key in version 1")


def _uses(fields: Fields, added: Fields) -> bool:
    return any(fields.get(name, default) != default for name, default in added.items())


def _without(fields: Fields, added: Fields) -> Fields:
    return {name: value for name, value in fields.items() if name not in added}


def _features(fields: Fields) -> list[Fields]:
    return [one for one in _list(fields) if isinstance(one, dict)]


def _list(fields: Fields) -> list[JsonValue]:
    features = fields.get("features")
    return features if isinstance(features, list) else []
