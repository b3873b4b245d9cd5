"""Hold what a plan pins: exactly one artifact, or the proxy."""

from enum import StrEnum
from typing import ClassVar

import msgspec

from detent.contracts.canonical import canonical_hash
from detent.contracts.checks import (
    check_hash64,
    check_int,
    check_name,
    check_text,
    check_ts_ms,
)
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import to_json
from detent.contracts.proxy import PROXY_DEFAULT

HORIZON_BARS_MAX = 10_000
# A regime of last month says nothing about today, whatever the bars.
FALLBACK_AGE_MS_MAX = 31 * 24 * 3_600_000


class SignalSource(StrEnum):
    """Says where the directional belief comes from."""

    PROXY = "proxy"
    MODEL = "model"


class Head(StrEnum):
    """Names the question that an artifact answers."""

    DIRECTION = "direction"
    REGIME = "regime"
    TOXICITY = "toxicity"
    FILL = "fill"
    BRACKETS = "brackets"


class TrainingWindow(msgspec.Struct, frozen=True, kw_only=True):
    """States the close times of the first and last bar that training saw."""

    start_ts_ms: int
    end_ts_ms: int

    def __post_init__(self) -> None:
        """Refuse a window that ends before it starts."""
        check_ts_ms("start_ts_ms", self.start_ts_ms)
        check_ts_ms("end_ts_ms", self.end_ts_ms)
        if self.end_ts_ms <= self.start_ts_ms:
            raise InvalidField("end_ts_ms", self.end_ts_ms, f"after {self.start_ts_ms}")


class FallbackMode(StrEnum):
    """Says what the regime head answers when the model cannot."""

    NEUTRAL = "neutral"
    PREVIOUS = "previous"
    ERROR = "error"


class RegimeFallback(msgspec.Struct, frozen=True, kw_only=True):
    """Fixes what the regime head answers when the model cannot.

    Attributes:
        mode: The neutral signal, the symbol's last valid one, or no answer but a status.
        max_age_ms: With PREVIOUS: how old that signal may be, in data time, [1, 31 days];
            an older one is as good as none, and none yet is neutral. None otherwise.

    Source: seed 003, section 12.5.3, rows R75 to R77; decisions D7 and D12.
    """

    mode: FallbackMode
    max_age_ms: int | None = None

    def __post_init__(self) -> None:
        """Refuse an age without a use, or a previous signal that never ages."""
        if self.mode is FallbackMode.PREVIOUS:
            if self.max_age_ms is None:
                raise InvalidField("max_age_ms", "(missing)", "the age of the oldest usable signal")
            check_int("max_age_ms", self.max_age_ms, 1, FALLBACK_AGE_MS_MAX)
        elif self.max_age_ms is not None:
            raise InvalidField("max_age_ms", self.max_age_ms, f"absent for {self.mode}")


def check_fallback(field: str, fallback: RegimeFallback | None, head: Head | None) -> None:
    """Refuse a fallback of a head that has none, and a neutral one that is written out.

    Neutral is what absence means: written out it would be the same artifact under another
    hash.
    """
    if fallback is None:
        return
    if head is not Head.REGIME:
        raise InvalidField(field, fallback.mode, f"absent for the head {head}")
    if fallback.mode is FallbackMode.NEUTRAL:
        raise InvalidField(field, fallback.mode, "absent, which means neutral")


class ModelBinding(msgspec.Struct, frozen=True, kw_only=True):
    """Pins whoever carries it to one artifact, or to the proxy.

    With `signal_source` PROXY the model's fields may stay filled in: they do not count, so
    that rolling back is a change of one field and always gives the published proxy hash.

    Attributes:
        signal_source: Where the directional belief comes from.
        head: The artifact's question.
        model_id: `<model_name>_v<major>.<minor>.<patch>`.
        model_version_hash: SHA-256 of the canonical manifest.
        feature_version: SHA-256 of the feature set.
        label_definition: What the model was asked.
        horizon_id: Name of the horizon; equals the policy config's.
        horizon_bars: How far ahead the label looks.
        calibration_version: SHA-256 of the calibration.
        training_window: First and last bar that training saw.
        data_cutoff_ts_ms: Last instant that training and calibration may have seen.
        architecture_id: For example `logistic`.
        fallback_signal_source: What answers when the model cannot: the proxy.
        proxy_version: SHA-256 of the proxy's parameters.
        regime_fallback: What the regime head answers when the model cannot; None is neutral.

    Source: seed 000, section 4.
    """

    SCHEMA: ClassVar[str] = "detent.model_binding.v1"
    JSON_ABSENT: ClassVar[tuple[str, ...]] = ("regime_fallback",)

    signal_source: SignalSource
    head: Head | None = None
    model_id: str = ""
    model_version_hash: str = ""
    feature_version: str = ""
    label_definition: str = ""
    horizon_id: str = ""
    horizon_bars: int = 0
    calibration_version: str = ""
    training_window: TrainingWindow | None = None
    data_cutoff_ts_ms: int = 0
    architecture_id: str = ""
    fallback_signal_source: SignalSource = SignalSource.PROXY
    proxy_version: str = PROXY_DEFAULT.proxy_version
    regime_fallback: RegimeFallback | None = None

    def __post_init__(self) -> None:
        """Refuse a model binding that leaves anything open."""
        if self.fallback_signal_source is not SignalSource.PROXY:
            raise InvalidField("fallback_signal_source", self.fallback_signal_source, "proxy")
        if self.proxy_version != PROXY_DEFAULT.proxy_version:
            raise InvalidField("proxy_version", self.proxy_version, PROXY_DEFAULT.proxy_version)
        if self.signal_source is SignalSource.PROXY:
            return
        if self.head is None:
            raise InvalidField("head", "(missing)", "the artifact's head")
        check_name("model_id", self.model_id)
        check_hash64("model_version_hash", self.model_version_hash)
        check_hash64("feature_version", self.feature_version)
        check_text("label_definition", self.label_definition)
        check_name("horizon_id", self.horizon_id)
        check_int("horizon_bars", self.horizon_bars, 1, HORIZON_BARS_MAX)
        check_hash64("calibration_version", self.calibration_version)
        if self.training_window is None:
            raise InvalidField("training_window", "(missing)", "the artifact's window")
        check_ts_ms("data_cutoff_ts_ms", self.data_cutoff_ts_ms)
        if self.data_cutoff_ts_ms < self.training_window.end_ts_ms:
            raise InvalidField(
                "data_cutoff_ts_ms",
                self.data_cutoff_ts_ms,
                f"at or after the end of training {self.training_window.end_ts_ms}",
            )
        check_name("architecture_id", self.architecture_id)
        check_fallback("regime_fallback", self.regime_fallback, self.head)

    @property
    def effective(self) -> "ModelBinding":
        """Give what counts: the binding itself, or the bare proxy binding."""
        return self if self.signal_source is SignalSource.MODEL else PROXY_BINDING

    @property
    def binding_hash(self) -> str:
        """Hash what counts, in canonical form, to 64 hex."""
        return canonical_hash(self.SCHEMA, to_json(self.effective))


PROXY_BINDING = ModelBinding(signal_source=SignalSource.PROXY)
PROXY_BINDING_HASH = PROXY_BINDING.binding_hash
