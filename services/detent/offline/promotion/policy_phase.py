"""Measure whether the policy phase is in place: from a ledger, and from two back-tests."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from detent.adapters.ledger_auditing import audit
from detent.adapters.ledger_checking import check_completeness
from detent.adapters.ledger_reading import LedgerReader, canonical_texts, plan_rows
from detent.adapters.ledger_replaying import replay_one
from detent.adapters.plan_texts import bound_of
from detent.contracts.binding import PROXY_BINDING
from detent.contracts.canonical import parse_json
from detent.contracts.decision import DecisionRecord
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json
from detent.contracts.plan import ExitKind
from detent.contracts.reasons import Reason
from detent.contracts.replanning import ReplanOutcome
from detent.core.evaluation.measures import AccountMeasures, LearningMeasures
from detent.core.evaluation.readiness import (
    ActivityMeasures,
    EmergencyMeasures,
    GuardMeasures,
    PersistenceMeasures,
    PolicyMeasures,
    ReadinessBands,
    ReadinessMeasures,
)
from detent.core.policy.overrides import TIER_EMERGENCY
from detent.core.replanning.material import material_of
from detent.offline.backtesting.folder import BacktestRun, read_run
from detent.offline.cells import invalid
from detent.offline.promotion.learning_fills import is_kept_apart
from detent.offline.promotion.run_folder import CONDITIONS
from detent.offline.promotion.trading import measure_account

EXECUTED = Reason.EMERGENCY_EXIT_EXECUTED
GUARDED = frozenset({Reason.EMERGENCY_EXIT_VETO_SAME_BAR, Reason.EMERGENCY_EXIT_VETO_MIN_HOLD})
ANSWERED = frozenset({EXECUTED, *GUARDED, Reason.EMERGENCY_EXIT_MISSING_EXIT_RULE})
# Of the bands' file, which a person writes.
BANDS_BYTES_MAX = 65_536


def measure_ledger(
    reader: LedgerReader, *, calendars: Mapping[str, Sequence[int]] | None = None
) -> ReadinessMeasures:
    """Measure everything that a ledger says of the policy phase.

    Args:
        reader: Where the ledger lies.
        calendars: Close times of the bars that there were, by symbol; a symbol without one is
            taken to have had a bar in every interval.

    Raises:
        LedgerUnavailable: It cannot be read.
    """
    return ReadinessMeasures(
        emergency=measure_emergencies(reader),
        persistence=_persistence(reader, calendars),
        guard=_guard(reader),
        learning=_learning(reader),
    )


def measure_emergencies(reader: LedgerReader) -> EmergencyMeasures:
    """Count what became of the emergency exits, and decide each of them again."""
    executed = vetoed = wrong = otherwise = 0
    for record_hash, record in _emergencies(reader):
        reasons = frozenset(record.outcome.reasons)
        executed += EXECUTED in reasons
        vetoed += bool(GUARDED & reasons)
        wrong += not is_emergency_right(record)
        again = replay_one([reader], record_hash)
        otherwise += again.replayed_json != again.recorded_json
    return EmergencyMeasures(
        executed_count=executed,
        vetoed_count=vetoed,
        wrong_count=wrong,
        replayed_otherwise_count=otherwise,
    )


def is_emergency_right(record: DecisionRecord) -> bool:
    """Say whether a record with an emergency intent says all that it has to."""
    outcome = record.outcome
    reasons = frozenset(outcome.reasons)
    if len(ANSWERED & reasons) != 1 or outcome.cooldown_recommendation_bars is None:
        return False
    flattens = outcome.target_weight_final_ppm == 0 and outcome.precedence_tier == TIER_EMERGENCY
    return flattens or EXECUTED not in reasons


def _emergencies(reader: LedgerReader) -> Iterator[tuple[str, DecisionRecord]]:
    # The text is looked at before it is read: few of many records have an emergency.
    sql = "SELECT record_hash, canonical FROM decision_records WHERE canonical LIKE ? ORDER BY id"
    for record_hash, text in reader.query(sql, ('%"kind":"emergency"%',)):
        record = from_json(DecisionRecord, parse_json("record", str(text).encode()))
        intents = (record.row.exit_intent, *record.row.further_exit_intents)
        if any(one is not None and one.kind is ExitKind.EMERGENCY for one in intents):
            yield record_hash, record


def _persistence(
    reader: LedgerReader, calendars: Mapping[str, Sequence[int]] | None
) -> PersistenceMeasures:
    found = check_completeness(reader, calendars)
    chains = audit(reader, ()).chains
    return PersistenceMeasures(
        closed_count=sum(not run.is_open for run in found.runs),
        invalid_count=sum(not run.is_valid for run in found.runs),
        hole_count=found.hole_count,
        record_count=chains.record_count,
        broken_count=len(chains.breaks),
    )


def _guard(reader: LedgerReader) -> GuardMeasures:
    materials = {row[0]: material_of(bound_of(row[1:]), ()) for row in plan_rows(reader)}
    replaced = suppressed = unchanged = 0
    sql = "SELECT plan_id, new_plan_id, outcome, canonical FROM replans ORDER BY id"
    for plan_id, new_plan_id, outcome, canonical in reader.query(sql):
        suppressed += outcome == ReplanOutcome.SUPPRESSED
        if outcome != ReplanOutcome.REPLACED:
            continue
        replaced += 1
        is_same = materials.get(plan_id) == materials.get(new_plan_id)
        # Arms are resolved when a plan opens, and are in no plan: the entry says so.
        unchanged += is_same and "arms" not in json.loads(canonical).get("changed", ())
    return GuardMeasures(
        replaced_count=replaced, suppressed_count=suppressed, unchanged_count=unchanged
    )


def _learning(reader: LedgerReader) -> LearningMeasures:
    """Count fills whose tags are not those of their book, or of the decision behind them (R238)."""
    tags = {}
    # Only a learning book's records hold an object under this name.
    sql = "SELECT record_hash, canonical FROM decision_records WHERE canonical LIKE ?"
    for record_hash, text in reader.query(sql, ('%"learning":{%',)):
        tags[record_hash] = json.loads(text).get("learning")
    fills = [json.loads(text) for text in canonical_texts(reader, "fills", "")]
    lost = sum(
        is_kept_apart(fill) and fill.get("learning") != tags.get(fill["record_hash"])
        for fill in fills
        if fill.get("record_hash") is not None
    )
    mixed = sum(not is_kept_apart(fill) for fill in fills)
    return LearningMeasures(fill_count=len(fills), untagged_count=mixed + lost)


def measure_policy(policy: Path, baseline: Path) -> PolicyMeasures:
    """Compare the back-test of the policy engine, answered by the proxy, with a baseline's.

    Raises:
        DataInvalid: One of them is no back-test.
    """
    mine, theirs = read_run(policy, records=False), read_run(baseline, records=False)
    return PolicyMeasures(
        policy=_activity(_account(mine)),
        baseline=_activity(_account(theirs)),
        finding=runs_finding(mine, theirs),
    )


def runs_finding(policy: BacktestRun, baseline: BacktestRun) -> str:
    """Say why two runs say nothing of each other; empty where they do.

    The policy config may differ, and so may what is bound: that is what is compared. The market
    and its costs may not.
    """
    mine, theirs = policy.summary, baseline.summary
    if mine.binding_hash != PROXY_BINDING.binding_hash:
        return f"policy bound to {mine.binding_hash[:16]}, expected the proxy"
    if mine == theirs:
        return "one run twice, expected a baseline of its own"
    names = [name for name in CONDITIONS if name != "policy_config_hash"]
    differing = [name for name in names if getattr(mine, name) != getattr(theirs, name)]
    return f"other {', '.join(differing)}" if differing else ""


def _account(run: BacktestRun) -> AccountMeasures:
    # From the curve: a summary could say anything.
    return measure_account(run.curve, run.summary.bar_interval_ms)


def _activity(account: AccountMeasures) -> ActivityMeasures:
    return ActivityMeasures(
        turnover_ppm=account.turnover_ppm,
        trade_count=account.trade_count,
        drawdown_ppm=account.max_drawdown_ppm,
    )


def read_bands(path: Path) -> ReadinessBands:
    """Read the bands that a person allows, as JSON.

    Raises:
        DataInvalid: The file cannot be read, or holds no bands.
    """
    try:
        with path.open("rb") as file:
            fields = parse_json("bands", file.read(BANDS_BYTES_MAX))
        return from_json(ReadinessBands, fields)
    except OSError as error:
        raise invalid(path.name, type(error).__name__, "bands as JSON") from error
    except InvalidField as error:
        raise invalid(path.name, error.message, "bands as JSON") from error
