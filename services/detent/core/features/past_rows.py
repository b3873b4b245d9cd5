"""Keeps what was computed at past bars of one symbol, so that a new bar costs one new row.

What was once readable never changes: a finished bar keeps its number, its quote and its book, so
a feature at that bar has one value for ever. Only rows that the next bars read again are kept.
"""

from detent.core.features.feature_set import FeatureSet
from detent.core.features.transforms.bar_values import OF_BAR

# A reading this many bars behind the newest shares rows with it; one further back has its own.
BARS_BEHIND_MAX = 8
# Values kept per symbol, some megabytes; a set that needs more computes them for each reading.
VALUES_KEPT_MAX = 2**15


class PastRow:
    """Holds what is known of one bar.

    Attributes:
        values: Features that others read again, before normalisation, by name; None where one
            cannot be had.
        packed: The row of the model input as little-endian float32, empty where a value cannot
            be had; None while nobody has asked.
    """

    __slots__ = ("packed", "values")

    def __init__(self) -> None:
        """Know nothing yet."""
        self.values: dict[str, float | None] = {}
        self.packed: bytes | None = None


class PastRows:
    """Keeps the rows of the newest bars of one symbol under one feature set.

    Attributes:
        names: Features whose values at past bars are read again.
    """

    def __init__(self, feature_set: FeatureSet) -> None:
        """Start without rows."""
        self.names = names_read_again(feature_set)
        self._rows_max = rows_read(feature_set) + BARS_BEHIND_MAX
        self._rows: dict[int, PastRow] = {}
        self._newest = 0

    def __len__(self) -> int:
        """Count the rows that are kept."""
        return len(self._rows)

    def as_of_bar(self, ordinal: int) -> dict[int, PastRow]:
        """Give the rows that a reading shares, by the number of their bar.

        What the reading adds is kept; a reading far behind the newest gets rows of its own.

        Args:
            ordinal: Number of the newest bar that is read.
        """
        if ordinal < self._newest - BARS_BEHIND_MAX:
            return {}
        if ordinal > self._newest:
            self._newest = ordinal
            oldest = ordinal - self._rows_max + 1
            self._rows = {number: row for number, row in self._rows.items() if number >= oldest}
        return self._rows


def past_rows_of(feature_set: FeatureSet) -> PastRows | None:
    """Give what keeps the rows of a set; None where no row is read again, or too many are."""
    past = PastRows(feature_set)
    rows = rows_read(feature_set)
    is_read_again = feature_set.window_rows > 1 or past.names
    return past if is_read_again and rows * len(past.names) <= VALUES_KEPT_MAX else None


def names_read_again(feature_set: FeatureSet) -> frozenset[str]:
    """Name the features whose values at past bars others are made of.

    The columns of a bar are left out: reading them from the bar costs no more.
    """
    names: set[str] = set()

    def add_sources(name: str) -> None:
        for source in feature_set.specs[name].sources:
            if source not in names and feature_set.specs[source].transform not in OF_BAR:
                names.add(source)
                add_sources(source)

    for spec in feature_set.features:
        if spec.sources and spec.rows_read > 1:
            add_sources(spec.name)
    return frozenset(names)


def rows_read(feature_set: FeatureSet) -> int:
    """Count the rows of successive bars that one reading may touch, the newest included."""

    def beyond(name: str) -> int:
        spec = feature_set.specs[name]
        deepest = max((beyond(source) for source in spec.sources), default=0)
        return deepest + spec.rows_read - 1 if spec.sources else 0

    return feature_set.window_rows + max(beyond(spec.name) for spec in feature_set.features)
