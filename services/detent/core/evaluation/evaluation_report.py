"""Hold what an evaluation found, and refuse a report that cannot be relied upon.

A report is JSON with sorted keys beside a file with its SHA-256. The check has eleven answers,
asked in a fixed order: whoever relies on a report learns why it does not hold. A report does not
vouch for itself: its gates have to be what its measures give under the profile of that name.

Source: rows R133, R341 and R343; FORMULAS, fill probability and evidence artifacts.
"""

import json
from enum import StrEnum
from typing import Any, ClassVar, TypeVar

import msgspec

from detent.contracts.canonical import JsonValue, parse_json, sha256_hex
from detent.contracts.checks import check_count, check_name, check_ts_ms
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.core.evaluation.gates import GateResult
from detent.core.evaluation.measures import Measures
from detent.core.evaluation.profiles import PROFILES, PromotionProfile
from detent.core.evaluation.promotion import judge

# A week, as often as a model is trained again.
MAX_AGE_S = 7 * 86_400
_MAX_AGE_S_MAX = 366 * 86_400
_FUTURE_MS_MAX = 5 * 60_000
_WEIGHTS_MAX = 65_536
R = TypeVar("R", bound=Any)


class ReportCode(StrEnum):
    """Says whether a report may be relied upon, or why not."""

    OK = "ok"
    ENV_INVALID = "env_invalid"
    SHA256_MISMATCH = "sha256_mismatch"
    PARSE_ERROR = "parse_error"
    SCHEMA_UNSUPPORTED = "schema_unsupported"
    MISSING_FIELD = "missing_field"
    BAD_TYPE = "bad_type"
    OUT_OF_RANGE = "out_of_range"
    MODEL_PROVENANCE_MISMATCH = "model_provenance_mismatch"
    TIMESTAMP_FUTURE = "timestamp_future"
    TIMESTAMP_TOO_OLD = "timestamp_too_old"


class FeatureWeight(msgspec.Struct, frozen=True, kw_only=True):
    """Says how much a feature moves the score: the mean magnitude of its Shapley values.

    Attributes:
        name: The feature.
        weight_ppm: Its mean magnitude, of the sum over all features.
    """

    name: str
    weight_ppm: int


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what an evaluation found.

    Attributes:
        evaluated_at_ms: When, Unix milliseconds.
        profile: The bounds that were asked.
        measures: What was measured.
        gates: What followed.
        weight_method: How the weights were found; None where there are none.
        weights: Features, the heaviest first.
    """

    SCHEMA: ClassVar[str] = "detent.evaluation_report.v1"

    evaluated_at_ms: int
    profile: PromotionProfile
    measures: Measures
    gates: tuple[GateResult, ...]
    weight_method: str | None
    weights: tuple[FeatureWeight, ...]

    def __post_init__(self) -> None:
        """Refuse a report of nothing, and gates that the measures do not give."""
        check_ts_ms("evaluated_at_ms", self.evaluated_at_ms)
        if self.profile != PROFILES.get(self.profile.name):
            raise InvalidField("profile", self.profile.name, "a profile with its own bounds")
        if self.gates != judge(self.profile, self.measures):
            raise InvalidField("gates", "other verdicts", "those that the measures give")
        if self.weight_method is not None:
            check_name("weight_method", self.weight_method)
        check_count("weights", self.weights, 0, _WEIGHTS_MAX)


class ReportCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Says whether a report may be relied upon.

    Attributes:
        code: The answer.
        detail: What was found; empty where it holds.
        report: The report, where it could be read.
    """

    code: ReportCode
    detail: str
    report: EvaluationReport | None


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """Says why a text is no report."""

    code: ReportCode
    detail: str


def evidence_bytes(fields: dict[str, JsonValue]) -> bytes:
    """Give the text of an evidence file: keys sorted, two spaces, a newline at the end."""
    return (json.dumps(fields, sort_keys=True, indent=2, ensure_ascii=True) + "\n").encode("ascii")


