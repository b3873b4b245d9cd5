"""Hold the units of the wire: basis points, parts per million, milliseconds."""

BPS_ONE = 10_000
BPS_HALF = 5_000
PPM_ONE = 1_000_000
# The 32-bit range bounds every basis-point field on the wire.
INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
# Seconds-scale and microsecond-scale stamps both fall outside 2001 to 2286.
TS_MS_MIN = 1_000_000_000_000
TS_MS_MAX = 9_999_999_999_999
ROWS_MAX = 5_000


def divide_half_even(numerator: int, denominator: int) -> int:
    """Divide two integers and round once, half to even.

    Args:
        numerator: Any integer.
        denominator: Any integer above 0.

    Returns:
        The nearest integer; the even one when two are equally near.

    Source: decision D22.
    """
    assert denominator > 0

    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient % 2 == 1):
        return quotient + 1
    return quotient
