"""Runs the strategist of the README as a reader would: as a script, against a running stack."""

import csv
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.builders import SYMBOL
from tests.conftest import PATIENT, Artifacts

from detent.contracts.market import Bar
from detent_cli.stack import Stack, StackOptions

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```python\n(?P<code>.*?)```", re.DOTALL)
# What the README takes from the demo, and the names of what a test has in its place.
ARTIFACT = "out/demo/artifacts/direction_v1.0.0"
WHEEL = "out/demo/data/gym_anytrading-2.0.0-py3-none-any.whl"
POLICY, FEATURE = "127.0.0.1:7303", "127.0.0.1:7301"


def test_readme_example_gets_a_decision_from_the_model(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    data = tmp_path / "bars.csv"
    _write_bars(data, artifacts.bars[SYMBOL])
    options = StackOptions(
        artifact_dir=artifacts.stable,
        state_dir=tmp_path / "state",
        single=True,
        environment=PATIENT,
    )
    with Stack(options) as stack:
        told = {
            ARTIFACT: str(artifacts.stable),
            WHEEL: str(data),
            POLICY: stack.targets["policy"],
            FEATURE: stack.targets["feature"],
        }
        printed = [_run(told, folder=tmp_path) for _ in range(2)]

    weight, source, replayed = printed[0]
    final_ppm, style, *_ = weight.split()
    assert 0 <= int(final_ppm) <= 250_000
    assert style in ("post_only", "none")
    assert re.fullmatch(r"model \d{1,5} None", source)
    assert replayed == "True"
    # The same bar asked again gives the recorded answer.
    assert printed[1] == printed[0]


def _run(told: dict[str, str], *, folder: Path) -> list[str]:
    """Run the README's only Python block with other addresses and give what it prints."""
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) == 1
    code = blocks[0]
    for named, meant in told.items():
        assert code.count(named) == 1, named
        code = code.replace(named, meant)
    script = folder / "strategist.py"
    script.write_text(code, encoding="utf-8")
    finished = subprocess.run(
        [sys.executable, "-W", "error", script.name],
        cwd=folder,
        env=os.environ | {"GRPC_VERBOSITY": "ERROR"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines()


def _write_bars(path: Path, bars: Sequence[Bar]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("ts_ms", "symbol", "open", "high", "low", "close", "volume"))
        for bar in bars:
            numbers = (bar.open, bar.high, bar.low, bar.close, bar.volume)
            rows.writerow((bar.ts_ms - bar.interval_ms, bar.symbol, *numbers))
