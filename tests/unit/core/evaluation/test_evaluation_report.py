"""Reports of an evaluation: eleven answers to whether one may be relied upon."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.core.evaluation.promotion_cases import MODEL_HASH, good_measures

from detent.contracts.canonical import sha256_hex
from detent.core.evaluation.evaluation_report import (
    EvaluationReport,
    FeatureWeight,
    ReportCheck,
    ReportCode,
    check_report,
    report_bytes,
)
from detent.core.evaluation.profiles import STANDARD
from detent.core.evaluation.promotion import judge

NOW_MS = 1_750_000_000_000
HOUR_MS = 3_600_000


def report(at_ms: int = NOW_MS - HOUR_MS) -> EvaluationReport:
    measures = good_measures()
    return EvaluationReport(
        evaluated_at_ms=at_ms,
        profile=STANDARD,
        measures=measures,
        gates=judge(STANDARD, measures),
        weight_method="shapley_linear",
        weights=(FeatureWeight(name="return_1", weight_ppm=1_000_000),),
    )


def edited(edit: Callable[[dict[str, Any]], object]) -> bytes:
    fields = json.loads(report_bytes(report()))
    edit(fields)
    return json.dumps(fields).encode()


def checked(text: bytes, **changes: Any) -> ReportCheck:
    asked: dict[str, Any] = {
        "sha256": sha256_hex(text),
        "model_version_hash": MODEL_HASH,
        "now_ms": NOW_MS,
    }
    return check_report(text, **(asked | changes))


GOOD = report_bytes(report())
CODES: dict[ReportCode, Callable[[], ReportCheck]] = {
    ReportCode.OK: lambda: checked(GOOD),
    ReportCode.ENV_INVALID: lambda: checked(GOOD, max_age_s="a week"),
    ReportCode.SHA256_MISMATCH: lambda: checked(GOOD, sha256="0" * 64),
    ReportCode.PARSE_ERROR: lambda: checked(b"{"),
    ReportCode.SCHEMA_UNSUPPORTED: lambda: checked(edited(lambda f: f.update(schema="v0"))),
    ReportCode.MISSING_FIELD: lambda: checked(edited(lambda f: f["measures"].pop("trading"))),
    ReportCode.BAD_TYPE: lambda: checked(edited(lambda f: f.update(evaluated_at_ms="now"))),
    ReportCode.OUT_OF_RANGE: lambda: checked(edited(lambda f: f.update(evaluated_at_ms=5))),
    ReportCode.MODEL_PROVENANCE_MISMATCH: lambda: checked(GOOD, model_version_hash="b" * 64),
    ReportCode.TIMESTAMP_FUTURE: lambda: checked(report_bytes(report(NOW_MS + 300_001))),
    ReportCode.TIMESTAMP_TOO_OLD: lambda: checked(report_bytes(report(NOW_MS - 604_801_000))),
}


@pytest.mark.proves("R343")
@pytest.mark.parametrize("code", ReportCode)
def test_every_code_is_reached(code: ReportCode) -> None:
    found = CODES[code]()

    assert found.code is code
    assert (found.detail == "") is (code is ReportCode.OK)


@pytest.mark.proves("R343")
def test_there_are_eleven_codes() -> None:
    assert len(ReportCode) == 11
    assert checked(GOOD).report == report()


@pytest.mark.parametrize(
    ("at_ms", "code"),
    [
        pytest.param(NOW_MS + 300_000, ReportCode.OK, id="five-minutes-ahead"),
        pytest.param(NOW_MS - 604_800_000, ReportCode.OK, id="a-week-old"),
    ],
)
def test_the_oldest_and_the_newest_report_that_are_taken(at_ms: int, code: ReportCode) -> None:
    assert checked(report_bytes(report(at_ms))).code is code


def test_a_report_does_not_vouch_for_its_own_verdicts() -> None:
    """Whoever edits a number, a verdict or a bound, and the hash beside it, gains nothing."""
    edits: tuple[Callable[[dict[str, Any]], object], ...] = (
        lambda f: f["measures"]["sample"].update(row_count=5),
        lambda f: f["gates"].pop(),
        lambda f: f["gates"][0].update(verdict="failed"),
        lambda f: f["profile"].update(row_count_min=1),
        lambda f: f["profile"].update(name="lenient"),
        lambda f: f["measures"].update(trading=None),
    )

    assert {checked(edited(edit)).code for edit in edits} == {ReportCode.OUT_OF_RANGE}


@pytest.mark.proves("R341")
@given(place=st.integers(0, len(GOOD) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found(place: int, bit: int) -> None:
    flipped = bytearray(GOOD)
    flipped[place] ^= 1 << bit

    found = check_report(
        bytes(flipped), sha256=sha256_hex(GOOD), model_version_hash=MODEL_HASH, now_ms=NOW_MS
    )
    assert found.code is ReportCode.SHA256_MISMATCH


@pytest.mark.proves("R133", "R134")
def test_a_report_holds_what_promotion_asks_for_and_the_bounds_of_it() -> None:
    fields = json.loads(GOOD)
    measures = fields["measures"]

    assert {"brier_ppb", "ece_ppm"} <= measures["calibration"].keys()
    assert {"turnover_ppm", "slippage_bps_x1000", "pnl_volatility_ppm"} <= measures["trading"][
        "model"
    ].keys()
    assert fields["profile"]["turnover_ratio_max_ppm"] == 100_000
    assert {"name", "number", "bound", "verdict", "evidence"} == fields["gates"][0].keys()
    assert GOOD.endswith(b"}\n")
    assert list(fields) == sorted(fields)
