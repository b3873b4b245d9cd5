"""Proves that an auditor who asks for what is not there is told so, and gets no verdict."""

import asyncio
import json
import os
import random
import shutil
import sqlite3
import tempfile
import types
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.builders import HOUR_MS, START_MS
from tests.random_decisions import Course, draw_plan, record_courses
from typer.testing import CliRunner

from detent.adapters.ledger_checking import check_completeness
from detent.adapters.ledger_reading import SqliteReader, open_reader
from detent.adapters.sqlite_ledger import SqliteLedger
from detent.contracts.plan import PlanStatus
from detent.core.ledger.completeness import HOLES_MAX
from detent.core.ledger.summary import summarise
from detent_cli.main import app

NOBODY = 65_534


def refusal(*words: object) -> tuple[str, str]:
    """Give the reason and the message with which a command of the ledger ends."""
    found = CliRunner().invoke(app, ["ledger", *map(str, words), "--json"])
    assert found.exit_code == 2, found.output
    error = json.loads(found.stdout)["error"]
    return error["reason"], error["message"]


@pytest.fixture(name="ledger_file", scope="module")
def _ledger_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record some bars of three plans."""
    path = tmp_path_factory.mktemp("questions") / "ledger.sqlite"
    record_courses(path, seed=1, plans=3, bars=4)
    return path


@pytest.fixture(name="key_file", scope="module")
def _key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "anchors.pem"
    found = CliRunner().invoke(app, ["ledger", "anchor-key", "--to", str(path)])
    assert found.exit_code == 0, found.output
    return path.with_suffix(".pub")


def test_anchors_that_are_not_there_leave_a_ledger_without_a_verdict(
    ledger_file: Path, key_file: Path, tmp_path: Path
) -> None:
    """Whoever removes the anchors would else have made a ledger that is whole."""
    anchors = tmp_path / "anchors.jsonl"
    reason, message = refusal(
        "verify", "--from", ledger_file, "--anchors", anchors, "--key", key_file
    )

    assert reason == "LEDGER_UNAVAILABLE"
    assert "anchors.jsonl: FileNotFoundError" in message


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        pytest.param(("--key", "KEY"), "--anchors", id="a key without anchors"),
        pytest.param(("--anchors", "a.jsonl"), "--key", id="anchors without a key"),
    ],
)
def test_half_of_the_evidence_is_refused(
    ledger_file: Path, key_file: Path, options: tuple[str, ...], missing: str
) -> None:
    given = [str(key_file) if one == "KEY" else one for one in options]
    reason, message = refusal("verify", "--from", ledger_file, *given)

    assert (reason, message.split(":")[0]) == ("INVALID_FIELD", missing)


def test_a_service_is_not_asked_about_anchors_that_it_does_not_see(key_file: Path) -> None:
    """It has anchors of its own; those that were named would say nothing."""
    reason, message = refusal("verify", "--anchors", "a.jsonl", "--key", key_file)

    assert (reason, message.split(":")[0]) == ("INVALID_FIELD", "--from")


@pytest.mark.parametrize("command", ["verify", "replay"])
def test_a_plan_that_nobody_has_heard_of_is_neither_whole_nor_the_same(
    ledger_file: Path, command: str
) -> None:
    """No record was looked at, so nothing was found of any."""
    reason, message = refusal(command, "--from", ledger_file, "--plan-id", "mistyped")

    assert (reason, message) == ("PLAN_NOT_FOUND", "no plan is named 'mistyped'")


@pytest.mark.parametrize(
    ("name", "there", "reason"),
    [
        pytest.param("key.pub", (), "INVALID_FIELD", id="one name for both"),
        pytest.param("key.pem", ("key.pem",), "DATA_INVALID", id="a private key is there"),
        pytest.param("key.pem", ("key.pub",), "DATA_INVALID", id="a public key is there"),
        pytest.param("file/key.pem", ("file",), "DATA_INVALID", id="no folder"),
    ],
)
def test_a_key_is_drawn_in_the_place_of_nothing(
    tmp_path: Path, name: str, there: tuple[str, ...], reason: str
) -> None:
    """Anchors that an earlier key has signed are proven by its public half and nothing else."""
    for one in there:
        (tmp_path / one).write_text("earlier")
    found = CliRunner().invoke(app, ["ledger", "anchor-key", "--to", str(tmp_path / name)])

    assert (found.exit_code, reason in found.output) == (2, True), found.output
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(there)
    assert all((tmp_path / one).read_text() == "earlier" for one in there)


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_key_without_a_name_is_refused(name: str) -> None:
    found = CliRunner().invoke(app, ["ledger", "anchor-key", "--to", name])

    assert (found.exit_code, "INVALID_FIELD" in found.output) == (2, True), found.output


def test_a_copy_that_cannot_be_written_is_an_error(ledger_file: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    reason, message = refusal("export", "--from", ledger_file, "--to", tmp_path / "taken")

    assert reason == "DATA_INVALID"
    assert "taken: FileExistsError, expected a folder" in message


EDITS = {
    "a time that is none": "UPDATE decision_records SET ts_ms = 'noon' WHERE id = 2",
    "a time that never comes": f"UPDATE decision_records SET ts_ms = {10**15} WHERE id = 2",
    "a symbol that is none": "UPDATE decision_records SET symbol = x'00ff' WHERE id = 2",
    "no plan": "UPDATE plan_log SET plan = '{}' WHERE id = 1",
    "bars without a length": (
        "UPDATE plan_log SET plan = json_set(plan, '$.bar_interval_ms', 0) WHERE id = 1"
    ),
}


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("a time that is none", "check"),
        ("a time that is none", "export"),
        ("a time that never comes", "check"),
        ("a symbol that is none", "check"),
        ("a symbol that is none", "export"),
        ("no plan", "check"),
        ("bars without a length", "check"),
    ],
    ids=str,
)
def test_what_somebody_wrote_into_a_ledger_is_named(
    ledger_file: Path, tmp_path: Path, name: str, command: str
) -> None:
    """Whoever edits a ledger may write anything; an auditor's command does not fall over it."""
    copy = tmp_path / "ledger.sqlite"
    shutil.copy(ledger_file, copy)
    with closing(sqlite3.connect(copy)) as db, db:
        for table in ("decision_records", "plan_log"):
            db.execute(f"DROP TRIGGER {table}_no_update")
        assert db.execute(EDITS[name]).rowcount == 1
    target = ("--to", tmp_path / "copy") if command == "export" else ()
    reason, _ = refusal(command, "--from", copy, *target)

    assert reason in ("LEDGER_UNAVAILABLE", "INVALID_FIELD")


