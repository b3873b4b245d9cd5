"""Talk to Detent as a strategist does: open a plan, decide every bar, never be left alone.

    async with DetentClient(ClientOptions(journal_file=Path("local.jsonl"))) as client:
        opened = await client.open_plan(plan, binding)
        decision = await client.decide(opened, ts_ms=ts_ms, row=row)

When no service answers in time, `decide` answers by itself: it holds or reduces, journals
that answer, and reports it once a service is back. `infer_signals` asks for the heads that
advise the strategist itself; for the regime and toxicity it always has an answer, too.
`Replanner` says when it is time to think a plan over, and replaces it in one step.
`follow_rollout` replans whenever the rollout changes that a plan was opened under.
`stream_decisions` asks for many bars over one stream, with the promises of `decide`.
"""

from detent_client.binding_file import read_binding
from detent_client.client import DetentClient
from detent_client.decision_stream import DecisionStream, StreamedDecisions
from detent_client.opened_plan import OpenedPlan
from detent_client.options import ClientOptions
from detent_client.plan_calls import Replanned
from detent_client.replanner import Proposal, Replanner
from detent_client.rollout_following import follow_rollout
from detent_client.signal_answer import SignalAnswer

__all__ = [
    "ClientOptions",
    "DecisionStream",
    "DetentClient",
    "OpenedPlan",
    "Proposal",
    "Replanned",
    "Replanner",
    "SignalAnswer",
    "StreamedDecisions",
    "follow_rollout",
    "read_binding",
]
