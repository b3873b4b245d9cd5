"""Hold a feature that only the strategist knows, as calls and records carry it."""

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from detent.contracts.checks import check_count, check_name, check_unique
from detent.contracts.decimals import check_signed_decimal

CALLER_FEATURES_MAX = 1_024


class CallerFeature(msgspec.Struct, frozen=True, kw_only=True):
    """Carries one feature that only the caller knows, before normalisation."""

    name: str
    value: Decimal

    def __post_init__(self) -> None:
        """Refuse what is no name and what is no decimal."""
        check_name("name", self.name)
        check_signed_decimal("value", self.value)


def check_caller_features(field: str, features: Sequence[CallerFeature], *, low: int) -> None:
    """Refuse fewer than `low`, more than `CALLER_FEATURES_MAX`, and a name that comes twice."""
    check_count(field, features, low, CALLER_FEATURES_MAX)
    check_unique(field, [one.name for one in features])
