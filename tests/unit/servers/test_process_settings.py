"""What the environment says of a process: its first mistake is one line that names the variable."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from detent.adapters.process_settings import read_settings
from detent.contracts.errors import InvalidField
from detent.servers.feature.settings import FeatureSettings
from detent.servers.inference.settings import InferenceSettings
from detent.servers.monitor.settings import MonitorSettings
from detent.servers.policy.settings import PolicySettings

NEEDED = {
    FeatureSettings: {"ARTIFACTS_DIR": "artifacts"},
    InferenceSettings: {"ARTIFACT_DIR": "artifacts/direction_v1.0.0"},
    MonitorSettings: {"LEDGER": "ledger.sqlite"},
    PolicySettings: {"ARTIFACTS_DIR": "artifacts", "LEDGER_FILE": "ledger.sqlite"},
}
Kind = type[FeatureSettings | InferenceSettings | MonitorSettings | PolicySettings]


def refusal(monkeypatch: pytest.MonkeyPatch, kind: Kind, **variables: str) -> InvalidField:
    """Give what settings are refused with under these variables, and the needed ones."""
    prefix = str(kind.model_config["env_prefix"])
    for name, value in (NEEDED[kind] | variables).items():
        monkeypatch.setenv(f"{prefix}{name}", value)
    with pytest.raises(InvalidField) as refused:
        read_settings(kind)
    return refused.value


@pytest.mark.parametrize("kind", NEEDED)
def test_what_is_needed_and_missing_is_named(monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    prefix = str(kind.model_config["env_prefix"])
    for name in NEEDED[kind]:
        monkeypatch.delenv(f"{prefix}{name}", raising=False)
        error = refusal(monkeypatch, kind, **{name: ""})

        assert (
            error.message
            == f"{prefix}{name}: found '(missing)', expected a value: it has no default"
        )


@pytest.mark.parametrize(
    ("name", "found", "expected"),
    [
        ("REPLICA_COUNT", "two", "a valid integer"),
        ("REPLICA_COUNT", "0", "greater than or equal to 1"),
        ("LEDGER_DURABILITY", "none", "'full' or 'unsafe_memory'"),
        ("FEATURE_TARGETS", "127.0.0.1:7301", "JSON"),
        ("LOG_LEVEL", "debug", "'DEBUG', 'INFO'"),
        ("INFER_ENABLED", "perhaps", "a valid boolean"),
        ("LISTEN", "7303", "host:port"),
        ("METRICS_LISTEN", "127.0.0.1:65536", "a port of 0 to 65535"),
    ],
)
def test_what_is_malformed_is_named_with_what_was_found(
    monkeypatch: pytest.MonkeyPatch, name: str, found: str, expected: str
) -> None:
    error = refusal(monkeypatch, PolicySettings, **{name: found})

    assert error.message.startswith(f"DETENT_POLICY_{name}: found {found!r}, expected ")
    assert expected in error.message


@pytest.mark.parametrize("kind", NEEDED)
@pytest.mark.parametrize("listen", ["", ":7301", "localhost", "localhost:", "h:99999", "h:-1"])
def test_an_address_to_listen_on_has_a_host_and_a_port(
    monkeypatch: pytest.MonkeyPatch, kind: Kind, listen: str
) -> None:
    # An empty variable is none.
    error = refusal(monkeypatch, kind, LISTEN=listen or "x")

    assert "expected host:port, with a port of 0 to 65535" in error.message


def test_a_variable_that_sets_nothing_is_named_without_what_it_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = refusal(monkeypatch, PolicySettings, KILL_SWTICH="secret")

    assert error.field == "DETENT_POLICY_KILL_SWTICH"
    assert error.message.endswith("expected a setting of the process: DETENT_POLICY_KILL_SWITCH?")
    assert "secret" not in str(error.metadata)


@pytest.mark.parametrize("name", ["DETENT_POLICY_KILL_SWTICH", "detent_policy_listen"])
def test_an_empty_variable_and_small_letters_are_no_mistake(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for needed, value in NEEDED[PolicySettings].items():
        monkeypatch.setenv(f"DETENT_POLICY_{needed}", value)
    monkeypatch.setenv(name, "" if name.isupper() else "127.0.0.1:7000")

    assert read_settings(PolicySettings).listen.startswith("127.0.0.1:7")


def test_settings_that_do_not_fit_together_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    error = refusal(monkeypatch, PolicySettings, ANCHOR_FILE="anchors.jsonl")

    expected = "anchor_file and anchor_key_file: found one, expected both or none"
    assert (error.field, error.message) == ("DETENT_POLICY_*", f"DETENT_POLICY_*: {expected}")


def test_what_an_option_says_is_named_by_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETENT_MONITOR_PROFILE", "seed")
    with pytest.raises(InvalidField) as refused:
        read_settings(MonitorSettings, ledger="l.sqlite", profile="strict")

    assert refused.value.field == "profile"


@pytest.mark.parametrize(
    ("process", "variables", "said"),
    [
        pytest.param("feature.main", {}, "DETENT_FEATURE_ARTIFACTS_DIR: found", id="feature"),
        pytest.param("inference.main", {}, "DETENT_INFERENCE_ARTIFACT_DIR: found", id="inference"),
        pytest.param("monitor.main", {}, "DETENT_MONITOR_LEDGER: found", id="monitor"),
        pytest.param("policy.main", {}, "DETENT_POLICY_ARTIFACTS_DIR: found", id="policy"),
        pytest.param("single", {}, "DETENT_POLICY_ARTIFACTS_DIR: found", id="single"),
        pytest.param(
            "policy.main",
            {"ARTIFACTS_DIR": "HERE", "LEDGER_FILE": "HERE"},
            "the ledger cannot be used",
            id="no ledger",
        ),
        pytest.param(
            "policy.main",
            {"ARTIFACTS_DIR": "HERE", "LEDGER_FILE": "HERE/l", "PROFILE": "production"},
            "G-PROD-1: active_allowed_envs",
            id="a guard",
        ),
        pytest.param(
            "policy.main",
            {"ARTIFACTS_DIR": "HERE", "LEDGER_FILE": "HERE/l", "TRACE_FILE": "HERE/l/x"},
            "/l: File exists, expected a path",
            id="no place for spans",
        ),
    ],
)
def test_a_process_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, process: str, variables: dict[str, str], said: str
) -> None:
    (tmp_path / "l").touch()
    named = {
        f"DETENT_POLICY_{name}": value.replace("HERE", str(tmp_path))
        for name, value in variables.items()
    }
    ended = started(process, named)

    lines = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert (ended.returncode, len(lines)) == (1, 1), ended.stderr
    assert said in lines[0]


def started(process: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Start a process that is expected to end by itself."""
    others = {name: value for name, value in os.environ.items() if "DETENT_" not in name}
    return subprocess.run(
        [sys.executable, "-m", f"detent.servers.{process}"],
        env=others | variables,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = f"127.0.0.1:{listener.getsockname()[1]}"
        variables = {
            "DETENT_POLICY_ARTIFACTS_DIR": str(tmp_path),
            "DETENT_POLICY_LEDGER_FILE": str(tmp_path / "ledger.sqlite"),
        }
        for name in ("LISTEN", "METRICS_LISTEN"):
            ended = started("policy.main", variables | {f"DETENT_POLICY_{name}": taken})

            assert ended.returncode == 1, ended.stderr
            assert f"cannot listen on {taken}" in ended.stderr.splitlines()[-1]
            assert "Traceback" not in ended.stderr
