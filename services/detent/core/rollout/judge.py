"""Judge a rollout bar by bar: hold it, take it back, or say that it may be promoted.

The judge is a fold over paired rows. Each bar is taken twice, in order: for its answers when it is
decided, and for its outcomes when they are known. What a fold ends with depends on the rows alone,
so that a monitor that starts anew, or another one, says the same of them. Nothing here is a clock:
without new rows the judge says what it said, and never more.

Source: decision D18; QUANT A9 and C5; rows R117, R118 and R123.
"""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from detent.contracts.checks import check_int
from detent.contracts.rollout import RolloutArm
from detent.contracts.units import BPS_ONE, INT32_MAX, PPM_ONE
from detent.core.rollout.arm_measures import ArmReport, BarMeasures, arm_report, measure_bar
from detent.core.rollout.mean_bounds import LossBounds
from detent.core.rollout.paired_rows import PairedBar, check_later
from detent.core.rollout.sequential import BettingProcess
from detent.core.rollout.tripwires import (
    Finding,
    RollbackRule,
    TripwireLimits,
    broken_rule,
    findings,
)

_E_VALUE_MAX = 10**12


class VerdictKind(StrEnum):
    """Says what is to be done with a rollout."""

    HOLD = "hold"
    ROLL_BACK = "roll_back"
    MAY_PROMOTE = "may_promote"
    NO_PROMOTION = "no_promotion"


class HoldCause(StrEnum):
    """Says what a rollout that is held waits for."""

    NO_ROWS = "no_rows"
    EXPOSURE = "exposure"
    EVIDENCE = "evidence"


class JudgeRules(msgspec.Struct, frozen=True, kw_only=True):
    """Declares, before a rollout begins, what judges it.

    Attributes:
        limits: The tripwires.
        alpha_bps: Chance that the test ever takes back a candidate that does no worse.
        bars_min: Bars that a promotion needs.
        symbols_min: Symbols that it needs.
        labelled_min: Outcomes that it needs.
        bars_max: Bars after which a rollout without a case is not promoted.
        margin_ppm: How much worse in Brier score a candidate may be, by the upper bound.
    """

    limits: TripwireLimits = TripwireLimits()
    alpha_bps: int = 500
    bars_min: int = 672
    symbols_min: int = 5
    labelled_min: int = 3_000
    bars_max: int = 2_880
    margin_ppm: int = 2_500

    def __post_init__(self) -> None:
        """Refuse rules that no rollout could ever meet or break."""
        check_int("alpha_bps", self.alpha_bps, 1, BPS_ONE - 1)
        check_int("bars_min", self.bars_min, 1, INT32_MAX)
        check_int("symbols_min", self.symbols_min, 1, INT32_MAX)
        check_int("labelled_min", self.labelled_min, 1, INT32_MAX)
        check_int("bars_max", self.bars_max, self.bars_min, INT32_MAX)
        check_int("margin_ppm", self.margin_ppm, 0, PPM_ONE)

    @property
    def alpha(self) -> float:
        """Give the chance of error as a share."""
        return self.alpha_bps / BPS_ONE


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Says what a judge makes of a rollout, and from which numbers.

    Attributes:
        kind: What is to be done.
        rule: What takes it back; None where nothing does.
        cause: What it waits for; None where it does not.
        ts_ms: The bar that told, for a rollback; else the newest; None before the first.
        bars: Bars that were judged.
        symbols: Symbols that were.
        labelled: Outcomes of rows that both models answered.
        findings: Every rule with its number and its bound, at the bar that told.
        loss_low: Lower bound of the mean loss, as a share of what could be lost, [-1, 1].
        loss_high: Upper bound.
        brier_difference: Mean of candidate less stable so far; None without outcomes.
        brier_low: `loss_low` times the mean that could be lost: the same bound in Brier scores.
        brier_high: The same of `loss_high`.
    """

    kind: VerdictKind
    rule: RollbackRule | None
    cause: HoldCause | None
    ts_ms: int | None
    bars: int
    symbols: int
    labelled: int
    findings: tuple[Finding, ...]
    loss_low: float
    loss_high: float
    brier_difference: float | None
    brier_low: float | None
    brier_high: float | None


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what took a rollout back, once and for all.

    Attributes:
        rule: Which rule.
        ts_ms: The bar that told.
        findings: The numbers at that bar.
    """

    rule: RollbackRule
    ts_ms: int
    findings: tuple[Finding, ...]


