"""Proves the order of the gates that ask nobody, and what opens each."""

import itertools

import pytest
from msgspec import structs
from tests.fakes import ACTIVE

from detent.contracts.reasons import Reason
from detent.core.rollout.gates import (
    ACTIVE_ACK,
    GATE_PRIORITY,
    Enablement,
    enablement_reason,
    first_reason,
)


@pytest.mark.proves("R113")
def test_the_first_of_the_ten_codes_in_order_is_the_reason() -> None:
    """All 1,024 combinations, against the order as the seed lists it."""
    in_order = [
        "KILL_SWITCH_ENV",
        "KILL_SWITCH_CONFIG",
        "INFER_DISABLED",
        "ACTIVE_DISABLED",
        "BAD_ACK",
        "ONNX_UNAVAILABLE",
        "ARTIFACT_DIR_MISSING",
        "MANIFEST_INVALID",
        "MODEL_NOT_LOADED",
        "ENV_NOT_ALLOWED",
    ]

    for mask in range(1 << 10):
        holding = [code for bit, code in enumerate(in_order) if mask >> bit & 1]
        expected = holding[0] if holding else None
        assert first_reason([Reason(code) for code in reversed(holding)]) == expected
    assert [str(reason) for reason in GATE_PRIORITY] == in_order


@pytest.mark.proves("R92", "R113")
def test_every_combination_of_the_switches_gives_its_first_reason() -> None:
    switches = itertools.product([False, True], repeat=6)
    for env_kill, config_kill, infer, active, ack, allowed in switches:
        enablement = Enablement(
            kill_switch=config_kill,
            infer_enabled=infer,
            active_enabled=active,
            active_ack=ACTIVE_ACK if ack else "yes",
            environment="paper" if allowed else "live",
            allowed_environments=("paper",),
        )
        ladder = [
            (env_kill, Reason.KILL_SWITCH_ENV),
            (config_kill, Reason.KILL_SWITCH_CONFIG),
            (not infer, Reason.INFER_DISABLED),
            (not active, Reason.ACTIVE_DISABLED),
            (not ack, Reason.BAD_ACK),
            (not allowed, Reason.ENV_NOT_ALLOWED),
        ]
        expected = next((reason for holds, reason in ladder if holds), None)
        assert enablement_reason(enablement, kill_switch_env=env_kill) is expected


@pytest.mark.proves("R92")
@pytest.mark.parametrize(
    "ack", ["", "yes", f"{ACTIVE_ACK} ", f" {ACTIVE_ACK}", ACTIVE_ACK.lower(), ACTIVE_ACK[:-1]]
)
def test_the_acknowledgement_is_taken_to_the_letter(ack: str) -> None:
    enablement = structs.replace(ACTIVE, active_ack=ack)

    assert enablement_reason(enablement, kill_switch_env=False) is Reason.BAD_ACK


@pytest.mark.parametrize(
    ("environment", "allowed", "reason"),
    [
        ("", (), None),
        ("live", (), None),
        ("live", ("live",), None),
        ("live", ("paper", "live"), None),
        ("", ("live",), Reason.ENV_NOT_ALLOWED),
        ("LIVE", ("live",), Reason.ENV_NOT_ALLOWED),
        ("paper", ("live",), Reason.ENV_NOT_ALLOWED),
    ],
)
def test_an_allow_list_lets_in_whom_it_names_and_an_empty_one_everybody(
    environment: str, allowed: tuple[str, ...], reason: Reason | None
) -> None:
    enablement = structs.replace(ACTIVE, environment=environment, allowed_environments=allowed)

    assert enablement_reason(enablement, kill_switch_env=False) is reason
