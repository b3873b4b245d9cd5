"""Hold what a monitor watches for, and what it says of it; none of it crosses a wire of ours.

Source: seed 003, sections 12.11 and 12.13; rows R260 to R262; decisions D17 and D19.
"""

from enum import StrEnum

import msgspec

from detent.contracts.binding import SignalSource
from detent.contracts.checks import check_count, check_int
from detent.contracts.errors import InvalidField
from detent.contracts.units import BPS_ONE, INT32_MAX

DAY_MS = 86_400_000
_WINDOWS_MAX = 16


class MonitorProfile(StrEnum):
    """Names a set of rules: the seed's constants, or those that know their own noise."""

    STANDARD = "standard"
    SEED = "seed"


class AlertKind(StrEnum):
    """Says what a monitor found; the list may grow."""

    MISCALIBRATED = "miscalibrated"
    ACCURACY_DRIFT = "accuracy_drift"
    ACCURACY_LOW = "accuracy_low"
    FEATURE_DRIFT = "feature_drift"
    RETRAIN_DUE = "retrain_due"


class MonitorRules(msgspec.Struct, frozen=True, kw_only=True):
    """Holds when a monitor looks and what alerts it.

    Attributes:
        profile: `standard`, or the seed's rules by name.
        check_interval_s: Time between two checks.
        scored_rows: The newest settled bars of a signal that are scored together.
        scored_rows_min: Fewer of them give no verdict.
        accuracy_threshold_bps: Accuracy below which the seed's profile alerts. The standard one
            does not: a direction model is right on 53 bars of 100 and worth it.
        drift_threshold_bps: Growth of the errors above which accuracy has drifted.
        retrain_interval_days: Age at which a model is due for training.
        training_samples_min: Settled bars below which training is advised against.
    """

    profile: MonitorProfile = MonitorProfile.STANDARD
    check_interval_s: int = 3_600
    scored_rows: int = 1_000
    scored_rows_min: int = 100
    accuracy_threshold_bps: int = 7_000
    drift_threshold_bps: int = 2_000
    retrain_interval_days: int = 7
    training_samples_min: int = 10_000

    def __post_init__(self) -> None:
        """Refuse rules that could never be met or never be broken."""
        check_int("check_interval_s", self.check_interval_s, 1, INT32_MAX)
        check_int("scored_rows_min", self.scored_rows_min, 1, INT32_MAX)
        check_int("scored_rows", self.scored_rows, self.scored_rows_min, INT32_MAX)
        check_int("accuracy_threshold_bps", self.accuracy_threshold_bps, 0, BPS_ONE)
        check_int("drift_threshold_bps", self.drift_threshold_bps, 0, INT32_MAX)
        check_int("retrain_interval_days", self.retrain_interval_days, 1, INT32_MAX)
        check_int("training_samples_min", self.training_samples_min, 1, INT32_MAX)


class ToxicityConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a toxicity model looks back over, and ahead.

    Attributes:
        lookback_windows: Rows of each window of its features, ascending.
        prediction_horizon_s: How far ahead its label looks, seconds.
    """

    lookback_windows: tuple[int, ...] = (10, 30, 60)
    prediction_horizon_s: int = 60

    def __post_init__(self) -> None:
        """Refuse windows that are none, repeated or out of order, and no horizon."""
        check_count("lookback_windows", self.lookback_windows, 1, _WINDOWS_MAX)
        for window in self.lookback_windows:
            check_int("lookback_windows", window, 1, INT32_MAX)
        if list(self.lookback_windows) != sorted(set(self.lookback_windows)):
            found = list(self.lookback_windows)
            raise InvalidField("lookback_windows", found, "ascending, each once")
        check_int("prediction_horizon_s", self.prediction_horizon_s, 1, INT32_MAX)


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """States one thing that a person should look at.

    Attributes:
        kind: What was found.
        binding_hash: Of which model.
        signal_source: Of which signal; None where it is about the model's inputs or age.
        message: What was found and what was expected.
    """

    kind: AlertKind
    binding_hash: str
    signal_source: SignalSource | None
    message: str
