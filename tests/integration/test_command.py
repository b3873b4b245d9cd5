"""Types the commands as a person and as a program would, and reads what they print."""

import json
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.builders import HORIZON, SYMBOL, TRIGGER, bar_series
from tests.conftest import Artifacts, client_of
from tests.strategist import Strategist, feed, recorded
from typer.testing import CliRunner

from detent.contracts.plan import TriggerState
from detent_cli.main import app
from detent_cli.stack import Stack, free_port

RUNNER = CliRunner()


def run(*words: str) -> Any:
    return RUNNER.invoke(app, list(words))


def json_of(result: Any) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(name="decided")
async def _decided(stack: Stack, artifacts: Artifacts, tmp_path: Path) -> Strategist:
    """Decide five bars of a plan of its own."""
    async with client_of(stack, tmp_path / "journal.jsonl") as client:
        await feed(client, artifacts.bars)
        strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
        for index in range(200, 205):
            await strategist.decide(index)
    return strategist


def bars_csv(path: Path, *, count: int) -> Path:
    lines = ["ts_ms,symbol,open,high,low,close,volume"]
    for bar in bar_series(SYMBOL, seed=3, count=count):
        open_ms = bar.ts_ms - bar.interval_ms
        numbers = (bar.open, bar.high, bar.low, bar.close, bar.volume)
        lines.append(",".join([str(open_ms), SYMBOL, *map(str, numbers)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_every_command_explains_itself() -> None:
    for words in (
        (),
        ("demo",),
        ("up",),
        ("decide",),
        ("stand-down",),
        ("artifact", "build"),
        ("artifact", "verify"),
        ("artifact", "show"),
        ("artifact", "diff"),
        ("artifact", "import"),
        ("artifact", "sign"),
        ("data", "check"),
        ("features", "build"),
        ("features", "describe"),
        ("features", "diff"),
        ("features", "audit"),
        ("ledger", "list"),
        ("ledger", "verify"),
        ("ledger", "replay"),
    ):
        result = run(*words, "--help")
        assert result.exit_code == 0, words
        assert words == () or "--json" in result.output, words


@pytest.mark.proves("R63")
def test_an_artifact_is_built_shown_and_verified(tmp_path: Path) -> None:
    data = bars_csv(tmp_path / "bars.csv", count=700)
    words = ("--created-at", "2024-01-15T10:30:00Z", "--horizon-id", HORIZON, "--json")
    built = json_of(
        run("artifact", "build", "--data", str(data), "--out", str(tmp_path / "a"), *words)
    )
    folder = tmp_path / "a" / "direction_logistic_v1.0.0"
    shown = json_of(run("artifact", "show", str(folder), "--json"))
    verified = json_of(run("artifact", "verify", str(folder), "--json"))

    assert shown == built
    assert verified["verified"] is True
    assert verified["binding_hash"] == built["binding"]["binding_hash"]
    # Brackets in a label are text, not markup.
    assert "close[t+4]" in run("artifact", "show", str(folder)).output


@pytest.mark.proves("R63")
def test_a_tampered_artifact_is_refused_with_its_gate(artifacts: Artifacts, tmp_path: Path) -> None:
    folder = tmp_path / artifacts.stable.name
    shutil.copytree(artifacts.stable, folder)
    with (folder / "model.onnx").open("ab") as model:
        model.write(b"x")
    for_a_person = run("artifact", "verify", str(folder))
    for_a_program = run("artifact", "verify", str(folder), "--json")

    unusable = run("artifact", "verify", str(tmp_path / "none_v1.0.0"))
    assert for_a_person.exit_code == for_a_program.exit_code == 1
    assert unusable.exit_code == 2
    assert "ARTIFACT_DIR_MISSING" in unusable.stderr
    assert "MANIFEST_INVALID" in for_a_person.stderr
    assert "model.onnx" in for_a_person.stderr
    assert json.loads(for_a_program.stdout)["error"]["reason"] == "MANIFEST_INVALID"


def test_a_data_file_that_is_not_usable_is_refused_by_row_and_column(tmp_path: Path) -> None:
    data = bars_csv(tmp_path / "bars.csv", count=5)
    lines = data.read_text().splitlines()
    data.write_text("\n".join([*lines, lines[-1]]) + "\n")
    result = run("demo", "--data", str(data), "--out", str(tmp_path / "out"), "--json")

    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["reason"] == "DATA_INVALID"
    assert error["metadata"]["row"] == "6"
    assert error["metadata"]["column"] == "ts_ms"


async def test_the_ledger_can_be_listed_verified_and_replayed(
    stack: Stack, decided: Strategist
) -> None:
    where = ("--plan-id", decided.plan_id, "--target", stack.targets["policy"])
    listed = json_of(run_in_thread("ledger", "list", *where, "--limit", "3", "--json"))
    rest = json_of(
        run_in_thread("ledger", "list", *where, "--after", listed["next_page_token"], "--json")
    )
    verified = json_of(run_in_thread("ledger", "verify", *where, "--json"))
    record_hash = listed["records"][0]["record_hash"]
    replayed = json_of(
        run_in_thread("ledger", "replay", record_hash, "--target", where[3], "--json")
    )

    assert [record["sequence"] for record in (*listed["records"], *rest["records"])] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert (verified["record_count"], verified["breaks"]) == (5, [])
    assert replayed["reproduced"] is True
    assert replayed["replayed_hash"] == record_hash


async def test_a_decision_can_be_asked_for_by_hand(
    stack: Stack, decided: Strategist, tmp_path: Path
) -> None:
    bar = decided.bars[205]
    words = [
        *("decide", "--plan-id", decided.plan_id, "--symbol", SYMBOL, "--ts-ms", str(bar.ts_ms)),
        *("--close", str(bar.close), "--trigger", TriggerState.LONG_ALLOWED.value),
        *("--trigger-id", TRIGGER, "--vol-hat-ppm", "150000", "--journal", str(tmp_path / "j")),
        *("--target", stack.targets["policy"]),
    ]
    answered = json_of(run_in_thread(*words, "--json"))
    again = run_in_thread(*words)
    older = run_in_thread(*words[:5], "--ts-ms", str(decided.bars[100].ts_ms), *words[7:])

    assert answered["signal_source"] == "model"
    assert answered["record_hash"] in again.output.replace("\n", "").replace("│", "").replace(
        " ", ""
    )
    assert older.exit_code == 2
    assert "BAR_OUT_OF_ORDER" in older.stderr


@pytest.mark.proves("R220")
async def test_a_book_is_stood_down_and_let_go_by_hand(
    stack: Stack, decided: Strategist, artifacts: Artifacts, tmp_path: Path
) -> None:
    bars, plan = decided.bars, decided.opened.plan
    until = datetime.fromtimestamp(bars[207].ts_ms / 1_000, UTC).isoformat()
    where = ("stand-down", plan.book, "--target", stack.targets["policy"])
    told = ("--until", until, "--reason", "exchange halt")

    answers = [json_of(run_in_thread(*where, *told, "--json")) for _ in range(2)]
    async with client_of(stack, tmp_path / "journal-2.jsonl") as client:
        decided.client = client
        finals = [(await decided.decide(205)).target_weight_final_ppm]
        lifted = run_in_thread(*where, "--lift")
        finals.append((await decided.decide(206)).target_weight_final_ppm)

    assert [(one["changed_count"], one["known_count"]) for one in answers] == [(1, 0), (0, 1)]
    assert lifted.exit_code == 0
    assert "the whole book" in lifted.output
    assert finals[0] == 0
    rows = recorded(stack.ledger_file, plan.plan_id)[-2:]
    assert [row["stand_down_reason"] for row in rows] == ["exchange halt", None]


@pytest.mark.proves("R220")
@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("--until", "2026-11-21T18:00:00", "--reason", "x"), "until"),
        (("--until", "tomorrow", "--reason", "x"), "until"),
        (("--reason", "x"), "until"),
        (("--until", "2026-11-21T18:00:00Z"), "reason"),
        (("--until", "1970-01-01T00:00:00Z", "--reason", "x"), "until_ts_ms"),
        (("--lift", "--reason", "x"), "reason"),
        (("--symbol", "eurusd", "--lift"), "symbols"),
    ],
    ids=str,
)
def test_a_stand_down_that_is_half_said_is_refused(words: tuple[str, ...], field: str) -> None:
    """An end without its zone would be another instant on another machine."""
    result = run("stand-down", "book", *words, "--json")

    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["metadata"]["field"] == field


