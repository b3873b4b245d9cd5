"""Check a ledger: settle its bars, record how they turned out, judge every model.

A check depends on the ledger alone and recording is idempotent, so a second monitor, or one that
was killed in the middle, changes nothing and says the same.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from detent.adapters.ledger_reading import LedgerReader
from detent.adapters.ledger_watching import Watched, read_inputs, read_watched
from detent.contracts import events
from detent.contracts.calls.policy import RecordOutcomesRequest
from detent.contracts.errors import DetentError
from detent.contracts.monitoring import MonitorRules
from detent.contracts.trades import Outcome
from detent.contracts.units import ROWS_MAX
from detent.core.evaluation.distances import Floats
from detent.core.evaluation.joining import DecidedBar, labels_by_key, settled_outcomes
from detent.core.evaluation.monitoring import Draws, Inputs, ModelReport, assess
from detent.rpc.call import Call
from detent.servers.monitor.gauges import MonitorGauges
from detent.servers.monitor.ports import Outcomes

log = logging.getLogger(__name__)
NOTHING: Mapping[str, Floats] = {}


class Monitor:
    """Checks one ledger, over and over."""

    def __init__(
        self,
        reader: LedgerReader,
        *,
        rules: MonitorRules,
        draws: Draws,
        bars_max: int,
        outcomes: Outcomes | None = None,
        calls: Callable[[], Call] | None = None,
        feature_names: Mapping[str, Sequence[str]] | None = None,
        reference: Mapping[str, Floats] = NOTHING,
    ) -> None:
        """Read nothing yet.

        Args:
            reader: The ledger.
            rules: What alerts.
            draws: Where the null bands' draws come from.
            bars_max: The newest so many bars are looked at.
            outcomes: Who keeps outcomes; None keeps none.
            calls: Gives the frame of a call; needed with `outcomes`.
            feature_names: Names of the features by binding hash.
            reference: Rows of the training per feature; empty takes what was served before.
        """
        self._reader = reader
        self._rules = rules
        self._draws = draws
        self._bars_max = bars_max
        self._outcomes = outcomes
        self._calls = calls
        self._feature_names = feature_names or {}
        self._reference = reference
        self.recorded_count = 0
        self.is_current = False

    async def check(self) -> list[ModelReport]:
        """Make one check; `recorded_count` then says how many outcomes were new.

        Raises:
            DetentError: The ledger cannot be read, or outcomes cannot be recorded.
        """
        watched = await asyncio.to_thread(read_watched, self._reader, bars_max=self._bars_max)
        held = [(one.plan_id, one.symbol, one.ts_ms) for one in watched.outcomes]
        settled = settled_outcomes(watched.bars, watched.plans, held)
        self.recorded_count = await self._record(watched, settled)
        return await asyncio.to_thread(self._judge, watched, settled)

    async def run(self, gauges: MonitorGauges, now_ms: Callable[[], int]) -> None:
        """Check until cancelled; a check that fails is said, and tried again in its turn."""
        while True:
            try:
                reports = await self.check()
            except DetentError as error:
                self.is_current = False
                gauges.failed()
                facts = {"reason": error.reason.value, "error": error.message}
                log.error(events.MONITOR_FAILED, extra=facts)  # noqa: TRY400  No traceback.
            else:
                self.is_current = True
                gauges.show(reports, recorded_count=self.recorded_count, now_ms=now_ms())
                say(reports, self.recorded_count)
            await asyncio.sleep(self._rules.check_interval_s)

    async def _record(self, watched: Watched, settled: Sequence[Outcome]) -> int:
        """Put new outcomes on the durable record, plan by plan; gives how many it took."""
        if self._outcomes is None or self._calls is None:
            return 0
        by_plan: dict[str, list[Outcome]] = defaultdict(list)
        for one in settled:
            by_plan[one.plan_id].append(one)
        accepted = 0
        for plan_id, found in by_plan.items():
            for start in range(0, len(found), ROWS_MAX):
                query = RecordOutcomesRequest(
                    binding_hash=watched.plans[plan_id].binding_hash,
                    plan_id=plan_id,
                    outcomes=tuple(found[start : start + ROWS_MAX]),
                )
                response = await self._outcomes.record_outcomes(query, self._calls())
                accepted += response.accepted_count
        return accepted

    def _judge(self, watched: Watched, settled: Sequence[Outcome]) -> list[ModelReport]:
        labels = labels_by_key([*watched.outcomes, *settled])
        by_binding: dict[str, list[DecidedBar]] = defaultdict(list)
        for bar in watched.bars:
            by_binding[watched.plans[bar.plan_id].binding_hash].append(bar)
        return [
            assess(
                bars,
                labels,
                watched.plans[bars[-1].plan_id],
                self._inputs(binding_hash, bars),
                rules=self._rules,
                draws=self._draws,
            )
            for binding_hash, bars in by_binding.items()
        ]

    def _inputs(self, binding_hash: str, bars: Sequence[DecidedBar]) -> Inputs:
        names = self._feature_names.get(binding_hash, ())
        current = read_inputs(self._reader, bars, names) if names else NOTHING
        reference = self._reference if set(self._reference) == set(current) else NOTHING
        return Inputs(current=current, reference=reference)


def say(reports: Sequence[ModelReport], recorded_count: int) -> None:
    """Log what a check found: one line, and one per alert."""
    facts = {
        "models": len(reports),
        "bars": sum(report.bar_count for report in reports),
        "recorded": recorded_count,
    }
    log.info(events.MONITOR_CHECKED, extra=facts)
    for report in reports:
        for alert in report.alerts:
            source = alert.signal_source
            about = {
                "kind": alert.kind.value,
                "binding_hash": alert.binding_hash,
                "signal_source": source.value if source is not None else None,
                "found": alert.message,
            }
            log.warning(events.MONITOR_ALERT, extra=about)
