"""Types the commands of plans as a person and as a program would, and kills what they ask."""

import asyncio
import contextlib
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.builders import HOUR_MS, START_MS, plan_of, policy_config, row_of
from tests.fakes import PolicyHost
from tests.integration.test_ledger_durability import Policy, policy_process
from tests.service.policy_calls import open_plan
from tests.service.replan_calls import looser, next_of, replace
from tests.strategist import ledger_rows
from typer.testing import CliRunner

from detent.contracts.binding import PROXY_BINDING
from detent.contracts.errors import DetentError
from detent.contracts.json_codec import to_json
from detent_cli.main import app
from detent_client import ClientOptions, DetentClient, OpenedPlan

PLAN = plan_of("first")


def run(*words: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["plan", *map(str, words)])
    return found.exit_code, found.output


def json_of(*words: object) -> Any:
    code, text = run(*words, "--json")
    assert code == 0, text
    return json.loads(text)


@pytest.fixture(name="policy")
def _policy(tmp_path: Path) -> Iterator[Policy]:
    with policy_process(tmp_path, "full") as policy:
        yield policy


def at(policy: Policy, *words: object) -> Any:
    return json_of(*words, "--target", policy.target)


@pytest.mark.parametrize("words", [("open",), ("replace", "first", "second")], ids=" ".join)
def test_a_folder_without_an_artifact_binds_nothing(
    policy: Policy, tmp_path: Path, words: tuple[str, ...]
) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(to_json(PLAN)))
    at(policy, "open", "--plan", file)
    asked = (*words, "--plan", file, "--artifact", tmp_path, "--target", policy.target)
    code, printed = run(*asked, "--json")
    error = json.loads(printed)["error"]

    assert (code, error["reason"]) == (2, "INVALID_FIELD")
    assert error["metadata"]["expected"] == "the folder of an artifact"


def test_a_plan_is_opened_replaced_rolled_back_and_closed(policy: Policy, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(to_json(PLAN)))
    opened = at(policy, "open", "--plan", file)
    found = at(policy, "get", "first")
    assert (opened["plan_id"], found["status"]) == ("first", "open")

    same = at(policy, "replace", "first", "second", "--at-ms", START_MS)
    found["plan"]["policy_config"]["tau_bps"] = 400
    file.write_text(json.dumps(found))
    other = at(policy, "replace", "first", "second", "--plan", file, "--at-ms", START_MS)
    early = at(policy, "replace", "second", "third", "--plan", file, "--at-ms", START_MS)
    found["plan"]["policy_config"]["tau_bps"] = 300
    file.write_text(json.dumps(found))
    looser_now = at(policy, "replace", "second", "third", "--plan", file, "--at-ms", START_MS)

    outcomes = [answer["outcome"] for answer in (same, other, early, looser_now)]
    assert outcomes == ["suppressed", "replaced", "suppressed", "skipped"]
    assert looser_now["not_before_ts_ms"] == START_MS + 900_000
    assert at(policy, "get", "second")["plan"]["policy_config"]["tau_bps"] == 400
    code, printed = run("replace", "second", "third", "--proxy", "--target", policy.target)
    assert (code, "suppressed" in printed) == (0, True)
    assert at(policy, "close", "second") == {"plan_id": "second", "status": "closed"}
    code, printed = run("replace", "second", "third", "--proxy", "--target", policy.target)
    assert (code, "PLAN_CLOSED" in printed) == (2, True)

    counted = json_of("metrics", PLAN.book, "--from", tmp_path / "ledger.sqlite")
    assert counted["replan_count"] == 1
    assert counted["no_change_replan_suppressed_count"] == 3
    assert counted["skips"] == [{"reason": "cooldown_not_expired", "record_count": 1}]


