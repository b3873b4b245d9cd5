"""Hold what deciding needs to know of an artifact that is served elsewhere."""

import msgspec


class HeldBinding(msgspec.Struct, frozen=True, kw_only=True):
    """Says what a binding that a held manifest gives asks of plans and of rows.

    Attributes:
        bar_interval_ms: Length of the bars that the model was trained on.
        caller_names: The features of the set that only the strategist knows.
    """

    bar_interval_ms: int
    caller_names: frozenset[str] = frozenset()
