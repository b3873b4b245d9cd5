"""Hold a plan that is open, as the strategist's side knows it."""

import msgspec

from detent.contracts.plan import Plan


class OpenedPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Holds an open plan with the binding hash that every call on it carries."""

    plan: Plan
    binding_hash: str
