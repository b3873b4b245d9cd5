"""Follows what only a strategist knows through real processes: row, model, record, replay."""

import concurrent.futures
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.builders import OTHER_SYMBOL, SYMBOL, TRIGGER, close_ms, plan_of, row_of
from tests.caller_artifact import FIFTEEN, fifteen_name_artifact, fifteen_said, quoted
from tests.conftest import PATIENT, Artifacts, client_of
from tests.strategist import Bars, fresh_plan_id, recorded
from typer.testing import CliRunner

from detent.contracts.binding import SignalSource
from detent.contracts.calls.feature import ModelInput, SnapshotView
from detent.contracts.decision import DecisionRow
from detent.contracts.errors import DecisionConflict, InvalidField
from detent.contracts.reasons import ErrorReason, Reason
from detent.core.features.history import SymbolHistory
from detent.core.features.model_input import build_model_input
from detent_cli.main import app
from detent_cli.stack import Stack, StackOptions
from detent_client import DetentClient, OpenedPlan, read_binding

BARS = 40


@pytest.fixture(name="artifact", scope="module")
def _artifact(artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fifteen_name_artifact(artifacts.stable, tmp_path_factory.mktemp("fifteen"))


@pytest.fixture(name="fifteen", scope="module", params=[False, True], ids=["three", "single"])
def _fifteen(
    artifact: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Serve the artifact from real processes: three of them, and one."""
    options = StackOptions(
        artifact_dir=artifact,
        state_dir=tmp_path_factory.mktemp("stack"),
        single=request.param,
        environment=PATIENT,
    )
    with Stack(options) as stack:
        yield stack


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Is where one strategist sits: the processes, its client and its plan on both symbols."""

    stack: Stack
    client: DetentClient
    plan: OpenedPlan
    target: tuple[str, str]

    @property
    def plan_id(self) -> str:
        return self.plan.plan.plan_id


@pytest.fixture(name="desk")
async def _desk(fifteen: Stack, artifact: Path, bars: Bars, tmp_path: Path) -> AsyncIterator[Desk]:
    """Feed what every symbol needs and open a plan of its own."""
    async with client_of(fifteen, tmp_path / "journal.jsonl") as client:
        for symbol in (SYMBOL, OTHER_SYMBOL):
            answer = await client.ingest(quoted(bars[symbol][:BARS]), deadline_s=10.0)
            # A quote of the test before is late by now; whatever else is refused is a defect.
            assert {count.reason for count in answer.refusal_counts} <= {ErrorReason.DATA_LATE}
        plan = plan_of(fresh_plan_id(), (SYMBOL, OTHER_SYMBOL))
        opened = await client.open_plan(plan, read_binding(artifact))
        target = ("--target", fifteen.targets["policy"])
        yield Desk(stack=fifteen, client=client, plan=opened, target=target)


def asked(bars: Bars, index: int, symbol: str = SYMBOL, **changes: Any) -> DecisionRow:
    return row_of(symbol, close=bars[symbol][index].close, **changes)


@pytest.mark.proves("R34", "R83")
async def test_plan_on_the_seeds_fifteen_names_is_answered_by_its_model(
    desk: Desk, bars: Bars
) -> None:
    history = SymbolHistory(SYMBOL, FIFTEEN.engine)
    for event in quoted(bars[SYMBOL][:BARS]):
        if event.quote is not None:
            history.add_quote(event.quote)
        if event.bar is not None:
            history.add_bar(event.bar)
    beliefs = []
    for index, trend in ((20, "-2"), (21, "0"), (22, "2")):
        said = fifteen_said(trend_strength=trend)
        row = asked(bars, index, caller_features=said[::-1])
        decision = await desk.client.decide(desk.plan, ts_ms=bars[SYMBOL][index].ts_ms, row=row)
        beliefs.append(decision.p_hat_bps)
        offline = build_model_input(
            FIFTEEN,
            history,
            as_of_ts_ms=bars[SYMBOL][index].ts_ms,
            view=SnapshotView.INPUT,
            caller_values={one.name: one.value for one in said},
        )
        record = recorded(desk.stack.ledger_file, desk.plan_id)[-1]
        assert decision.signal_source is SignalSource.MODEL
        assert isinstance(offline, ModelInput)
        assert record["features_hash"] == offline.features_hash

    # What the model believes follows what it was told of the trend.
    assert beliefs[0] < 4_000
    assert beliefs == sorted(beliefs)
    assert beliefs[2] > 6_000


@pytest.mark.proves("R45", "R83")
async def test_rows_that_say_too_little_or_too_much_cost_the_others_nothing(
    desk: Desk, bars: Bars
) -> None:
    ts_ms = bars[SYMBOL][25].ts_ms
    whole, extra = fifteen_said(), fifteen_said(position_size_usd="1")
    rows = [asked(bars, 25), asked(bars, 25, OTHER_SYMBOL, caller_features=whole)]
    silent, said = await desk.client.decide_many(desk.plan, ts_ms=ts_ms, rows=rows)
    later = bars[SYMBOL][26].ts_ms
    rows = [
        asked(bars, 26, caller_features=extra),
        asked(bars, 26, OTHER_SYMBOL, caller_features=whole[1:]),
    ]
    undeclared, partial = await desk.client.decide_many(desk.plan, ts_ms=later, rows=rows)
    with pytest.raises(InvalidField) as alone:
        await desk.client.decide(desk.plan, ts_ms=later, row=asked(bars, 26, caller_features=extra))

    assert silent.decision is not None
    assert silent.decision.fallback_reason is Reason.FEATURES_MISSING
    assert said.decision is not None
    assert said.decision.fallback_reason is None
    assert undeclared.refusal is not None
    assert undeclared.refusal.reason is ErrorReason.INVALID_FIELD
    assert partial.decision is not None
    assert partial.decision.fallback_reason is Reason.FEATURES_MISSING
    assert (alone.value.field, alone.value.found) == ("caller_features", "position_size_usd")
    assert alone.value.expected.startswith("a caller feature of the feature set: grid_levels_")


@pytest.mark.proves("R51", "R212", "R218")
async def test_record_with_words_outlives_its_process_and_replays_to_the_same_bytes(
    desk: Desk, bars: Bars
) -> None:
    ts_ms = bars[SYMBOL][30].ts_ms
    row = asked(bars, 30, caller_features=fifteen_said(momentum_1h="-1.50"))
    other = asked(bars, 30, caller_features=fifteen_said(momentum_1h="-1.51"))
    first = await desk.client.decide(desk.plan, ts_ms=ts_ms, row=row)
    name = desk.stack.names[-1]
    desk.stack.kill(name)
    desk.stack.start(name)
    again = await desk.client.decide(desk.plan, ts_ms=ts_ms, row=row)
    replayed = await desk.client.replay_decision(first.record_hash)
    with pytest.raises(DecisionConflict, match=r"momentum_1h=-1\.5, not momentum_1h=-1\.51"):
        await desk.client.decide(desk.plan, ts_ms=ts_ms, row=other)

    (record,) = recorded(desk.stack.ledger_file, desk.plan_id)
    assert again == first
    assert replayed.replayed_json == replayed.recorded_json == record["canonical"]
    assert '{"name":"momentum_1h","value":"-1.5"}' in record["canonical"]


async def test_words_can_be_given_and_read_by_hand(desk: Desk, bars: Bars, tmp_path: Path) -> None:
    bar = bars[SYMBOL][35]
    words = [
        *("decide", "--plan-id", desk.plan_id, "--symbol", SYMBOL, "--trigger-id", TRIGGER),
        *("--ts-ms", str(bar.ts_ms), "--close", str(bar.close), "--trigger", "long_allowed"),
        *("--vol-hat-ppm", "150000", "--journal", str(tmp_path / "j"), *desk.target, "--json"),
    ]
    for one in fifteen_said(trend_strength="1.25"):
        words += ["--caller", f"{one.name}={one.value}"]

    decision = json_of(run(*words))
    listed = json_of(run("ledger", "list", "--plan-id", desk.plan_id, *desk.target, "--json"))
    replayed = run("ledger", "replay", decision["record_hash"], *desk.target)

    assert (decision["signal_source"], decision["fallback_reason"]) == ("model", None)
    said = {one["name"]: one["value"] for one in listed["records"][0]["row"]["caller_features"]}
    assert said == dict.fromkeys(FIFTEEN.caller_names, "0") | {"trend_strength": "1.25"}
    assert replayed.exit_code == 0
    assert "the same bytes" in replayed.output
    assert "trend_strength" in replayed.output


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        pytest.param("trend_strength", ("caller", "trend_strength", "name=value"), id="no value"),
        pytest.param("trend_strength=1e3", ("caller.value", "1e3", "plain decimal"), id="exponent"),
        pytest.param("=1", ("caller.name", "", "1 to 128"), id="no name"),
        pytest.param("no_such=1", ("caller_features", "no_such", "trend"), id="undeclared"),
    ],
)
async def test_word_by_hand_that_is_none_is_refused(
    desk: Desk, tmp_path: Path, text: str, refusal: tuple[str, str, str]
) -> None:
    field, found, expected = refusal
    refused = run(
        *("decide", "--plan-id", desk.plan_id, "--symbol", SYMBOL, "--ts-ms", str(close_ms(36))),
        *("--close", "100", "--trigger", "inactive", "--caller", text, "--json"),
        *("--journal", str(tmp_path / "j"), *desk.target),
    )

    assert refused.exit_code == 2
    error = json.loads(refused.stdout)["error"]
    assert error["reason"] == "INVALID_FIELD"
    assert (error["metadata"]["field"], error["metadata"]["found"]) == (field, found)
    assert expected in error["message"]


def run(*words: str) -> Any:
    """Run a command that has an event loop of its own."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(CliRunner().invoke, app, list(words)).result()


def json_of(result: Any) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
