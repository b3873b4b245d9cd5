"""Proves that models are optional: with all switches off nothing needs what models need.

Two policy processes decide the same bars, proxy plans and model plans alike. In one of them no
package of a model can be imported. Nobody serves features or signals to either.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import Artifacts
from tests.integration.modelless_policy import MODEL_PACKAGES
from tests.integration.test_shadow_stream import POLICY, Stream, play, policy, stream_of
from tests.tidy.tree import ROOT

from detent.contracts.binding import PROXY_BINDING
from detent_cli.stack import Stack, StackOptions

MODELLESS = "tests.integration.modelless_policy"
OFF = {"INFER_ENABLED": "false", "SHADOW_MODE": "false"}


async def decided(artifacts: Artifacts, folder: Path, module: str) -> Stream:
    nobody = Stack(StackOptions(artifact_dir=artifacts.stable, state_dir=folder / "nobody"))
    async with policy(nobody, artifacts, folder / "run", module=module, **OFF) as client:
        await play(client, artifacts)
        await play(client, artifacts, binding=PROXY_BINDING, word="proxy")
    return stream_of(folder / "run")


@pytest.mark.proves("R80", "R142", "R312")
def test_without_any_package_of_a_model_the_same_bytes_are_decided(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    found = asyncio.run(decided(artifacts, tmp_path / "with", POLICY))
    without = asyncio.run(decided(artifacts, tmp_path / "without", MODELLESS))

    assert len(found) > 1_000
    assert without == found


@pytest.mark.proves("R80")
def test_a_policy_process_imports_no_package_of_a_model() -> None:
    code = (
        "import sys\nimport detent.servers.policy.main\nimport detent.servers.feature.main\n"
        f"print([name for name in {MODEL_PACKAGES!r} if name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert told.stdout.strip() == "[]"
