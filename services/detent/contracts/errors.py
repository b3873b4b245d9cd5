"""Name every way in which a call can be refused.

    DetentError
    ├── InvalidField            a field is malformed or out of range
    │   ├── InvalidResponse     the other side's answer is, not our question
    │   ├── DataLate            a quote is older than what is known
    │   ├── DataCrossed         a quote bids what it asks, or more
    │   └── DataConflict        a bar or a fill is held already, with other content
    ├── BindingMismatch         the binding hash is not the one bound here
    ├── FeatureVersionMismatch  the feature version is not the binding's
    ├── HorizonMismatch         the plan's horizon or bar is not the artifact's
    ├── SnapshotStale           the data do not reach the instant asked for
    ├── SnapshotNotFound        the symbol is unknown or warming up
    ├── PlanNotFound            no plan has this name
    ├── PlanClosed              the plan decides nothing more
    ├── NotOwner                another replica owns the plan
    ├── PlanOwnerMismatch       a plan would be replaced by one of another replica
    ├── PlanConflict            the plan id or the book and symbol is taken
    ├── SymbolNotInPlan         the plan does not name the symbol
    ├── BarOutOfOrder           the bar is older than the last one decided
    ├── BarFromFuture           the bar closes later than the clock allows
    ├── DecisionConflict        the bar was decided with other content
    ├── DecisionNotFound        the ledger holds no such record
    ├── KillEpochStale          a release names a switch as it no longer stands
    ├── RolloutNotFound         no rollout has this name
    ├── RolloutRevisionStale    a change names a rollout as it no longer stands
    ├── RolloutConflict         the rollout's stage, or another rollout, does not allow it
    ├── RolloutHold             a step of a rollout has not lasted, or would be left out
    ├── RolloutArmEmpty         a share gives the candidate no symbol
    ├── ModelNotReady           the artifact is not being served
    ├── SignalFailed            the model has no answer, and its binding says error
    ├── LedgerUnavailable       nothing durable could be written
    ├── ServiceUnavailable      the service could not be reached
    ├── Overloaded              the service sheds load
    ├── DeadlineExceeded        too little time was left
    ├── InternalError           something failed that has no reason of its own
    ├── ArtifactInvalid         never on the wire: an artifact is not what was pinned
    ├── DataInvalid             never on the wire: a data file is not usable
    ├── GuardRefused            never on the wire: settings at start contradict one another
    ├── ControlUnavailable      never on the wire: the control database cannot be used
    ├── LeaderDeposed           never on the wire: another process leads by now
    ├── ModelNotRegistered      never on the wire: the registry has no such model
    └── RegistryConflict        never on the wire: the registry's state does not allow it

Each class has a stable `reason` and string `metadata`; messages say what was found, what
was expected and, where it helps, what to do. `rpc/status.py` alone knows status codes.
"""

from typing import ClassVar

from detent.contracts.reasons import ErrorReason, Reason

FOUND_CHARS_MAX = 120


def shown(value: object) -> str:
    """Render an offending value so that it fits in a message."""
    text = str(value)
    return text if len(text) <= FOUND_CHARS_MAX else text[: FOUND_CHARS_MAX - 1] + "…"


