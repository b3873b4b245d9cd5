"""Write evidence whole, with its SHA-256 beside it, and read both back.

Source: rows R341 and R343; FORMULAS, evidence artifacts.
"""

import os
from pathlib import Path

from detent.contracts.canonical import sha256_hex
from detent.contracts.checks import is_hash64
from detent.offline.cells import invalid

SIDECAR_SUFFIX = ".sha256"
BYTES_MAX = 64 * 2**20


def write_evidence(path: Path, text: bytes) -> str:
    """Write a file and the file with its SHA-256, each at once or not at all.

    The text comes first: whoever reads between the two finds a hash that does not fit.

    Returns:
        The SHA-256, 64 hex.

    Raises:
        DataInvalid: They cannot be written there.
    """
    digest = sha256_hex(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text)
        _replace(sidecar_of(path), f"{digest}  {path.name}\n".encode("ascii"))
    except OSError as error:
        raise invalid(path.name, type(error).__name__, "a file that can be written") from error
    return digest


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
        words = sidecar_of(path).read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return None
    names_it = len(words) == 2 and words[1] == path.name  # noqa: PLR2004  Hash and name.
    return words[0] if names_it and is_hash64(words[0]) else None


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
