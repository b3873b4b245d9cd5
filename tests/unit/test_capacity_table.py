"""The table that says where to compute: every model and size, on every device that is there."""

import json
from pathlib import Path

import pytest
import typer
from benchmarks.inference import capacity
from typer.testing import CliRunner


@pytest.mark.proves("R171")
def test_the_table_has_every_model_size_and_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "ROWS", (1, 16))
    app = typer.Typer()
    app.command()(capacity.main)

    done = CliRunner().invoke(app, ["--seconds", "0.05", "--json", str(tmp_path / "found.json")])

    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "found.json").read_text())
    devices = {"cpu", "cuda"} - set(found["absent"])
    assert "cpu" in devices
    assert {(cell["model"], cell["provider"], cell["rows"]) for cell in found["cells"]} == {
        (model, provider, rows)
        for model in capacity.MODELS
        for provider in devices
        for rows in (1, 16)
    }
    assert all(cell["run_us"] > 0 for cell in found["cells"])
    # A device that is not here is named with what is missing.
    assert all(found["absent"].values())
    for model in capacity.MODELS:
        assert model in done.output