class DetentError(Exception):
    """Is the root of everything that we raise on purpose.

    Attributes:
        reason: Stable identifier, the same on the wire and in `docs/ERRORS.md`.
        metadata: The facts, by name; all values are strings, cut to `FOUND_CHARS_MAX`.
        followed: Names of the facts that are asked for next, and so are never cut.
    """

    reason: ClassVar[ErrorReason] = ErrorReason.INTERNAL
    followed: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, message: str, **metadata: object) -> None:
        """Keep the message and the facts behind it."""
        super().__init__(message)
        self.message = message
        self.metadata = {
            key: str(value) if key in self.followed else shown(value)
            for key, value in metadata.items()
        }

    @classmethod
    def restore(cls, message: str, metadata: dict[str, str]) -> "DetentError":
        """Give the error that another process raised, from what travelled of it."""
        error = cls.__new__(cls)
        DetentError.__init__(error, message, **metadata)
        if isinstance(error, InvalidField):
            for name in metadata.keys() & {"field", "found", "expected", "rule"}:
                setattr(error, name, metadata[name])
        if isinstance(error, ModelNotReady | SignalFailed | ArtifactInvalid):
            error.gate_reason = Reason(metadata["gate_reason"])
        if isinstance(error, GuardRefused):
            error.guard = metadata["guard"]
        return error

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes, and be copied, as over the wire: message and facts."""
        return type(self).restore, (self.message, self.metadata)


class InvalidField(DetentError):
    """A field is malformed or out of range."""

    reason = ErrorReason.INVALID_FIELD

    rule: str | None = None

    def __init__(
        self, field: str, found: object, expected: str, *, rule: str | None = None
    ) -> None:
        """Name the field by its path, what stood there and what should have.

        Args:
            field: Path of the field.
            found: What stood there.
            expected: What should have.
            rule: Name of the rule that was broken, where rules have names.
        """
        message = f"{field}: found {shown(found)!r}, expected {expected}"
        named = {} if rule is None else {"rule": rule}
        super().__init__(message, field=field, found=found, expected=expected, **named)
        self.field = field
        self.found = found
        self.expected = expected
        self.rule = rule

    def under(self, prefix: str) -> "InvalidField":
        """Give the same error, of the same kind, as seen from an enclosing message."""
        joint = "" if self.field.startswith("[") or not self.field else "."
        field = f"{prefix}{joint}{self.field}"
        return type(self)(field, self.found, self.expected, rule=self.rule)


class InvalidResponse(InvalidField):
    """The other side's answer is malformed; raised where it arrives, never sent."""


class DataLate(InvalidField):
    """A quote or a book is older than what is already known of its symbol."""

    reason = ErrorReason.DATA_LATE


class DataCrossed(InvalidField):
    """A quote or a book bids what it asks, or more."""

    reason = ErrorReason.DATA_CROSSED


class DataConflict(InvalidField):
    """A bar, a book, a fill or an outcome repeats the key of one that is held, otherwise."""

    reason = ErrorReason.DATA_CONFLICT


class BindingMismatch(DetentError):
    """The binding hash is missing, malformed or not the one bound here."""

    reason = ErrorReason.BINDING_MISMATCH

    def __init__(self, found: str, expected: str) -> None:
        """Name both hashes."""
        shown_found = found or "(missing)"
        message = f"binding_hash: found {shown(shown_found)!r}, expected {expected}"
        super().__init__(message, found=shown_found, expected=expected)


class FeatureVersionMismatch(DetentError):
    """The feature version is not the one that the binding names."""

    reason = ErrorReason.FEATURE_VERSION_MISMATCH


class HorizonMismatch(DetentError):
    """The plan's horizon or bar is not the one that the artifact was trained on."""

    reason = ErrorReason.HORIZON_MISMATCH

    def __init__(self, field: str, found: object, expected: object) -> None:
        """Name the field of the plan, what it says and what the artifact says."""
        message = f"{field}: the plan says {shown(found)!r}, the artifact {shown(expected)!r}"
        super().__init__(message, field=field, found=found, expected=expected)


class SnapshotStale(DetentError):
    """The data do not reach the instant asked for."""

    reason = ErrorReason.SNAPSHOT_STALE


class SnapshotNotFound(DetentError):
    """The symbol is unknown or warming up."""

    reason = ErrorReason.SNAPSHOT_NOT_FOUND


class PlanNotFound(DetentError):
    """No plan has this name."""

    reason = ErrorReason.PLAN_NOT_FOUND


class PlanClosed(DetentError):
    """The plan decides nothing more."""

    reason = ErrorReason.PLAN_CLOSED
    followed = frozenset({"replaced_by"})


class NotOwner(DetentError):
    """Another replica owns the plan, and only it decides its bars."""

    reason = ErrorReason.NOT_OWNER
    followed = frozenset({"owner_target"})

    def __init__(self, plan_id: str, *, owner: int, owner_target: str) -> None:
        """Name the owner by its index and its address."""
        message = f"plan {plan_id!r} belongs to replica {owner} at {owner_target or 'no address'}"
        super().__init__(message, plan_id=plan_id, owner=owner, owner_target=owner_target)


