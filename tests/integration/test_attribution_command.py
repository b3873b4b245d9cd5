"""Proves that what a ledger holds can be attributed from the command line, tags and all."""

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec import structs
from tests.attributed import EQUITY, LONG, plain_plan
from tests.builders import call_of, model_binding, row_of
from tests.fakes import PolicyHost
from tests.service.policy_calls import ask, open_plan
from tests.trades import LEARNING_BOOK, TAGS, calm, fill_of, outcome_of
from typer.testing import CliRunner

from detent.contracts.calls.policy import RecordFillsRequest, RecordOutcomesRequest
from detent.contracts.canonical import canonical_bytes
from detent.contracts.decision import Decision
from detent.contracts.json_codec import to_json
from detent.contracts.learning import LearningBook
from detent.contracts.plan import OrderStyle, Plan, TriggerState
from detent.contracts.trades import Fill, Side
from detent_cli.main import app

CLOSES = [Decimal(200) - number for number in range(40)]
PROFIT = plain_plan("earner")
LEARNING = structs.replace(
    plain_plan("student", symbols=("GBPUSD",)),
    book=LEARNING_BOOK,
    learning=LearningBook(tags=TAGS),
)


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["attribution", *map(str, arguments)])
    return result.exit_code, result.output


def fill_for(plan: Plan, decision: Decision, delta: Decimal, close: Decimal) -> Fill:
    """Give the fill that a strategist makes of a decision; it passes the tags on."""
    return fill_of(
        f"{plan.plan_id}-{decision.ts_ms}",
        Side.BUY if delta > 0 else Side.SELL,
        abs(delta),
        close,
        plan_id=plan.plan_id,
        book=plan.book,
        symbol=decision.symbol,
        ts_ms=decision.ts_ms,
        record_hash=decision.record_hash,
        learning=decision.learning,
    )


async def trade(host: PolicyHost, plan: Plan) -> list[Fill]:
    """Decide a falling market and report what was filled and how it turned out."""
    await open_plan(host, plan, host.binding)
    fills: list[Fill] = []
    weight_ppm, held = 0, Decimal(0)
    symbol = plan.symbols[0]
    for bar, close in enumerate(CLOSES):
        trigger = TriggerState.INACTIVE if bar % 5 == 4 else LONG
        row = row_of(symbol, close=close, weight_ppm=weight_ppm, trigger_state=trigger)
        if plan.learning is not None:
            row = structs.replace(row, learning=calm())
        result = (await ask(host, row, bar=bar, plan=plan)).results[0]
        assert result.decision is not None, result.refusal
        if result.decision.order_style is OrderStyle.NONE:
            continue
        weight_ppm = result.decision.target_weight_final_ppm
        target = round(Decimal(weight_ppm) * EQUITY / 1_000_000 / close, 6)
        if target != held:
            fills.append(fill_for(plan, result.decision, target - held, close))
        held = target
    names = {"binding_hash": host.binding.binding_hash, "plan_id": plan.plan_id}
    await host.handler.record_fills(RecordFillsRequest(**names, fills=tuple(fills)), call_of())
    outcomes = tuple(
        outcome_of(bar, plan_id=plan.plan_id, symbol=symbol) for bar in range(len(CLOSES))
    )
    await host.handler.record_outcomes(RecordOutcomesRequest(**names, outcomes=outcomes), call_of())
    return fills


def traded(ledger: Path, *plans: Plan) -> list[Fill]:
    async def all_of() -> list[Fill]:
        binding = model_binding(horizon_id=plans[0].policy_config.horizon_id)
        async with PolicyHost(ledger, binding) as host:
            return [fill for plan in plans for fill in await trade(host, plan)]

    return asyncio.run(all_of())


