"""Be the strategist of the demo: a trigger rule of its own, a volatility, a paper position."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from decimal import Decimal

from detent.contracts.canonical import canonical_hash
from detent.contracts.decision import Decision, DecisionRow
from detent.contracts.market import Bar
from detent.contracts.plan import (
    OrderStyle,
    Plan,
    PolicyConfig,
    PositionState,
    Trigger,
    TriggerState,
    VolUnit,
)

FAST_BARS = 12
SLOW_BARS = 48
VOL_BARS = 48
EQUITY = Decimal(100_000)
YEAR_MS = 365 * 86_400_000
TRIGGER_ID = "moving-average-cross"


def demo_plan(*, symbol: str, bar_interval_ms: int, horizon_id: str) -> Plan:
    """State the demo's plan: one symbol, one trigger, small weights."""
    parameters = {"fast_bars": FAST_BARS, "slow_bars": SLOW_BARS}
    return Plan(
        plan_id=f"demo-{symbol.lower()}-1",
        book="demo",
        symbols=(symbol,),
        bar_interval_ms=bar_interval_ms,
        triggers=(
            Trigger(
                trigger_id=TRIGGER_ID,
                parameters_hash=canonical_hash("demo.moving_average_cross.v1", dict(parameters)),
            ),
        ),
        # A direction model on hourly bars leans by a percent or two: the dead band is set
        # for that, the bounds are not.
        policy_config=PolicyConfig(horizon_id=horizon_id, tau_bps=100),
    )


@dataclasses.dataclass(slots=True)
class Strategist:
    """Keeps the closes it has seen and the weight it holds on paper.

    The trigger is a crossing of two moving averages: it permits long above, short below,
    and nothing but an exit when the fast one has come back to within a tenth of a percent.
    """

    symbol: str
    bar_interval_ms: int
    closes: list[float] = dataclasses.field(default_factory=list)
    weight_ppm: int = 0

    def row(self, bar: Bar) -> DecisionRow:
        """Say what there is to decide on a bar."""
        self.closes.append(float(bar.close))
        state = self._trigger_state()
        active = state in (TriggerState.LONG_ALLOWED, TriggerState.SHORT_ALLOWED)
        return DecisionRow(
            symbol=self.symbol,
            bar_close=bar.close,
            trigger_state=state,
            active_trigger_ids=(TRIGGER_ID,) if active else (),
            exit_intent=None,
            position=PositionState(current_weight_ppm=self.weight_ppm, equity=EQUITY),
            vol_hat_ppm=annualised_vol_ppm(self.closes[-VOL_BARS:], self.bar_interval_ms),
            vol_unit=VolUnit.ANNUALISED,
            risk_overrides=None,
        )

    def follow(self, decision: Decision) -> None:
        """Hold what was decided, as if it were filled at the close."""
        if decision.order_style is not OrderStyle.NONE:
            self.weight_ppm = decision.target_weight_final_ppm

    def _trigger_state(self) -> TriggerState:
        if len(self.closes) < SLOW_BARS:
            return TriggerState.INACTIVE
        fast = math.fsum(self.closes[-FAST_BARS:]) / FAST_BARS
        slow = math.fsum(self.closes[-SLOW_BARS:]) / SLOW_BARS
        gap_bps = (fast / slow - 1.0) * 10_000
        if gap_bps > 10:  # noqa: PLR2004  A tenth of a percent, as the docstring says.
            return TriggerState.LONG_ALLOWED
        if gap_bps < -10:  # noqa: PLR2004
            return TriggerState.SHORT_ALLOWED
        return TriggerState.EXIT_ONLY if self.weight_ppm != 0 else TriggerState.INACTIVE


def annualised_vol_ppm(closes: Sequence[float], bar_interval_ms: int) -> int | None:
    """Give the realised volatility per year in parts per million; None without history."""
    returns = [later / earlier - 1.0 for earlier, later in itertools.pairwise(closes)]
    if len(returns) < 2:  # noqa: PLR2004  A deviation needs two.
        return None
    mean = math.fsum(returns) / len(returns)
    variance = math.fsum((value - mean) ** 2 for value in returns) / (len(returns) - 1)
    return round(math.sqrt(variance * YEAR_MS / bar_interval_ms) * 1_000_000)
