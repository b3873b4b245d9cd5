"""Evaluate, register, promote, roll back: the commands, over evidence on disk."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.evidence_folders import Evidence, add_shadows, lay_out, shadow_of, write_shadow
from tests.unit.core.evaluation.promotion_cases import bands, good_readiness
from typer.testing import CliRunner, Result

from detent.adapters.artifact_store import read_artifact, read_pinned_manifest
from detent.contracts.canonical import sha256_hex
from detent.contracts.errors import InvalidField, ModelNotRegistered
from detent.contracts.reasons import Reason
from detent.core.evaluation.readiness_report import readiness_bytes, readiness_report
from detent.core.rollout.gates import ACTIVE_ACK
from detent.offline.promotion.evidence_file import write_evidence
from detent_cli.main import app
from detent_cli.served import ServedBy, served

WHO = ("--actor", "quant", "--reason", "a test")


@pytest.fixture(name="evidence", scope="session")
def _evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return lay_out(tmp_path_factory.mktemp("evidence"))


@pytest.fixture(name="report", scope="session")
def _report(evidence: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the report of the command, and the page beside it."""
    out = tmp_path_factory.mktemp("report") / "evaluation.json"
    found = evaluated(evidence, out, "--page", str(out.with_suffix(".html")))
    assert found.exit_code == 0, found.output
    return out


