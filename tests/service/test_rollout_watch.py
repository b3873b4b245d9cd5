"""The watcher of rollouts over a real ledger and a real control database."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from benchmarks.rollout.candidates import BAR_MS, START_MS, Kind
from msgspec import structs
from tests.rolled_ledger import CANDIDATE, RolledLedger, rollout_of

from detent.adapters.control_database import ControlDatabase
from detent.adapters.kill_store import KillStore
from detent.adapters.leader_lease import LeaderLease
from detent.adapters.ledger_reading import open_reader
from detent.adapters.ledger_shipping import LedgerShipper, ShippingOptions
from detent.adapters.metrics import Metrics
from detent.adapters.rollout_reading import RolloutLedger, RolloutRows
from detent.adapters.rollout_store import RolloutStore
from detent.contracts import events
from detent.contracts.binding import PROXY_BINDING
from detent.contracts.errors import ControlUnavailable, InvalidField, LeaderDeposed
from detent.contracts.kill_switch import KillPosition, KillScope
from detent.contracts.rollout import RampStep, Rollout, RolloutAction, RolloutStage
from detent.core.rollout.judge import JudgeRules, VerdictKind
from detent.core.rollout.tripwires import RollbackRule
from detent.servers.monitor.rollout_gauges import RolloutGauges, RolloutStanding
from detent.servers.monitor.rollouts import RolloutWatcher, WatchRules

BARS = 260
OPS = {"actor": "ops", "reason": "a test"}


class Place:
    """Holds the databases of one test and makes watchers over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = ControlDatabase(f"sqlite:///{folder}/control.sqlite")
        self.store = RolloutStore(self.database, now_ms=lambda: self.now_ms)
        self.switches = KillStore(self.database)
        self.ledgers: list[RolledLedger] = []
        self.leases: dict[str, LeaderLease] = {}
        self.gauges = RolloutGauges(Metrics())
        self.now_ms = START_MS

    async def roll_out(
        self, kind: Kind, *, canary_bps: int = 10_000, bars: int = BARS, **changes: object
    ) -> RolledLedger:
        """Start a rollout and open its plans."""
        asked = rollout_of(canary_bps=0, stage=RolloutStage.SHADOW, revision=0, **changes)
        rollout = self.store.start(asked, **OPS)
        if canary_bps:
            rollout = self.store.set_percent(
                rollout.rollout_id,
                canary_bps,
                seen_revision=rollout.revision,
                override_reason="a test",
                **OPS,
            )
        ledger = RolledLedger(self.folder / "ledger.sqlite", rollout, kind, bars=bars)
        await ledger.open()
        self.ledgers.append(ledger)
        return ledger

    def watcher(
        self, ledger: str = "", *, holder: str = "first", **rules: object
    ) -> RolloutWatcher:
        lease = self.leases.get(holder)
        if lease is None:
            lease = self.leases[holder] = LeaderLease(
                self.database, name="rollouts", holder=holder, lease_s=60.0
            )
        lease.claim()
        return RolloutWatcher(
            RolloutLedger(open_reader(ledger or str(self.folder / "ledger.sqlite"))),
            self.store,
            self.switches,
            lease,
            rules=structs.replace(WatchRules(), **rules),
            now_ms=lambda: self.now_ms,
        )

    def look(self, watcher: RolloutWatcher) -> RolloutStanding:
        (standing,) = watcher.look(self.gauges)
        return standing


@pytest.fixture(name="place")
async def _place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    yield place
    for ledger in place.ledgers:
        await ledger.close()


RAMP = tuple(
    RampStep(canary_bps=share_bps, hold_ms=20 * BAR_MS)
    for share_bps in (0, 500, 2_500, 5_000, 10_000)
)
QUICK = JudgeRules(bars_min=50, labelled_min=500, margin_ppm=100_000)


async def climbed(
    place: Place, kind: Kind, *, bars: int = 160, late_bars: int = 0, **rules: object
) -> dict[int, int]:
    """Decide bar after bar, look some bars later, and give the bar at which each share began."""
    ledger = await place.roll_out(kind, canary_bps=0, ramp=RAMP)
    watcher = place.watcher(judge=QUICK, **rules)
    began: dict[int, int] = {}
    for bar in range(bars):
        await ledger.decide(1)
        place.now_ms = START_MS + (bar + late_bars) * BAR_MS
        watcher.look(place.gauges)
        began.setdefault(place.store.get("r1").canary_bps, bar)
    return began


