"""Name the heaviest features of answers, on one thread of its own, inside the caller's deadline.

Whoever asks for this pays for it: the thread is not one of those that answer, a few rows are
done at a time so that calls take turns, and what cannot be done in time fails the call.

Source: row R27; decision 0023.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from msgspec import structs

from detent.adapters.explaining import Explainer
from detent.adapters.serving import Serving
from detent.contracts.calls.inference import SignalRow
from detent.contracts.errors import DeadlineExceeded, InvalidField, Overloaded
from detent.contracts.signals import TOP_FEATURES_COUNT
from detent.rpc.call import Call
from detent.servers.inference.run_queue import Floats

CALLS_MAX = 8
ROWS_PER_TURN = 16

# What a row was asked with, and what the graph's first output was.
Asked = tuple[bytes, Floats]
Top = tuple[tuple[str, ...], tuple[int, ...]]


def check_explains(serving: Serving) -> None:
    """Refuse a wish that this artifact cannot fulfil: three distinct names, none invented.

    Raises:
        InvalidField: It has fewer than three features.
    """
    if serving.explainer is None:
        expected = f"absent: the model has fewer than {TOP_FEATURES_COUNT} features"
        raise InvalidField("attributions", found=True, expected=expected)


class Attributing:
    """Fills in the heaviest features of answers that are there already."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start without work.

        Args:
            clock: Monotonic clock in seconds.
        """
        self._clock = clock
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="attributions")
        self._calls = 0

    def close(self) -> None:
        """Begin nothing more."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def explained(
        self,
        serving: Serving,
        rows: Sequence[SignalRow],
        asked: Mapping[int, Asked],
        call: Call,
    ) -> tuple[SignalRow, ...]:
        """Give the rows with the heaviest features of whatever the model answered.

        Args:
            serving: What answered.
            rows: The answers.
            asked: By place, what the model was given and what its graph gave.
            call: Whose deadline counts.

        Raises:
            DeadlineExceeded: The time does not suffice.
            Overloaded: Too many calls wait already.
            InternalError: The runtime failed.
        """
        assert serving.explainer is not None, "it was checked"
        expires_s = self._clock() + call.budget_s()
        places = [place for place in sorted(asked) if _is_answer(rows[place])]
        if self._calls >= CALLS_MAX:
            raise Overloaded("too many calls wait for attributions", limit=CALLS_MAX)
        self._calls += 1
        found = list(rows)
        loop = asyncio.get_running_loop()
        try:
            for start in range(0, len(places), ROWS_PER_TURN):
                turn = places[start : start + ROWS_PER_TURN]
                tops = await loop.run_in_executor(
                    self._executor,
                    self._tops,
                    serving.explainer,
                    [asked[place] for place in turn],
                    expires_s,
                )
                for place, top in zip(turn, tops, strict=True):
                    found[place] = _with_top(found[place], top)
        finally:
            self._calls -= 1
        return tuple(found)

    def _tops(
        self, explainer: Explainer, asked: Sequence[Asked], expires_s: float
    ) -> list[Top | None]:
        tops = []
        for values, answered in asked:
            if self._clock() >= expires_s:
                raise DeadlineExceeded("too little of the deadline is left for attributions")
            tops.append(explainer.top(np.frombuffer(values, "<f4"), answered))
        return tops


def _is_answer(row: SignalRow) -> bool:
    """Say whether the model itself answered."""
    return row.signal is not None and row.fallback_reason is None


def _with_top(row: SignalRow, top: Top | None) -> SignalRow:
    assert row.signal is not None, "only answers have weights"
    if top is None:
        return row
    names, weights = top
    signal = structs.replace(row.signal, top_features=names, top_feature_weights_x1000=weights)
    return structs.replace(row, signal=signal)
