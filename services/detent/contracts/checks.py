"""Check single fields; domain types call these when they are built."""

import functools
import re
from collections.abc import Sequence

from detent.contracts.errors import InvalidField
from detent.contracts.units import TS_MS_MAX, TS_MS_MIN

_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9._:/-]{0,31}")
# Many symbols at once, each in front of a newline, at a third of what each alone would cost.
_SYMBOLS = re.compile(r"(?:[A-Z0-9][A-Z0-9._:/-]{0,31}+\n)*+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}")
_HASH64 = re.compile(r"[0-9a-f]{64}")
_HASH16 = re.compile(r"[0-9a-f]{16}")
TEXT_CHARS_MAX = 512
# Lists of symbols that are known to be good; each has at most some thousand.
SYMBOL_LISTS_KEPT = 16


def check_int(field: str, value: int, low: int, high: int) -> None:
    """Refuse what is not an integer in [low, high]; booleans are not integers here."""
    if type(value) is not int or not low <= value <= high:
        raise InvalidField(field, value, f"an integer in [{low}, {high}]")


def check_ts_ms(field: str, value: int) -> None:
    """Refuse what is not a time in Unix milliseconds; seconds and microseconds are refused."""
    if type(value) is not int or not TS_MS_MIN <= value <= TS_MS_MAX:
        raise InvalidField(
            field, value, f"Unix milliseconds in [{TS_MS_MIN}, {TS_MS_MAX}] (seconds x 1000)"
        )


def check_symbol(field: str, value: str) -> None:
    """Refuse what is not an instrument name."""
    if not isinstance(value, str) or not _SYMBOL.fullmatch(value):
        raise InvalidField(field, value, "1 to 32 of A-Z 0-9 . _ : / -, in upper case")


def check_symbols(field: str, values: Sequence[str]) -> None:
    """Refuse a list that holds something that is not an instrument name, by its place."""
    if not _are_symbols(tuple(values)):
        for index, value in enumerate(values):
            check_symbol(f"{field}[{index}]", value)


@functools.lru_cache(maxsize=SYMBOL_LISTS_KEPT)
def _are_symbols(values: tuple[str, ...]) -> bool:
    """Say whether all are instrument names; a caller asks for the same list bar after bar."""
    joined = "\n".join([*values, ""])
    return _SYMBOLS.fullmatch(joined) is not None and joined.count("\n") == len(values)


def check_name(field: str, value: str) -> None:
    """Refuse what is not an identifier that a person chose."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidField(field, value, "1 to 128 of A-Z a-z 0-9 . _ : @ / -")


def check_text(field: str, value: str) -> None:
    """Refuse text that is empty, too long, or not printable ASCII."""
    printable = isinstance(value, str) and value.isascii() and value.isprintable()
    if not printable or not 1 <= len(value) <= TEXT_CHARS_MAX:
        raise InvalidField(field, value, f"1 to {TEXT_CHARS_MAX} printable ASCII characters")


def check_hash64(field: str, value: str) -> None:
    """Refuse what is not a full hash."""
    if not isinstance(value, str) or not _HASH64.fullmatch(value):
        raise InvalidField(field, value or "(missing)", "64 lowercase hex characters")


def check_hash16(field: str, value: str) -> None:
    """Refuse what is not a hash in display form."""
    if not isinstance(value, str) or not _HASH16.fullmatch(value):
        raise InvalidField(field, value or "(missing)", "16 lowercase hex characters")


def check_hash_shown(field: str, value: str) -> None:
    """Refuse what is a hash neither in full nor in display form."""
    if not isinstance(value, str) or not (_HASH64.fullmatch(value) or _HASH16.fullmatch(value)):
        raise InvalidField(field, value or "(missing)", "64 or 16 lowercase hex characters")


def is_hash64(value: str) -> bool:
    """Say whether the text is a full hash."""
    return isinstance(value, str) and _HASH64.fullmatch(value) is not None


def check_size(field: str, content: bytes, size: int) -> None:
    """Refuse bytes that are more or fewer than what they are a column of."""
    if len(content) != size:
        raise InvalidField(field, f"{len(content)} bytes", f"{size} bytes")


def check_unique(field: str, values: Sequence[str]) -> None:
    """Refuse a list that names something twice."""
    if len(values) > 1 and len(set(values)) != len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise InvalidField(field, twice, "each name once")


def check_count(field: str, values: Sequence[object], low: int, high: int) -> None:
    """Refuse a list that is too short or too long."""
    if not isinstance(values, tuple) or not low <= len(values) <= high:
        raise InvalidField(field, f"{len(values)} items", f"{low} to {high} items")


def check_exactly_one(field: str, **answers: object) -> None:
    """Refuse a choice of which none or several are present."""
    absent = 0
    for answer in answers.values():
        # Identity, and not equality: this runs for every row of every batch.
        absent += answer is None
    if absent != len(answers) - 1:
        present = [name for name, answer in answers.items() if answer is not None]
        raise InvalidField(field, present or "(none)", f"exactly one of {', '.join(answers)}")
