"""Choose between two ready probabilities and keep the provenance of both."""

import msgspec

from detent.contracts.binding import ModelBinding, SignalSource
from detent.contracts.decision import SignalRecord
from detent.contracts.plan import TriggerState
from detent.contracts.reasons import Reason
from detent.core.signals.proxy import ProxyAnswer
from detent.core.signals.strength import signal_strength_bps


class ModelOutcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Holds what came of asking the model: an answer, or the one reason why there is none.

    Attributes:
        features_hash: Hash of what the model was given; None when nothing was built.
        p_hat_raw_bps: Uncalibrated answer; None with a reason.
        p_hat_bps: Calibrated answer; None with a reason.
        reason: Why there is no answer; None with one.
    """

    features_hash: str | None = None
    p_hat_raw_bps: int | None = None
    p_hat_bps: int | None = None
    reason: Reason | None = None

    def __post_init__(self) -> None:
        """Hold our own code to it: either both probabilities or a reason."""
        assert (self.reason is None) == (self.p_hat_bps is not None)
        assert (self.p_hat_bps is None) == (self.p_hat_raw_bps is None)


def refused(reason: Reason, features_hash: str | None = None) -> ModelOutcome:
    """Give the outcome of a model that did not answer."""
    return ModelOutcome(reason=reason, features_hash=features_hash)


def choose_signal(
    *,
    binding: ModelBinding,
    trigger_state: TriggerState,
    proxy: ProxyAnswer,
    model: ModelOutcome | None,
) -> SignalRecord:
    """Choose the probability that counts and map it to a magnitude.

    Args:
        binding: What the plan pins.
        trigger_state: What the trigger engine permits.
        proxy: The proxy's answer; always there.
        model: What came of asking the model; None when it was not asked.

    Returns:
        The record of the choice, with both provenances.
    """
    asked = model if model is not None else ModelOutcome(reason=Reason.MODEL_NOT_LOADED)
    answered = asked.p_hat_bps is not None
    p_hat_bps = asked.p_hat_bps if asked.p_hat_bps is not None else proxy.p_hat_bps
    bound = binding.signal_source is SignalSource.MODEL
    return SignalRecord(
        signal_source=SignalSource.MODEL if answered else SignalSource.PROXY,
        fallback_reason=asked.reason if model is not None else None,
        model_id=binding.model_id if bound else None,
        model_version_hash=binding.model_version_hash if bound else None,
        feature_version=binding.feature_version if bound else None,
        calibration_version=binding.calibration_version if bound else None,
        features_hash=asked.features_hash,
        p_hat_raw_bps=asked.p_hat_raw_bps,
        p_hat_calibrated_bps=asked.p_hat_bps,
        proxy_version=binding.proxy_version,
        proxy_p_hat_bps=proxy.p_hat_bps,
        proxy_reason=proxy.reason,
        p_hat_bps=p_hat_bps,
        signal_strength_bps=signal_strength_bps(p_hat_bps, trigger_state),
    )


def policy_signal_bps(signal: SignalRecord) -> int | None:
    """Give the one number that policy sees; None when nobody had a usable answer."""
    if signal.signal_source is SignalSource.MODEL:
        return signal.signal_strength_bps
    if signal.proxy_reason is Reason.PROXY_WARMING_UP:
        return None
    return signal.signal_strength_bps
