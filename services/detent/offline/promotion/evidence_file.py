"""Write evidence whole, with its SHA-256 beside it, and read both back.

Source: rows R341 and R343; FORMULAS, evidence artifacts.
"""

import os
import tempfile
from pathlib import Path

from detent.contracts.canonical import sha256_hex
from detent.contracts.checks import is_hash64
from detent.offline.cells import invalid

SIDECAR_SUFFIX = ".sha256"
BYTES_MAX = 64 * 2**20
# More than the evidence of one promotion has.
PROBE_BYTES = 2**20
# A hash, two spaces, the longest name of a file, and then something that is too much.
SIDECAR_BYTES_MAX = 1_024


def write_evidence(path: Path, text: bytes) -> str:
    """Write a file and the file with its SHA-256, each at once or not at all.

    The text comes first: whoever reads between the two finds a hash that does not fit.

    Returns:
        The SHA-256, 64 hex.

    Raises:
        DataInvalid: They cannot be written there.
    """
    if not path.name:
        raise invalid(str(path), "no name", "a file that can be written")
    digest = sha256_hex(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text)
        # A name of a file has whatever characters the system lets it have.
        _replace(sidecar_of(path), os.fsencode(f"{digest}  {path.name}\n"))
    except OSError as error:
        raise invalid(path.name, type(error).__name__, "a file that can be written") from error
    return digest


def check_folder(folder: Path) -> None:
    """Refuse a folder that keeps nothing, before something is done that has to be kept.

    Raises:
        DataInvalid: Nothing can be written there, or not as much as one promotion's evidence.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        expected = "a folder that evidence can be written into"
        raise invalid(folder.name, type(error).__name__, expected) from error


def read_evidence(path: Path) -> tuple[bytes, str | None]:
    """Read a file and what the file beside it says; None where none says a hash of it.

    Raises:
        DataInvalid: The file itself cannot be read.
    """
    try:
        with path.open("rb") as file:
            text = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise invalid(path.name, type(error).__name__, "a report that can be read") from error
    if len(text) > BYTES_MAX:
        raise invalid(path.name, f"more than {BYTES_MAX} bytes", "at most that")
    return text, _said(path)


def sidecar_of(path: Path) -> Path:
    """Name the file that holds the hash."""
    return path.with_name(path.name + SIDECAR_SUFFIX)


def _said(path: Path) -> str | None:
    try:
        with sidecar_of(path).open("rb") as file:
            line = os.fsdecode(file.read(SIDECAR_BYTES_MAX))
    except OSError:
        return None
    digest, _, name = line.rstrip("\r\n").partition("  ")
    return digest if name == path.name and is_hash64(digest) else None


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
