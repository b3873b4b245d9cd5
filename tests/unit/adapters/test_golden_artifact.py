"""The stored artifact: its bytes and its answers are locked, and our own build makes them."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.data.golden_artifact import FOLDER, MODEL_ID, rebuild
from tests.unit.artifacts import contents_of

from detent.adapters.artifact_store import ARTIFACT_FILES
from detent.offline.commands import verify_artifact
from detent.offline.train_report import parse_train_report

STORED = FOLDER / MODEL_ID
MODEL_VERSION_HASH = "ff6ac70d62c2a2be02d837d53961afb78610bdc896e5679766d76eed1748bbd4"
BINDING_HASH = "4e8fcc7d32bca18bd0d404db887ed6c7062838e6a72c9d2d57eeabc0eded81a0"
MODEL_HASH = "0f3d9ae1f0b073be"
P_HAT_BPS = (
    7609,
    7684,
    9320,
    9703,
    9841,
    9428,
    5680,
    1262,
    2191,
    1217,
    131,
    34,
    239,
    1590,
    7578,
    9218,
    9768,
    9498,
    9226,
    2847,
    7208,
    2233,
    1208,
    7291,
    275,
    788,
    1190,
    2785,
    7119,
    9689,
    9862,
    9519,
)


@pytest.mark.proves("R68")
def test_stored_artifact_is_the_one_that_was_locked() -> None:
    """Without a pin the artifact would be judged by its own manifest, and pass with any."""
    pinned = verify_artifact(STORED, model_version_hash=MODEL_VERSION_HASH).artifact.pinned

    assert pinned.manifest.model_hash == MODEL_HASH
    assert pinned.binding_hash == BINDING_HASH
    assert {path.name for path in STORED.iterdir()} == set(ARTIFACT_FILES)


@pytest.mark.proves("R68")
def test_stored_artifact_predicts_what_was_locked() -> None:
    """Literals, so that rewriting `golden.json` with new answers is not enough."""
    serving = verify_artifact(STORED)
    rows = [row.values for row in serving.artifact.golden.rows]
    answers = serving.answers(rows)

    assert tuple(answer.p_hat_bps for answer in answers) == P_HAT_BPS  # type: ignore[union-attr]


@pytest.mark.proves("R50")
def test_stored_artifact_is_rebuilt_to_the_byte(tmp_path: Path) -> None:
    report = parse_train_report((STORED / "train_report.json").read_bytes())
    found = (version("scikit-learn"), version("skl2onnx"))
    if found != (report.sklearn_version, report.skl2onnx_version):
        pytest.skip(f"built with other libraries than scikit-learn and skl2onnx {found}")

    assert contents_of(rebuild(tmp_path)) == contents_of(STORED)


def test_stored_artifact_is_small_and_text_where_it_can_be() -> None:
    sizes = {path.name: path.stat().st_size for path in STORED.iterdir()}

    assert sum(sizes.values()) < 64 * 1024
    for name in sizes:
        if name.endswith(".json"):
            json.loads((STORED / name).read_text(encoding="ascii"))
