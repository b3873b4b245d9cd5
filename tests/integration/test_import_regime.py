"""Follows GRINDER's own kind of model from its folder to the answers of a real process."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.context import Context
from tests.grinder_folder import (
    CLASSES,
    FEATURE_ORDER,
    GIT_SHA,
    GOLDEN_ROWS,
    expected_shares,
    forest,
    grinder_facts,
    grinder_folder,
)
from tests.inference_process import SNAPSHOT_HASH, SYMBOL, TS_MS, inference
from typer.testing import CliRunner

from detent.adapters.artifact_store import Artifact, read_artifact
from detent.contracts.calibration import TemperatureSpec, calibration_bytes
from detent.contracts.calls.feature import ModelInput
from detent.contracts.calls.inference import (
    InferenceRow,
    InferSignalsRequest,
    InferSignalsResponse,
)
from detent.contracts.signals import RegimeSignal
from detent.core.features.model_input import features_hash
from detent.core.features.shipped_sets import GRINDER_FEATURE_ORDER_V1
from detent.core.signals.calibration_temperature import fit_temperature
from detent.rpc.channel import RemoteService, open_channel
from detent.rpc.tracing import no_tracer
from detent_cli.main import app

FORMS = ("1", "v1", "v1.1")
Fields = dict[str, Any]
DOCUMENT = Path(__file__).parents[2] / "docs" / "importing.md"


def run(*words: object) -> Any:
    environment = {"COLUMNS": "80", "TERM": "dumb"}
    return CliRunner().invoke(app, ["artifact", *map(str, words)], env=environment)


def brought_in(tmp_path: Path, legacy: Path, facts: Fields) -> Any:
    """Type `detent artifact import`."""
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(facts))
    return run("import", legacy, "--out", tmp_path / "new", "--facts", path, "--json")


def imported(tmp_path: Path, form: str) -> Path:
    """Bring one form in, with a temperature that was fitted on rows held out."""
    model = forest()
    raw = np.asarray(model.model.predict_proba(model.unseen[:150]), dtype=np.float64)
    spec = fit_temperature(raw, model.regimes[:150])
    (tmp_path / "calibration.json").write_bytes(calibration_bytes(spec))
    facts = grinder_facts(form) | {"calibration": "calibration.json"}
    done = brought_in(tmp_path, grinder_folder(tmp_path, form), facts)
    assert done.exit_code == 0, done.output
    return tmp_path / "new" / "regime_classifier_v1.0.0"


async def asked(target: str, artifact: Artifact, values: list[bytes]) -> InferSignalsResponse:
    rows = []
    for content in values:
        hashed = features_hash(
            artifact.manifest.feature_version,
            symbol=SYMBOL,
            ts_ms=TS_MS,
            snapshot_hashes=(SNAPSHOT_HASH,),
            values=content,
        )
        given = ModelInput(
            ts_ms=TS_MS, values=content, features_hash=hashed, snapshot_hashes=(SNAPSHOT_HASH,)
        )
        rows.append(InferenceRow(symbol=SYMBOL, model_input=given))
    query = InferSignalsRequest(binding_hash=artifact.pinned.binding_hash, rows=tuple(rows))
    async with open_channel(target) as channel:
        service = RemoteService(channel, "InferenceService", no_tracer())
        return await service.call(query, InferSignalsResponse, timeout_s=10.0, trace=Context())


def test_names_are_those_of_the_seed_in_its_order() -> None:
    assert list(GRINDER_FEATURE_ORDER_V1.input_names) == FEATURE_ORDER


@pytest.mark.proves("R53", "R60", "R148", "R329")
@pytest.mark.parametrize("form", FORMS)
def test_regime_model_of_each_form_is_imported_verified_and_served(
    tmp_path: Path, form: str
) -> None:
    path = imported(tmp_path, form)
    artifact = read_artifact(path)
    verified = run("verify", path, "--json")
    unseen = forest().unseen[:200]
    with inference(path, tmp_path / "state") as stack:
        target = stack.targets["inference"]
        golden = [row.values for row in artifact.golden.rows]
        repeated = asyncio.run(asked(target, artifact, golden))
        answered = asyncio.run(asked(target, artifact, [row.tobytes() for row in unseen]))

    assert verified.exit_code == 0, verified.output
    assert json.loads(verified.stdout)["golden_rows"] == GOLDEN_ROWS
    manifest = artifact.manifest
    assert (manifest.output_name, manifest.output_classes) == ("regime_probs", tuple(CLASSES))
    assert (manifest.further_outputs, manifest.fallback) == ((), None)
    origin = (GIT_SHA, "production_data") if form == "v1.1" else (None, None)
    assert (manifest.git_sha, manifest.dataset_id) == origin
    for row, expected in zip(repeated.rows, artifact.golden.rows, strict=True):
        assert row.signal is not None
        assert row.signal.answer == expected.answer
    assert isinstance(artifact.calibration, TemperatureSpec)
    shares = expected_shares(unseen, artifact.calibration) * 10_000
    spread = set()
    for row, three in zip(answered.rows, shares.tolist(), strict=True):
        assert row.signal is not None
        answer = row.signal.answer
        assert isinstance(answer, RegimeSignal)
        found = [getattr(answer, f"regime_{name.lower()}_prob_bps") for name in CLASSES]
        # Largest remainder may move a share by one whole point, and never further.
        assert np.abs(np.array(found) - three).max() < 1.01
        assert answer.spacing_multiplier_x1000 == 1000
        spread.add(answer.predicted_regime)
    assert len(spread) == 3


def test_document_works_as_it_is_written(tmp_path: Path) -> None:
    """Runs the script of docs/importing.md, and imports with its facts as they stand there."""
    text = DOCUMENT.read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (facts,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    legacy = grinder_folder(tmp_path, "v1.1")
    (tmp_path / "model.onnx").write_bytes(forest().graph)
    np.save(tmp_path / "rows.npy", forest().unseen)
    np.save(tmp_path / "regimes.npy", forest().regimes)
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    done = brought_in(tmp_path, legacy, json.loads(facts))

    assert done.exit_code == 0, done.output
    found = read_artifact(tmp_path / "new" / "regime_classifier_v1.0.0").calibration
    assert isinstance(found, TemperatureSpec)
    # It was fitted: not the bound of a search, and not nothing.
    assert 0.1 < float(found.temperature) < 10
    assert found.temperature != 1


def _swapped(names: list[str]) -> list[str]:
    return [names[1], names[0], *names[2:]]


def _rewritten(legacy: Path, **changes: Any) -> None:
    path = legacy / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _order_of_the_manifest(legacy: Path, facts: Fields) -> str:
    del facts
    _rewritten(legacy, feature_order=_swapped(FEATURE_ORDER))
    return "input_features"


def _order_of_the_facts(legacy: Path, facts: Fields) -> str:
    del legacy
    facts["input_features"] = _swapped(FEATURE_ORDER)
    return "input_features"


def _digest(legacy: Path, facts: Fields) -> str:
    del facts
    _rewritten(legacy, sha256={"model.onnx": "0" * 64})
    return "model.onnx"


def _commit(legacy: Path, facts: Fields) -> str:
    del facts
    _rewritten(legacy, git_sha=GIT_SHA.upper())
    return "git_sha"


def _classes(legacy: Path, facts: Fields) -> str:
    del legacy
    facts["output_classes"] = ["HIGH", "MID", "LOW"]
    return "output_classes"


def _no_temperature(legacy: Path, facts: Fields) -> str:
    del legacy
    del facts["calibration"]
    return "calibration"


def _no_cutoff(legacy: Path, facts: Fields) -> str:
    del legacy
    del facts["data_cutoff_ts_ms"]
    return "data_cutoff_ts_ms"


def _narrow_row(legacy: Path, facts: Fields) -> str:
    del legacy
    facts["golden_inputs"][0].pop()
    return "golden_inputs[0]"


def _other_head(legacy: Path, facts: Fields) -> str:
    del legacy
    facts["head"] = "toxicity"
    return "further_outputs"


@pytest.mark.proves("R148", "R251", "R329")
@pytest.mark.parametrize(
    "spoil",
    [
        _order_of_the_manifest,
        _order_of_the_facts,
        _digest,
        _commit,
        _classes,
        _no_temperature,
        _no_cutoff,
        _narrow_row,
        _other_head,
    ],
)
def test_regime_model_that_is_not_what_is_said_is_refused_by_name(
    tmp_path: Path, spoil: Callable[[Path, Fields], str]
) -> None:
    legacy, facts = grinder_folder(tmp_path, "v1.1"), grinder_facts("v1.1")
    name = spoil(legacy, facts)
    refused = brought_in(tmp_path, legacy, facts)

    assert refused.exit_code == 2, refused.output
    metadata = json.loads(refused.stdout)["error"]["metadata"]
    assert name in (metadata.get("field"), metadata.get("file"))
    assert not (tmp_path / "new").exists()


def test_calibration_of_a_probability_is_none_of_a_regime(tmp_path: Path) -> None:
    facts = grinder_facts("v1") | {"calibration": {"method": "platt", "a": "-1", "b": "0"}}
    refused = brought_in(tmp_path, grinder_folder(tmp_path, "v1"), facts)

    assert refused.exit_code == 2
    assert json.loads(refused.stdout)["error"]["reason"] == "CALIBRATION_MISSING"
