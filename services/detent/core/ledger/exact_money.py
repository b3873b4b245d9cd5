"""Add and multiply money without a rounding that nobody asked for.

Inputs are finite decimals of at most 40 characters, so sums and products of them are finite
too, and fit here with room to spare. Where a quotient is needed it is rounded by name, once.
"""

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, Inexact, InvalidOperation
from fractions import Fraction

# A product of three inputs, a million of them added: 40 * 3 + 7 digits; a multiple is free.
DIGITS = 400
# What is not a finite decimal is kept to so many places: a quotient, an average.
PLACES = 12

# An operation that would round raises instead.
EXACT = Context(
    prec=DIGITS, Emin=-9_999, Emax=9_999, traps=[Inexact, InvalidOperation, DivisionByZero]
)
ZERO = Decimal(0)
_ONE_PLACE = Decimal(1).scaleb(-PLACES)
_ROUNDING = Context(prec=DIGITS, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation])


def exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    """Add amounts, exactly."""
    total = ZERO
    for amount in amounts:
        total = EXACT.add(total, amount)
    return total


def exact_product(*factors: Decimal) -> Decimal:
    """Multiply amounts, exactly."""
    product = Decimal(1)
    for factor in factors:
        product = EXACT.multiply(product, factor)
    return product


def exact_difference(minuend: Decimal, subtrahend: Decimal) -> Decimal:
    """Subtract one amount from another, exactly."""
    return EXACT.subtract(minuend, subtrahend)


def rounded(value: Fraction) -> Decimal:
    """Round a quotient to `PLACES` decimal places, half to even."""
    scaled = value * 10**PLACES
    return _ROUNDING.multiply(Decimal(round(scaled)), _ONE_PLACE)