@pytest.mark.proves("R123")
async def test_a_share_climbs_step_by_step_and_stops_before_the_promotion(place: Place) -> None:
    began = await climbed(place, Kind.GOOD, climbs=True)
    rollout, history = place.store.get("r1"), place.store.history("r1")

    assert list(began) == [0, 500, 2_500, 5_000, 10_000]
    assert began[500] >= QUICK.bars_min - 1
    shares = list(began.values())
    assert all(later - earlier >= 20 for earlier, later in itertools.pairwise(shares))
    assert rollout.stage is RolloutStage.CANARY
    assert {event.actor for event in history[1:]} == {"automatic:climb"}
    assert all(json.loads(event.evidence)["kind"] == "may_promote" for event in history[1:])


@pytest.mark.proves("R123")
async def test_a_step_that_goes_wrong_drops_back_to_nothing(place: Place) -> None:
    """The margin is so wide that a worse candidate climbs; the test takes it back all the same."""
    began = await climbed(place, Kind.SIGN_FLIPPED, bars=BARS, climbs=True)
    rollout, history = place.store.get("r1"), place.store.history("r1")

    assert list(began)[:2] == [0, 500]
    assert (rollout.stage, rollout.canary_bps) == (RolloutStage.ROLLED_BACK, 0)
    assert [event.action for event in history[1:]] == [
        *[RolloutAction.PERCENT_SET] * (len(history) - 2),
        RolloutAction.ROLLED_BACK,
    ]


@pytest.mark.parametrize(("climbs", "late_bars"), [(False, 0), (True, 10)], ids=["off", "quiet"])
async def test_nothing_climbs_unasked_or_without_rows(
    place: Place, *, climbs: bool, late_bars: int
) -> None:
    began = await climbed(place, Kind.GOOD, bars=100, late_bars=late_bars, climbs=climbs)

    assert list(began) == [0]


async def test_who_leads_no_more_raises_nothing(place: Place) -> None:
    ledger = await place.roll_out(Kind.GOOD, canary_bps=0, ramp=RAMP)
    former = place.watcher(judge=QUICK, climbs=True)
    await ledger.decide(100)
    place.now_ms = START_MS + 99 * BAR_MS
    with place.database.writing() as link:
        link.exec_driver_sql("UPDATE leader_leases SET holder = 'other', epoch = 2")
    with pytest.raises(LeaderDeposed):
        former.look(place.gauges)

    assert place.store.get("r1").canary_bps == 0


@pytest.mark.proves("R118")
async def test_a_broken_candidate_is_taken_back_with_its_reason(place: Place) -> None:
    ledger = await place.roll_out(Kind.SLOW)
    watcher = place.watcher()
    bars = 0
    while place.store.get("r1").stage is RolloutStage.CANARY:
        await ledger.decide(1)
        bars += 1
        standing = place.look(watcher)
    event = place.store.history("r1")[-1]
    evidence = json.loads(event.evidence)

    assert bars <= 40
    assert standing.verdict.kind is VerdictKind.ROLL_BACK
    assert (event.action, event.actor) == (RolloutAction.ROLLED_BACK, "automatic:latency")
    assert event.canary_bps == 0
    assert event.reason.startswith("latency ")
    assert "bound" in event.reason
    assert (evidence["kind"], evidence["rule"], evidence["bars"]) == ("roll_back", "latency", bars)
    assert {one["rule"] for one in evidence["findings"]} == set(RollbackRule)
    assert watcher.look(place.gauges) == []


@pytest.mark.parametrize(("canary_bps", "stage"), [(10_000, "canary"), (0, "shadow")])
async def test_a_flipped_candidate_is_taken_back_in_canary_and_in_shadow(
    place: Place, canary_bps: int, stage: str
) -> None:
    ledger = await place.roll_out(Kind.SIGN_FLIPPED, canary_bps=canary_bps)
    assert place.store.get("r1").stage == stage
    await ledger.decide(BARS)
    standing = place.look(place.watcher())

    assert standing.verdict.kind is VerdictKind.ROLL_BACK
    assert standing.verdict.rule in (RollbackRule.TEST, RollbackRule.MEAN_SHIFT)
    assert place.store.get("r1").stage is RolloutStage.ROLLED_BACK


async def test_a_good_candidate_stays_and_a_restart_says_the_same(place: Place) -> None:
    ledger = await place.roll_out(Kind.GOOD)
    watcher = place.watcher()
    for _ in range(6):
        await ledger.decide(20)
        standing = place.look(watcher)
    anew = place.look(place.watcher(holder="second"))

    assert standing == anew
    assert standing.verdict.kind is VerdictKind.HOLD
    # The outcome of the last bar is not known yet.
    assert (standing.verdict.bars, standing.verdict.labelled) == (120, 119 * 20)
    assert place.store.get("r1").stage is RolloutStage.CANARY


