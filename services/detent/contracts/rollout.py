"""Hold how far a candidate has been rolled out, by whom and why."""

from enum import StrEnum
from typing import ClassVar

import msgspec

from detent.contracts.binding import ModelBinding, SignalSource
from detent.contracts.checks import (
    check_count,
    check_int,
    check_name,
    check_symbol,
    check_text,
    check_ts_ms,
    check_unique,
)
from detent.contracts.errors import InvalidField
from detent.contracts.units import BPS_ONE, INT64_MAX, PPM_ONE, ROWS_MAX

RAMP_STEPS_MAX = 32
HOLD_MS_MAX = 366 * 24 * 3_600_000
DAY_MS = 24 * 3_600_000
EVIDENCE_CHARS_MAX = 32_768
# What the name of the plan of a candidate's symbols adds to that of the stable ones.
CANDIDATE_SUFFIX = ":candidate"


class RolloutStage(StrEnum):
    """Says how far a rollout has come."""

    SHADOW = "shadow"
    CANARY = "canary"
    FULL = "full"
    ROLLED_BACK = "rolled_back"
    ENDED = "ended"


LIVE_STAGES = (RolloutStage.SHADOW, RolloutStage.CANARY, RolloutStage.FULL)


class RolloutArm(StrEnum):
    """Names the two sides of a rollout."""

    STABLE = "stable"
    CANDIDATE = "candidate"


class RolloutAction(StrEnum):
    """Says what was done to a rollout."""

    STARTED = "started"
    PERCENT_SET = "percent_set"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ENDED = "ended"


