"""Declare what is swept: a few values of a few settings, and every combination of them."""

import itertools
from collections.abc import Sequence

import msgspec
from msgspec import structs

from detent.contracts.errors import InvalidField
from detent.contracts.plan import PolicyConfig

# A grid that nobody could look through has been searched, not declared.
SETTINGS_MAX = 200
CALIBRATION = "calibration"
CALIBRATED, RAW = "calibrated", "raw"
# The fields of a policy config that are plain integers.
FIELDS = tuple(field.name for field in structs.fields(PolicyConfig) if field.type is int)


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one setting and the values that are tried, as texts."""

    name: str
    values: tuple[str, ...]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one combination.

    Attributes:
        number: Its place, from 0.
        values: A value of each axis, in the order of the axes.
        policy_config: What it decides with.
        calibrated: Whether probabilities count as calibrated, or as the graph gave them.
    """

    number: int
    values: tuple[str, ...]
    policy_config: PolicyConfig
    calibrated: bool


def parse_axes(texts: Sequence[str]) -> tuple[Axis, ...]:
    """Read axes, each `name=value,value`.

    Raises:
        InvalidField: A name is no setting or comes twice, or there is nothing to try.
    """
    axes = []
    for text in texts:
        name, _, listed = text.partition("=")
        values = tuple(one.strip() for one in listed.split(",") if one.strip())
        if name not in (*FIELDS, CALIBRATION):
            expected = f"one of {', '.join((*FIELDS, CALIBRATION))}"
            raise InvalidField("set", name, expected)
        if not values or len(set(values)) != len(values):
            raise InvalidField(name, listed, "values, each once, with commas between")
        axes.append(Axis(name=name, values=values))
    names = [axis.name for axis in axes]
    if not names or len(set(names)) != len(names):
        raise InvalidField("set", ", ".join(names) or "nothing", "settings, each once")
    return tuple(axes)


def settings_of(axes: Sequence[Axis], base: PolicyConfig) -> tuple[Setting, ...]:
    """Give every combination, the last axis moving quickest.

    Raises:
        InvalidField: A value is out of its range, or there are more than `SETTINGS_MAX`.
    """
    combined = list(itertools.product(*(axis.values for axis in axes)))
    if len(combined) > SETTINGS_MAX:
        raise InvalidField("set", f"{len(combined)} settings", f"at most {SETTINGS_MAX}")
    names = [axis.name for axis in axes]
    return tuple(
        _setting(number, dict(zip(names, values, strict=True)), base)
        for number, values in enumerate(combined)
    )


def _setting(number: int, values: dict[str, str], base: PolicyConfig) -> Setting:
    calibration = values.get(CALIBRATION, CALIBRATED)
    if calibration not in (CALIBRATED, RAW):
        raise InvalidField(CALIBRATION, calibration, f"{CALIBRATED} or {RAW}")
    changes = {name: _integer(name, text) for name, text in values.items() if name != CALIBRATION}
    return Setting(
        number=number,
        values=tuple(values.values()),
        policy_config=structs.replace(base, **changes),
        calibrated=calibration == CALIBRATED,
    )


def _integer(name: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise InvalidField(name, text, "an integer") from error
    # In one spelling only: two of one number would be tried, and count, as two settings.
    if str(number) != text:
        raise InvalidField(name, text, f"the spelling {number}")
    return number
