"""Follow a rollout as its rows come in: fold what is whole, and look ahead at what is not.

A bar is whole once a later one is there. What a bar says is acted on before that, so the newest
bars are judged provisionally, in a state that is thrown away; what is kept depends on whole bars
alone, in their order.

Source: DESIGN section 4; row R118.
"""

from collections.abc import Sequence

import msgspec
from msgspec import structs

from detent.core.rollout.judge import Judge, JudgeRules
from detent.core.rollout.paired_rows import PairedBar

MINUTE_MS = 60_000


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """Holds where a rollout stands.

    Attributes:
        kept: The judge after all whole bars.
        seen: The judge after every row there is: what is acted on.
    """

    kept: Judge
    seen: Judge

    @classmethod
    def start(cls, rules: JudgeRules, *, horizon_bars: int) -> "Followed":
        """Begin with no rows."""
        judge = Judge.start(rules, horizon_bars=horizon_bars)
        return cls(kept=judge, seen=judge)

    @property
    def settled_ms(self) -> int:
        """Give the last bar that need not be read again; -1 before the first."""
        return -1 if self.kept.settled_ms is None else self.kept.settled_ms

    def after(self, bars: Sequence[PairedBar], *, horizon_ms: int) -> "Followed":
        """Take the bars after the last settled one, as they are known now.

        Args:
            bars: All of them, in the order of time.
            horizon_ms: How far ahead the label looks.
        """
        if not bars:
            return self
        kept = _kept(self.kept, bars, horizon_ms)
        return Followed(kept=kept, seen=_seen(kept, bars, horizon_ms))


def _kept(judge: Judge, bars: Sequence[PairedBar], horizon_ms: int) -> Judge:
    """Fold the whole bars."""
    newest_ms = bars[-1].ts_ms
    # One that waits for an answer is given the time until the bar after the next.
    sure_ms = bars[-2].ts_ms if len(bars) > 1 else -1
    for bar in _later(bars, judge.answered_ms):
        if bar.ts_ms < sure_ms or (bar.ts_ms < newest_ms and _is_paired(bar)):
            judge = judge.after(bar)
        else:
            break
    for bar in _later(bars, judge.settled_ms):
        is_known = judge.answered_ms is not None and bar.ts_ms <= judge.answered_ms
        # The bar that tells of it is whole itself.
        if not is_known or bar.ts_ms + horizon_ms >= newest_ms:
            break
        judge = judge.settled(bar)
    return judge


def _seen(judge: Judge, bars: Sequence[PairedBar], horizon_ms: int) -> Judge:
    """Fold every row there is."""
    newest_ms = bars[-1].ts_ms
    for bar in _later(bars, judge.answered_ms):
        # Nobody is blamed for what the other has not had the time to answer.
        paired = tuple(row for row in bar.rows if row.stable is not None)
        if paired:
            judge = judge.after(structs.replace(bar, rows=paired))
    for bar in _later(bars, judge.settled_ms):
        if bar.ts_ms + horizon_ms <= newest_ms:
            judge = judge.settled(bar)
    return judge


def _later(bars: Sequence[PairedBar], than_ms: int | None) -> list[PairedBar]:
    return [bar for bar in bars if than_ms is None or bar.ts_ms > than_ms]


def _is_paired(bar: PairedBar) -> bool:
    return all(row.stable is not None for row in bar.rows)


def is_quiet(newest_ms: int, *, now_ms: int, interval_ms: int, bars: int) -> bool:
    """Say whether a rollout has had no row for some bars, in which nobody can judge it.

    Args:
        newest_ms: Close of its newest bar, or when it last changed if that is later.
        now_ms: Now, Unix milliseconds.
        interval_ms: Length of a bar; a minute at least, also where no plan says.
        bars: How many bars may be missing.
    """
    return now_ms - newest_ms > (bars + 1) * max(interval_ms, MINUTE_MS)
