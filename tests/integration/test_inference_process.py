"""The inference process: no code from artifacts, no pickles, nobody but the loopback (D4, R41)."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from opentelemetry.context import Context
from tests.airgap import LeftTheMachine, is_local
from tests.tidy.tree import ROOT
from tests.unit.artifacts import artifact, artifact_in, model_inputs

from detent.contracts import events
from detent.contracts.calls.inference import (
    InferenceRow,
    InferSignalsRequest,
    InferSignalsResponse,
)
from detent.rpc.channel import RemoteService, open_channel
from detent.rpc.probe import is_serving
from detent.rpc.tracing import no_tracer
from detent_cli.stack import free_port

SERVICE = "detent.api.v1.InferenceService"
READY_S_MAX = 40.0


@pytest.mark.proves("R345")
def test_suite_stays_on_this_machine() -> None:
    """Control for every other test: whoever connects elsewhere, by number or name, is told."""
    with socket.socket() as elsewhere, pytest.raises(LeftTheMachine):
        elsewhere.connect(("192.0.2.1", 9))
    with pytest.raises(LeftTheMachine):
        socket.create_connection(("example.org", 443))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        socket.create_connection(listener.getsockname()).close()


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("a.b", False)],
)
def test_airgap_knows_what_is_local(host: str, local: bool) -> None:
    assert is_local(host) is local


def peers(pid: int) -> list[str]:
    """Give the other ends of a process's TCP connections, as the kernel has them."""
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # A process at work closes what was listed a moment ago.
        with contextlib.suppress(FileNotFoundError):
            links.append(str(entry.readlink()))
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    found = []
    for name in ("tcp", "tcp6"):
        lines = Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii").splitlines()[1:]
        for fields in map(str.split, lines):
            if fields[9] in inodes:
                raw = bytes.fromhex(fields[2].split(":")[0])
                words = [raw[start : start + 4][::-1] for start in range(0, len(raw), 4)]
                found.append(str(ipaddress.ip_address(b"".join(words))))
    return found


def is_here(peer: str) -> bool:
    """Say whether a peer is this machine, or nobody: that of a socket that listens."""
    address = ipaddress.ip_address(peer)
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


async def infer(target: str) -> InferSignalsResponse:
    """Ask for one signal over the wire."""
    query = InferSignalsRequest(
        binding_hash=artifact().pinned.binding_hash,
        rows=(InferenceRow(symbol="BTCUSDT", model_input=model_inputs()[0]),),
    )
    async with open_channel(target) as channel:
        service = RemoteService(channel, "InferenceService", no_tracer())
        return await service.call(query, InferSignalsResponse, timeout_s=10.0, trace=Context())


@pytest.mark.proves("R41")
def test_inference_serves_without_pickles_and_without_a_network(
    tmp_path: Path,
) -> None:
    target = f"127.0.0.1:{free_port()}"
    settings = {
        "DETENT_INFERENCE_LISTEN": target,
        "DETENT_INFERENCE_ARTIFACT_DIR": str(artifact_in(tmp_path)),
        "DETENT_INFERENCE_MAX_INFERENCE_LATENCY_MS": "5000",
        "PYTHONPATH": str(ROOT),
    }
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.guarded_inference"],
            env=os.environ | settings,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    try:
        ends_s = time.monotonic() + READY_S_MAX
        while not is_serving(target, SERVICE) and time.monotonic() < ends_s:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        answer = asyncio.run(infer(target))
        connected = peers(process.pid) if Path("/proc/self/net/tcp").exists() else []
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=READY_S_MAX)
    finally:
        process.kill()
        process.wait()
    facts = json.loads(out)

    assert answer.rows[0].signal is not None
    assert [peer for peer in connected if not is_here(peer)] == []
    assert facts == {
        "loaded": [],
        "refused_before": False,
        "refused_after": True,
        "stayed": True,
    }
    assert events.UNPICKLING_REFUSED in log.read_text()