def run_in_thread(*words: str) -> Any:
    """Run a command that has an event loop of its own."""
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(run, *words).result()


def test_a_service_that_is_away_is_an_error_and_not_a_stack_trace() -> None:
    result = run("ledger", "verify", "--target", f"127.0.0.1:{free_port()}")

    assert result.exit_code == 2
    assert "SERVICE_UNAVAILABLE" in result.stderr


def test_up_refuses_an_acknowledgement_that_is_not_the_one(artifacts: Artifacts) -> None:
    words = ("up", "--artifact", str(artifacts.stable), "--ack", "[b]yes")
    result = run(*words)
    for_program = run(*words, "--json")

    assert (result.exit_code, for_program.exit_code) == (2, 2)
    assert "BAD_ACK" in result.stderr
    assert "'[b]yes'" in result.stderr
    error = json.loads(for_program.stdout)["error"]
    assert (error["reason"], error["metadata"]["found"]) == ("BAD_ACK", "[b]yes")


def test_up_serves_until_it_is_told_to_stop(artifacts: Artifacts, tmp_path: Path) -> None:
    ports = [
        word
        for name in ("feature", "inference", "policy")
        for word in (f"--{name}-port", str(free_port()))
    ]
    words = ["up", "--artifact", str(artifacts.stable), "--state", str(tmp_path), *ports, "--json"]
    program = f"from detent_cli.main import app; app({words!r})"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        said = json.loads("".join(lines))
        verified = run("ledger", "verify", "--target", said["targets"]["policy"], "--json")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0

    assert said["active"] is False
    assert set(said["pids"]) == {"feature", "inference", "policy"}
    assert json_of(verified)["record_count"] == 0
    stopped = run("ledger", "verify", "--target", said["targets"]["policy"])
    assert stopped.exit_code == 2
