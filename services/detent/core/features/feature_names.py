"""Refuses names of features that would tell a model what time it is.

A model that knows the hour behaves differently in a replay, and differently tomorrow, with
nothing in its inputs to say why (R40). Transforms read bars and quotes and no clock; the names
are checked as well because a caller feature could bring in what no transform can.
"""

import re

from detent.contracts.checks import check_name
from detent.contracts.errors import InvalidField

_WORD = re.compile(r"[a-z]+|[0-9]+")
# `per_year` is a unit, and `_24h` a span of the past; neither reads a clock.
_UNIT = "per"
CLOCK_WORDS = frozenset(
    {
        *("clock", "now", "today", "time", "times", "timestamp", "datetime", "date", "ts"),
        *("epoch", "unix", "utc", "tod", "dow", "weekday", "weekend", "calendar", "session"),
        *("minute", "minutes", "hour", "hours", "hourly", "day", "days", "daily"),
        *("week", "weeks", "month", "months", "quarter", "season", "year", "years"),
    }
)


def check_feature_name(field: str, name: str) -> None:
    """Refuse what is no name, or is the name of a time.

    Raises:
        InvalidField: The name is malformed, or one of its words is a clock's.

    Source: R40.
    """
    check_name(field, name)
    words = _WORD.findall(name.lower())
    before = ["", *words]
    for previous, word in zip(before, words, strict=False):
        if word in CLOCK_WORDS and previous != _UNIT:
            raise InvalidField(field, name, f"no clock among the features: {word!r} names a time")
