"""Say what the regime and toxicity heads answer when the model cannot.

They adjust parameters and never exposure, so a neutral answer is safe and better than none.
The same code runs in the inference service and in the client, which needs it when no
service can be reached.

Source: seed 003, section 12.5.3, rows R75 to R77; DESIGN section 5; decisions D7 and D12.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

import msgspec

from detent.contracts.binding import FallbackMode, Head, ModelBinding
from detent.contracts.signals import HeadSignal, Regime, RegimeSignal, ToxicitySignal

# Nothing is known, so the shares are even; MID gets the basis point that is left over, as
# the regime must be the argmax.
_EVEN_BPS = (3_333, 3_334, 3_333)
REGIME_NEUTRAL = RegimeSignal(
    regime_low_prob_bps=_EVEN_BPS[0],
    regime_mid_prob_bps=_EVEN_BPS[1],
    regime_high_prob_bps=_EVEN_BPS[2],
    predicted_regime=Regime.MID,
    regime_confidence_bps=_EVEN_BPS[1],
    spacing_multiplier_x1000=1_000,
)
TOXICITY_NEUTRAL = ToxicitySignal(
    toxicity_low_prob_bps=_EVEN_BPS[0],
    toxicity_mid_prob_bps=_EVEN_BPS[1],
    toxicity_high_prob_bps=_EVEN_BPS[2],
    predicted_toxicity=Regime.MID,
    next_regime=Regime.MID,
)
SYMBOLS_MAX = 10_000


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    """Holds an answer of the model and the instant that it was for."""

    ts_ms: int
    signal: RegimeSignal


@dataclass(kw_only=True)
class LastRegimes:
    """Remembers the newest valid regime of each symbol, of one binding.

    Attributes:
        symbols_max: Symbols that are remembered; beyond, the one that was heard of longest
            ago is forgotten, which makes its fallback neutral.
    """

    symbols_max: int = SYMBOLS_MAX
    _known: OrderedDict[str, _Known] = field(default_factory=OrderedDict)

    def remember(self, symbol: str, ts_ms: int, signal: HeadSignal) -> None:
        """Keep an answer of the model, unless a newer one of the symbol is kept already.

        Args:
            symbol: Instrument.
            ts_ms: Event time of the features, Unix milliseconds.
            signal: What the model answered, never a fallback; only regimes are kept.
        """
        if not isinstance(signal, RegimeSignal):
            return
        known = self._known.get(symbol)
        if known is None or known.ts_ms <= ts_ms:
            self._known[symbol] = _Known(ts_ms=ts_ms, signal=signal)
        self._known.move_to_end(symbol)
        if len(self._known) > self.symbols_max:
            self._known.popitem(last=False)

    def at(self, symbol: str, ts_ms: int, *, max_age_ms: int) -> RegimeSignal | None:
        """Give a symbol's last regime as of an instant.

        Returns:
            None when there is none, or only one that is older than `max_age_ms`, or one of
            a later instant: an answer never comes from the future.
        """
        known = self._known.get(symbol)
        if known is None or not 0 <= ts_ms - known.ts_ms <= max_age_ms:
            return None
        return known.signal


def fallback_signal(
    binding: ModelBinding, last: LastRegimes, *, symbol: str, ts_ms: int
) -> RegimeSignal | ToxicitySignal | None:
    """Give what stands in for the model's answer.

    Args:
        binding: What the caller is bound to; its head and fallback count.
        last: The regimes that the model gave under this binding.
        symbol: Instrument.
        ts_ms: The instant that is asked about, Unix milliseconds.

    Returns:
        None when nothing stands in: the head has no fallback, or the binding says ERROR.
    """
    if binding.head is Head.TOXICITY:
        return TOXICITY_NEUTRAL
    if binding.head is not Head.REGIME or ends_the_call(binding):
        return None
    fallback = binding.regime_fallback
    if fallback is None or fallback.max_age_ms is None:
        return REGIME_NEUTRAL
    return last.at(symbol, ts_ms, max_age_ms=fallback.max_age_ms) or REGIME_NEUTRAL


def ends_the_call(binding: ModelBinding) -> bool:
    """Say whether a row without an answer ends the whole call (decision D12)."""
    fallback = binding.regime_fallback
    return fallback is not None and fallback.mode is FallbackMode.ERROR
