"""Start, kill and stop the processes of Detent on one machine."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from detent.contracts.errors import InvalidField, ServiceUnavailable
from detent.core.rollout.gates import ACTIVE_ACK

HOST = "127.0.0.1"
READY_S_MAX = 20.0
STOP_S_MAX = 15.0
POLL_S = 0.05
PORTS, PORT_TRIES = range(20_000, 32_000), 100
# The inference process of a second artifact.
CANDIDATE = "candidate"
HEALTH_NAMES = {
    "feature": "detent.api.v1.FeatureService",
    "inference": "detent.api.v1.InferenceService",
    "policy": "detent.api.v1.PolicyService",
}


class StackOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Says what to start and where it keeps its files.

    Attributes:
        artifact_dir: The one artifact that is served; its folder is searched for manifests.
        state_dir: Ledger, logs and spans go here.
        candidate_dir: A second artifact beside it in the same folder, served by an inference
            process of its own, for a rollout; None serves one. Not with `single`.
        control_url: Control database of rollouts and kill switches; empty for none.
        single: One process instead of three.
        monitor: Whether the monitor runs beside them.
        active: Whether the model may act: both keys and the acknowledgement.
        ports: Port per process; a process that is not named gets a free one.
        ml_settings: File in the seed's form, for policy and monitor; says whether the model runs,
            instead of `active`.
        environment: More variables for every process.
    """

    artifact_dir: Path
    state_dir: Path
    candidate_dir: Path | None = None
    control_url: str = ""
    single: bool = False
    monitor: bool = False
    active: bool = True
    ports: Mapping[str, int] = msgspec.field(default_factory=dict)
    ml_settings: Path | None = None
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)


