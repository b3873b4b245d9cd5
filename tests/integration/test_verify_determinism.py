"""`detent verify-determinism`: two runs, three hashes, and a verdict that can be no."""

import json
from pathlib import Path

import onnx
import pytest
from tests.unit.artifacts import artifact_in, contents_of, repinned
from typer.testing import CliRunner

from detent_cli.main import app

RUNNER = CliRunner()


def asked(folder: Path, *words: str) -> tuple[int, dict[str, object]]:
    done = RUNNER.invoke(app, ["verify-determinism", "--model", str(folder), "--json", *words])
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.proves("R31", "R32", "R46", "R49")
def test_an_artifact_answers_the_same_in_two_processes(tmp_path: Path) -> None:
    code, found = asked(artifact_in(tmp_path))

    assert code == 0
    assert found["passes"] is True
    first, second = found["output_hashes"]  # type: ignore[misc]
    assert first == second
    assert len(first) == len(str(found["input_hash"])) == len(str(found["certificate_hash"])) == 64


def test_a_person_reads_three_hashes_and_a_verdict(tmp_path: Path) -> None:
    done = RUNNER.invoke(app, ["verify-determinism", "--model", str(artifact_in(tmp_path))])

    assert done.exit_code == 0
    for words in ("Input features hash", "Run 1 output hash", "Run 2 output hash", "PASS"):
        assert words in done.stdout


def test_a_perturbed_model_fails(tmp_path: Path) -> None:
    """Someone with write access turns one weight and repairs every hash: the rows show it."""
    folder = artifact_in(tmp_path)
    contents = contents_of(folder)
    model = _with_another_weight(contents["model.onnx"])
    for name, content in repinned(contents, "model.onnx", model).items():
        (folder / name).write_bytes(content)

    code, found = asked(folder)

    assert code == 1
    assert found["passes"] is False
    assert "golden row" in str(found["failures"])


def test_a_damaged_artifact_is_an_error_and_no_verdict(tmp_path: Path) -> None:
    folder = artifact_in(tmp_path)
    (folder / "model.onnx").write_bytes(b"nothing")

    code, found = asked(folder)

    assert code == 2
    assert "error" in found


def _with_another_weight(content: bytes) -> bytes:
    model = onnx.load_from_string(content)
    attributes = (attribute for node in model.graph.node for attribute in node.attribute)
    weights = next(one for one in attributes if one.name == "coefficients").floats
    weights[-1] *= 1.5
    return bytes(model.SerializeToString())
