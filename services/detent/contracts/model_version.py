"""Judge what a change of an artifact means, in the words of its version number.

MAJOR: what goes in or comes out is another thing, so that whoever reads the answers must
look again. MINOR: the features changed. PATCH: it was trained again. However small the
step, the binding is another one: nobody is moved by a version number.

Source: seed 003, section 12.4.4, rows R57 and R58.
"""

from enum import StrEnum

import msgspec

from detent.contracts.errors import InvalidField
from detent.contracts.manifest import Manifest

# What a reader of the answers, or whoever asks, depends on.
MAJOR_FIELDS = (
    "head",
    "bar_interval_ms",
    "horizon_id",
    "horizon_bars",
    "label_definition",
    "input_name",
    "output_name",
    "output_classes",
    "further_outputs",
    "fallback",
)
MINOR_FIELDS = ("feature_version", "input_features", "input_shape")


class VersionStep(StrEnum):
    """Names the place of a version number that a change needs; NONE for the same artifact."""

    NONE = "none"
    PATCH = "patch"
    MINOR = "minor"
    MAJOR = "major"


class ManifestChange(msgspec.Struct, frozen=True, kw_only=True):
    """States how two artifacts of one line differ.

    Attributes:
        step: The least step of the version number that the change needs.
        fields: Names of the manifest's fields that differ, in its order, the version left
            out.
    """

    step: VersionStep
    fields: tuple[str, ...]


def judge_change(before: Manifest, after: Manifest) -> ManifestChange:
    """Say how two artifacts differ and what step of the version number that needs.

    Raises:
        InvalidField: They are artifacts of different lines, which have no common versions.
    """
    if before.model_name != after.model_name:
        raise InvalidField("model_name", after.model_name, before.model_name)
    names = [name for name in Manifest.__struct_fields__ if name != "model_version"]
    fields = tuple(name for name in names if getattr(before, name) != getattr(after, name))
    step = VersionStep.PATCH if fields else VersionStep.NONE
    if not set(fields).isdisjoint(MINOR_FIELDS):
        step = VersionStep.MINOR
    if not set(fields).isdisjoint(MAJOR_FIELDS):
        step = VersionStep.MAJOR
    return ManifestChange(step=step, fields=fields)


def check_version_step(before: Manifest, after: Manifest) -> ManifestChange:
    """Refuse a version number that says less than the change, or does not go forward.

    Returns:
        The change.

    Raises:
        InvalidField: The later artifact's version is not above the earlier one's, or its
            step is too small; or the artifacts are of different lines.
    """
    change = judge_change(before, after)
    old, new = version_numbers(before.model_version), version_numbers(after.model_version)
    if change.step is VersionStep.NONE and new == old:
        return change
    least = {
        VersionStep.MAJOR: (old[0] + 1, 0, 0),
        VersionStep.MINOR: (old[0], old[1] + 1, 0),
        VersionStep.PATCH: (old[0], old[1], old[2] + 1),
        VersionStep.NONE: (old[0], old[1], old[2] + 1),
    }[change.step]
    if new < least:
        changed = ", ".join(change.fields) or "nothing"
        expected = f"v{least[0]}.{least[1]}.{least[2]} or above (changed: {changed})"
        raise InvalidField("model_version", after.model_version, expected)
    return change


def version_numbers(model_version: str) -> tuple[int, int, int]:
    """Split a version as manifests have it, `v1.2.3`, into its numbers."""
    major, minor, patch = (int(number) for number in model_version[1:].split("."))
    return major, minor, patch