class Stack:
    """Owns the processes of one machine, from `start` to `stop`."""

    def __init__(self, options: StackOptions) -> None:
        """Choose the addresses; nothing runs yet."""
        self._options = options
        ports = {name: options.ports.get(name) or free_port() for name in HEALTH_NAMES}
        if options.single:
            ports = dict.fromkeys(HEALTH_NAMES, ports["policy"])
        if options.candidate_dir is not None:
            if options.single or options.candidate_dir.parent != options.artifact_dir.parent:
                found = "one process" if options.single else str(options.candidate_dir)
                expected = "three processes, and both artifacts in one folder"
                raise InvalidField("candidate", found, expected)
            if not options.candidate_dir.is_dir():
                raise InvalidField("candidate", options.candidate_dir, "the folder of an artifact")
            ports[CANDIDATE] = options.ports.get(CANDIDATE) or free_port()
        if options.monitor:
            ports["monitor"] = options.ports.get("monitor") or free_port()
        self.targets = {name: f"{HOST}:{port}" for name, port in ports.items()}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def anchor_file(self) -> Path:
        """Give the file of signed anchors; its key and its public key lie beside it."""
        return self._options.state_dir / "anchors.jsonl"

    @property
    def anchor_key_file(self) -> Path:
        """Give the private key that signs the anchors; drawn at the first start."""
        return self._options.state_dir / "anchors.pem"

    @property
    def names(self) -> tuple[str, ...]:
        """Name the processes in the order in which they start."""
        services: tuple[str, ...] = ("feature", "inference", "policy")
        if self._options.single:
            services = ("single",)
        if self._options.candidate_dir is not None:
            services = ("feature", "inference", CANDIDATE, "policy")
        return (*services, "monitor") if self._options.monitor else services

    @property
    def state_dir(self) -> Path:
        """Give the folder of ledger, logs and spans."""
        return self._options.state_dir

    @property
    def ledger_file(self) -> Path:
        """Give the ledger's file."""
        return self._options.state_dir / "ledger.sqlite"

    def pid(self, name: str) -> int:
        """Give the process id of a running process."""
        return self._processes[name].pid

    def is_running(self, name: str) -> bool:
        """Say whether a process was started and has not ended."""
        return name in self._processes and self._processes[name].poll() is None

    def __enter__(self) -> Self:
        """Start everything."""
        try:
            self.start_all()
        except BaseException:
            self.stop_all()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything."""
        self.stop_all()

    def start_all(self) -> None:
        """Start every process and wait until each serves; the monitor reads what policy made."""
        services = [name for name in self.names if name != "monitor"]
        for name in services:
            self.start(name, wait=False)
        for name in services:
            self.wait_ready(name)
        if self._options.monitor:
            self.start("monitor")

    def start(self, name: str, *, wait: bool = True) -> None:
        """Start one process; raises `ServiceUnavailable` when it does not come up."""
        self._options.state_dir.mkdir(parents=True, exist_ok=True)
        if name in ("policy", "single") and not self.anchor_key_file.exists():
            from detent.adapters.ledger_anchors import make_key  # noqa: PLC0415

            make_key(self.anchor_key_file)
        module = f"detent.servers.{'inference' if name == CANDIDATE else name}.main"
        if name == "single":
            module = "detent.servers.single"
        with (self._options.state_dir / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(  # noqa: S603  Our own module.
                [sys.executable, "-m", module],
                env=os.environ | self._environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            self.wait_ready(name)

    def wait_ready(self, name: str) -> None:
        """Wait until a process reports that it serves.

        Raises:
            ServiceUnavailable: It ended, or did not serve in time; names its log.
        """
        target = self.targets["policy" if name == "single" else name]
        ends_s = time.monotonic() + READY_S_MAX
        while time.monotonic() < ends_s:
            if self._processes[name].poll() is not None:
                break
            if self._answers(name, target):
                return
            time.sleep(POLL_S)
        raise ServiceUnavailable(
            f"{name} does not serve at {target}; its log is {name}.log in the state folder:"
            f" {self._last_line(name)}",
            service=name,
        )

    @staticmethod
    def _answers(name: str, target: str) -> bool:
        if name == "monitor":
            try:
                with urllib.request.urlopen(f"http://{target}/healthz", timeout=1.0) as answer:
                    return bool(answer.status == HTTPStatus.OK)
            except OSError:
                return False
        # Imported here: the probe needs the health package, which a bare client has not.
        from detent.rpc.probe import is_serving  # noqa: PLC0415

        asked = {"single": "policy", CANDIDATE: "inference"}.get(name, name)
        return is_serving(target, HEALTH_NAMES[asked])

    def kill(self, name: str) -> None:
        """Kill one process at once, without a chance to say goodbye."""
        self._processes[name].send_signal(signal.SIGKILL)
        self._processes[name].wait()

    def stop_all(self) -> None:
        """Ask every process to drain, policy first, and wait for it."""
        for name in reversed(self.names):
            process = self._processes.get(name)
            if process is None:
                continue
            if process.poll() is None:
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S_MAX)
            if process.poll() is None:
                process.kill()
                process.wait()

    def _environment(self, name: str) -> dict[str, str]:
        options = self._options
        variables = {
            "DETENT_FEATURE_LISTEN": self.targets["feature"],
            "DETENT_FEATURE_ARTIFACTS_DIR": str(options.artifact_dir.parent),
            "DETENT_INFERENCE_LISTEN": self.targets["inference"],
            "DETENT_INFERENCE_ARTIFACT_DIR": str(options.artifact_dir),
            "DETENT_MONITOR_LISTEN": self.targets.get("monitor", ""),
            "DETENT_MONITOR_LEDGER": str(self.ledger_file),
            "DETENT_MONITOR_POLICY_TARGET": self.targets["policy"],
            "DETENT_MONITOR_ARTIFACTS_DIR": str(options.artifact_dir.parent),
            "DETENT_POLICY_LISTEN": self.targets["policy"],
            "DETENT_POLICY_ARTIFACTS_DIR": str(options.artifact_dir.parent),
            "DETENT_POLICY_FEATURE_TARGET": self.targets["feature"],
            "DETENT_POLICY_INFERENCE_TARGET": self.targets["inference"],
            "DETENT_POLICY_LEDGER_FILE": str(self.ledger_file),
            "DETENT_POLICY_ANCHOR_FILE": str(self.anchor_file),
            "DETENT_POLICY_ANCHOR_KEY_FILE": str(self.anchor_key_file),
            "DETENT_POLICY_ACTIVE_ACK": ACTIVE_ACK if options.active else "",
        }
        if options.ml_settings is not None:
            variables["DETENT_POLICY_ML_SETTINGS"] = str(options.ml_settings)
            variables["DETENT_MONITOR_ML_SETTINGS"] = str(options.ml_settings)
        else:
            variables["DETENT_POLICY_INFER_ENABLED"] = str(options.active).lower()
            variables["DETENT_POLICY_ACTIVE_ENABLED"] = str(options.active).lower()
        if options.control_url:
            names = ("DETENT_MONITOR_CONTROL_URL", "DETENT_POLICY_CONTROL_URL")
            variables |= dict.fromkeys(names, options.control_url)
        if options.candidate_dir is not None:
            variables |= self._of_candidate(name, options.candidate_dir)
        prefix = {"single": "policy", CANDIDATE: "inference"}.get(name, name)
        spans = options.state_dir / f"{name}.spans.jsonl"
        variables[f"DETENT_{prefix.upper()}_TRACE_FILE"] = str(spans)
        return variables | dict(options.environment)

    def _of_candidate(self, name: str, folder: Path) -> dict[str, str]:
        """Give what serves the second artifact, and what finds it."""
        if name == CANDIDATE:
            return {
                "DETENT_INFERENCE_LISTEN": self.targets[CANDIDATE],
                "DETENT_INFERENCE_ARTIFACT_DIR": str(folder),
            }
        targets = {folder.name: self.targets[CANDIDATE]}
        return {"DETENT_POLICY_INFERENCE_TARGETS": json.dumps(targets)}

    def _last_line(self, name: str) -> str:
        lines = self.log_lines(name)
        return lines[-1] if lines else "(empty)"

    def log_lines(self, name: str) -> list[str]:
        """Give the log of a process so far."""
        path = self._options.state_dir / f"{name}.log"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return text.splitlines()


def free_port() -> int:
    """Find a port that nobody listens on.

    It lies below those from which a kernel takes the ports of connections, so that none takes it
    before a process that is just starting listens there.

    Raises:
        ServiceUnavailable: None of many was free.
    """
    for _ in range(PORT_TRIES):
        port = PORTS[secrets.randbelow(len(PORTS))]
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind((HOST, port))
            return port
    found = f"none of {PORT_TRIES} ports from {PORTS.start} to {PORTS.stop - 1} on {HOST} is free"
    raise ServiceUnavailable(found, service="port")
