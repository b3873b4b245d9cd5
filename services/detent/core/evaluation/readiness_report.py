"""Hold what the gates to the next phase found, and refuse a report that cannot be relied upon."""

from typing import ClassVar

import msgspec

from detent.contracts.checks import check_ts_ms
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import to_json
from detent.core.evaluation.evaluation_report import (
    ReportCode,
    Unreadable,
    age_finding,
    evidence_bytes,
    read_report,
)
from detent.core.evaluation.gates import GateResult, choice, unmeasured
from detent.core.evaluation.readiness import (
    Phase,
    ReadinessBands,
    ReadinessMeasures,
    readiness_gates,
)

NAME, EVIDENCE = "readiness", "report of `detent ready`"


class ReadinessReport(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what the gates to models found.

    Attributes:
        judged_at_ms: When, Unix milliseconds.
        bands: What was allowed; None allowed nothing.
        measures: What was measured.
        gates: What followed.
    """

    SCHEMA: ClassVar[str] = "detent.readiness_report.v1"

    judged_at_ms: int
    bands: ReadinessBands | None
    measures: ReadinessMeasures
    gates: tuple[GateResult, ...]

    def __post_init__(self) -> None:
        """Refuse gates that the measures do not give."""
        check_ts_ms("judged_at_ms", self.judged_at_ms)
        if self.gates != readiness_gates(Phase.MODELS, self.measures, self.bands):
            raise InvalidField("gates", "other verdicts", "those that the measures give")


def readiness_report(
    measures: ReadinessMeasures, bands: ReadinessBands | None, *, at_ms: int
) -> ReadinessReport:
    """Judge what was measured, once."""
    gates = readiness_gates(Phase.MODELS, measures, bands)
    return ReadinessReport(judged_at_ms=at_ms, bands=bands, measures=measures, gates=gates)


def readiness_bytes(report: ReadinessReport) -> bytes:
    """Give the text of a report."""
    return evidence_bytes({"schema": ReadinessReport.SCHEMA, **to_json(report)})


def prerequisite_gates(
    text: bytes | None, *, sha256: str | None, now_ms: int, max_age_s: str
) -> tuple[GateResult, ...]:
    """Give the gates that have to pass before any model is enabled (R238).

    Args:
        text: A readiness report; None where there is none, which refuses.
        sha256: What the file beside it says; None where there is none.
        now_ms: The time, Unix milliseconds.
        max_age_s: Oldest age that is taken, seconds, as the environment has it.

    Returns:
        Whether the report holds, and where it does, what it found.
    """
    if text is None:
        return (unmeasured(NAME, ReportCode.OK.value, EVIDENCE),)
    report = read_report(ReadinessReport, text, sha256=sha256, max_age_s=max_age_s)
    if isinstance(report, Unreadable):
        return (_held(report.code, report.detail),)
    code, detail = age_finding(report.judged_at_ms, now_ms=now_ms, max_age_s=max_age_s)
    return (_held(code, detail), *(_named(gate) for gate in report.gates))


def _held(code: ReportCode, detail: str) -> GateResult:
    passes = code is ReportCode.OK
    return choice(NAME, code.value, ReportCode.OK.value, detail or EVIDENCE, passes=passes)


def _named(gate: GateResult) -> GateResult:
    # The evaluation has a gate of this name too: there of the model's own fills.
    return msgspec.structs.replace(gate, name=f"{NAME}.{gate.name}")
