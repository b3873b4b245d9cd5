"""Find feature sets by name or file, and say in what two of them differ."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from detent.contracts.canonical import JsonValue
from detent.contracts.errors import DataInvalid
from detent.contracts.json_codec import to_json
from detent.core.features.engine import BarSource
from detent.core.features.feature_set import FeatureSet, direction_bars_v1, parse_feature_set
from detent.core.features.shipped_sets import direction_window_v1, grinder_feature_order_v1
from detent.offline.cells import invalid

# Each is made for bars of a length in milliseconds.
BY_NAME: Mapping[str, Callable[[int], FeatureSet]] = {
    "direction_bars_v1": direction_bars_v1,
    "direction_window_v1": direction_window_v1,
    "grinder_feature_order_v1": grinder_feature_order_v1,
}
FILE_BYTES_MAX = 2**20


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Names one thing in which two feature sets differ.

    Attributes:
        field: Path of the field, or the name of a feature.
        first: What the first set says there; None where it says nothing.
        second: The same of the second set.
    """

    field: str
    first: JsonValue
    second: JsonValue


def find_feature_set(name_or_file: str, *, bar_interval_ms: int) -> FeatureSet:
    """Give the set of a name, or read it from a file such as an artifact's `feature_set.json`.

    Args:
        name_or_file: One of `BY_NAME`, or a path.
        bar_interval_ms: Length of the bars, for a set that is found by name.

    Raises:
        DataInvalid: Neither a name nor a file that can be read.
        InvalidField: The file holds no feature set.
    """
    if name_or_file in BY_NAME:
        return BY_NAME[name_or_file](bar_interval_ms)
    path = Path(name_or_file)
    try:
        with path.open("rb") as source:
            text = source.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        expected = f"a file that can be read, or a name: {', '.join(BY_NAME)}"
        raise invalid(path.name, error.strerror or error, expected) from error
    if len(text) > FILE_BYTES_MAX:
        raise invalid(path.name, f"more than {FILE_BYTES_MAX} bytes", "a feature set")
    return parse_feature_set(text)


def check_bars_fit(feature_set: FeatureSet, interval_ms: int) -> None:
    """Refuse bars of another length or kind than the set was made for.

    Raises:
        DataInvalid: The lengths differ, or the set builds its bars from quotes.
    """
    engine = feature_set.engine
    if engine.bar_interval_ms != interval_ms:
        raise _unfit(f"{interval_ms} ms each", f"{engine.bar_interval_ms} ms")
    if engine.bar_source is not BarSource.READY_MADE:
        raise _unfit("a file of finished bars", "quotes to build them from")


def differences(first: FeatureSet, second: FeatureSet) -> tuple[Difference, ...]:
    """List every difference: fields in their order, then features by their place.

    Two sets have the same `feature_version` if and only if the list is empty.
    """
    return (*_field_differences("", to_json(first), to_json(second)), *_moved(first, second))


def _field_differences(
    prefix: str, first: Mapping[str, JsonValue], second: Mapping[str, JsonValue]
) -> Iterator[Difference]:
    for name in dict.fromkeys((*first, *second)):
        before, after = first.get(name), second.get(name)
        if prefix + name == "features":
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _field_differences(f"{prefix}{name}.", before, after)
        elif before != after:
            yield Difference(field=prefix + name, first=before, second=after)


def _moved(first: FeatureSet, second: FeatureSet) -> Iterator[Difference]:
    """Yield the features that one set lacks or has in another place or form; from 1."""
    before = {spec.name: (place, spec) for place, spec in enumerate(first.features, start=1)}
    after = {spec.name: (place, spec) for place, spec in enumerate(second.features, start=1)}
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) == after.get(name):
            continue
        places = [held[name][0] if name in held else None for held in (before, after)]
        if places[0] == places[1]:
            found, other = (to_json(held[name][1]) for held in (before, after))
            yield from _field_differences(f"{name}.", found, other)
            continue
        yield Difference(field=name, first=_place(places[0]), second=_place(places[1]))


def _place(place: int | None) -> str | None:
    return None if place is None else f"in place {place}"


def _unfit(found: str, expected: str) -> DataInvalid:
    message = f"bars: found {found}, expected {expected}, as the feature set says"
    return DataInvalid(message, found=found, expected=expected)
