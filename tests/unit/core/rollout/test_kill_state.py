"""Off wins, stale is off, and only who has seen a switch can release it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from detent.contracts.errors import InvalidField, KillEpochStale
from detent.contracts.kill_switch import KillPosition, KillScope, KillSwitch
from detent.contracts.reasons import Reason
from detent.core.rollout.kill_state import (
    STALE_S,
    Key,
    KillState,
    kill_reason,
    next_switch,
    state_of,
)

AT_MS = 1_700_000_000_000
SCOPES = [
    (KillScope.GLOBAL, ""),
    (KillScope.MODEL, "direction_v1.0.0"),
    (KillScope.PLAN, "plan-1"),
    (KillScope.SYMBOL, "BTCUSDT"),
]


def switch(
    scope: KillScope = KillScope.GLOBAL, key: str = "", *, is_on: bool = True, epoch: int = 1
) -> KillSwitch:
    return KillSwitch(
        scope=scope,
        key=key,
        position=KillPosition.OFF if is_on else KillPosition.RELEASED,
        epoch=epoch,
        actor="ops",
        reason="drill",
        at_ms=AT_MS,
    )


def reason_in(state: KillState, now_s: float = 10.0, **changes: str) -> Reason | None:
    asked = {"model_id": "direction_v1.0.0", "plan_id": "plan-1", "symbol": "BTCUSDT"} | changes
    return kill_reason(state, now_s=now_s, **asked)


@pytest.mark.parametrize(("scope", "key"), SCOPES)
def test_a_switch_of_any_scope_forbids_the_model(scope: KillScope, key: str) -> None:
    state = state_of([switch(scope, key)], read_s=10.0)

    assert reason_in(state) is Reason.KILL_SWITCH_STATE


@pytest.mark.parametrize(
    ("key", "stable", "candidate"),
    [
        ("plan-1", Reason.KILL_SWITCH_STATE, Reason.KILL_SWITCH_STATE),
        ("plan-1:candidate", None, Reason.KILL_SWITCH_STATE),
    ],
)
def test_a_plan_is_off_in_both_arms_by_the_name_that_it_was_opened_under(
    key: str, stable: Reason | None, candidate: Reason
) -> None:
    """At 100 percent the candidate's plan is all there is, under a name nobody asked for."""
    state = state_of([switch(KillScope.PLAN, key)], read_s=10.0)

    assert reason_in(state) is stable
    assert reason_in(state, plan_id="plan-1:candidate") is candidate


@pytest.mark.parametrize(
    ("scope", "key", "other"),
    [
        (KillScope.MODEL, "direction_v1.0.0", {"model_id": "direction_v1.0.1"}),
        (KillScope.PLAN, "plan-1", {"plan_id": "plan-2"}),
        (KillScope.SYMBOL, "BTCUSDT", {"symbol": "ETHUSDT"}),
    ],
)
def test_a_switch_reaches_its_own_scope_only(
    scope: KillScope, key: str, other: dict[str, str]
) -> None:
    assert reason_in(state_of([switch(scope, key)], read_s=10.0), **other) is None


@pytest.mark.parametrize(
    ("read_s", "now_s", "reason"),
    [
        pytest.param(None, 10.0, Reason.KILL_STATE_STALE, id="never read"),
        pytest.param(10.0, 10.0, None, id="just read"),
        pytest.param(10.0, 10.0 + STALE_S - 1e-9, None, id="still fresh"),
        pytest.param(10.0, 10.0 + STALE_S, Reason.KILL_STATE_STALE, id="a second old"),
        pytest.param(10.0, 9.0, Reason.KILL_STATE_STALE, id="read in the future"),
    ],
)
def test_what_was_not_read_lately_counts_as_off(
    read_s: float | None, now_s: float, reason: Reason | None
) -> None:
    assert reason_in(KillState(read_s=read_s), now_s) is reason


def test_of_two_readings_of_a_switch_the_higher_epoch_holds_and_then_off_wins() -> None:
    off, on = switch(is_on=False, epoch=3), switch(is_on=True, epoch=2)

    assert state_of([off, on], read_s=0.0).on == frozenset()
    assert state_of([on, off], read_s=0.0).on == frozenset()
    assert state_of([off, switch(is_on=True, epoch=3)], read_s=0.0).on != frozenset()


