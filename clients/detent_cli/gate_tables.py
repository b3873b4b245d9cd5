"""Print gates, each with its number, its bound and its verdict."""

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from detent.contracts.json_codec import to_json
from detent.core.evaluation.gates import GateResult, Verdict, is_promotable, not_passed
from detent_cli.output import print_rows

_MARKS = {
    Verdict.PASSED: Text("passed", style="green"),
    Verdict.FAILED: Text("FAILED", style="bold red"),
    Verdict.INSUFFICIENT: Text("NO EVIDENCE", style="bold yellow"),
}


def judged(gates: Sequence[GateResult], *, verdict: str) -> dict[str, Any]:
    """Give gates as JSON, and under the name of the verdict whether all passed."""
    return {
        verdict: is_promotable(gates),
        "gates": [to_json(gate) for gate in gates],
        "refused_by": [gate.name for gate in not_passed(gates)],
    }


def print_gates(title: str, gates: Sequence[GateResult]) -> None:
    """Print gates as a table."""
    columns = ("gate", "number", "bound", "verdict", "of")
    rows = [
        (gate.name, gate.number or "-", gate.bound, _MARKS[gate.verdict], gate.evidence)
        for gate in gates
    ]
    print_rows(title, columns, rows, whole=("gate", "verdict"))