@pytest.mark.proves("R248", "R353")
def test_ledger_is_attributed_and_drawn(tmp_path: Path) -> None:
    traded(tmp_path / "l.sqlite", PROFIT)
    page = tmp_path / "page.html"

    code, printed = run("--ledger", tmp_path / "l.sqlite", "--report", page)
    as_json, text = run("--ledger", tmp_path / "l.sqlite", "--json")
    found = json.loads(text)["profit"]

    assert (code, as_json) == (0, 0)
    assert "trigger" in printed
    assert found["residual"] == "0"
    assert found["verdict"]["primary"] == "trigger"
    assert sum(Decimal(layer["amount"]) for layer in found["layers"]) == Decimal(found["total"])
    assert sum(Decimal(item["net"]) for item in found["trade_sets"]) == Decimal(found["total"])
    assert len(found["trade_sets"]) == 8
    assert found["source"]["outcome_count"] == len(CLOSES)
    assert "data:image/png;base64," in page.read_text(encoding="utf-8")


@pytest.mark.proves("R250", "R352")
def test_tags_reach_the_report_and_learning_is_in_no_profit(tmp_path: Path) -> None:
    """Signal, order, fill, trade set, ledger, report: one set of tags all the way."""
    traded(tmp_path / "alone.sqlite", PROFIT)
    fills = traded(tmp_path / "both.sqlite", PROFIT, LEARNING)
    learned = [fill for fill in fills if fill.plan_id == LEARNING.plan_id]

    _, alone = run("--ledger", tmp_path / "alone.sqlite", "--json")
    code, both = run("--ledger", tmp_path / "both.sqlite", "--json")
    found = json.loads(both)

    assert learned
    assert {fill.learning for fill in learned} == {TAGS}
    assert code == 0
    assert found["breaches"] == []
    assert found["profit"] == json.loads(alone)["profit"]
    (book,) = found["learning"]
    (experiment,) = found["experiments"]
    assert book["name"] == LEARNING_BOOK
    assert Decimal(experiment["net"]) == Decimal(book["total"]) < 0
    assert (experiment["experiment_id"], experiment["experiment_variant"]) == ("wider-stops", "b")


def lines(path: Path, facts: Sequence[Any]) -> Path:
    texts = [canonical_bytes(fact.SCHEMA, to_json(fact)) for fact in facts]
    path.write_bytes(b"\n".join(texts))
    return path


@pytest.mark.proves("R250")
def test_trade_that_changed_its_tags_is_found(tmp_path: Path) -> None:
    """The control: one fill under another experiment's name is a breach, and exit 1."""
    fills = traded(tmp_path / "l.sqlite", LEARNING)
    other = structs.replace(TAGS, experiment_id="another")
    forged = structs.replace(fills[0], fill_id="forged", learning=other)
    path = lines(tmp_path / "more.jsonl", [forged])

    code, text = run("--ledger", tmp_path / "l.sqlite", "--fills", path, "--json")

    assert code == 1
    assert any("forged" in breach for breach in json.loads(text)["breaches"])


def test_fills_come_from_files_and_the_same_fill_counts_once(tmp_path: Path) -> None:
    fills = traded(tmp_path / "l.sqlite", PROFIT)
    table = pa.Table.from_pylist([to_json(fill) for fill in fills])
    pq.write_table(table, tmp_path / "f.parquet")
    by_lines = lines(tmp_path / "f.jsonl", fills)
    _, plain = run("--ledger", tmp_path / "l.sqlite", "--json")

    for path in (tmp_path / "f.parquet", by_lines):
        assert run("--ledger", tmp_path / "l.sqlite", "--fills", path, "--json") == (0, plain)


