"""Find when the mean of a stream changed: the test of Page and Hinkley.

For losses, one at a time. Other window detectors, such as ADWIN, answer by their implementation
(how often they look, how they merge), so none is here.

Source: Page 1954; QUANT A8.
"""

from collections.abc import Iterable, Iterator

import msgspec


class PageHinkley(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what the test tolerates.

    Attributes:
        rows_min: Rows before it may speak.
        tolerance: Change of the mean that is none, in units of the stream.
        threshold: Accumulated deviation that is a change, in the same units.
        forgetting: What is left of the accumulated deviation after a row.
    """

    rows_min: int = 30
    tolerance: float = 0.005
    threshold: float = 50.0
    forgetting: float = 0.9999

    def changes(self, values: Iterable[float]) -> Iterator[int]:
        """Give the places, from 0, at which a change of the mean is noticed, up or down.

        After each the test starts anew.
        """
        state = _Sums()
        for place, value in enumerate(values):
            state.count += 1
            state.mean += (value - state.mean) / state.count
            deviation = value - state.mean
            state.up = self.forgetting * state.up + deviation - self.tolerance
            state.down = self.forgetting * state.down + deviation + self.tolerance
            state.up_least = min(state.up_least, state.up)
            state.down_most = max(state.down_most, state.down)
            moved = max(state.up - state.up_least, state.down_most - state.down)
            if state.count >= self.rows_min and moved > self.threshold:
                yield place
                state = _Sums()


class _Sums(msgspec.Struct):
    count: int = 0
    mean: float = 0.0
    up: float = 0.0
    down: float = 0.0
    up_least: float = float("inf")
    down_most: float = float("-inf")
