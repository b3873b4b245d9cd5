"""Say which replica owns a plan: it alone decides the plan's bars and writes its chains."""

import msgspec

from detent.contracts.canonical import sha256_hex
from detent.contracts.checks import check_int
from detent.contracts.errors import InvalidField, NotOwner, PlanOwnerMismatch
from detent.contracts.rollout import base_plan_id

REPLICAS_MAX = 1_000


class Ownership(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one replica's place among those that share the plans.

    The count must not change while plans are open: a plan would change hands.

    Attributes:
        replica_index: This replica, [0, replica_count).
        replica_count: How many there are, at least 1.
        replica_targets: The address of each, by index; needed for more than one.
    """

    replica_index: int = 0
    replica_count: int = 1
    replica_targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a place that there is not."""
        check_int("replica_count", self.replica_count, 1, REPLICAS_MAX)
        check_int("replica_index", self.replica_index, 0, self.replica_count - 1)
        if self.replica_count > 1 and len(self.replica_targets) != self.replica_count:
            found = f"{len(self.replica_targets)} addresses"
            raise InvalidField("replica_targets", found, f"{self.replica_count}, one per replica")

    @property
    def other_targets(self) -> tuple[str, ...]:
        """Give the addresses of the other replicas."""
        ours = self.replica_index
        return (*self.replica_targets[:ours], *self.replica_targets[ours + 1 :])

    def check_owner(self, plan_id: str) -> None:
        """Refuse a plan of another replica.

        Raises:
            NotOwner: It names the owner and its address.
        """
        owner = owner_of(plan_id, self.replica_count)
        if owner != self.replica_index:
            raise NotOwner(plan_id, owner=owner, owner_target=self.replica_targets[owner])

    def check_successor(self, plan_id: str) -> None:
        """Refuse a plan that would replace one of ours and would not be ours.

        Closing one plan and opening the other is one transaction of one file, so both have one
        owner. It is no `NotOwner`: the other replica could not do it either.

        Raises:
            PlanOwnerMismatch: It says what a name must fit.
        """
        if owner_of(plan_id, self.replica_count) != self.replica_index:
            raise PlanOwnerMismatch(
                plan_id, owner=self.replica_index, replica_count=self.replica_count
            )


def owner_of(plan_id: str, replica_count: int) -> int:
    """Give the index of the owner: SHA-256 of the name, modulo the count (DESIGN section 2).

    Both arms of a rollout are replaced in one transaction, so the name of the stable one counts.
    """
    return int(sha256_hex(base_plan_id(plan_id).encode()), 16) % replica_count


def fitting_plan_id(plan_id: str, *, owner: int, replica_count: int) -> str:
    """Give the first of `plan_id`, `plan_id.1`, `plan_id.2`, ... that a replica owns."""
    check_int("owner", owner, 0, replica_count - 1)
    candidate, number = plan_id, 0
    while owner_of(candidate, replica_count) != owner:
        number += 1
        candidate = f"{plan_id}.{number}"
    return candidate