class PlanOwnerMismatch(DetentError):
    """A plan would be replaced by one that another replica owns: the step would not be one."""

    reason = ErrorReason.PLAN_OWNER_MISMATCH

    def __init__(self, plan_id: str, *, owner: int, replica_count: int) -> None:
        """Name the plan id that does not fit, and the replica that must own one that does."""
        message = (
            f"plan {plan_id!r} would not belong to replica {owner} of {replica_count}, which owns"
            " the plan that it replaces; draw another plan id"
        )
        super().__init__(message, plan_id=plan_id, owner=owner, replica_count=replica_count)


class KillEpochStale(DetentError):
    """A kill switch is released by somebody who has not seen how it stands."""

    reason = ErrorReason.KILL_EPOCH_STALE

    def __init__(self, found: int | None, newest: int) -> None:
        """Name the epoch that was seen and the one that there is."""
        seen = "none" if found is None else str(found)
        hint = "look at the switch, then release it" if newest else "it was never set"
        message = f"epoch: found {seen}, expected {newest}: {hint}"
        super().__init__(message, found=seen, expected=newest)


class RolloutNotFound(DetentError):
    """No rollout has this name."""

    reason = ErrorReason.ROLLOUT_NOT_FOUND

    def __init__(self, rollout_id: str) -> None:
        """Name what was asked for."""
        super().__init__(f"no rollout is named {rollout_id!r}", rollout_id=rollout_id)


class RolloutRevisionStale(DetentError):
    """A rollout is changed by somebody who has not seen how it stands."""

    reason = ErrorReason.ROLLOUT_REVISION_STALE

    def __init__(self, rollout_id: str, *, found: int, newest: int) -> None:
        """Name the revision that was seen and the one that there is."""
        message = (
            f"rollout {rollout_id!r}: found revision {found}, expected {newest}: somebody has"
            " changed it; look at it, then change it"
        )
        super().__init__(message, rollout_id=rollout_id, found=found, expected=newest)


class RolloutConflict(DetentError):
    """The stage of a rollout, or another one of its book, does not allow it."""

    reason = ErrorReason.ROLLOUT_CONFLICT

    def __init__(self, rollout_id: str, *, found: str, expected: str) -> None:
        """Name what stands in the way and what would have to be."""
        message = f"rollout {rollout_id!r}: found {found}, expected {expected}"
        super().__init__(message, rollout_id=rollout_id, found=found, expected=expected)


class RolloutHold(DetentError):
    """The present step of a rollout has not lasted yet, or one would be left out."""

    reason = ErrorReason.ROLLOUT_HOLD

    def __init__(
        self, rollout_id: str, *, canary_bps: int, canary_bps_max: int, wait_ms: int, at_ms: int
    ) -> None:
        """Say what was asked for and when, how far it may go, and how long that has to wait."""
        not_before_ms = at_ms + wait_ms
        message = (
            f"rollout {rollout_id!r}: found {canary_bps} basis points, expected at most"
            f" {canary_bps_max}, {wait_ms / 3_600_000:.2f} hours from now; an override says why"
            " not to wait"
        )
        super().__init__(
            message,
            rollout_id=rollout_id,
            not_before_ms=not_before_ms,
            canary_bps_max=canary_bps_max,
        )


class RolloutArmEmpty(DetentError):
    """A share gives the candidate of a rollout none of the symbols."""

    reason = ErrorReason.ROLLOUT_ARM_EMPTY

    def __init__(
        self, rollout_id: str, *, canary_bps: int, symbols: int, canary_bps_min: int
    ) -> None:
        """Say how many symbols there are, and from which share on one is the candidate's."""
        message = (
            f"rollout {rollout_id!r}: {canary_bps} basis points give the candidate none of"
            f" {symbols} symbols; expected {canary_bps_min} or more, or another salt"
        )
        super().__init__(
            message,
            rollout_id=rollout_id,
            canary_bps=canary_bps,
            symbols=symbols,
            canary_bps_min=canary_bps_min,
        )


