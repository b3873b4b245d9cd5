"""Types `detent kill` as an operator would: with a service, and with the database alone."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import PolicyHost
from typer.testing import CliRunner

from detent.adapters.control_database import ControlDatabase
from detent.adapters.kill_reader import KillSwitchReader
from detent.adapters.kill_store import KillStore
from detent.contracts.binding import ModelBinding
from detent.servers.policy.kill_switches import KillSwitches, SharedKills
from detent_cli.main import app
from detent_cli.stack import free_port

BY = ("--actor", "ops", "--reason", "drill")


def kill(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["kill", *words])
    assert result.exit_code == code, result.output
    return result


async def test_an_operator_switches_off_looks_and_releases(
    tmp_path: Path, binding: ModelBinding
) -> None:
    database = ControlDatabase(f"sqlite:///{tmp_path}/control.sqlite")
    shared = SharedKills(KillStore(database), KillSwitchReader(database, "one"))
    kills = KillSwitches(shared=shared, clock=time.monotonic)
    async with PolicyHost(tmp_path / "ledger.sqlite", binding, kills=kills) as host:

        async def asked(*words: str, code: int = 0) -> Any:
            return await asyncio.to_thread(kill, *words, "--target", host.target, code=code)

        done = json.loads((await asked("on", "--scope", "plan:p", *BY, "--json")).stdout)
        shown = (await asked("status")).stdout
        wrong = await asked("off", "--scope", "plan:p", *BY, "--epoch", "9", code=2)
        await asked("off", "--scope", "plan:p", *BY, "--epoch", "1")
        known = json.loads((await asked("status", "--json")).stdout)

    assert (done["kill_switch"]["scope"], done["kill_switch"]["epoch"]) == ("plan", 1)
    assert "plan:p" in shown
    assert "KILL_EPOCH_STALE" in wrong.output
    assert [(one["position"], one["epoch"]) for one in known["kill_switches"]] in (
        [("released", 2)],
        # The replica shows what it read last, a fifth of a second ago.
        [("off", 1)],
    )


def test_where_no_service_answers_the_database_is_asked(tmp_path: Path) -> None:
    control = f"sqlite:///{tmp_path}/control.sqlite"
    nobody = ("--target", f"127.0.0.1:{free_port()}")
    kill("on", "--scope", "global", *BY, *nobody, code=2)
    ControlDatabase(control).migrate()
    kill("on", "--scope", "global", *BY, *nobody, "--control", control)
    status = kill("status", *nobody, "--control", control)

    assert "global" in status.output
    assert KillStore(ControlDatabase(control)).switches()[0].is_on


@pytest.mark.parametrize("words", [("on", "--scope", "global", *BY), ("status",)], ids=str)
def test_a_database_that_is_not_there_is_not_made(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Who mistypes its name would else read that models are off, where nobody obeys it."""
    control = tmp_path / "other" / "control.sqlite"
    nobody = ("--target", f"127.0.0.1:{free_port()}")
    found = kill(*words, *nobody, "--control", f"sqlite:///{control}", "--json", code=2)
    error = json.loads(found.stdout)["error"]

    assert error["reason"] == "CONTROL_UNAVAILABLE"
    assert f"found no file {control}" in error["message"]
    assert not control.parent.exists()


def test_a_scope_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "symbol:NAME" in kill("on", "--scope", "everything", *BY, code=2).output