def broken(tmp_path: Path) -> dict[str, Path]:
    """Write files that are none."""
    fill = fill_of("f1", plan_id="earner", book=PROFIT.book)
    files = {
        "missing": tmp_path / "missing.jsonl",
        "suffix": tmp_path / "fills.txt",
        "text": tmp_path / "text.jsonl",
        "float": tmp_path / "float.jsonl",
        "field": tmp_path / "field.jsonl",
        "parquet": tmp_path / "fills.parquet",
        "conflict": lines(tmp_path / "c.jsonl", [structs.replace(fill, fill_id="f")]),
    }
    files["suffix"].write_text("x")
    files["text"].write_text("not json\n")
    files["float"].write_text('{"price": 1.5}\n')
    files["field"].write_bytes(
        canonical_bytes(Fill.SCHEMA, to_json(fill)) + b'\n{"fill_id":"f2"}\n'
    )
    files["parquet"].write_text("no parquet")
    return files


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("missing", "FileNotFoundError"),
        ("suffix", ".txt"),
        ("text", "row 1"),
        ("float", "1.5"),
        ("field", "row 2"),
        ("parquet", "ArrowInvalid"),
    ],
)
def test_bad_files_are_refused_by_what_was_found(tmp_path: Path, which: str, says: str) -> None:
    traded(tmp_path / "l.sqlite", PROFIT)
    code, text = run(
        "--ledger", tmp_path / "l.sqlite", "--fills", broken(tmp_path)[which], "--json"
    )
    error = json.loads(text)["error"]

    assert code == 2
    assert error["reason"] == "DATA_INVALID"
    assert says in error["message"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--plan-id", "nobody"], "DATA_INVALID"),
        (["--plan-score", "101"], "INVALID_FIELD"),
    ],
    ids=str,
)
def test_bad_question_is_refused(tmp_path: Path, arguments: list[str], reason: str) -> None:
    traded(tmp_path / "l.sqlite", PROFIT)
    code, text = run("--ledger", tmp_path / "l.sqlite", *arguments, "--json")

    assert code == 2
    assert json.loads(text)["error"]["reason"] == reason


def test_a_plan_that_took_over_a_position_is_not_attributed_alone(tmp_path: Path) -> None:
    """Read alone, what it sold would count as sold short, and what it held as nothing."""
    ledger = tmp_path / "l.sqlite"
    (bought, *_) = traded(ledger, PROFIT)
    before = structs.replace(bought, fill_id="earlier", plan_id="before", record_hash=None)
    flat = structs.replace(before, fill_id="back", side=Side.SELL)
    answers = []
    for fills in ((before,), (before, flat)):
        file = tmp_path / "fills.jsonl"
        file.write_bytes(b"".join(canonical_bytes(Fill.SCHEMA, to_json(f)) + b"\n" for f in fills))
        answers.append(
            run("--ledger", ledger, "--plan-id", PROFIT.plan_id, "--fills", file, "--json")
        )

    (code, text), (flat_code, _) = answers
    error = json.loads(text)["error"]
    assert (code, error["reason"], flat_code) == (2, "DATA_INVALID", 0)
    assert "which took over" in error["message"]


def test_a_probability_that_no_core_wrote_is_refused_by_its_name(tmp_path: Path) -> None:
    """Whoever edits a ledger may write anything; what it earned is not told from that."""
    ledger = tmp_path / "l.sqlite"
    traded(ledger, PROFIT)
    with closing(sqlite3.connect(ledger)) as db, db:
        db.execute("DROP TRIGGER decision_records_no_update")
        db.execute(
            "UPDATE decision_records SET canonical = json_set(canonical,"
            " '$.signal.proxy_p_hat_bps', -1, '$.signal.proxy_reason', null)"
        )
    code, text = run("--ledger", ledger, "--json")
    error = json.loads(text)["error"]

    assert (code, error["reason"]) == (2, "INVALID_FIELD")
    assert error["metadata"]["field"] == "proxy_p_hat_bps"
    assert "found '-1'" in error["message"]


@pytest.mark.parametrize("content", [None, b"", b"no database" * 100])
def test_ledger_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    ledger = tmp_path / "l.sqlite"
    if content is not None:
        ledger.write_bytes(content)
    code, text = run("--ledger", ledger, "--json")

    assert code == 2
    assert json.loads(text)["error"]["reason"] in ("DATA_INVALID", "LEDGER_UNAVAILABLE")