def report_bytes(report: EvaluationReport) -> bytes:
    """Give the text of a report."""
    return evidence_bytes({"schema": EvaluationReport.SCHEMA, **to_json(report)})


def check_report(
    text: bytes,
    *,
    sha256: str | None,
    model_version_hash: str,
    now_ms: int,
    max_age_s: str = str(MAX_AGE_S),
) -> ReportCheck:
    """Say whether a report may be relied upon for an artifact, now.

    Args:
        text: The report.
        sha256: What the file beside it says; None where there is none.
        model_version_hash: Manifest hash of the artifact, 64 hex.
        now_ms: The time, Unix milliseconds.
        max_age_s: Oldest age that is taken, seconds, as the environment has it.
    """
    read = read_report(EvaluationReport, text, sha256=sha256, max_age_s=max_age_s)
    if isinstance(read, Unreadable):
        return ReportCheck(code=read.code, detail=read.detail, report=None)
    report = read
    found = report.measures.origin.model_version_hash
    code, detail = age_finding(report.evaluated_at_ms, now_ms=now_ms, max_age_s=max_age_s)
    if found != model_version_hash:
        code = ReportCode.MODEL_PROVENANCE_MISMATCH
        detail = f"a report of {found[:16]}, expected {model_version_hash[:16]}"
    return ReportCheck(code=code, detail=detail, report=report)


def read_report(
    kind: type[R], text: bytes, *, sha256: str | None, max_age_s: str
) -> "R | Unreadable":
    """Read a report of some kind, or say under which code it cannot be relied upon.

    Args:
        kind: What it should be; its `SCHEMA` has to be the text's.
        text: The report.
        sha256: What the file beside it says; None where there is none.
        max_age_s: Oldest age that will be taken, seconds, as the environment has it.
    """
    if not (max_age_s.isascii() and max_age_s.isdigit() and 1 <= int(max_age_s) <= _MAX_AGE_S_MAX):
        found = f"oldest age {max_age_s!r}, expected seconds in [1, {_MAX_AGE_S_MAX}]"
        return Unreadable(code=ReportCode.ENV_INVALID, detail=found)
    if sha256 is None or sha256_hex(text) != sha256:
        found = f"SHA-256 {sha256_hex(text)}, expected {sha256 or 'a file that says which'}"
        return Unreadable(code=ReportCode.SHA256_MISMATCH, detail=found)
    try:
        fields = parse_json("report", text)
    except InvalidField as error:
        return Unreadable(code=ReportCode.PARSE_ERROR, detail=error.message)
    if fields.get("schema") != kind.SCHEMA:
        found = f"schema {fields.get('schema')!r}"
        return Unreadable(code=ReportCode.SCHEMA_UNSUPPORTED, detail=found)
    try:
        return from_json(kind, fields)
    except InvalidField as error:
        return Unreadable(code=_field_code(error), detail=error.message)


def age_finding(at_ms: int, *, now_ms: int, max_age_s: str) -> tuple[ReportCode, str]:
    """Say whether something of an instant is from the future or too old, and by how much."""
    age_ms = now_ms - at_ms
    if -age_ms > _FUTURE_MS_MAX:
        return ReportCode.TIMESTAMP_FUTURE, f"{-age_ms} ms ahead"
    if age_ms > int(max_age_s) * 1000:
        return ReportCode.TIMESTAMP_TOO_OLD, f"{age_ms // 1000} s old"
    return ReportCode.OK, ""


def _field_code(error: InvalidField) -> ReportCode:
    """Name what is wrong with a field: absent, unknown, of another type, beyond its range."""
    if error.found == "(missing)":
        return ReportCode.MISSING_FIELD
    if error.found == "(unknown field)":
        return ReportCode.SCHEMA_UNSUPPORTED
    is_typed = error.expected.startswith(("a value", "an object", "a list", "a JSON "))
    return ReportCode.BAD_TYPE if is_typed else ReportCode.OUT_OF_RANGE