@pytest.fixture(name="registry")
def _registry(evidence: Evidence, tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/control.sqlite"
    found = run("registry", "register", str(evidence.artifact), "--registry", url, *WHO)
    assert found.exit_code == 0, found.output
    return url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--json"])


def answered(*arguments: str) -> Any:
    found = run(*arguments)
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def evaluated(evidence: Evidence, out: Path, *more: str) -> Result:
    return run(
        "evaluate",
        str(evidence.artifact),
        *("--dataset", str(evidence.dataset)),
        *("--backtest", str(evidence.model)),
        *("--proxy-backtest", str(evidence.proxy)),
        *("--fills", str(evidence.fills)),
        *("--ledger", str(evidence.ledger)),
        *("--out", str(out)),
        *more,
    )


def promoted(registry: str, evidence: Evidence, report: Path, **changes: str | None) -> Result:
    asked = {
        "--to": "production",
        "--registry": registry,
        "--report": str(report),
        "--dataset": str(evidence.dataset),
        "--readiness": str(evidence.readiness),
        "--ack": ACTIVE_ACK,
        "--actor": "quant",
        "--reason": "better",
    }
    asked |= {f"--{name}": value for name, value in changes.items()}
    flat = [part for name, value in asked.items() if value is not None for part in (name, value)]
    return run("promote", evidence.artifact.name, *flat)


def refused_by(found: Result) -> list[str]:
    assert found.exit_code == 1, found.output
    names: list[str] = json.loads(found.stdout)["refused_by"]
    return names


@pytest.mark.proves("R131", "R134")
def test_a_good_candidate_is_promoted_with_its_evidence(
    registry: str, evidence: Evidence, report: Path
) -> None:
    found = promoted(registry, evidence, report)

    assert found.exit_code == 0, found.output
    pointer = json.loads(found.stdout)["pointer"]
    assert pointer["status"] == "production"
    assert pointer["model_version_hash"] == evidence.model_version_hash
    shown = answered("registry", "show", "momentum_direction", "--registry", registry)
    assert shown["pointer"] == pointer
    newest = answered("registry", "history", "--registry", registry)["history"][0]
    assert newest["evidence_sha256"] == sha256_hex(report.read_bytes())
    assert (newest["actor"], newest["reason"]) == ("quant", "better")


def test_one_machine_serves_what_is_in_production(
    registry: str, evidence: Evidence, report: Path, tmp_path: Path
) -> None:
    by = ServedBy(registry=registry, name="momentum_direction")
    with pytest.raises(ModelNotRegistered):
        served(by, tmp_path)
    assert promoted(registry, evidence, report).exit_code == 0
    found = served(by, tmp_path).folder

    assert found == tmp_path / "artifacts" / evidence.artifact.name
    assert read_artifact(found).manifest.model_version_hash == evidence.model_version_hash
    assert served(ServedBy(artifact=evidence.artifact), tmp_path).folder == evidence.artifact
    both = ServedBy(artifact=evidence.artifact, registry=registry, name="x")
    for wrong in (both, ServedBy(registry=registry), ServedBy()):
        with pytest.raises(InvalidField, match="--registry and --name"):
            served(wrong, tmp_path)


@pytest.mark.proves("R133")
def test_the_page_and_the_report_hold_what_was_asked_for(report: Path) -> None:
    page = report.with_suffix(".html").read_text()
    fields = json.loads(report.read_text())

    assert page.count("data:image/png;base64,") == 4
    assert "promotable" in page
    assert fields["weight_method"] == "shapley_linear"
    assert abs(sum(one["weight_ppm"] for one in fields["weights"]) - 1_000_000) < 50
    assert fields["measures"]["trading"]["model"]["trade_count"] > 40


@pytest.mark.parametrize(
    ("changes", "gates"),
    [
        pytest.param({"ack": None}, ["human_approval"], id="nobody-acknowledged"),
        pytest.param({"ack": "yes"}, ["human_approval"], id="another-word"),
        pytest.param({"dataset": None}, ["dataset_now"], id="no-data-set"),
        pytest.param({"profile": "seed"}, ["profile"], id="another-profile"),
    ],
)
def test_a_promotion_that_lacks_something_is_refused_by_name(
    registry: str,
    evidence: Evidence,
    report: Path,
    changes: dict[str, str | None],
    gates: list[str],
) -> None:
    assert refused_by(promoted(registry, evidence, report, **changes)) == gates
    listed = answered("registry", "list", "--registry", registry)["models"]
    assert [one["status"] for one in listed] == ["staged"]


@pytest.mark.proves("R341")
def test_an_edited_report_is_refused(
    registry: str, evidence: Evidence, report: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "evaluation.json"
    text = report.read_bytes()
    copy.write_bytes(text.replace(b'"passed"', b'"passee"', 1))
    sidecar = f"{sha256_hex(text)}  {copy.name}\n"
    copy.with_name("evaluation.json.sha256").write_text(sidecar)

    assert refused_by(promoted(registry, evidence, copy)) == ["report", "evidence"]


@pytest.mark.proves("R332")
def test_a_shadow_that_is_slow_short_or_absent_promotes_nothing(
    registry: str, evidence: Evidence, tmp_path: Path
) -> None:
    """What a ledger holds is measured by the tool; nobody reads it off a page."""
    binding_hash = read_pinned_manifest(evidence.artifact).binding_hash
    write_shadow(tmp_path / "short.sqlite", binding_hash, bars=23, symbols=50)
    slow = [shadow_of(binding_hash, bar, latency_us=260_000) for bar in range(200, 215)]
    add_shadows(write_shadow(tmp_path / "slow.sqlite", binding_hash), slow)
    late = {"p_hat_raw_bps": None, "p_hat_bps": None, "reason": Reason.INFERENCE_DEADLINE}
    failing = [shadow_of(binding_hash, bar, **late) for bar in range(200, 260)]
    add_shadows(write_shadow(tmp_path / "failing.sqlite", binding_hash), failing)
    write_shadow(tmp_path / "other.sqlite", "0" * 64)
    gates = ["shadow_rows", "shadow_hours", "shadow_p99", "shadow_p999", "shadow_errors"]

    for name, expected in {
        "short": ["shadow_hours"],
        "slow": ["shadow_p99", "shadow_p999"],
        "failing": ["shadow_errors"],
        "other": gates,
    }.items():
        another = structs.replace(evidence, ledger=tmp_path / f"{name}.sqlite")
        out = tmp_path / f"{name}.json"
        assert refused_by(evaluated(another, out)) == expected, name
        assert refused_by(promoted(registry, another, out)) == expected, name


@pytest.mark.proves("R238")
def test_no_model_is_enabled_before_policy_and_learning_isolation_are_in_place(
    registry: str, evidence: Evidence, report: Path, tmp_path: Path
) -> None:
    assert refused_by(promoted(registry, evidence, report, readiness=None)) == ["readiness"]
    unfinished = structs.replace(good_readiness(), learning=None, guard=None)
    judged = readiness_report(unfinished, bands(), at_ms=time.time_ns() // 1_000_000)
    write_evidence(tmp_path / "ready.json", readiness_bytes(judged))
    refused = promoted(registry, evidence, report, readiness=str(tmp_path / "ready.json"))
    assert refused_by(refused) == ["readiness.replan_guard", "readiness.learning_isolation"]
    assert promoted(registry, evidence, report).exit_code == 0


@pytest.mark.proves("R343")
def test_a_report_too_old_for_the_environment_is_refused(
    registry: str, evidence: Evidence, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETENT_EVIDENCE_MAX_AGE_S", "a day")
    refused = refused_by(promoted(registry, evidence, report))
    assert refused == ["report", "evidence", "readiness"]
    monkeypatch.setenv("DETENT_EVIDENCE_MAX_AGE_S", "86400")
    assert promoted(registry, evidence, report).exit_code == 0


@pytest.mark.proves("R341")
def test_what_was_judged_is_kept_only_where_the_environment_says(
    registry: str,
    evidence: Evidence,
    report: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = tmp_path / "kept"
    promoted(registry, evidence, report, ack=None)
    assert not kept.exists()

    monkeypatch.setenv("DETENT_EVIDENCE_DIR", str(kept))
    promoted(registry, evidence, report, ack=None)
    promoted(registry, evidence, report)

    names = sorted(path.name.partition("_")[2] for path in kept.iterdir())
    stem = evidence.artifact.name
    assert names == [
        f"promoted_{stem}.json",
        f"promoted_{stem}.json.sha256",
        f"refused_{stem}.json",
        f"refused_{stem}.json.sha256",
    ]
    for path in kept.glob("*.json"):
        said = path.with_name(path.name + ".sha256").read_text().split()[0]
        assert said == sha256_hex(path.read_bytes())


def test_nothing_is_promoted_whose_evidence_cannot_be_kept(
    registry: str,
    evidence: Evidence,
    report: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "kept").write_text("a file in the place of the folder")
    monkeypatch.setenv("DETENT_EVIDENCE_DIR", str(tmp_path / "kept"))
    found = promoted(registry, evidence, report)

    assert found.exit_code == 2
    assert json.loads(found.stdout)["error"]["reason"] == "DATA_INVALID"
    listed = answered("registry", "list", "--registry", registry)["models"]
    assert [one["status"] for one in listed] == ["staged"]


def test_a_promotion_that_nobody_asks_for_is_no_evidence(
    registry: str,
    evidence: Evidence,
    report: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gates that refuse it come too late: what was judged would be kept under no name."""
    monkeypatch.setenv("DETENT_EVIDENCE_DIR", str(tmp_path / "kept"))
    for field in ("actor", "reason"):
        found = promoted(registry, evidence, report, ack=None, **{field: ""})

        assert found.exit_code == 2
        assert json.loads(found.stdout)["error"]["metadata"]["field"] == field
    assert not (tmp_path / "kept").exists()


@pytest.mark.proves("R131")
def test_an_artifact_without_any_evidence_is_not_promotable(
    evidence: Evidence, tmp_path: Path
) -> None:
    out = tmp_path / "evaluation.json"
    found = run("evaluate", str(evidence.artifact), "--out", str(out), "--run", str(tmp_path))
    names = refused_by(found)

    assert len(names) > 15
    assert {"artifact", "dataset", "row_count", "brier_vs_proxy", "deflated_sharpe"} <= set(names)


@pytest.mark.proves("R333")
def test_rolling_back_takes_one_command_and_restores_the_hash(
    registry: str, evidence: Evidence, report: Path, tmp_path: Path
) -> None:
    """The second model stands in production only with evidence against the first."""
    later = lay_out(tmp_path / "later", version="v1.2.4")
    assert promoted(registry, evidence, report).exit_code == 0
    answered("registry", "register", str(later.artifact), "--registry", registry, *WHO)
    out = tmp_path / "later.json"
    evaluated(later, out)
    assert "champion" in refused_by(promoted(registry, later, out))
    assert json.loads(evaluated(later, out, "--champion", str(evidence.artifact)).stdout)[
        "refused_by"
    ] == ["brier_vs_champion", "log_loss_vs_champion"]

    answered("registry", "deprecate", evidence.artifact.name, "--registry", registry, *WHO)
    evaluated(later, out)
    assert promoted(registry, later, out).exit_code == 0
    back = answered("registry", "rollback", "momentum_direction", "--registry", registry, *WHO)

    assert back["pointer"]["model_version_hash"] == evidence.model_version_hash
    into = tmp_path / "served"
    loaded = answered(
        "registry", "load", "momentum_direction", "--registry", registry, "--into", str(into)
    )
    assert Path(loaded["artifact"]) == into / evidence.artifact.name


@pytest.mark.proves("R126")
def test_a_line_without_one_in_production_answers_so(registry: str) -> None:
    found = run("registry", "show", "momentum_direction", "--registry", registry)

    assert found.exit_code == 1
    assert json.loads(found.stdout)["error"]["reason"] == "MODEL_NOT_REGISTERED"


def test_no_name_of_a_gate_is_broken_in_a_table(evidence: Evidence, tmp_path: Path) -> None:
    """At 80 columns too: a person looks for it in the documents."""
    command = ["evaluate", str(evidence.artifact), "--run", str(tmp_path)]
    command += ["--out", str(tmp_path / "evaluation.json")]
    names = refused_by(CliRunner().invoke(app, [*command, "--json"]))
    table = CliRunner().invoke(app, command).output

    assert max(map(len, names)) > 16
    assert [name for name in names if f" {name} " not in table] == []


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("registry", "list"), id="list"),
        pytest.param(("registry", "show", "momentum_direction"), id="show"),
        pytest.param(("registry", "history"), id="history"),
        pytest.param(("registry", "load", "momentum_direction", "--into", "x"), id="load"),
        pytest.param(("registry", "deprecate", "momentum_direction", *WHO), id="deprecate"),
        pytest.param(("registry", "rollback", "momentum_direction", *WHO), id="rollback"),
        pytest.param(("promote", "m", "--to", "production", "--report", "x", *WHO), id="promote"),
    ],
)
def test_a_mistyped_registry_is_refused_and_not_made(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    """Who mistypes its name would else read that there are no models."""
    mistyped, ledger = tmp_path / "contrl" / "control.sqlite", tmp_path / "ledger.sqlite"
    with contextlib.closing(sqlite3.connect(ledger)) as other:
        other.execute("CREATE TABLE records (canonical TEXT)")
    before = ledger.read_bytes()

    for file, says in ((mistyped, f"found no file {mistyped}"), (ledger, "tables of something")):
        found = run(*words, "--registry", f"sqlite:///{file}")
        error = json.loads(found.stdout)["error"]
        assert (found.exit_code, error["reason"]) == (2, "CONTROL_UNAVAILABLE")
        assert says in error["message"]
    assert not mistyped.parent.exists()
    assert ledger.read_bytes() == before


def test_people_read_tables(registry: str, evidence: Evidence, report: Path) -> None:
    arguments = ["promote", evidence.artifact.name, "--to", "production", "--registry", registry]
    arguments += ["--report", str(report), *WHO]
    refused = CliRunner().invoke(app, arguments)
    listed = CliRunner().invoke(app, ["registry", "list", "--registry", registry])
    history = CliRunner().invoke(app, ["registry", "history", "--registry", registry])

    assert refused.exit_code == 1
    assert "Refused: 3 of" in refused.output
    assert "human_approval" in refused.output
    assert (listed.exit_code, history.exit_code) == (0, 0)
    assert "staged" in listed.output
    assert "register" in history.output
