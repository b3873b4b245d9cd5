"""Proves that falling back is a choice between two ready values, with both on record."""

import pytest
from tests.builders import model_binding

from detent.contracts.binding import PROXY_BINDING, SignalSource
from detent.contracts.plan import TriggerState
from detent.contracts.reasons import Reason
from detent.core.signals.choice import ModelOutcome, choose_signal, policy_signal_bps, refused
from detent.core.signals.proxy import ProxyAnswer

LONG = TriggerState.LONG_ALLOWED
PROXY = ProxyAnswer(p_hat_bps=6_000, reason=None)
COLD = ProxyAnswer(p_hat_bps=5_000, reason=Reason.PROXY_WARMING_UP)
FLAT = ProxyAnswer(p_hat_bps=5_000, reason=Reason.PROXY_FLAT)
ANSWER = ModelOutcome(features_hash="d" * 64, p_hat_raw_bps=7_500, p_hat_bps=8_000)


@pytest.mark.proves("R243")
def test_a_model_that_answered_is_used_and_the_proxy_is_kept_beside_it() -> None:
    binding = model_binding()

    signal = choose_signal(binding=binding, trigger_state=LONG, proxy=PROXY, model=ANSWER)

    assert signal.signal_source is SignalSource.MODEL
    assert signal.fallback_reason is None
    assert (signal.p_hat_raw_bps, signal.p_hat_calibrated_bps) == (7_500, 8_000)
    assert (signal.p_hat_bps, signal.signal_strength_bps) == (8_000, 6_000)
    assert (signal.proxy_p_hat_bps, signal.proxy_reason) == (6_000, None)
    assert signal.model_version_hash == binding.model_version_hash
    assert signal.proxy_version == binding.proxy_version


@pytest.mark.proves("R99", "R100")
@pytest.mark.parametrize("reason", list(Reason))
def test_a_model_that_did_not_answer_leaves_the_proxy_and_its_reason(reason: Reason) -> None:
    signal = choose_signal(
        binding=model_binding(), trigger_state=LONG, proxy=PROXY, model=refused(reason)
    )

    assert signal.signal_source is SignalSource.PROXY
    assert signal.fallback_reason is reason
    assert signal.p_hat_raw_bps is signal.p_hat_calibrated_bps is None
    assert (signal.p_hat_bps, signal.signal_strength_bps) == (6_000, 2_000)
    assert signal.model_id == model_binding().model_id, "the record says what should have answered"


def test_a_proxy_plan_has_no_model_and_nothing_to_fall_back_from() -> None:
    signal = choose_signal(binding=PROXY_BINDING, trigger_state=LONG, proxy=PROXY, model=None)

    assert signal.signal_source is SignalSource.PROXY
    assert signal.fallback_reason is signal.model_id is signal.model_version_hash is None
    assert signal.signal_strength_bps == 2_000


@pytest.mark.parametrize(
    ("model", "proxy", "crosses"),
    [
        (ANSWER, PROXY, 6_000),
        (ANSWER, COLD, 6_000),
        (None, PROXY, 2_000),
        (None, FLAT, 0),
        (None, COLD, None),
        (refused(Reason.FEATURES_STALE), COLD, None),
    ],
)
def test_policy_gets_a_number_unless_nobody_has_a_belief(
    model: ModelOutcome | None, proxy: ProxyAnswer, crosses: int | None
) -> None:
    """A cold proxy asks for nothing, not for zero: zero would decay what is held."""
    binding = model_binding() if model is not None else PROXY_BINDING

    signal = choose_signal(binding=binding, trigger_state=LONG, proxy=proxy, model=model)

    assert policy_signal_bps(signal) == crosses


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"p_hat_bps": 1},
        {"p_hat_raw_bps": 1},
        {"p_hat_bps": 1, "p_hat_raw_bps": 1, "reason": Reason.FEATURES_STALE},
    ],
)
def test_an_outcome_is_an_answer_or_a_reason_and_never_both(fields: dict[str, int]) -> None:
    with pytest.raises(AssertionError):
        ModelOutcome(**fields)
