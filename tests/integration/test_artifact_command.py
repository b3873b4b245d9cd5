"""Types `detent artifact ...` as a person and as a program would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.data.golden_artifact import FOLDER, MODEL_ID, write_bars
from tests.grinder_folder import GIT_SHA, grinder_facts, grinder_folder
from tests.unit.artifacts import artifact_in, other_artifact_in
from tests.unit.head_artifacts import write_head_artifact
from tests.unit.offline.test_importing import facts_for, facts_in, legacy_in
from typer.testing import CliRunner

from detent.contracts.binding import Head
from detent_cli.main import app

RUNNER = CliRunner()
STORED = FOLDER / MODEL_ID
DOCUMENT = Path(__file__).parents[2] / "docs" / "signing.md"


def run(*words: object, columns: int = 80) -> Any:
    environment = {"COLUMNS": str(columns), "TERM": "dumb"}
    return RUNNER.invoke(app, ["artifact", *map(str, words)], env=environment)


def json_of(result: Any, *, code: int = 0) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def build(tmp_path: Path, *words: str) -> Any:
    data = write_bars(tmp_path / "bars.csv")
    fixed = ("--created-at", "2024-01-15T10:30:00Z", "--out", str(tmp_path / "built"), "--json")
    return run("build", "--data", data, *fixed, "--name", "golden_direction", *words)


@pytest.mark.proves("R58")
def test_build_measures_its_version_against_the_predecessor(tmp_path: Path) -> None:
    later = ("--after", str(STORED), "--horizon-id", "other")
    too_small = json_of(build(tmp_path, "--version", "v1.0.1", *later), code=2)["error"]
    not_later = json_of(build(tmp_path, "--version", "v1.0.0", *later), code=2)["error"]
    missing = build(tmp_path, "--version", "v2.0.0", "--after", str(tmp_path / "none_v1.0.0"))

    assert too_small["metadata"]["field"] == "model_version"
    assert "v2.0.0" in too_small["message"]
    assert "horizon_id" in too_small["message"]
    assert "later than" in not_later["message"]
    assert json_of(missing, code=2)["error"]["reason"] == "ARTIFACT_DIR_MISSING"
    assert not (tmp_path / "built").exists()
    built = json_of(build(tmp_path, "--version", "v2.0.0", *later))
    assert built["manifest"]["model_version"] == "v2.0.0"
    again = json_of(build(tmp_path, "--version", "v2.0.0", *later), code=2)
    assert "never changes" in again["error"]["message"]


@pytest.mark.proves("R160")
def test_horizon_that_nobody_named_is_named_by_its_bars(tmp_path: Path) -> None:
    """A model that looks two bars ahead never passes for one of four by a default."""
    built = json_of(build(tmp_path, "--horizon-bars", "2"))["manifest"]

    assert (built["horizon_id"], built["horizon_bars"]) == ("h2", 2)


@pytest.mark.proves("R58")
def test_diff_names_what_differs_and_the_step_that_it_takes(tmp_path: Path) -> None:
    first, second = artifact_in(tmp_path), other_artifact_in(tmp_path)
    found = json_of(run("diff", first, second, "--json"), code=1)
    shown = run("diff", first, second)
    same = run("diff", first, first)

    what = {entry["what"]: entry["step"] for entry in found["differences"]}
    assert what["feature range_score_capped"] == "major"
    assert what["feature_version"] == "minor"
    assert what["file model.onnx"] == "patch"
    assert (found["step_needed"], found["step_taken"]) == ("major", "minor")
    assert found["step_is_enough"] is False
    assert shown.exit_code == 1
    assert "too little" in shown.stdout
    assert same.exit_code == 0
    assert "the same" in same.stdout
    assert json_of(run("diff", first, first, "--json"))["differences"] == []
    assert run("diff", first, tmp_path / "none_v1.0.0").exit_code == 2


@pytest.mark.proves("R63")
def test_import_ends_with_the_artifact_or_with_what_is_missing(tmp_path: Path) -> None:
    legacy = legacy_in(tmp_path, "v1.1")
    facts = facts_in(tmp_path, facts_for("v1.1"))
    words = ("import", legacy, "--out", tmp_path / "new", "--json")
    imported = json_of(run(*words, "--facts", facts))
    no_facts = json_of(run(*words, "--facts", tmp_path / "none.json"), code=2)

    assert imported["manifest"]["model_name"] == "momentum_direction"
    assert no_facts["error"]["metadata"]["field"] == "facts"


def test_import_shows_where_the_artifact_is_and_what_its_head_has(tmp_path: Path) -> None:
    facts = grinder_facts("v1.1") | {"fallback": {"mode": "previous", "max_age_ms": 60_000}}
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(facts))
    legacy = grinder_folder(tmp_path, "v1.1")
    shown = run("import", legacy, "--out", tmp_path / "new", "--facts", path)
    again = run("import", legacy, "--out", tmp_path / "new", "--facts", path)

    assert shown.exit_code == 0, shown.output
    lines = [line.rstrip() for line in shown.stdout.splitlines()]
    assert lines[0] == f"imported {tmp_path / 'new' / 'regime_classifier_v1.0.0'}"
    said = {line[:13].rstrip(): line[13:] for line in lines[1:]}
    assert said["head"] == "regime: LOW, MID, HIGH"
    assert said["fallback"] == "previous, at most 60000 ms old"
    assert (said["commit"], said["data set"]) == (GIT_SHA, "production_data")
    assert said["notes"] == "Initial production model"
    # Nothing was measured: no empty table.
    assert "metric" not in shown.stdout
    assert max(map(len, lines[1:])) <= 80
    assert again.exit_code == 2


def test_show_says_what_a_graph_answers_beside_its_classes(tmp_path: Path) -> None:
    folder = write_head_artifact(tmp_path, Head.REGIME)
    lines = run("show", folder).stdout.splitlines()

    assert lines[0] == "tiny_regime_v1.0.0"
    assert "beside it    spacing_multiplier: spacing_multiplier" in map(str.rstrip, lines)
    assert "fallback     neutral" in map(str.rstrip, lines)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_signing_works_as_the_document_says(tmp_path: Path) -> None:
    """Runs every shell line of docs/signing.md, in its order, on a copy of an artifact."""
    folder = tmp_path / MODEL_ID
    shutil.copytree(STORED, folder)
    blocks = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=os.environ | {"PATH": binaries, "ARTIFACT": str(folder), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert len(blocks) == 4
    assert done.returncode == 0, done.stderr
    assert "signed by" in done.stdout
    assert "email:quant@example.com" in done.stdout


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_key_under_a_password_signs_and_the_verdict_is_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / MODEL_ID
    shutil.copytree(STORED, folder)
    key, public = tmp_path / "k.key", tmp_path / "k.pub"
    curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384")
    new = ("genpkey", *curve, "-aes256", "-pass", "pass:secret", "-out", str(key))
    half = ("pkey", "-in", str(key), "-passin", "pass:secret", "-pubout", "-out", str(public))
    for words in (new, half):
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    asked = ("verify", folder, "--trusted-key", public, "--json")

    unsigned = json_of(run(*asked), code=1)["error"]
    assert unsigned["reason"] == "SIGNATURE_REFUSED"
    assert unsigned["metadata"]["rule"] == "unsigned"
    assert json_of(run("sign", folder, "--key", key, "--json"), code=2)
    monkeypatch.setenv("DETENT_SIGNING_PASSWORD", "wrong")
    assert json_of(run("sign", folder, "--key", key, "--json"), code=2)
    monkeypatch.setenv("DETENT_SIGNING_PASSWORD", "secret")
    signer = json_of(run("sign", folder, "--key", key, "--json"))["signer"]
    assert json_of(run(*asked))["signer"] == signer
    assert json_of(run("verify", folder, "--trusted-key", tmp_path / "none", "--json"), code=2)
    assert json_of(run("verify", folder, "--signer", "email:a@example.com", "--json"), code=2)


@pytest.mark.parametrize("columns", [80, 120])
def test_screens_fit_and_hashes_stay_whole(tmp_path: Path, columns: int) -> None:
    """A hash that is broken over two lines cannot be copied."""
    first, second = artifact_in(tmp_path), other_artifact_in(tmp_path)
    for words in (("show", first), ("verify", first), ("diff", first, second)):
        lines = run(*words, columns=columns).stdout.splitlines()
        assert max(len(line.rstrip()) for line in lines) <= columns
        if words[0] != "diff":
            assert sum(bool(re.search(r"\b[0-9a-f]{64}\b", line)) for line in lines) >= 2