def test_a_record_of_a_newer_service_is_an_error_by_its_field(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that does not know a field says so; it does not fall over it."""
    answer = types.SimpleNamespace(canonical_json='{"note":"x"}')
    monkeypatch.setattr("detent_cli.ledger.ask_policy", lambda *_: answer)
    reason, message = refusal("get", "0" * 64)

    assert (reason, message.split(":")[0]) == ("INVALID_FIELD", "binding_hash")


@pytest.mark.parametrize(
    ("option", "given", "field"),
    [
        pytest.param("--since", "0001-01-01T00:00:00+05:00", "from_ts_ms", id="before year 1"),
        pytest.param("--until", "9999-12-31T23:59:59-05:00", "until_ts_ms", id="after year 9999"),
        pytest.param("--after", "9" * 23, "page_token", id="a number of no row"),
        pytest.param("--after", "9" * 5_000, "page_token", id="hardly a number"),
    ],
)
def test_what_no_ledger_can_hold_is_refused(
    ledger_file: Path, option: str, given: str, field: str
) -> None:
    reason, message = refusal("list", "--from", ledger_file, option, given)

    assert (reason, message.split(":")[0]) == ("INVALID_FIELD", field)


@pytest.mark.parametrize("command", ["list", "verify", "replay", "check"])
@pytest.mark.parametrize(
    ("place", "found"),
    [
        pytest.param("nowhere.sqlite", "found no file 'nowhere.sqlite'", id="no file"),
        pytest.param(".", "found no file '.'", id="a folder"),
        pytest.param("", "found no file ''", id="a variable that is not set"),
        pytest.param("postgres://ada:secret@db/x", "found postgres://", id="another address"),
    ],
)
def test_a_place_without_a_ledger_is_named(command: str, place: str, found: str) -> None:
    reason, message = refusal(command, "--from", place)

    expected = "expected a ledger file or postgresql://USER@HOST/DATABASE"
    assert reason == "LEDGER_UNAVAILABLE"
    assert message == f"the ledger cannot be read: {found}, {expected}"


@contextmanager
def somebody_else() -> Iterator[None]:
    """Read as one who may write nowhere; permissions do not bind root."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(own)


def test_a_copy_where_nothing_can_be_written_is_read(ledger_file: Path) -> None:
    """An auditor has it on a medium for reading only, or as another user."""
    expected = len(list(SqliteReader(ledger_file).stored("")))
    # Not below the folder of the tests, into which only its owner may look.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy = Path(shutil.copy(ledger_file, folder))
        copy.chmod(0o444)
        folder.chmod(0o555)
        with somebody_else():
            found = len(list(SqliteReader(copy).stored("")))
        folder.chmod(0o755)

    assert found == expected


def test_a_bar_that_a_replan_left_out_is_a_hole(tmp_path: Path) -> None:
    """Neither plan decided anything before and after it, and still it is due."""
    chance = random.Random(4)
    first = Course(chance, draw_plan(chance, "first", symbol_count=1))
    path = tmp_path / "ledger.sqlite"

    async def write() -> None:
        ledger = SqliteLedger(path)
        await ledger.add_plan_event(first.bound, PlanStatus.OPEN)
        await ledger.add_records([*first.bar(), *first.bar()])
        plan_id = first.bound.plan.plan_id
        summary = summarise(plan_id, await ledger.run_rows(plan_id))
        await ledger.add_plan_event(first.bound, PlanStatus.CLOSED, summary=summary.canonical)
        second = first.replaced()
        await ledger.add_plan_event(second.bound, PlanStatus.OPEN)
        second.rest()
        await ledger.add_records([*second.bar(), *second.bar()])
        await ledger.close()

    asyncio.run(write())
    found = check_completeness(open_reader(str(path)))

    assert [run.is_valid for run in found.runs] == [True, True]
    assert [(hole.plan_id, hole.from_ts_ms, hole.bar_count) for hole in found.holes] == [
        ("first-again", START_MS + 2 * HOUR_MS, 1)
    ]


def test_holes_are_counted_beyond_those_that_are_listed(tmp_path: Path) -> None:
    """A number that ends where the list does would say that a bad ledger is a better one."""
    chance = random.Random(5)
    course = Course(chance, draw_plan(chance, "first", symbol_count=1))
    path = tmp_path / "ledger.sqlite"

    async def write() -> None:
        ledger = SqliteLedger(path)
        await ledger.add_plan_event(course.bound, PlanStatus.OPEN)
        written = []
        for _ in range(HOLES_MAX + 3):
            written += course.bar()
            course.rest()
            course.rest()
        await ledger.add_records(written)
        await ledger.close()

    asyncio.run(write())
    found = check_completeness(open_reader(str(path)))
    shown = CliRunner().invoke(app, ["ledger", "check", "--from", str(path)])

    assert (len(found.holes), found.hole_count) == (HOLES_MAX, HOLES_MAX + 2)
    assert found.missing_count == 2 * found.hole_count
    assert (shown.exit_code, f"20 of {HOLES_MAX + 2}" in shown.output) == (1, True)