def changed(
    switches: dict[Key, KillSwitch], *, is_on: bool, seen: int | None, actor: str = "ops"
) -> KillSwitch:
    return next_switch(
        switches,
        scope=KillScope.GLOBAL,
        key="",
        position=KillPosition.OFF if is_on else KillPosition.RELEASED,
        seen_epoch=seen,
        actor=actor,
        reason="drill",
        at_ms=AT_MS,
    )


def test_switching_off_needs_no_epoch_and_counts_up() -> None:
    first = changed({}, is_on=True, seen=None)
    second = changed({(KillScope.GLOBAL, ""): first}, is_on=True, seen=None)

    assert (first.epoch, second.epoch) == (1, 2)


@pytest.mark.parametrize("seen", [None, 0, 1, 3])
def test_a_release_by_another_epoch_is_refused(seen: int | None) -> None:
    switches = {(KillScope.GLOBAL, ""): switch(epoch=2)}

    with pytest.raises(KillEpochStale):
        changed(switches, is_on=False, seen=seen)
    assert changed(switches, is_on=False, seen=2).epoch == 3


def test_a_release_of_what_was_never_set_does_not_ask_for_an_epoch_that_is_none() -> None:
    with pytest.raises(KillEpochStale, match="it was never set"):
        changed({}, is_on=False, seen=1)


def test_nobody_releases_nothing() -> None:
    with pytest.raises(InvalidField):
        changed({(KillScope.GLOBAL, ""): switch()}, is_on=False, seen=1, actor="")


@pytest.mark.parametrize(
    ("scope", "key"),
    [(KillScope.GLOBAL, "x"), (KillScope.PLAN, ""), (KillScope.SYMBOL, "btc usdt")],
)
def test_a_key_that_the_scope_does_not_have_is_refused(scope: KillScope, key: str) -> None:
    with pytest.raises(InvalidField):
        switch(scope, key)


@given(
    epochs=st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_the_state_does_not_depend_on_the_order_of_reading(
    epochs: list[tuple[int, bool]], order: object
) -> None:
    switches = [switch(epoch=epoch, is_on=is_on) for epoch, is_on in epochs]
    shuffled = list(switches)
    order.shuffle(shuffled)  # type: ignore[attr-defined]

    assert state_of(switches, read_s=0.0) == state_of(shuffled, read_s=0.0)


class Interleaved(RuleBasedStateMachine):
    """Kills, releases, readings late and lost, a store that is flushed or rolled back."""

    def __init__(self) -> None:
        super().__init__()
        self.store: dict[Key, KillSwitch] = {}
        self.backup: dict[Key, KillSwitch] = {}
        self.seen = KillState()
        self.now_s = 100.0
        # When the truth was last read, and what it was.
        self.truth_read_s: float | None = None
        self.truth_was_on = False

    @rule()
    def kill(self) -> None:
        self.store[KillScope.GLOBAL, ""] = changed(self.store, is_on=True, seen=None)

    @rule(seen=st.integers(0, 4))
    def release(self, seen: int) -> None:
        newest = self.store.get((KillScope.GLOBAL, ""))
        before = newest.epoch if newest is not None else 0
        try:
            self.store[KillScope.GLOBAL, ""] = changed(self.store, is_on=False, seen=seen)
        except KillEpochStale:
            assert seen != before
        else:
            assert seen == before

    @rule()
    def read(self) -> None:
        self.seen = state_of(self.store.values(), read_s=self.now_s)
        self.truth_read_s, self.truth_was_on = self.now_s, bool(self.seen.on)

    @rule(elapsed_s=st.floats(0.01, 2.0))
    def wait(self, elapsed_s: float) -> None:
        self.now_s += elapsed_s

    @precondition(lambda self: self.store)
    @rule()
    def back_up(self) -> None:
        self.backup = dict(self.store)

    @invariant()
    def the_model_answers_only_by_a_fresh_reading_without_a_switch(self) -> None:
        reason = reason_in(self.seen, self.now_s)
        is_fresh = self.truth_read_s is not None and self.now_s - self.truth_read_s < STALE_S

        assert (reason is None) == (is_fresh and not self.truth_was_on)


TestInterleaved = Interleaved.TestCase
