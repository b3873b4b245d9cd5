"""Order models by how simple they are: of two that tie, the simpler stays.

Source: seed 002, phase 2 A; row R164.
"""

# By what the id of an architecture begins with, the simplest first.
ORDER = ("proxy", "constant", "logistic", "regression", "forest", "gbt", "boosting", "mlp", "tcn")


def is_simpler(architecture_id: str, other_id: str) -> bool:
    """Say whether one architecture is simpler than another; of an unknown one nothing is known."""
    places = [_place(name) for name in (architecture_id, other_id)]
    first, second = places
    return first is not None and second is not None and first < second


def _place(architecture_id: str) -> int | None:
    words = architecture_id.lower().replace("-", "_").split("_")
    found = [ORDER.index(word) for word in words if word in ORDER]
    return max(found, default=None)