class RampCaps(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds what the candidate's symbols may hold while a step lasts.

    Attributes:
        max_weight_ppm: Largest magnitude of one weight, parts per million of equity.
        max_exposure_ppm: Largest sum of magnitudes over the symbols of a plan; each of them
            gets an equal share of it. None bounds no sum.
    """

    JSON_GROWN: ClassVar[frozenset[str]] = frozenset({"max_exposure_ppm"})

    max_weight_ppm: int = PPM_ONE
    max_exposure_ppm: int | None = None

    def __post_init__(self) -> None:
        """Refuse bounds that no weight can have."""
        check_int("max_weight_ppm", self.max_weight_ppm, 0, PPM_ONE)
        if self.max_exposure_ppm is not None:
            check_int("max_exposure_ppm", self.max_exposure_ppm, 0, ROWS_MAX * PPM_ONE)


class RampStep(msgspec.Struct, frozen=True, kw_only=True):
    """Fixes one step of a ramp.

    Attributes:
        canary_bps: Share of the symbols, basis points, up to which the step reaches.
        hold_ms: How long it lasts at least before the share is raised beyond it.
        caps: What the candidate's symbols may hold meanwhile.
    """

    canary_bps: int
    hold_ms: int
    caps: RampCaps = RampCaps()

    def __post_init__(self) -> None:
        """Refuse shares outside [0, 10000] and holds of more than a year."""
        check_int("canary_bps", self.canary_bps, 0, BPS_ONE)
        check_int("hold_ms", self.hold_ms, 0, HOLD_MS_MAX)


# Source: row R123, 5 to 25 to 50 to 100 percent; a day of shadow before, as row R332 has it.
DEFAULT_RAMP = tuple(
    RampStep(canary_bps=canary_bps, hold_ms=DAY_MS) for canary_bps in (0, 500, 2_500, 5_000, 10_000)
)


class PlanRollout(msgspec.Struct, frozen=True, kw_only=True):
    """Says which arm of which rollout a plan is, as it was when the plan opened.

    Attributes:
        rollout_id: Names the rollout.
        arm: Which side of it the plan is.
        canary_bps: Share of the symbols that the candidate had, basis points.
        revision: The change of the rollout that the plan was opened under.
    """

    SCHEMA: ClassVar[str] = "detent.plan_rollout.v1"

    rollout_id: str
    arm: RolloutArm
    canary_bps: int
    revision: int

    def __post_init__(self) -> None:
        """Refuse an arm of no rollout."""
        check_name("rollout_id", self.rollout_id)
        check_int("canary_bps", self.canary_bps, 0, BPS_ONE)
        check_int("revision", self.revision, 0, INT64_MAX)


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """States one rollout as it stands.

    Attributes:
        rollout_id: Chosen by whoever starts it, never used twice.
        book: Whose plans it is for; a book has one live rollout.
        symbols: Those that the book trades, on which power and arms are reckoned; a plan may
            name others, which are split the same way.
        stable_binding: What answers for symbols that are not the candidate's.
        candidate_binding: What is rolled out.
        salt: Makes the buckets of the symbols this rollout's own.
        ramp: Its steps, rising, up to all symbols.
        canary_bps: Share of the symbols that the candidate has, basis points.
        stage: How far it has come.
        since_ms: When share or stage last changed, Unix milliseconds UTC.
        revision: The newest change of it; the higher one holds. 0 before it is kept.
    """

    SCHEMA: ClassVar[str] = "detent.rollout.v1"

    rollout_id: str
    book: str
    symbols: tuple[str, ...]
    stable_binding: ModelBinding
    candidate_binding: ModelBinding
    salt: str
    ramp: tuple[RampStep, ...] = DEFAULT_RAMP
    canary_bps: int = 0
    stage: RolloutStage = RolloutStage.SHADOW
    since_ms: int
    revision: int = 0

    def __post_init__(self) -> None:
        """Refuse a rollout of nothing, or to where it comes from."""
        check_name("rollout_id", self.rollout_id)
        check_name("book", self.book)
        check_name("salt", self.salt)
        check_symbols_of_rollout(self.symbols)
        check_ramp(self.ramp)
        check_int("canary_bps", self.canary_bps, 0, BPS_ONE)
        check_ts_ms("since_ms", self.since_ms)
        check_int("revision", self.revision, 0, INT64_MAX)
        check_bindings(self.stable_binding, self.candidate_binding)

    @property
    def is_live(self) -> bool:
        """Say whether plans may be opened for its candidate."""
        return self.stage in LIVE_STAGES


class RolloutEvent(msgspec.Struct, frozen=True, kw_only=True):
    """States one change of a rollout; nothing of it is ever taken away.

    Attributes:
        revision: Numbers the changes of all rollouts of a database, rising.
        rollout_id: Which rollout.
        action: What was done.
        stage: How far it had come afterwards.
        canary_bps: The share afterwards, basis points.
        actor: Who did it.
        reason: Why.
        override_reason: Why a hold or a step was not kept to; empty where it was.
        evidence: What whoever did it went by, as JSON text; empty where nothing was stated.
        at_ms: When, Unix milliseconds UTC.
    """

    SCHEMA: ClassVar[str] = "detent.rollout_event.v1"

    revision: int = 0
    rollout_id: str
    action: RolloutAction
    stage: RolloutStage
    canary_bps: int
    actor: str
    reason: str
    override_reason: str = ""
    evidence: str = ""
    at_ms: int

    def __post_init__(self) -> None:
        """Refuse a change that nobody made, or for no reason."""
        check_name("rollout_id", self.rollout_id)
        check_name("actor", self.actor)
        check_text("reason", self.reason)
        if self.override_reason:
            check_text("override_reason", self.override_reason)
        check_evidence(self.evidence)
        check_int("canary_bps", self.canary_bps, 0, BPS_ONE)
        check_int("revision", self.revision, 0, INT64_MAX)
        check_ts_ms("at_ms", self.at_ms)


class PowerPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Says how often the sequential test finds a worse candidate.

    Attributes:
        effect_bps: How much worse it is, basis points of the stable model's Brier score.
        bar_count: Bars of watching.
        power_bps: How often it is found by then, basis points.
    """

    effect_bps: int
    bar_count: int
    power_bps: int


class StepPower(msgspec.Struct, frozen=True, kw_only=True):
    """Says what can be told at one step of a ramp, and what cannot.

    Attributes:
        canary_bps: Share of the symbols, basis points.
        symbols: The candidate's symbols at that share, as they come out and not on average.
        power: What the test finds with so many symbols.
    """

    canary_bps: int
    symbols: tuple[str, ...]
    power: tuple[PowerPoint, ...]


def check_symbols_of_rollout(symbols: tuple[str, ...]) -> None:
    """Refuse a book without symbols, or with one named twice."""
    check_count("symbols", symbols, 1, ROWS_MAX)
    check_unique("symbols", symbols)
    for symbol in symbols:
        check_symbol("symbols", symbol)


def check_ramp(ramp: tuple[RampStep, ...]) -> None:
    """Refuse a ramp that does not rise, or that does not reach all symbols."""
    check_count("ramp", ramp, 1, RAMP_STEPS_MAX)
    shares = [step.canary_bps for step in ramp]
    if sorted(set(shares)) != shares or shares[-1] != BPS_ONE:
        raise InvalidField("ramp", shares, f"rising shares, the last of them {BPS_ONE}")


def check_bindings(stable: ModelBinding, candidate: ModelBinding) -> None:
    """Refuse a candidate that is no model, or that is the stable one."""
    if candidate.signal_source is not SignalSource.MODEL:
        raise InvalidField("candidate_binding", candidate.signal_source, "a model")
    if candidate.binding_hash == stable.binding_hash:
        raise InvalidField("candidate_binding", candidate.binding_hash, "another than the stable")


def check_evidence(evidence: str) -> None:
    """Refuse evidence that is too long, or that could not be written down."""
    if not evidence:
        return
    if not evidence.isascii() or not evidence.isprintable() or len(evidence) > EVIDENCE_CHARS_MAX:
        raise InvalidField(
            "evidence", evidence, f"at most {EVIDENCE_CHARS_MAX} printable ASCII characters"
        )


def base_plan_id(plan_id: str) -> str:
    """Give the name that the strategist chose, of the plan of either arm."""
    return plan_id.removesuffix(CANDIDATE_SUFFIX)


def check_seen_revision(seen_revision: int) -> None:
    """Refuse what is no revision of a rollout that is kept."""
    check_int("seen_revision", seen_revision, 1, INT64_MAX)
