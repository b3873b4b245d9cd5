"""Drive whatever container engine the environment names, over one small set of calls.

`DETENT_CONTAINERS` holds a command: `docker`, or one that offers `build`, `compose`, `healthy`
and `podman` where no Docker engine runs.
"""

import os
import pathlib
import shlex
import subprocess
import time
from collections.abc import Mapping

import msgspec

ROOT = pathlib.Path(__file__).parents[2]
BUILD_S_MAX = 900.0
CALL_S_MAX = 180.0
HEALTHY_S_MAX = 60
POLL_S = 0.5


def command_of_environment() -> tuple[str, ...]:
    """Give the command that the environment names; empty when it names none."""
    return tuple(shlex.split(os.environ.get("DETENT_CONTAINERS", "")))


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """Runs one compose project.

    Attributes:
        command: What `DETENT_CONTAINERS` names.
        project: Name that keeps this stack apart from any other.
        environment: Variables that the compose file reads.
        env_file: File with more of them.
    """

    command: tuple[str, ...]
    project: str
    environment: Mapping[str, str]
    env_file: pathlib.Path

    @property
    def is_docker(self) -> bool:
        """Say whether the command is Docker's own."""
        return pathlib.Path(self.command[-1]).name == "docker"

    def compose(self, *arguments: str, timeout_s: float = CALL_S_MAX) -> str:
        """Run one call of compose on this project and give what it printed."""
        options = ("-p", self.project, "--env-file", str(self.env_file), "--profile", "client")
        return self._run("compose", *options, *arguments, timeout_s=timeout_s)

    def build(self) -> None:
        """Build every image of the stack, no layer taken from an earlier build."""
        self.compose("build", "--no-cache", timeout_s=BUILD_S_MAX)

    def direct(self, *arguments: str) -> str:
        """Run one call of the engine itself."""
        return self._run(*(() if self.is_docker else ("podman",)), *arguments)

    def container(self, service: str) -> str:
        """Give the id of a service's container, whether it runs or not."""
        filters = [
            f"label=com.docker.compose.project={self.project}",
            f"label=com.docker.compose.service={service}",
        ]
        arguments = [part for text in filters for part in ("--filter", text)]
        found = self.direct("ps", "--all", "--quiet", *arguments).split()
        assert len(found) == 1, f"{service}: found containers {found}"
        return found[0]

    def state(self, service: str, field: str) -> str:
        """Give one field of what the engine knows of a service's container."""
        form = "{{" + field + "}}"
        return self.direct("inspect", "--format", form, self.container(service)).strip()

    def wait_healthy(self, *services: str) -> None:
        """Wait until the health check that each image carries passes."""
        containers = [self.container(service) for service in services]
        if not self.is_docker:
            self._run("healthy", str(HEALTHY_S_MAX), *containers)
            return
        ends_s = time.monotonic() + HEALTHY_S_MAX
        for service in services:
            while (found := self.state(service, ".State.Health.Status")) != "healthy":
                assert time.monotonic() < ends_s, f"{service}: {found}\n{self.logs(service)}"
                time.sleep(POLL_S)

    def logs(self, service: str) -> str:
        """Give the end of a service's log, which it writes to its standard error."""
        arguments = () if self.is_docker else ("podman",)
        done = self._done(*arguments, "logs", "--tail", "20", self.container(service))
        return f"{done.stdout}{done.stderr}"

    def _run(self, *arguments: str, timeout_s: float = CALL_S_MAX) -> str:
        return self._done(*arguments, timeout_s=timeout_s).stdout

    def _done(
        self, *arguments: str, timeout_s: float = CALL_S_MAX
    ) -> subprocess.CompletedProcess[str]:
        line = [*self.command, *arguments]
        done = subprocess.run(
            line,
            cwd=ROOT,
            env=os.environ | dict(self.environment),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        tail = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert done.returncode == 0, f"{shlex.join(line)} gave {done.returncode}:\n{tail}"
        return done
