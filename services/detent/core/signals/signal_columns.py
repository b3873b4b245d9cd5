"""Turn the answers of many rows into columns of integers: one per field of the head's signal.

A row without an answer, and a bracket that the model said nothing about, is -1 there, which no
field of a signal can be: whoever forgets to look at the refusals trades on nothing.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detent.contracts.binding import Head
from detent.contracts.calls.signal_columns import ABSENT, Reasons, SignalColumn
from detent.contracts.reasons import Reason
from detent.contracts.signals import (
    REGIME_NUMBERS,
    BracketsSignal,
    DirectionSignal,
    FillSignal,
    HeadSignal,
    Regime,
    RegimeSignal,
    ToxicitySignal,
)

SIGNALS: Mapping[Head, type[HeadSignal]] = {
    Head.DIRECTION: DirectionSignal,
    Head.REGIME: RegimeSignal,
    Head.TOXICITY: ToxicitySignal,
    Head.FILL: FillSignal,
}
BRACKET_FIELDS = ("p_hat_bps", "p_unified_bps")

Answers = Sequence[HeadSignal | Reason]


def signal_columns(
    head: Head, answers: Answers, *, keys: Sequence[str]
) -> tuple[tuple[SignalColumn, ...], Reasons]:
    """Give the columns of some answers, and of each row why its brackets are not coupled.

    Args:
        head: The head that answered.
        answers: One per row.
        keys: Names of the brackets, in declared order; of no meaning for other heads.

    Returns:
        The columns; and the reasons, empty where there is none.
    """
    if head is Head.BRACKETS:
        return _bracket_columns(answers, keys), _coupling_refusals(answers)
    columns = []
    for name in SIGNALS[head].__struct_fields__:
        value_of = attrgetter(name)
        integers = [
            ABSENT if isinstance(answer, Reason) else _number(value_of(answer))
            for answer in answers
        ]
        columns.append(column_of(name, np.array(integers, dtype="<i4")))
    return tuple(columns), ()


def column_of(name: str, integers: NDArray[np.int32]) -> SignalColumn:
    """Give the column of a field that has one element per row."""
    return SignalColumn(name=name, values=integers.astype("<i4", copy=False).tobytes())


def refusals_of(answers: Answers) -> Reasons:
    """Give the reason of each row that has no answer; empty where all have."""
    reasons = tuple(answer if isinstance(answer, Reason) else None for answer in answers)
    return reasons if any(reasons) else ()


def _bracket_columns(answers: Answers, keys: Sequence[str]) -> tuple[SignalColumn, ...]:
    places = {key: place for place, key in enumerate(keys)}
    fields = {
        name: np.full((len(answers), len(keys)), ABSENT, dtype="<i4") for name in BRACKET_FIELDS
    }
    for row, answer in enumerate(answers):
        for bracket in answer.brackets if isinstance(answer, BracketsSignal) else ():
            place = row, places[bracket.bracket_key]
            fields["p_hat_bps"][place] = bracket.p_hat_bps
            fields["p_unified_bps"][place] = _number(bracket.p_unified_bps)
    return tuple(
        SignalColumn(name=name, values=integers.tobytes(), elements=tuple(keys))
        for name, integers in fields.items()
    )


def _coupling_refusals(answers: Answers) -> Reasons:
    reasons = tuple(
        answer.coupling_refusal if isinstance(answer, BracketsSignal) else None
        for answer in answers
    )
    return reasons if any(reasons) else ()


def _number(value: Any) -> int:
    """Give what stands for a value: itself, the number of a regime, or of what is absent."""
    if isinstance(value, Regime):
        return REGIME_NUMBERS[value]
    return ABSENT if value is None else int(value)
