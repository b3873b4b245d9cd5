"""Holds page tokens to what a page gives: anything else is the caller's defect, and said so."""

import pytest

from detent.adapters.ledger_reading import token_of
from detent.contracts.errors import InvalidField
from detent.contracts.units import INT64_MAX


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("", ("", 0)),
        ("7", ("", 7)),
        ("owner.1.7", ("owner.1", 7)),
        (f"{INT64_MAX}", ("", INT64_MAX)),
    ],
)
def test_a_token_says_ledger_and_row(token: str, expected: tuple[str, int]) -> None:
    assert token_of(token) == expected


@pytest.mark.parametrize("token", ["x", "7.", "-1", f"{INT64_MAX + 1}", "1" * 40, "1" * 5_000])
def test_what_no_page_gave_is_refused(token: str) -> None:
    """A number that no row can have once was an internal error."""
    with pytest.raises(InvalidField, match="a token that a page gave"):
        token_of(token)
