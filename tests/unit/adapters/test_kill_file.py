"""Proves the watched file: what it says is off, and in doubt everything is."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.adapters.kill_file import ALL_OFF, BYTES_MAX, KillFile, parse_kill_file
from detent.contracts.errors import InvalidField
from detent.contracts.kill_switch import KillScope
from detent.core.rollout.kill_state import EVERYTHING


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("text", "off"),
    [
        pytest.param("", ALL_OFF, id="empty"),
        pytest.param("# why\n\n", ALL_OFF, id="comments only"),
        pytest.param("global\n", ALL_OFF, id="global"),
        pytest.param("plan:eurusd-1 # drill\n", {(KillScope.PLAN, "eurusd-1")}, id="plan"),
        pytest.param(
            "symbol:BTCUSDT\r\nmodel:direction_v1.0.0",
            {(KillScope.SYMBOL, "BTCUSDT"), (KillScope.MODEL, "direction_v1.0.0")},
            id="two",
        ),
    ],
)
def test_a_file_holds_one_scope_a_line(text: str, off: frozenset[tuple[KillScope, str]]) -> None:
    assert parse_kill_file(text) == off


@pytest.mark.parametrize("line", ["everything", "global:x", "plan:", "symbol", "modle:x", "plan x"])
def test_a_line_that_names_no_scope_is_named(line: str) -> None:
    with pytest.raises(InvalidField, match="line 2"):
        parse_kill_file(f"global\n{line}\n")


@given(st.binary(max_size=200))
def test_no_file_that_exists_leaves_everything_on(content: bytes) -> None:
    """Whatever is in it: each says some scope, and what says none says all."""
    try:
        off = parse_kill_file(content.decode("ascii"))
    except (UnicodeDecodeError, InvalidField):
        return
    assert off


def test_the_file_is_looked_at_five_times_a_second_at_most(tmp_path: Path) -> None:
    path, clock = tmp_path / "kill", Clock()
    file = KillFile(path, clock=clock)
    assert file.off() == frozenset()
    path.touch()

    clock.now_s += 0.19
    assert file.off() == frozenset()
    clock.now_s += 0.02
    assert file.off() == ALL_OFF
    path.unlink()
    clock.now_s += 0.21
    assert file.off() == frozenset()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"who knows", b"#" * (BYTES_MAX + 1)])
def test_a_file_that_cannot_be_understood_is_off(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "kill"
    path.write_bytes(content)

    assert KillFile(path, clock=Clock()).off() == {EVERYTHING}


def test_a_file_that_cannot_be_opened_is_off(tmp_path: Path) -> None:
    """A folder in its place stands for every failure but absence, for root as well."""
    assert KillFile(tmp_path, clock=Clock()).off() == {EVERYTHING}