class PlanConflict(DetentError):
    """The plan id, or the book and symbol, is in use by another plan."""

    reason = ErrorReason.PLAN_CONFLICT


class SymbolNotInPlan(DetentError):
    """The plan does not name the symbol."""

    reason = ErrorReason.SYMBOL_NOT_IN_PLAN


class BarOutOfOrder(DetentError):
    """The bar is older than the last one decided, or held."""

    reason = ErrorReason.BAR_OUT_OF_ORDER


class BarFromFuture(DetentError):
    """The bar closes later than the clock allows."""

    reason = ErrorReason.BAR_FROM_FUTURE


class DecisionConflict(DetentError):
    """The bar was decided with other content."""

    reason = ErrorReason.DECISION_CONFLICT


class DecisionNotFound(DetentError):
    """The ledger holds no such record."""

    reason = ErrorReason.DECISION_NOT_FOUND


class ModelNotReady(DetentError):
    """The artifact is not being served."""

    reason = ErrorReason.MODEL_NOT_READY

    def __init__(self, message: str, *, gate_reason: Reason) -> None:
        """Name the gate that the caller should record."""
        super().__init__(message, gate_reason=gate_reason)
        self.gate_reason = gate_reason


class SignalFailed(DetentError):
    """The model has no answer, and its binding says that this ends the call."""

    reason = ErrorReason.SIGNAL_FAILED

    def __init__(self, symbol: str, *, gate_reason: Reason) -> None:
        """Name the first symbol without an answer, and why it has none."""
        message = f"{symbol}: no signal ({gate_reason}), and the binding says error"
        super().__init__(message, symbol=symbol, gate_reason=gate_reason)
        self.gate_reason = gate_reason


class LedgerUnavailable(DetentError):
    """Nothing durable could be written, so nothing was decided."""

    reason = ErrorReason.LEDGER_UNAVAILABLE


class ServiceUnavailable(DetentError):
    """The service could not be reached."""

    reason = ErrorReason.SERVICE_UNAVAILABLE
    followed = frozenset({"untold_targets"})


class Overloaded(DetentError):
    """The service sheds load."""

    reason = ErrorReason.OVERLOADED


class DeadlineExceeded(DetentError):
    """The deadline passed, or too little of it was left to answer in."""

    reason = ErrorReason.DEADLINE_EXCEEDED


class InternalError(DetentError):
    """Something failed that has no reason of its own."""

    reason = ErrorReason.INTERNAL


class ArtifactInvalid(DetentError):
    """An artifact is not what was pinned; the service that holds it never becomes ready."""

    def __init__(
        self, message: str, *, gate_reason: Reason = Reason.MANIFEST_INVALID, **metadata: object
    ) -> None:
        """Name the gate that this closes."""
        super().__init__(message, gate_reason=gate_reason, **metadata)
        self.gate_reason = gate_reason


class DataInvalid(DetentError):
    """A data file is not usable as it is."""


class GuardRefused(DetentError):
    """Settings contradict one another; the process does not start."""

    def __init__(self, guard: str, field: str, found: object, expected: str) -> None:
        """Name the guard, the setting, what it holds and what it should."""
        message = f"{guard}: {field}: found {shown(found)!r}, expected {expected}"
        super().__init__(message, guard=guard, field=field, found=found, expected=expected)
        self.guard = guard


class ControlUnavailable(DetentError):
    """The database of registry and rollouts cannot be reached or is not of today's form."""


class LeaderDeposed(DetentError):
    """A process acts for a task that another one leads by now."""

    def __init__(self, name: str, *, epoch: int, newest: int) -> None:
        """Name the task, the epoch it acts under and the one that holds."""
        message = f"task {name!r}: found epoch {epoch}, expected {newest}: another process leads"
        super().__init__(message, name=name, found=epoch, expected=newest)


class ModelNotRegistered(DetentError):
    """The registry has no such model, or none in production."""


class RegistryConflict(DetentError):
    """The registry holds it already, or its status does not allow what was asked."""
