"""Proves that what is judged quickly is judged as the rule says."""

import re
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from detent.contracts.decimals import (
    DECIMAL_CHARS_MAX,
    check_decimal,
    check_signed_decimal,
    is_usual,
    parse_decimal,
)
from detent.contracts.errors import InvalidField

# Plain notation as `protos/README.md` gives it, and nothing of what `Decimal` reads besides.
PLAIN = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
NUMBERS = st.decimals(allow_nan=True, allow_infinity=True)
# Arabic-Indic digits, which Decimal reads as well.
OTHER_DIGITS = "١٢"


def is_plain(text: str) -> bool:
    return len(text) <= DECIMAL_CHARS_MAX and PLAIN.fullmatch(text) is not None


@given(
    text=st.text(alphabet="0123456789.-", max_size=12)
    | st.text(alphabet=f"019.-+eE_ \nNaIinfty{OTHER_DIGITS}", max_size=12)
    | NUMBERS.map(str)
)
@example("0.0000001")
@example("1E+5")
@example("1E-7")
@example("-0")
@example("-0.00")
@example("00.1")
@example(".5")
@example("5.")
@example("1_000")
@example(" 1")
@example("1\n")
@example("NaN")
@example("NaN12")
@example("sNaN")
@example("Infinity")
@example("-Infinity")
@example(OTHER_DIGITS)
@example("1" * DECIMAL_CHARS_MAX)
@example("1" * (DECIMAL_CHARS_MAX + 1))
def test_text_is_read_exactly_when_it_is_plain(text: str) -> None:
    if is_plain(text):
        assert str(parse_decimal("field", text)) == str(Decimal(text))
        return
    with pytest.raises(InvalidField, match="expected a plain decimal string") as caught:
        parse_decimal("field", text)
    assert caught.value.found == text


def test_what_is_no_text_is_refused() -> None:
    wrong: object = 1.5
    with pytest.raises(InvalidField):
        parse_decimal("field", wrong)  # type: ignore[arg-type]


@given(value=NUMBERS)
@example(Decimal("1E-7"))
@example(Decimal("1E+5"))
@example(Decimal("-0"))
@example(Decimal("sNaN"))
@example(Decimal("1" * (DECIMAL_CHARS_MAX + 1)))
@example(Decimal("1E+999999"))
def test_usual_value_is_one_that_the_whole_rule_admits(value: Decimal) -> None:
    if is_usual(value):
        check_signed_decimal("field", value)
        assert value > 0
        return
    # What is not usual is judged by the rule itself: 0 and tiny values pass, the rest do not.
    if not value.is_finite() or value < 0:
        with pytest.raises(InvalidField):
            check_decimal("field", value, above_zero=False)


def test_float_is_never_usual() -> None:
    wrong: object = 1.5

    assert not is_usual(wrong)  # type: ignore[arg-type]
