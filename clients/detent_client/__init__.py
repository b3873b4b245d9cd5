"""Talk to Detent as a strategist does: open a plan, decide every bar, never be left alone.

    async with DetentClient(ClientOptions(journal_file=Path("local.jsonl"))) as client:
        opened = await client.open_plan(plan, binding)
        decision = await client.decide(opened, ts_ms=ts_ms, row=row)

When no service answers in time, `decide` answers by itself: it holds or reduces, journals
that answer, and reports it once a service is back.
"""

from detent_client.binding_file import read_binding
from detent_client.client import DetentClient, OpenedPlan
from detent_client.options import ClientOptions

__all__ = ["ClientOptions", "DetentClient", "OpenedPlan", "read_binding"]