@pytest.mark.proves("R235")
def test_a_scripted_day_is_counted_exactly_from_the_ledger(tmp_path: Path) -> None:
    """Eight replans, five that change nothing and twelve too early, over two days."""
    ledger = tmp_path / "day.sqlite"
    quarter_ms, day_ms = 900_000, 86_400_000
    begin = START_MS // day_ms * day_ms

    async def day() -> None:
        async with PolicyHost(ledger, PROXY_BINDING) as host:
            plan = plan_of("p0")
            await open_plan(host, plan, PROXY_BINDING)
            for number in range(1, 9):
                ts_ms = begin + (number if number < 7 else 96 + number) * quarter_ms
                new = next_of(plan, f"p{number}", **looser(500 + number))
                await replace(host, new, plan.plan_id, ts_ms=ts_ms)
                plan = new
                if number < 6:
                    await replace(host, next_of(plan, f"s{number}"), plan.plan_id, ts_ms=ts_ms)
                if number < 7:
                    for early in (1, 2):
                        later = next_of(plan, f"e{number}", **looser(100))
                        await replace(host, later, plan.plan_id, ts_ms=ts_ms + early)

    asyncio.run(day())

    found = json_of("metrics", PLAN.book.replace("first", "p0"), "--from", ledger)
    days = [
        (one["replaced_count"], one["suppressed_count"], one["skipped_count"])
        for one in found["days"]
    ]
    assert days == [(6, 5, 12), (2, 0, 0)]
    assert (found["replan_count"], found["replan_rate_per_day"]) == (8, "4")
    assert found["no_change_replan_suppressed_count"] == 5
    code, printed = run("metrics", "book-p0", "--from", ledger)
    assert (code, "2023-11-14" in printed, "4.000" in printed) == (0, True, True)
    assert run("metrics", "book-p0", "--from", ledger, "--since", "yesterday")[0] == 2


async def replaced_until_killed(policy: Policy, opened: OpenedPlan, folder: Path) -> OpenedPlan:
    """Replace a plan while its service is killed, and give the one that is open afterwards."""
    options = ClientOptions(
        journal_file=folder / "journal.jsonl",
        policy_target=policy.target,
        deadline_s=0.5,
        attempts_max=1,
    )
    number = int(opened.plan.plan_id.removeprefix("p")) + 1
    config = policy_config(tau_bps=5_000 - number)
    new = structs.replace(opened.plan, plan_id=f"p{number}", policy_config=config)
    ts_ms = START_MS + number * HOUR_MS
    async with DetentClient(options) as client:
        for bar in range(3):
            await client.decide(opened, ts_ms=ts_ms - HOUR_MS + bar * 1_000, row=row_of())
        killer = threading.Timer(random.random() * 0.012, policy.kill)
        killer.start()
        with contextlib.suppress(DetentError):
            await client.replace_plan(opened, new, PROXY_BINDING, ts_ms=ts_ms)
        killer.join()
    policy.start()
    options = structs.replace(options, deadline_s=20.0, attempts_max=100)
    async with DetentClient(options) as client:
        old_status = (await client.get_plan(opened.plan.plan_id)).status
        try:
            new_status = (await client.get_plan(new.plan_id)).status
        except DetentError:
            assert old_status == "open"
            return opened
    assert (old_status, new_status) == ("closed", "open")
    return OpenedPlan(plan=new, binding_hash=opened.binding_hash)


async def kill_often(policy: Policy, folder: Path, *, rounds: int) -> set[bool]:
    options = ClientOptions(
        journal_file=folder / "journal.jsonl", policy_target=policy.target, deadline_s=20.0
    )
    async with DetentClient(options) as client:
        opened = await client.open_plan(plan_of("p0"), PROXY_BINDING)
    seen = set()
    for _ in range(rounds):
        after = await replaced_until_killed(policy, opened, folder)
        seen.add(after.plan.plan_id != opened.plan.plan_id)
        opened = after
    events = ledger_rows(folder / "ledger.sqlite", "SELECT plan_id, event FROM plan_log")
    closed = {row["plan_id"] for row in events if row["event"] == "closed"}
    assert {row["plan_id"] for row in events} - closed == {opened.plan.plan_id}
    return seen


async def test_a_service_that_is_killed_leaves_one_plan_of_the_two(
    policy: Policy, tmp_path: Path
) -> None:
    await kill_often(policy, tmp_path, rounds=6)


@pytest.mark.long
async def test_a_service_that_is_killed_two_hundred_times_leaves_one_plan_of_the_two(
    policy: Policy, tmp_path: Path
) -> None:
    assert await kill_often(policy, tmp_path, rounds=200) == {True, False}
