"""Holds four books that have the figures of FORMULAS annex A; their levels are our own."""

from tests.unit.core.features.market import START_MS, book

from detent.contracts.market import Book


def _side(text: str) -> list[tuple[str, str]]:
    """Read levels written as `price:quantity`."""
    pairs = [level.split(":") for level in text.split()]
    return [(price, qty) for price, qty in pairs]


NORMAL = book(
    START_MS,
    _side("70810.9:0.12 70810.5:0.5 70810.2:0.6 70810:0.65 70809:1.2"),
    _side("70811.1:0.11 70811.4:0.45 70811.7:0.5 70812:0.78 70813:1"),
)
ULTRA_THIN = book(
    START_MS,
    _side("70829.5:0.001 70809.5:0.005 70789.5:0.01 70769.5:0.012 70749.5:0.02"),
    _side("70830:0.001 70850:0.005 70870:0.01 70890:0.012 70910:0.02"),
)
WALL_BID = book(
    START_MS,
    _side("70810.9:0.12 70810.5:0.15 70810.2:0.16 70810:2.5 70809:0.17"),
    _side("70811.1:0.11 70811.4:0.15 70811.7:0.19 70812:0.14 70813:0.16"),
)
THIN_INSUFFICIENT = book(
    START_MS,
    _side("70790:0.01 70780:0.012 70770:0.016 70760:0.017 70750:0.032"),
    _side("70830:0.009 70840:0.011 70850:0.015 70860:0.016 70870:0.03"),
)
SCENARIOS: dict[str, Book] = {
    "normal": NORMAL,
    "ultra_thin": ULTRA_THIN,
    "wall_bid": WALL_BID,
    "thin_insufficient": THIN_INSUFFICIENT,
}
