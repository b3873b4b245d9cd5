"""Proves what a strategist of a back-test permits, and that its plan says by what."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.backtests import market_of_walk
from tests.builders import START_MS

from detent.contracts.errors import DataInvalid, InvalidField
from detent.core.policy.columns import INACTIVE, LONG
from detent.offline.backtesting.account import Costs
from detent.offline.backtesting.asking import question_of
from detent.offline.backtesting.backtest import Question, plan_named, proxy_setup


def asked(**changes: Any) -> Question:
    """Give what the command asks by default."""
    options: dict[str, Any] = {
        "name": "small",
        "policy": None,
        "artifact": None,
        "trigger": "trend",
        "trigger_bars": None,
        "trigger_file": None,
        "shorts": None,
        "vol_bars": 10,
        "execution": "next_bar",
        "costs": Costs(),
        "cash": 1_000_000.0,
        "max_signal_age_ms": None,
        "records": False,
    }
    return question_of(**{**options, **changes})


def permissions(path: Path, *states: str) -> Path:
    """Write what is permitted on the first bars of AAA."""
    times_ms = market_of_walk(30).ts_ms[: len(states)].tolist()
    rows = [f"{ts_ms},AAA,{state}\n" for ts_ms, state in zip(times_ms, states, strict=True)]
    path.write_text("ts_ms,symbol,trigger_state\n" + "".join(rows))
    return path


def parameters_hash(question: Question) -> str:
    plan = plan_named(question, market_of_walk(30), source="proxy")
    return plan.triggers[0].parameters_hash


def test_a_plan_covers_what_its_trigger_file_says(tmp_path: Path) -> None:
    """Two files that permit other things are two triggers, wherever they lie."""
    one = permissions(tmp_path / "one.csv", "long_allowed")
    same = permissions(tmp_path / "same.csv", "long_allowed")
    other = permissions(tmp_path / "other.csv", "short_allowed")
    hashes = [
        parameters_hash(asked(trigger="file", trigger_file=file)) for file in (one, same, other)
    ]

    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


@pytest.mark.parametrize(
    ("rule", "published"),
    [
        ("trend", "0d9418763ef9bc5eb2ddc6ddbae56fffbd46b8bdc77222fba143fc4ec77fbc40"),
        ("always_long", "17c68583a2d126a4e77075b45110b05746d599ec589fe3a3eb28571aa2f0fc8e"),
    ],
)
def test_a_trigger_without_a_file_keeps_its_hash(rule: str, published: str) -> None:
    assert parameters_hash(asked(trigger=rule)) == published


@pytest.mark.parametrize("option", [{"trigger_bars": 12}, {"shorts": False}, {"shorts": True}])
@pytest.mark.parametrize("rule", ["always_long", "file"])
def test_what_a_rule_would_not_look_at_is_refused(rule: str, option: dict[str, Any]) -> None:
    """It would change the plan's hash and nothing else."""
    with pytest.raises(InvalidField, match=f"nothing beside the rule {rule}"):
        asked(trigger=rule, **option)


def test_a_file_that_is_not_the_one_in_the_plan_permits_nothing(tmp_path: Path) -> None:
    """It may have been written anew between the plan and its bars."""
    file = permissions(tmp_path / "file.csv", "long_allowed", "exit_only")
    question = asked(trigger="file", trigger_file=file)
    permitted = proxy_setup(question, market_of_walk(30)).trigger

    assert permitted[0].tolist() == [LONG, INACTIVE, INACTIVE]
    permissions(file, "short_allowed")
    with pytest.raises(DataInvalid, match=r"file\.csv: found [0-9a-f]{64}, expected the content"):
        proxy_setup(question, market_of_walk(30))


def test_a_rule_by_file_without_its_file_is_refused() -> None:
    with pytest.raises(DataInvalid, match="found no file, expected one"):
        proxy_setup(asked(trigger="file"), market_of_walk(30))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param("1717200000,AAA,long_allowed", "column ts_ms: .*seconds x 1000", id="seconds"),
        pytest.param("1717200000000.5,AAA,long_allowed", "column ts_ms", id="fraction"),
        pytest.param("1717200000000,,long_allowed", "column symbol", id="no-symbol"),
        pytest.param("1717200000000,AAA", "column trigger_state: found None", id="short"),
        pytest.param("1717200000000,AAA,long", "found long, expected one of inactive", id="state"),
    ],
)
def test_a_row_of_permissions_that_is_none_is_named(row: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    file.write_text(f"ts_ms,symbol,trigger_state\n{row}\n")

    with pytest.raises(DataInvalid, match=rf"file\.csv, row 1.*{message}"):
        proxy_setup(asked(trigger="file", trigger_file=file), market_of_walk(30))


@pytest.mark.parametrize("row", ["", "1717200000001,AAA,long_allowed\n"])
def test_a_file_of_permissions_of_no_bar_is_refused(row: str, tmp_path: Path) -> None:
    """Otherwise a file of other bars would look like a strategist that never permits."""
    file = tmp_path / "file.csv"
    file.write_text(f"ts_ms,symbol,trigger_state\n{row}")

    with pytest.raises(DataInvalid, match="none of them of a bar, expected closes of the bars"):
        proxy_setup(asked(trigger="file", trigger_file=file), market_of_walk(30))


def test_a_symbol_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file.parquet"
    columns = {"ts_ms": [START_MS], "symbol": [["AAA"]], "trigger_state": ["long_allowed"]}
    pq.write_table(pa.table(columns), file)

    with pytest.raises(DataInvalid, match="row 1, column symbol"):
        proxy_setup(asked(trigger="file", trigger_file=file), market_of_walk(30))


def test_a_file_of_permissions_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"gone\.csv: found .*No such file"):
        asked(trigger="file", trigger_file=tmp_path / "gone.csv")
