"""Proves the ladder: three rungs, and a guard for everything that does not fit together."""

import itertools

import pytest
from msgspec import structs
from tests.fakes import ACTIVE

from detent.contracts.errors import GuardRefused
from detent.core.rollout.gates import ACTIVE_ACK, Enablement
from detent.core.rollout.ladder import ArtifactState, Guard, Ladder, Mode, RegistryState, rung

UP = Ladder(enablement=ACTIVE)
SHADOW = Ladder(
    enablement=Enablement(infer_enabled=True), shadow_mode=True, registry=RegistryState.LEGACY
)


def guard_of(ladder: Ladder) -> Mode | str:
    try:
        return rung(ladder, kill_switch_env=False)
    except GuardRefused as refused:
        return refused.guard


def keyed(ladder: Ladder = UP, **changes: object) -> Ladder:
    return structs.replace(ladder, enablement=structs.replace(ladder.enablement, **changes))


@pytest.mark.proves("R62", "R80")
def test_the_default_is_off() -> None:
    assert guard_of(Ladder(enablement=Enablement())) is Mode.OFF


@pytest.mark.proves("R87", "R88", "R90")
def test_of_the_eight_combinations_of_the_flags_three_are_rungs() -> None:
    expected = {
        (False, False, False): Mode.OFF,
        (True, True, False): Mode.SHADOW,
        (True, False, True): Mode.ACTIVE,
        (True, False, False): Guard.INFER_AMBIGUOUS,
        (True, True, True): Guard.INFER_AMBIGUOUS,
        (False, False, True): Guard.ACTIVE_WITHOUT_INFER,
        (False, True, True): Guard.ACTIVE_WITHOUT_INFER,
        (False, True, False): Guard.SHADOW_WITHOUT_INFER,
    }
    for infer, shadow, active in itertools.product([False, True], repeat=3):
        ladder = structs.replace(
            keyed(infer_enabled=infer, active_enabled=active), shadow_mode=shadow
        )
        assert guard_of(ladder) == expected[infer, shadow, active]


@pytest.mark.proves("R86", "R89", "R91", "R92")
@pytest.mark.parametrize(
    ("ladder", "told"),
    [
        (structs.replace(UP, has_runtime=False), Guard.INFER_WITHOUT_RUNTIME),
        (structs.replace(SHADOW, has_runtime=False), Guard.INFER_WITHOUT_RUNTIME),
        (keyed(active_ack=""), Guard.ACK),
        (keyed(active_ack="yes"), Guard.ACK),
        (keyed(active_ack=f"{ACTIVE_ACK} "), Guard.ACK),
        (structs.replace(UP, artifact=ArtifactState.MISSING), Guard.ACTIVE_WITHOUT_ARTIFACT),
        (structs.replace(UP, artifact=ArtifactState.INVALID), Guard.MANIFEST_INVALID),
        (keyed(allowed_environments=("live",)), Guard.ENVIRONMENT),
        (keyed(allowed_environments=("live",), environment="paper"), Guard.ENVIRONMENT),
        (keyed(allowed_environments=("live",), environment="live"), Mode.ACTIVE),
        (structs.replace(SHADOW, artifact=ArtifactState.MISSING), Guard.SHADOW_WITHOUT_ARTIFACT),
        (structs.replace(SHADOW, artifact=ArtifactState.INVALID), Mode.OFF),
        (structs.replace(UP, is_production=True), Guard.PRODUCTION_WITHOUT_ALLOW_LIST),
    ],
)
def test_every_guard_refuses_by_its_name(ladder: Ladder, told: Mode | Guard) -> None:
    assert guard_of(ladder) == told


@pytest.mark.proves("R334")
@pytest.mark.parametrize(
    ("registry", "active"),
    [
        (RegistryState.LEGACY, Guard.ACTIVE_LEGACY_PATH),
        (RegistryState.MISSING, Guard.REGISTRY_MISSING),
        (RegistryState.UNRESOLVED, Guard.REGISTRY_UNRESOLVED),
        (RegistryState.RESOLVED, Mode.ACTIVE),
        (RegistryState.PINNED, Mode.ACTIVE),
    ],
)
def test_what_acts_is_resolved_and_what_is_shadowed_may_be_a_bare_path(
    registry: RegistryState, active: Mode | Guard
) -> None:
    assert guard_of(structs.replace(UP, registry=registry)) == active
    assert guard_of(structs.replace(SHADOW, registry=registry)) is Mode.SHADOW


def test_a_kill_switch_is_off_without_a_word_whatever_else_is_wrong() -> None:
    """Over every state of everything else, in development."""
    states = itertools.product(
        [False, True], [False, True], [False, True], ["", ACTIVE_ACK], ArtifactState, RegistryState
    )
    for infer, shadow, active, ack, artifact, registry in states:
        enablement = Enablement(infer_enabled=infer, active_enabled=active, active_ack=ack)
        ladder = Ladder(
            enablement=enablement, shadow_mode=shadow, artifact=artifact, registry=registry
        )
        by_config = structs.replace(
            ladder, enablement=structs.replace(enablement, kill_switch=True)
        )

        assert rung(ladder, kill_switch_env=True) is Mode.OFF
        assert rung(by_config, kill_switch_env=False) is Mode.OFF


def test_a_refusal_says_what_was_found_and_what_was_expected() -> None:
    with pytest.raises(GuardRefused, match=r"^G6: environment: found .paper., expected .*live"):
        rung(keyed(allowed_environments=("live",), environment="paper"), kill_switch_env=False)
