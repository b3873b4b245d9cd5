"""Read from the environment whose signature a process accepts."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_settings import BaseSettings

from detent.adapters.artifact_signature import SignatureTrust
from detent.contracts.manifest import is_model_id

TRUST_BYTES_MAX = 2**20
FILES_MAX = 64
ModelId = Annotated[str, StringConstraints(max_length=128)]


class SignatureSettings(BaseSettings):
    """Says whose artifacts a process serves; each process adds its own prefix.

    Attributes:
        signature_policy: `none` looks at no signature; `required` refuses an artifact
            without one that is trusted.
        signature_keys: Files with trusted public keys, PEM, one each; a JSON list.
        signature_roots: Files with trusted certificates, PEM; a JSON list.
        signature_identities: Signers that a certificate must name, for example
            `email:quant@example.com`; a JSON list, needed with `signature_roots`.
        signature_oldest: The oldest version accepted of each line, for example
            `regime_classifier_v1.2.0`; a JSON list. Going back further takes a change here.
    """

    signature_policy: Literal["none", "required"] = "none"
    signature_keys: Annotated[tuple[Path, ...], Field(max_length=FILES_MAX)] = ()
    signature_roots: Annotated[tuple[Path, ...], Field(max_length=FILES_MAX)] = ()
    signature_identities: Annotated[tuple[str, ...], Field(max_length=FILES_MAX)] = ()
    signature_oldest: tuple[ModelId, ...] = ()

    @model_validator(mode="after")
    def _check_signature(self) -> Self:
        """Refuse settings by which nobody is trusted, or that look as if they did something."""
        given = (self.signature_keys, self.signature_roots, self.signature_oldest)
        if self.signature_policy == "none":
            if any(given):
                raise ValueError("keys, roots and oldest need signature_policy=required")
            return self
        if not (self.signature_keys or self.signature_roots):
            raise ValueError("signature_policy=required needs signature_keys or signature_roots")
        if self.signature_roots and not self.signature_identities:
            raise ValueError("signature_roots needs signature_identities: a root is nobody")
        for name in self.signature_oldest:
            if not is_model_id(name):
                raise ValueError(f"signature_oldest: found {name!r}, expected <name>_v<version>")
        # A file that cannot be read stops the process at the start, with its name.
        _ = self.signature_trust
        return self

    @property
    def signature_trust(self) -> SignatureTrust:
        """Read the keys and certificates; raises `ValueError` for a file that is none."""
        return SignatureTrust(
            required=self.signature_policy == "required",
            public_keys=tuple(_read(path) for path in self.signature_keys),
            roots=tuple(_read(path) for path in self.signature_roots),
            identities=self.signature_identities,
            oldest=self.signature_oldest,
            now=lambda: datetime.now(UTC),
        )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(TRUST_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}, expected a PEM file") from error
    if len(text) > TRUST_BYTES_MAX or b"-----BEGIN " not in text:
        raise ValueError(f"{path}: found no PEM, expected a public key or a certificate")
    if b"PRIVATE KEY" in text:
        raise ValueError(f"{path}: found a private key, expected a public one: move it away")
    return text
