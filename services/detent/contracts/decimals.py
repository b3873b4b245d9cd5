"""Read and write decimals as plain text, so that equal values have equal text."""

import re
from decimal import Decimal, InvalidOperation

from detent.contracts.errors import InvalidField

DECIMAL_CHARS_MAX = 40
_PLAIN = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
_EXPECTED = f"a plain decimal string of at most {DECIMAL_CHARS_MAX} characters, no exponent"


def parse_decimal(field: str, text: str) -> Decimal:
    """Read a decimal from plain notation.

    Args:
        field: Path of the field, for the error.
        text: For example `-12.50`; no exponent, no sign but minus, no infinities.

    Returns:
        The value, exactly.

    Raises:
        InvalidField: The text is not plain notation.
    """
    if not isinstance(text, str) or len(text) > DECIMAL_CHARS_MAX:
        raise InvalidField(field, text, _EXPECTED)
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise InvalidField(field, text, _EXPECTED) from None
    # What a decimal writes in the very same text, without an exponent, is in plain notation:
    # that costs a third of the pattern, which judges what is left, as `0.0000001` is.
    is_same = str(value) == text and "E" not in text and value.is_finite()
    if not is_same and not _PLAIN.fullmatch(text):
        raise InvalidField(field, text, _EXPECTED)
    return value


def format_decimal(value: Decimal) -> str:
    """Write a decimal in its one canonical form: no exponent, no trailing zeros, no -0."""
    text = _plain(value)
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _plain(value: Decimal) -> str:
    """Write a decimal without an exponent, its trailing zeros included."""
    text = str(value)
    return format(value, "f") if "E" in text else text


def is_usual(value: Decimal) -> bool:
    """Say whether a value is what nearly all are: above 0, and plain text as it stands.

    Whatever it is true of passes `check_decimal`; what it is false of may pass as well. It
    writes each value out at most once, and so costs less than half.
    """
    if type(value) is not Decimal or not value.is_finite() or value.is_signed() or not value:
        return False
    text = str(value)
    return len(text) <= DECIMAL_CHARS_MAX and "E" not in text


def check_decimal(field: str, value: Decimal, *, above_zero: bool) -> None:
    """Refuse what is not a finite decimal in range and writable in plain notation.

    Raises:
        InvalidField: The value is no `Decimal`, not finite, too long, or out of range.
    """
    if is_usual(value):
        return
    check_signed_decimal(field, value)
    if (value.is_signed() and value) or (above_zero and not value):
        raise InvalidField(field, value, "above 0" if above_zero else "at least 0")


def check_signed_decimal(field: str, value: Decimal) -> None:
    """Refuse what is not a finite decimal, of either sign, writable in plain notation.

    Raises:
        InvalidField: The value is no `Decimal`, not finite, or too long.
    """
    if not isinstance(value, Decimal) or not value.is_finite():
        raise InvalidField(field, value, "a finite Decimal, never a float")
    # The exponent comes first: writing out 1E+999999999 would take the memory of a house.
    if abs(value.adjusted()) > DECIMAL_CHARS_MAX or len(_plain(value)) > DECIMAL_CHARS_MAX:
        raise InvalidField(field, value, _EXPECTED)
