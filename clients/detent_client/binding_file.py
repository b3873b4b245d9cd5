"""Read the binding that an artifact's manifest gives."""

from pathlib import Path

from detent.contracts.binding import ModelBinding
from detent.contracts.manifest import binding_of, parse_manifest


def read_binding(artifact_dir: Path) -> ModelBinding:
    """Give the one model binding that an artifact allows.

    Args:
        artifact_dir: The artifact's directory; only its manifest is read.

    Raises:
        InvalidField: The manifest is malformed.
    """
    return binding_of(parse_manifest((artifact_dir / "manifest.json").read_bytes()))
