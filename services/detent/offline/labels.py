"""Say what the model is asked, in words that are bound and in numbers that it learns."""

from collections.abc import Sequence
from decimal import Decimal


def direction_label_definition(*, horizon_bars: int, bar_interval_ms: int) -> str:
    """Give the definition that goes into the manifest and the binding.

    Args:
        horizon_bars: How far ahead the label looks.
        bar_interval_ms: Length of a bar, milliseconds.
    """
    return (
        f"up = (close[t+{horizon_bars}] / close[t] - 1 > 0), t and t+{horizon_bars} in the "
        f"order of the bars that exist, bars of {bar_interval_ms} ms"
    )


def direction_labels(closes: Sequence[Decimal], *, horizon_bars: int) -> list[bool | None]:
    """Label every bar of one symbol with whether it was followed by a rise.

    Args:
        closes: Closes, oldest first, exact.
        horizon_bars: How far ahead the label looks, at least 1.

    Returns:
        One label per close: True above, False at or below; None for the last
        `horizon_bars`, whose outcome is not known.
    """
    known: list[bool | None] = [
        later > earlier for earlier, later in zip(closes, closes[horizon_bars:], strict=False)
    ]
    return known + [None] * (len(closes) - len(known))
