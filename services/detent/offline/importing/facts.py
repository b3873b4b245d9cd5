"""Read what an earlier manifest does not say, and join it with what it says.

Source: decision D14; REQUIREMENTS R64, R66, R251.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detent.contracts.binding import RegimeFallback
from detent.contracts.calibration import Calibration, calibration_from, parse_calibration
from detent.contracts.canonical import JsonValue, parse_json
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json
from detent.contracts.manifest import PROVENANCE, GraphOutput, check_provenance
from detent.core.features.feature_set import FeatureSet
from detent.offline.feature_sets import find_feature_set

FACTS_BYTES_MAX = 16 * 2**20
CALIBRATION_BYTES_MAX = 64 * 2**10
PLAIN_FACTS = (
    "model_name",
    "model_version",
    "created_at",
    "framework",
    "architecture_id",
    "bar_interval_ms",
    "horizon_id",
    "horizon_bars",
    "label_definition",
    "data_cutoff_ts_ms",
)
WHOLE_FACTS = frozenset({"bar_interval_ms", "horizon_bars", "data_cutoff_ts_ms"})
TRAINING_FACTS = (
    "train_samples",
    "calibration_samples",
    "test_samples",
    "test_accuracy_bps",
    "data_hash",
    "metrics",
)
LIST_FACTS = ("input_features", "output_classes")
OTHER_FACTS = ("head", "feature_set", "calibration", "training_window", "golden_inputs")
FACTS = (*PLAIN_FACTS, *TRAINING_FACTS, *LIST_FACTS, *OTHER_FACTS)
# What may stay unsaid: a graph of one output, a neutral fallback, an unknown origin.
OPTIONAL_FACTS = ("further_outputs", "fallback", *PROVENANCE)


def gather_facts(
    said: Mapping[str, JsonValue], given: Mapping[str, JsonValue], *, form: str
) -> dict[str, JsonValue]:
    """Join what the manifest says with what was given.

    Raises:
        InvalidField: A given fact is unknown or contradicts the manifest, or one is missing.
    """
    for name in sorted(given):
        if name not in FACTS + OPTIONAL_FACTS:
            raise InvalidField(name, "(unknown field)", ", ".join(FACTS + OPTIONAL_FACTS))
        if name in said and said[name] != given[name]:
            raise InvalidField(name, given[name], f"what the manifest says: {said[name]}")
    known = {**given, **said}
    missing = [name for name in FACTS if known.get(name) is None]
    if missing:
        others = f"; missing too: {', '.join(missing[1:])}" if missing[1:] else ""
        expected = f"it in the file of facts: a manifest of form {form} does not say it{others}"
        raise InvalidField(missing[0], "(missing)", expected)
    for name in PLAIN_FACTS:
        kind = int if name in WHOLE_FACTS else str
        if type(known[name]) is not kind:
            raise InvalidField(name, known[name], f"a JSON {kind.__name__}")
    check_provenance(known)
    return known


def read_facts(path: Path) -> dict[str, JsonValue]:
    """Read the file of facts.

    Raises:
        InvalidField: It cannot be read, or is no JSON object.
    """
    return parse_json("facts", _read("facts", path, FACTS_BYTES_MAX))


def feature_set_of(known: Mapping[str, JsonValue], base: Path) -> FeatureSet:
    """Find the feature set by its name, or in a file beside the facts.

    Raises:
        DataInvalid: Neither a name nor a file.
        InvalidField: The model takes its features in another order.
    """
    name, interval_ms = known["feature_set"], known["bar_interval_ms"]
    if not isinstance(name, str):
        raise InvalidField("feature_set", name, "the name of a feature set, or a file")
    assert isinstance(interval_ms, int)
    beside = base / name
    where = str(beside) if beside.is_file() else name
    found = find_feature_set(where, bar_interval_ms=interval_ms)
    _check_order(names_of("input_features", known["input_features"]), found.input_names, name)
    return found


def calibration_of(known: Mapping[str, JsonValue], base: Path) -> Calibration:
    """Read the calibration: written out, or a `calibration.json` beside the facts.

    Raises:
        InvalidField: It is none of the forms that a head has.
    """
    found = known["calibration"]
    if isinstance(found, str):
        text = _read("calibration", base / found, CALIBRATION_BYTES_MAX)
        try:
            return parse_calibration(text)
        except InvalidField as error:
            raise error.under("calibration") from error
    if not isinstance(found, dict):
        raise InvalidField("calibration", found, "an object with a method, or a file's name")
    try:
        return calibration_from(found)
    except InvalidField as error:
        raise error.under("calibration") from error


def fallback_of(known: Mapping[str, JsonValue]) -> RegimeFallback | None:
    """Read what the regime head answers without a model; nothing said is neutral.

    Raises:
        InvalidField: It is no fallback.
    """
    found = known.get("fallback")
    if found is None:
        return None
    if isinstance(found, dict):
        found = {"max_age_ms": None, **found}
    fallback: RegimeFallback = struct_of(RegimeFallback, "fallback", found)
    return fallback


def further_outputs_of(known: Mapping[str, JsonValue]) -> tuple[GraphOutput, ...]:
    """Read which outputs the graph has beside its classes; nothing said is none.

    Raises:
        InvalidField: It is no list of outputs.
    """
    found = known.get("further_outputs")
    if found is None:
        return ()
    if not isinstance(found, list):
        raise InvalidField("further_outputs", found, "a list of outputs: name, classes")
    return tuple(
        struct_of(GraphOutput, f"further_outputs[{index}]", item)
        for index, item in enumerate(found)
    )


def struct_of(kind: Any, field: str, found: JsonValue) -> Any:
    """Read a value of ours from its JSON object.

    Raises:
        InvalidField: Names the field, and the one below it that is wrong.
    """
    if not isinstance(found, dict):
        raise InvalidField(field, found, f"an object: {', '.join(kind.__struct_fields__)}")
    try:
        return from_json(kind, found)
    except InvalidField as error:
        raise error.under(field) from error


def names_of(field: str, found: JsonValue) -> tuple[str, ...]:
    """Read a list of names.

    Raises:
        InvalidField: It is none.
    """
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise InvalidField(field, found, "a list of names")
    return tuple(str(item) for item in found)


def _check_order(order: tuple[str, ...], expected: tuple[str, ...], name: str) -> None:
    """Refuse another order: a model fed in it answers wrongly, and nothing else would notice."""
    for place, (found, wanted) in enumerate(zip(order, expected, strict=False), start=1):
        if found != wanted:
            by = f"{wanted}, by the order of {name}"
            raise InvalidField("input_features", f"{found} in place {place}", by)
    if len(order) != len(expected):
        by = f"the {len(expected)} of {name}"
        raise InvalidField("input_features", f"{len(order)} names", by)


def _read(field: str, path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(limit + 1)
    except (OSError, ValueError) as error:
        # A name with a zero byte is refused before the system is asked.
        found = getattr(error, "strerror", None) or str(error)
        raise InvalidField(field, found, f"the file {path.name!r}") from error
    if len(text) > limit:
        raise InvalidField(field, f"more than {limit} bytes", "at most that")
    return text
