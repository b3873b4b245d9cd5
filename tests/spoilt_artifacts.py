"""Spoils artifacts, and says what the processes that serve them said of it."""

import asyncio
import shutil
import urllib.request
from pathlib import Path

import pytest
from tests.fakes import send
from tests.metrics_page import samples_of

from detent.contracts import events
from detent.contracts.calls.inference import DescribeArtifactRequest
from detent.contracts.errors import DeadlineExceeded, ModelNotReady, ServiceUnavailable
from detent.contracts.reasons import Reason
from detent.contracts.wire import to_wire
from detent_cli.stack import Stack


def remove(path: Path) -> None:
    shutil.rmtree(path)


def flip_model_byte(path: Path) -> None:
    model = path / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)


def remove_calibration(path: Path) -> None:
    (path / "calibration.json").unlink()


def refusals_said(stack: Stack) -> int:
    return sum(events.ARTIFACT_REFUSED in line for line in stack.log_lines("inference"))


def fallbacks_counted(stack: Stack, reason: Reason) -> float:
    """Give what the policy process says to Prometheus."""
    listen = stack._options.environment["DETENT_POLICY_METRICS_LISTEN"]
    with urllib.request.urlopen(f"http://{listen}/metrics", timeout=5) as page:
        text = page.read().decode()
    return samples_of(text)["detent_policy_fallbacks_total", (("reason", reason.value),)]


def ports_of(stack: Stack) -> dict[str, int]:
    return {name: int(target.rpartition(":")[2]) for name, target in stack.targets.items()}


async def until_unready(stack: Stack, binding_hash: str) -> None:
    """Wait until inference is up and says that it serves nothing."""
    question = to_wire(DescribeArtifactRequest(binding_hash=binding_hash))
    for _ in range(300):
        try:
            await send(stack.targets["inference"], question)
        except ModelNotReady:
            return
        except (ServiceUnavailable, DeadlineExceeded):
            await asyncio.sleep(0.1)
    pytest.fail("inference did not come up")