@pytest.mark.proves("R119")
async def test_a_promoted_candidate_is_watched_on(place: Place) -> None:
    ledger = await place.roll_out(Kind.SLOW)
    seen = place.store.get("r1").revision
    place.store.promote("r1", seen_revision=seen, override_reason="a test", **OPS)
    await ledger.decide(20)
    place.look(place.watcher())

    assert place.store.get("r1").stage is RolloutStage.ROLLED_BACK


async def test_against_the_proxy_a_candidate_is_judged_by_the_records(place: Place) -> None:
    ledger = await place.roll_out(Kind.GOOD, stable_binding=PROXY_BINDING)
    await ledger.decide(20)
    standing = place.look(place.watcher())

    # The proxy of these records says 7,000 whatever happens.
    assert standing.verdict.labelled == 19 * 20
    shift = {one.rule: one.found for one in standing.verdict.findings}[RollbackRule.MEAN_SHIFT]
    assert shift is not None
    assert -2_400 < shift < -1_600


async def test_no_data_holds_and_is_said(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ledger = await place.roll_out(Kind.GOOD)
    watcher = place.watcher()
    await ledger.decide(10)
    newest_ms = START_MS + 9 * BAR_MS
    place.now_ms = newest_ms + 4 * BAR_MS
    fresh = place.look(watcher)
    place.now_ms += 1
    quiet = place.look(watcher)
    place.now_ms += 10_000 * BAR_MS
    later = place.look(watcher)
    said = [one for one in caplog.records if one.message == events.ROLLOUT_JUDGED]

    assert not fresh.is_quiet
    assert quiet.is_quiet
    assert (later.verdict, later.is_quiet) == (fresh.verdict, True)
    assert later.verdict.kind is VerdictKind.HOLD
    assert [(one.levelname, vars(one)["quiet"]) for one in said] == [
        ("INFO", False),
        ("WARNING", True),
    ]


async def test_a_row_that_came_late_is_not_left_out(place: Place) -> None:
    """Rows of another replica arrive when the bar has long been settled, and theirs count."""
    ledger = await place.roll_out(Kind.GOOD, bars=30)
    watcher = place.watcher()
    late = RolledLedger(ledger.path, ledger.rollout, Kind.GOOD, bars=30, seed=2, plan="z-late")
    await ledger.decide(15)
    place.look(watcher)
    await late.open()
    await late.decide(10)
    place.ledgers.append(late)
    await ledger.decide(1)

    assert place.look(watcher) == place.look(place.watcher(holder="second"))


async def test_a_row_that_came_while_its_bar_was_being_settled_is_not_left_out(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shipping brings rows in bulk: the last of them may arrive between two questions."""
    ledger = await place.roll_out(Kind.GOOD, bars=30)
    watcher = place.watcher()
    late = RolledLedger(ledger.path, ledger.rollout, Kind.GOOD, bars=30, seed=2, plan="z-late")
    await late.open()
    place.ledgers.append(late)
    await ledger.decide(15)
    loop, read = asyncio.get_running_loop(), RolloutLedger.read

    def read_before_more_came(self: RolloutLedger, *asked: Any, **named: Any) -> RolloutRows:
        rows = read(self, *asked, **named)
        asyncio.run_coroutine_threadsafe(late.decide(10), loop).result(20.0)
        return rows

    with monkeypatch.context() as shipping:
        shipping.setattr(RolloutLedger, "read", read_before_more_came)
        await asyncio.to_thread(place.look, watcher)
    await ledger.decide(1)

    assert place.look(watcher) == place.look(place.watcher(holder="second"))


async def test_a_rollout_that_cannot_be_read_keeps_no_other_one_from_being_judged(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = await place.roll_out(Kind.SLOW)
    await ledger.decide(40)
    other = rollout_of(
        canary_bps=0, stage=RolloutStage.SHADOW, revision=0, rollout_id="r0", book="other"
    )
    place.store.start(other, **OPS)
    read = RolloutLedger.read

    def read_of_one_book(self: RolloutLedger, rollout: Rollout, *, after_ms: int) -> RolloutRows:
        if rollout.book == "other":
            raise InvalidField("outcome", "spoilt", "what was written")
        return read(self, rollout, after_ms=after_ms)

    monkeypatch.setattr(RolloutLedger, "read", read_of_one_book)
    with pytest.raises(InvalidField, match="spoilt"):
        place.watcher().look(place.gauges)

    assert place.store.get("r1").stage is RolloutStage.ROLLED_BACK


async def test_only_the_leader_acts_and_a_former_one_is_refused(place: Place) -> None:
    ledger = await place.roll_out(Kind.SLOW)
    former, other = place.watcher(holder="former"), place.watcher(holder="other")
    await ledger.decide(20)
    assert place.look(other).verdict.kind is VerdictKind.ROLL_BACK
    assert place.store.get("r1").stage is RolloutStage.CANARY

    # The former slept while its successor was elected, and does not know yet.
    with place.database.writing() as link:
        link.exec_driver_sql("UPDATE leader_leases SET holder = 'other', epoch = 2")
    with pytest.raises(LeaderDeposed, match="found epoch 1, expected 2"):
        former.look(place.gauges)
    assert place.store.get("r1").stage is RolloutStage.CANARY


@pytest.mark.parametrize("latch_after", [2, 0])
async def test_a_model_that_is_taken_back_again_is_off_until_a_person_releases_it(
    place: Place, latch_after: int
) -> None:
    for number, name in enumerate(("r1", "r2")):
        ledger = await place.roll_out(Kind.SLOW, rollout_id=name)
        await ledger.decide(40)
        place.look(place.watcher(latch_after=latch_after))
        assert place.store.get(name).stage is RolloutStage.ROLLED_BACK
        switches = place.switches.switches()
        assert len(switches) == (1 if number and latch_after else 0)
    if not latch_after:
        return
    (switch,) = switches
    assert (switch.scope, switch.key) == (KillScope.MODEL, CANDIDATE.model_id)
    assert (switch.position, switch.actor) == (KillPosition.OFF, "automatic:rollbacks")

    place.switches.change(
        KillScope.MODEL,
        switch.key,
        position=KillPosition.RELEASED,
        seen_epoch=switch.epoch,
        **OPS,
    )
    ledger = await place.roll_out(Kind.SLOW, rollout_id="r3")
    await ledger.decide(40)
    # Its clock goes on where the release was.
    place.store = RolloutStore(place.database)
    place.look(place.watcher())
    assert place.store.get("r3").stage is RolloutStage.ROLLED_BACK
    assert [one.position for one in place.switches.switches()] == [KillPosition.RELEASED]


async def test_a_latch_that_was_not_reached_is_set_by_the_next_leader(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database was away, or the process was killed, between the rollback and the latch."""
    refused = ControlUnavailable("the control database cannot be used", cause="a test")
    for name in ("r1", "r2"):
        ledger = await place.roll_out(Kind.SLOW, rollout_id=name)
        await ledger.decide(40)
        with monkeypatch.context() as away:
            away.setattr(place.switches, "change", Mock(side_effect=refused))
            with contextlib.suppress(ControlUnavailable):
                place.look(place.watcher())
        assert place.store.get(name).stage is RolloutStage.ROLLED_BACK
    assert place.switches.switches() == []

    anew = place.watcher()
    for _ in range(2):
        anew.look(place.gauges)
    (switch,) = place.switches.switches()
    assert (switch.key, switch.position) == (CANDIDATE.model_id, KillPosition.OFF)
    assert (switch.actor, switch.epoch) == ("automatic:rollbacks", 1)


async def test_postgresql_says_what_the_file_says(place: Place, ledger_url: str) -> None:
    ledger = await place.roll_out(Kind.GOOD)
    await ledger.decide(30)
    shipper = LedgerShipper(ledger.path, ShippingOptions(url=ledger_url))
    shipper.start()
    assert shipper.stop(20.0)

    assert place.look(place.watcher(ledger_url)) == place.look(place.watcher())


@pytest.mark.proves("R117")
async def test_both_arms_are_published(place: Place) -> None:
    metrics = Metrics()
    place.gauges = RolloutGauges(metrics)
    ledger = await place.roll_out(Kind.SLOW)
    await ledger.decide(20)
    watcher = place.watcher()
    found = watcher.look(place.gauges)
    place.gauges.show(found, leads=True, now_ms=START_MS)
    value = metrics.registry.get_sample_value

    for arm in ("stable", "candidate"):
        assert value("detent_rollout_rows", {"arm": arm}) == 400
        brier = value("detent_rollout_brier", {"arm": arm})
        assert brier is not None
        assert 0.2 < brier < 0.3
    assert value("detent_rollout_rollbacks_total", {"rule": "latency"}) == 1
    assert value("detent_rollout_verdicts", {"verdict": "roll_back"}) == 1
    assert value("detent_monitor_leader") == 1
    assert value("detent_rollout_latency_p99_seconds", {"arm": "stable"}) is not None


async def test_a_look_is_quick_enough_to_tell_within_a_second(place: Place) -> None:
    """Twenty symbols, and a day of bars behind them."""
    ledger = await place.roll_out(Kind.GOOD)
    watcher = place.watcher()
    await ledger.decide(96)
    place.look(watcher)
    await ledger.decide(1)
    begun_s = time.perf_counter()
    place.look(watcher)

    assert time.perf_counter() - begun_s < 0.7
