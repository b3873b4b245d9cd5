"""Hold what deciding needs to know of an artifact that is served elsewhere."""

import msgspec

NAMES_SHOWN_MAX = 16


class HeldBinding(msgspec.Struct, frozen=True, kw_only=True):
    """Says what a binding that a held manifest gives asks of plans and of rows.

    Attributes:
        bar_interval_ms: Length of the bars that the model was trained on.
        caller_names: The features of the set that only the strategist knows.
    """

    bar_interval_ms: int
    caller_names: frozenset[str] = frozenset()

    @property
    def caller_names_expected(self) -> str:
        """Say which names a row may give: the first of them, and how many more there are."""
        names = sorted(self.caller_names)
        shown = ", ".join(names[:NAMES_SHOWN_MAX]) or "none"
        rest = len(names) - NAMES_SHOWN_MAX
        more = f" and {rest} more" if rest > 0 else ""
        return f"a caller feature of the feature set: {shown}{more}"
