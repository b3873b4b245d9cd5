"""Watch every live rollout, and take back what its rows tell against.

Every monitor watches; one of them, elected, acts. It acts through the store that operators use,
under an epoch that the store's own transaction checks.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence

import msgspec

from detent.adapters.kill_store import KillStore
from detent.adapters.leader_lease import LeaderLease
from detent.adapters.rollout_reading import RolloutLedger
from detent.adapters.rollout_store import RolloutStore
from detent.contracts import events
from detent.contracts.errors import DetentError
from detent.contracts.kill_switch import KillPosition, KillScope
from detent.contracts.rollout import Rollout, RolloutStage
from detent.contracts.units import BPS_ONE
from detent.core.rollout.changes import next_bps, not_before_ms
from detent.core.rollout.following import Followed, is_quiet
from detent.core.rollout.judge import JudgeRules, Verdict, VerdictKind
from detent.core.rollout.kill_state import AUTOMATIC
from detent.core.rollout.repeated import automatic_rollbacks
from detent.servers.monitor.rollout_gauges import RolloutGauges, RolloutStanding

log = logging.getLogger(__name__)


class WatchRules(msgspec.Struct, frozen=True, kw_only=True):
    """Says how rollouts are watched.

    Attributes:
        judge: What judges them.
        poll_s: Time between two looks.
        quiet_bars: So many bars without a row are said.
        latch_after: So many rollbacks of one model by ourselves switch it off until a person
            releases it; 0 never does.
        climbs: Whether a share is raised to the next step by ourselves, when the present one has
            lasted and the evidence suffices. The promotion to all is always a person's.
    """

    judge: JudgeRules = JudgeRules()
    poll_s: float = 0.25
    quiet_bars: int = 3
    latch_after: int = 2
    climbs: bool = False


class RolloutWatcher:
    """Watches the rollouts of one control database by one ledger."""

    def __init__(
        self,
        ledger: RolloutLedger,
        store: RolloutStore,
        switches: KillStore,
        lease: LeaderLease,
        *,
        rules: WatchRules,
        now_ms: Callable[[], int],
    ) -> None:
        """Know nothing yet.

        Args:
            ledger: What was decided.
            store: The rollouts.
            switches: What latches a model off.
            lease: This process's claim to act.
            rules: How to watch.
            now_ms: The wall clock, by which rows are missed.
        """
        self._ledger = ledger
        self._store = store
        self._switches = switches
        self._lease = lease
        self._rules = rules
        self._now_ms = now_ms
        self._followed: dict[str, tuple[Followed, int]] = {}
        self._said: dict[str, tuple[VerdictKind, bool]] = {}
        # Whoever took a model back may have ended before it was latched: a new leader looks.
        self._latches_due = True
        self.is_current = False

    async def run(self, gauges: RolloutGauges) -> None:
        """Watch until cancelled; a look that fails is said, and tried again in its turn."""
        try:
            while True:
                await asyncio.to_thread(self._turn, gauges)
                await asyncio.sleep(self._rules.poll_s)
        finally:
            self._resign()

    def _turn(self, gauges: RolloutGauges) -> None:
        try:
            self._claim()
            found = self.look(gauges)
        except DetentError as error:
            self.is_current = False
            facts = {"reason": error.reason.value, "error": error.message}
            log.error(events.MONITOR_FAILED, extra=facts)  # noqa: TRY400  No traceback.
        else:
            self.is_current = True
            gauges.show(found, leads=self._lease.is_leader, now_ms=self._now_ms())

    def look(self, gauges: RolloutGauges) -> list[RolloutStanding]:
        """Look at every live rollout once, and act where this process leads.

        Raises:
            DetentError: Ledger or control database cannot be used, or another process leads.
        """
        known = self._store.rollouts()
        live = [one for one in known if one.is_live]
        names = {one.rollout_id for one in live}
        self._followed = {name: one for name, one in self._followed.items() if name in names}
        found: list[RolloutStanding] = []
        failed: DetentError | None = None
        for rollout in live:
            try:
                found.append(self._look_at(rollout))
                self._act(rollout, found[-1], gauges)
            except DetentError as error:
                # What keeps one book from being judged keeps no other one from it.
                failed = failed or error
        if self._latches_due and self._lease.is_leader:
            self._latch_left(known)
        if failed is not None:
            raise failed
        return found

    def _act(self, rollout: Rollout, standing: RolloutStanding, gauges: RolloutGauges) -> None:
        """Say how a rollout stands, and do what that asks for where this process leads."""
        self._say(standing)
        if standing.verdict.kind is VerdictKind.ROLL_BACK and self._lease.is_leader:
            self._take_back(rollout, standing.verdict, gauges)
        elif self._may_climb(rollout, standing):
            self._climb(rollout, standing.verdict)

    def _may_climb(self, rollout: Rollout, standing: RolloutStanding) -> bool:
        """Say whether the next step is due: no data raises nothing, nor does who leads no more."""
        due = self._rules.climbs and self._lease.is_leader and not standing.is_quiet
        told = standing.verdict.kind is VerdictKind.MAY_PROMOTE
        left = rollout.stage is not RolloutStage.FULL and rollout.canary_bps < BPS_ONE
        return due and told and left and self._now_ms() >= not_before_ms(rollout)

    def _climb(self, rollout: Rollout, verdict: Verdict) -> None:
        changed = self._store.set_percent(
            rollout.rollout_id,
            next_bps(rollout),
            seen_revision=rollout.revision,
            actor=f"{AUTOMATIC}climb",
            reason=f"the step has lasted, and {verdict.labelled} outcomes suffice",
            evidence=evidence_of(verdict),
            guard=self._lease.check,
        )
        facts = {"rollout_id": rollout.rollout_id, "canary_bps": changed.canary_bps}
        log.info(events.ROLLOUT_CLIMBED, extra=facts)

    def _look_at(self, rollout: Rollout) -> RolloutStanding:
        name, horizon_bars = rollout.rollout_id, rollout.candidate_binding.horizon_bars
        anew = Followed.start(self._rules.judge, horizon_bars=horizon_bars)
        before, read_count = self._followed.get(name, (anew, 0))
        rows = self._ledger.read(rollout, after_ms=before.settled_ms)
        if rows.earlier_count != read_count:
            # A row came late: what was folded without it is folded again.
            before = anew
            rows = self._ledger.read(rollout, after_ms=before.settled_ms)
        followed = before.after(rows.bars, horizon_ms=horizon_bars * rows.interval_ms)
        # Counted of what was read: a row that came since is a late one the next time.
        settled = sum(ts_ms <= followed.settled_ms for ts_ms in rows.later_ts_ms)
        self._followed[name] = (followed, rows.earlier_count + settled)
        newest_ms = max(followed.seen.answered_ms or 0, rollout.since_ms)
        return RolloutStanding(
            rollout_id=name,
            verdict=followed.seen.verdict(),
            arms=followed.seen.arm_reports(),
            is_quiet=is_quiet(
                newest_ms,
                now_ms=self._now_ms(),
                interval_ms=rows.interval_ms,
                bars=self._rules.quiet_bars,
            ),
        )

    def _claim(self) -> None:
        if self._lease.keep():
            self._latches_due = True
            facts = {"epoch": self._lease.epoch, "leads": self._lease.is_leader}
            log.info(events.LEADER_CHANGED, extra=facts)

    def _take_back(self, rollout: Rollout, verdict: Verdict, gauges: RolloutGauges) -> None:
        assert verdict.rule is not None
        told = next(one for one in verdict.findings if one.rule is verdict.rule)
        self._latches_due = True
        self._store.roll_back(
            rollout.rollout_id,
            actor=f"{AUTOMATIC}{verdict.rule.value}",
            reason=told.text,
            evidence=evidence_of(verdict),
            guard=self._lease.check,
        )
        gauges.acted(verdict.rule)
        facts = {
            "rollout_id": rollout.rollout_id,
            "rule": verdict.rule.value,
            "found": told.text,
            "bar_ts_ms": verdict.ts_ms,
        }
        log.warning(events.ROLLOUT_TAKEN_BACK, extra=facts)
        model_id = rollout.candidate_binding.model_id
        assert model_id is not None
        self._latch(model_id)
        self._latches_due = False

    def _latch_left(self, known: Sequence[Rollout]) -> None:
        """Latch what was taken back before, where that is still to be done."""
        taken_back = {
            one.candidate_binding.model_id for one in known if one.stage is RolloutStage.ROLLED_BACK
        }
        off = {(one.scope, one.key) for one in self._switches.switches() if one.is_on}
        for model_id in taken_back:
            if model_id is not None and (KillScope.MODEL, model_id) not in off:
                self._latch(model_id)
        self._latches_due = False

    def _latch(self, model_id: str) -> None:
        """Switch a model off that was taken back again and again; only a person releases it."""
        count = automatic_rollbacks(
            self._store.rollouts(),
            self._store.history(),
            self._switches.switches(),
            model_id=model_id,
        )
        if not 0 < self._rules.latch_after <= count:
            return
        self._switches.change(
            KillScope.MODEL,
            model_id,
            position=KillPosition.OFF,
            actor=f"{AUTOMATIC}rollbacks",
            reason=f"taken back {count} times, limit {self._rules.latch_after}",
        )
        facts = {"model_id": model_id, "rollbacks": count}
        log.warning(events.MODEL_LATCHED, extra=facts)

    def _say(self, standing: RolloutStanding) -> None:
        """Log what a rollout has come to, when that changes."""
        verdict = standing.verdict
        now = (verdict.kind, standing.is_quiet)
        if self._said.get(standing.rollout_id) == now:
            return
        self._said[standing.rollout_id] = now
        facts = {
            "rollout_id": standing.rollout_id,
            "verdict": verdict.kind.value,
            "cause": verdict.cause.value if verdict.cause is not None else None,
            "bars": verdict.bars,
            "labelled": verdict.labelled,
            "quiet": standing.is_quiet,
        }
        level = logging.WARNING if standing.is_quiet else logging.INFO
        log.log(level, events.ROLLOUT_JUDGED, extra=facts)

    def _resign(self) -> None:
        try:
            self._lease.resign()
        except DetentError as error:
            facts = {"reason": error.reason.value, "error": error.message}
            log.error(events.MONITOR_FAILED, extra=facts)  # noqa: TRY400  No traceback.


def evidence_of(verdict: Verdict) -> str:
    """Give a verdict as JSON text, as a history keeps it."""
    return json.dumps(msgspec.to_builtins(verdict), sort_keys=True, separators=(",", ":"))
