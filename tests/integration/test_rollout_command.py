"""Types `detent rollout` as an operator would: up, told off, back, and with the database alone."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Artifacts
from tests.rollout_host import (
    BY,
    PLAN,
    SYMBOLS,
    RolloutHost,
    client_of,
    set_percent,
    start_request,
)
from typer.testing import CliRunner

from detent_cli.main import app
from detent_cli.stack import free_port

WHO = ("--actor", BY["actor"], "--reason", BY["reason"])
COMMANDS = ("start", "percent", "promote", "rollback", "history", "list", "watch")


def rollout(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["rollout", *words], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


@pytest.mark.proves("R333")
async def test_an_operator_rolls_out_and_takes_back_in_one_command(
    tmp_path: Path, artifacts: Artifacts
) -> None:
    async with RolloutHost(tmp_path) as rig:
        for binding in (artifacts.stable_binding, artifacts.candidate_binding):
            rig.host.hold(binding)

        async def asked(*words: str, code: int = 0) -> Any:
            return await asyncio.to_thread(rollout, *words, "--target", rig.host.target, code=code)

        names = ("--stable", str(artifacts.stable), "--candidate", str(artifacts.candidate))
        start = ("start", "r4", "--book", "main", "--symbols", "BTCUSDT,EURUSD", *names, *WHO)
        empty = await asked(*start, "--step", "0.01,0", "--step", "100,0", code=2)
        wrong = await asked(*start, "--step", "five,0", code=2)
        shown = await asked(*start, "--step", "50,1,5,10", "--step", "100,0")
        percent = ("percent", "r4", "50", *WHO)
        raised = json.loads((await asked(*percent, "--revision", "1", "--json")).stdout)
        stale = await asked(*percent, "--revision", "1", code=2)
        held = await asked("percent", "r4", "100", *WHO, code=2)
        await asked("promote", "r4", *WHO, "--override", "drill")
        back = json.loads((await asked("rollback", "r4", *WHO, "--json")).stdout)
        history = json.loads((await asked("history", "r4", "--json")).stdout)
        listed = await asked("list", "--book", "main")
        watched = await asked("watch", "--changes", "1")

    assert "ROLLOUT_ARM_EMPTY" in empty.output
    assert "INVALID_FIELD" in wrong.output
    assert "What the test finds" in shown.stdout
    assert raised["rollout"]["canary_bps"] == 5_000
    assert raised["rollout"]["ramp"][0] == {
        "canary_bps": 5_000,
        "hold_ms": 3_600_000,
        "caps": {"max_weight_ppm": 50_000, "max_exposure_ppm": 100_000},
    }
    assert "ROLLOUT_REVISION_STALE" in stale.output
    assert "ROLLOUT_HOLD" in held.output
    assert back["rollout"]["stage"] == "rolled_back"
    assert [one["action"] for one in history["history"]] == [
        "started",
        "percent_set",
        "promoted",
        "rolled_back",
    ]
    assert "rolled_back" in listed.stdout
    assert "r4" in watched.stdout


async def test_closing_one_arm_says_that_the_other_one_goes_on(tmp_path: Path) -> None:
    async with RolloutHost(tmp_path) as rig, client_of(rig, tmp_path) as client:
        started = await client.start_rollout(start_request(SYMBOLS))
        await set_percent(client, started.rollout, 5_000)
        await client.open_under_rollout(PLAN, "r1")

        async def closed(plan_id: str) -> Any:
            words = ["plan", "close", plan_id, "--json", "--target", rig.host.target]
            result = await asyncio.to_thread(CliRunner().invoke, app, words)
            return json.loads(result.output)

        one, other = await closed("plan"), await closed("plan:candidate")

    assert one == {"plan_id": "plan", "status": "closed", "still_open": "plan:candidate"}
    assert other == {"plan_id": "plan:candidate", "status": "closed"}


async def test_where_no_service_answers_the_database_takes_it_back(
    tmp_path: Path, artifacts: Artifacts
) -> None:
    control = f"sqlite:///{tmp_path}/control.sqlite"
    async with RolloutHost(tmp_path) as rig:
        rig.host.hold(artifacts.candidate_binding)
        names = ("--stable", "proxy", "--candidate", str(artifacts.candidate))
        start = ("start", "r4", "--book", "main", "--symbols", "BTCUSDT", *names, *WHO)
        target = ("--target", rig.host.target)
        await asyncio.to_thread(rollout, *start, "--step", "100,0", *target)
    nobody = ("rollback", "r4", *WHO, "--target", f"127.0.0.1:{free_port()}")
    await asyncio.to_thread(rollout, *nobody, code=2)
    done = await asyncio.to_thread(rollout, *nobody, "--control", control, "--json")

    assert '"stage": "rolled_back"' in done.stdout


@pytest.mark.parametrize("share", ["1e9999", "1e999999999", "-1e9999", "NaN", "Infinity", "five"])
def test_a_share_that_is_no_share_is_refused_before_anybody_is_asked(share: str) -> None:
    words = ("percent", "r4", *WHO, "--revision", "1", "--target", f"127.0.0.1:{free_port()}")
    refused = rollout(*words, "--", share, code=2)

    assert "INVALID_FIELD percent" in refused.output
    assert "a number" in refused.output


def test_evidence_that_is_no_json_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    file.write_text('{"brier": better}')
    words = ("rollback", "r4", *WHO, "--evidence", str(file), "--target", "127.0.0.1:1")
    refused = rollout(*words, code=2)

    assert "INVALID_FIELD evidence" in refused.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_by_an_example(command: str) -> None:
    assert "Example: detent rollout" in rollout(command, "--help").stdout
