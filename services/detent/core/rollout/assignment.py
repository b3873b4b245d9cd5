"""Say which arm of a rollout a symbol belongs to: the same everywhere, and for ever.

A symbol has one of ten thousand buckets, by a hash of the rollout's salt and its name. The
candidate's are those below `canary_bps`, so that a higher share only adds symbols and a lower
one only takes some away. Nothing is stored and nothing is drawn.

Source: decision D10; DESIGN section 3, "Life of a plan"; RELIABILITY F1 and F2.
"""

from collections.abc import Iterable
from hashlib import sha256

import msgspec

from detent.contracts.units import BPS_ONE


class Arms(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the symbols of both arms, each in the order in which they were given."""

    stable: tuple[str, ...]
    candidate: tuple[str, ...]


def bucket_of(salt: str, symbol: str) -> int:
    """Give the bucket of a symbol, in [0, 10000).

    Args:
        salt: The rollout's own, so that the same symbols are not first every time.
        symbol: Instrument.

    Returns:
        SHA-256 of `salt | symbol` in UTF-8, read as one big-endian number, modulo 10000.
    """
    return int.from_bytes(sha256(f"{salt}|{symbol}".encode()).digest(), "big") % BPS_ONE


def in_canary(salt: object, symbol: object, canary_bps: object) -> bool:
    """Say whether the candidate answers for a symbol; whatever is odd belongs to the stable arm.

    Args:
        salt: The rollout's, a text that is not empty.
        symbol: Instrument, a text that is not empty.
        canary_bps: Share of the symbols, basis points, an integer in [0, 10000].
    """
    if not isinstance(salt, str) or not isinstance(symbol, str) or not salt or not symbol:
        return False
    # No bool, no float, no text: what is no number of basis points is no share.
    if type(canary_bps) is not int or not 0 <= canary_bps <= BPS_ONE:
        return False
    return bucket_of(salt, symbol) < canary_bps


def resolve_arms(symbols: Iterable[str], *, salt: str, canary_bps: int) -> Arms:
    """Split the symbols of a plan over the arms of its rollout."""
    asked = tuple(symbols)
    candidate = frozenset(symbol for symbol in asked if in_canary(salt, symbol, canary_bps))
    return Arms(
        stable=tuple(symbol for symbol in asked if symbol not in candidate),
        candidate=tuple(symbol for symbol in asked if symbol in candidate),
    )
