"""Say in what two artifacts differ, and which step of the version that takes.

Source: seed 003, section 12.4.4; REQUIREMENTS R57, R58.
"""

from collections.abc import Sequence
from enum import IntEnum

import msgspec

from detent.contracts.canonical import JsonValue
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import to_json
from detent.contracts.manifest import Manifest


class VersionStep(IntEnum):
    """Names the part of a version that has to rise; the greater, the more breaks.

    `PATCH`: fitted again, same architecture. `MINOR`: other features or another model, which
    nobody who asks has to know. `MAJOR`: another question or another answer.
    """

    NONE = 0
    PATCH = 1
    MINOR = 2
    MAJOR = 3


# What a field takes when it differs. A field that is not here asks for a major step: whoever
# adds one to the manifest says otherwise, or is on the safe side.
STEPS = {
    "model_version": VersionStep.NONE,
    "architecture_id": VersionStep.MINOR,
    "feature_version": VersionStep.MINOR,
    "framework": VersionStep.MINOR,
    "calibration_method": VersionStep.PATCH,
    "calibration_version": VersionStep.PATCH,
    "created_at": VersionStep.PATCH,
    "data_cutoff_ts_ms": VersionStep.PATCH,
    "dataset_id": VersionStep.PATCH,
    "files": VersionStep.PATCH,
    "git_sha": VersionStep.PATCH,
    "model_hash": VersionStep.PATCH,
    "notes": VersionStep.PATCH,
    "training_metadata": VersionStep.PATCH,
    "training_window": VersionStep.PATCH,
}


class ManifestDifference(msgspec.Struct, frozen=True, kw_only=True):
    """Names one thing in which two artifacts differ.

    Attributes:
        what: Path of the field, or the name of a feature or a file.
        before: What the first says there; None where it says nothing.
        after: The same of the second.
        step: What that takes.
    """

    what: str
    before: JsonValue
    after: JsonValue
    step: VersionStep


def manifest_differences(before: Manifest, after: Manifest) -> tuple[ManifestDifference, ...]:
    """List every difference, in the order of the manifest; empty if and only if equal."""
    first, second = to_json(before), to_json(after)
    found: list[ManifestDifference] = []
    for name in {**first, **second}:
        old, new = first.get(name), second.get(name)
        if old == new:
            continue
        if name == "input_features":
            found += _feature_differences(before.input_features, after.input_features)
        elif name == "files":
            pairs = zip(before.files, after.files, strict=True)
            found += [
                _difference(f"file {old.path}", old.sha256, new.sha256, STEPS["files"])
                for old, new in pairs
                if old != new
            ]
        else:
            step = STEPS.get(name, VersionStep.MAJOR)
            found += _field_differences(name, old, new, step)
    return tuple(found)


def step_needed(before: Manifest, after: Manifest) -> VersionStep:
    """Give the greatest step that any difference takes."""
    steps = [difference.step for difference in manifest_differences(before, after)]
    return max(steps, default=VersionStep.NONE)


def step_taken(before: Manifest, after: Manifest) -> VersionStep:
    """Give the step from one version to a later one; `NONE` where it is not later."""
    first, second = version_numbers(before.model_version), version_numbers(after.model_version)
    if second <= first:
        return VersionStep.NONE
    place = next(index for index in range(3) if first[index] != second[index])
    return (VersionStep.MAJOR, VersionStep.MINOR, VersionStep.PATCH)[place]


def check_successor(before: Manifest, after: Manifest) -> None:
    """Refuse an artifact whose version says less than what has changed.

    A greater step than needed is the builder's choice.

    Raises:
        InvalidField: The line is another, the version is not later, or its step too small.
    """
    if after.model_name != before.model_name:
        raise InvalidField("model_name", after.model_name, f"the predecessor's {before.model_name}")
    taken, needed = step_taken(before, after), step_needed(before, after)
    if taken is VersionStep.NONE:
        expected = f"later than the predecessor's {before.model_version}"
        raise InvalidField("model_version", after.model_version, expected)
    if taken < needed:
        causes = [one.what for one in manifest_differences(before, after) if one.step > taken]
        least = version_after(before.model_version, needed)
        expected = f"at least {least}, a {needed.name.lower()} step, for {', '.join(causes)}"
        raise InvalidField("model_version", after.model_version, expected)


def version_after(version: str, step: VersionStep) -> str:
    """Give the next version that a step leads to."""
    major, minor, patch = version_numbers(version)
    match step:
        case VersionStep.MAJOR:
            return f"v{major + 1}.0.0"
        case VersionStep.MINOR:
            return f"v{major}.{minor + 1}.0"
        case VersionStep.PATCH:
            return f"v{major}.{minor}.{patch + 1}"
        case VersionStep.NONE:
            return version


def version_numbers(version: str) -> tuple[int, int, int]:
    """Read `v<major>.<minor>.<patch>`."""
    major, minor, patch = version.removeprefix("v").split(".")
    return int(major), int(minor), int(patch)


def _feature_differences(before: Sequence[str], after: Sequence[str]) -> list[ManifestDifference]:
    """Compare features by name; one more keeps what was there, one less or a swap does not."""
    removed = [name for name in before if name not in after]
    added = [name for name in after if name not in before]
    found = [_difference(f"feature {name}", name, None, VersionStep.MAJOR) for name in removed]
    found += [_difference(f"feature {name}", None, name, VersionStep.MINOR) for name in added]
    kept = [name for name in before if name in after]
    now = [name for name in after if name in before]
    if kept != now:
        order: tuple[JsonValue, JsonValue] = (", ".join(kept), ", ".join(now))
        found.append(_difference("order of features", *order, VersionStep.MAJOR))
    return found


def _field_differences(
    name: str, before: JsonValue, after: JsonValue, step: VersionStep
) -> list[ManifestDifference]:
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [_difference(name, before, after, step)]
    found = [
        _difference(f"{name}.{key}", before.get(key), after.get(key), step)
        for key in {**before, **after}
        if before.get(key) != after.get(key) and key != "metrics"
    ]
    first, second = _metrics(before.get("metrics")), _metrics(after.get("metrics"))
    found += [
        _difference(f"metric {key}", first.get(key), second.get(key), step)
        for key in {**first, **second}
        if first.get(key) != second.get(key)
    ]
    return found


def _metrics(listed: JsonValue) -> dict[str, JsonValue]:
    """Give metrics by name: one that moved is one line, not two lists."""
    entries = listed if isinstance(listed, list) else []
    return {str(one["name"]): one["value"] for one in entries if isinstance(one, dict)}


def _difference(
    what: str, before: JsonValue, after: JsonValue, step: VersionStep
) -> ManifestDifference:
    return ManifestDifference(what=what, before=before, after=after, step=step)