class Judge(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what the rows so far amount to.

    Attributes:
        rules: What was declared.
        process: The bets on the candidate being worse.
        bounds: Bounds of its mean loss.
        window: The newest bars and what each adds up to, oldest first.
        total: What the window adds up to.
        last_stable: What the stable model said last, by symbol.
        last_candidate: What the candidate said last.
        bars: Bars whose answers were taken.
        answered_ms: The newest of them.
        settled_ms: The newest bar whose outcomes were taken.
        labelled: Outcomes that were.
        lost: Sum over the bars of the mean difference in Brier score.
        at_stake: Sum over the bars of the greatest mean difference that the answers allowed.
        told: What took the rollout back.
    """

    rules: JudgeRules
    process: BettingProcess
    bounds: LossBounds
    window: tuple[tuple[PairedBar, BarMeasures], ...] = ()
    total: BarMeasures = BarMeasures()
    last_stable: Mapping[str, int] = msgspec.field(default_factory=dict)
    last_candidate: Mapping[str, int] = msgspec.field(default_factory=dict)
    bars: int = 0
    answered_ms: int | None = None
    settled_ms: int | None = None
    labelled: int = 0
    lost: float = 0.0
    at_stake: float = 0.0
    told: Told | None = None

    @classmethod
    def start(cls, rules: JudgeRules, *, horizon_bars: int) -> "Judge":
        """Begin with no rows.

        Args:
            rules: What was declared.
            horizon_bars: How far ahead the candidate's label looks, at least 1.
        """
        return cls(
            rules=rules,
            process=BettingProcess.start(horizon_bars=horizon_bars),
            bounds=LossBounds.start(alpha=rules.alpha, horizon_bars=horizon_bars),
        )

    def after(self, bar: PairedBar) -> "Judge":
        """Take the answers of the next bar; its outcomes are not looked at.

        Raises:
            InvalidField: The bar is not later than the last one.
        """
        check_later(self.answered_ms, bar.ts_ms)
        limits = self.rules.limits
        found = measure_bar(
            bar,
            latency_us_max=limits.latency_p99_us,
            last_stable=self.last_stable,
            last_candidate=self.last_candidate,
        )
        window, total = (*self.window, (bar, found)), self.total.plus(found)
        if len(window) > limits.window_bars:
            total = total.plus(window[0][1], -1)
            window = window[1:]
        stable, candidate = _last_said(self, bar)
        judge = msgspec.structs.replace(
            self,
            window=window,
            total=total,
            last_stable=stable,
            last_candidate=candidate,
            bars=self.bars + 1,
            answered_ms=bar.ts_ms,
        )
        rule = broken_rule(total, limits)
        return judge.telling(rule, bar.ts_ms) if rule is not None else judge

    def settled(self, bar: PairedBar) -> "Judge":
        """Take the outcomes of the next bar, in the order of the bars.

        A bar without an outcome of a row that both answered changes nothing but the order.

        Raises:
            InvalidField: The bar is not later than the last one.
        """
        check_later(self.settled_ms, bar.ts_ms)
        pairs = [
            (*pair, row.label)
            for row in bar.rows
            if row.label is not None and (pair := row.pair) is not None
        ]
        if not pairs:
            return msgspec.structs.replace(self, settled_ms=bar.ts_ms)
        lost, at_stake = _losses(pairs)
        loss = lost / at_stake if at_stake else 0.0
        process = self.process.after(loss)
        judge = msgspec.structs.replace(
            self,
            settled_ms=bar.ts_ms,
            process=process,
            bounds=self.bounds.after(loss),
            labelled=self.labelled + len(pairs),
            lost=self.lost + lost / (len(pairs) * BPS_ONE**2),
            at_stake=self.at_stake + at_stake / (len(pairs) * BPS_ONE**2),
        )
        if process.does_worse(self.rules.alpha):
            return judge.telling(RollbackRule.TEST, bar.ts_ms)
        return judge

    @property
    def symbol_count(self) -> int:
        """Give of how many symbols both models have said something."""
        return len(self.last_stable.keys() & self.last_candidate.keys())

    def verdict(self) -> Verdict:
        """Say what the rows so far come to."""
        told, rules = self.told, self.rules
        cause = None if told is not None else self._waits_for()
        kind = VerdictKind.HOLD
        if told is not None:
            kind = VerdictKind.ROLL_BACK
        elif cause is None:
            kind = VerdictKind.MAY_PROMOTE
        elif self.bars >= rules.bars_max:
            kind, cause = VerdictKind.NO_PROMOTION, None
        low, high = self.bounds.bounds
        scored = self.process.bar_count
        stake = self.at_stake / scored if scored else None
        return Verdict(
            kind=kind,
            rule=told.rule if told is not None else None,
            cause=cause,
            ts_ms=told.ts_ms if told is not None else self.answered_ms,
            bars=self.bars,
            symbols=self.symbol_count,
            labelled=self.labelled,
            findings=told.findings if told is not None else self._findings(),
            loss_low=low,
            loss_high=high,
            brier_difference=self.lost / scored if scored else None,
            brier_low=low * stake if stake is not None else None,
            brier_high=high * stake if stake is not None else None,
        )

    def arm_reports(self) -> tuple[ArmReport, ArmReport]:
        """Report both arms over the window: stable, candidate."""
        bars = tuple(bar for bar, _ in self.window)
        stable = arm_report(bars, RolloutArm.STABLE, self.total.stable)
        return stable, arm_report(bars, RolloutArm.CANDIDATE, self.total.candidate)

    def _waits_for(self) -> HoldCause | None:
        rules = self.rules
        if not self.bars:
            return HoldCause.NO_ROWS
        met = (
            self.bars >= rules.bars_min
            and self.symbol_count >= rules.symbols_min
            and self.labelled >= rules.labelled_min
        )
        if not met:
            return HoldCause.EXPOSURE
        worst = self.bounds.bounds[1] * self.at_stake / self.process.bar_count
        return None if worst * PPM_ONE <= rules.margin_ppm else HoldCause.EVIDENCE

    def telling(self, rule: RollbackRule, ts_ms: int) -> "Judge":
        """Keep what takes the rollout back, with the numbers of now; the first rule stays."""
        if self.told is not None:
            return self
        told = Told(rule=rule, ts_ms=ts_ms, findings=self._findings())
        return msgspec.structs.replace(self, told=told)

    def _findings(self) -> tuple[Finding, ...]:
        tripwires = findings(self.total, self.rules.limits)
        bound = math.ceil(1000 * BPS_ONE / self.rules.alpha_bps)
        found = int(min(_E_VALUE_MAX, 1000.0 * self.process.e_value))
        test = Finding(rule=RollbackRule.TEST, found=found, bound=bound, unit="thousandths")
        return (*tripwires, test)


def judged(
    bars: Sequence[PairedBar], *, rules: JudgeRules, horizon_bars: int, interval_ms: int
) -> Judge:
    """Fold all bars of a rollout: what a monitor that has just started knows.

    A bar's outcomes are taken once a bar is there that closes its horizon or later.

    Args:
        bars: The bars in the order of time, with the outcomes that are known.
        rules: What was declared.
        horizon_bars: How far ahead the candidate's label looks.
        interval_ms: Length of a bar.

    Raises:
        InvalidField: The bars are not in the order of time.
    """
    judge = Judge.start(rules, horizon_bars=horizon_bars)
    place = 0
    for bar in bars:
        judge = judge.after(bar)
        while place < len(bars) and bars[place].ts_ms + horizon_bars * interval_ms <= bar.ts_ms:
            judge = judge.settled(bars[place])
            place += 1
    return judge


def _losses(pairs: Sequence[tuple[int, int, bool]]) -> tuple[int, int]:
    """Give what a bar's candidate lost, and what its answers put at stake, as `paired_loss` does.

    Integers, so that no order of the symbols changes a digit.

    Args:
        pairs: Candidate, stable model, outcome; basis points.

    Returns:
        Sums over the symbols, in 10^-8 of a Brier score; the first is within the second.
    """
    lost = at_stake = 0
    for candidate, stable, label in pairs:
        if_down = candidate * candidate - stable * stable
        # (1 - q)^2 - (1 - p)^2, without a second square.
        if_up = if_down - 2 * BPS_ONE * (candidate - stable)
        lost += if_up if label else if_down
        at_stake += max(abs(if_up), abs(if_down))
    return lost, at_stake


def _last_said(judge: Judge, bar: PairedBar) -> tuple[Mapping[str, int], Mapping[str, int]]:
    stable, candidate = dict(judge.last_stable), dict(judge.last_candidate)
    for row in bar.rows:
        if row.stable is not None and row.stable.p_bps is not None:
            stable[row.symbol] = row.stable.p_bps
        if row.candidate.p_bps is not None:
            candidate[row.symbol] = row.candidate.p_bps
    return stable, candidate
