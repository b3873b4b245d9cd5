"""Sign an artifact with OpenSSF model-signing, offline, with a key of one's own.

Runs where the private key is, and nowhere else: no server has the library or the key.
"""

import importlib
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from detent.adapters.artifact_signature import SIGNATURE_FILE, SignatureTrust
from detent.adapters.artifact_store import read_artifact, verify_artifact
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.manifest import LISTED_FILES, MANIFEST_FILE
from detent.contracts.reasons import Reason


def sign_artifact(
    folder: Path,
    *,
    key: Path,
    now: Callable[[], datetime],
    password: str | None = None,
    certificate: Path | None = None,
    chain: tuple[Path, ...] = (),
    replace: bool = False,
) -> str:
    """Sign an artifact and put the signature into its folder.

    The artifact is verified first, and its signature afterwards by the code that the servers
    run, before it is put in place.

    Args:
        folder: The artifact's directory.
        key: Private key, PEM, on one of the curves P-256, P-384 and P-521.
        now: Gives the present instant; a certificate must be valid at it.
        password: Of the private key, if it has one; not together with a certificate.
        certificate: The signer's certificate, PEM.
        chain: Certificates between the signer's and the trusted one.
        replace: Whether a signature that is there gives way, as when a key is rotated.

    Returns:
        The signer, as the servers will name it.

    Raises:
        ArtifactInvalid: The artifact does not verify, is signed already, or the key or the
            certificate is not usable.
    """
    folder = folder.absolute()
    read_artifact(folder)
    target = folder / SIGNATURE_FILE
    if target.exists() and not replace:
        raise _refused("a signature", "none there, or --replace")
    partial = folder.parent / f".{folder.name}.{SIGNATURE_FILE}.partial-{os.getpid()}"
    try:
        _sign(folder, partial, key=key, password=password, certificate=certificate, chain=chain)
        trust = _trust_of(key, password, certificate, now)
        contents = {name: (folder / name).read_bytes() for name in (MANIFEST_FILE, *LISTED_FILES)}
        contents[SIGNATURE_FILE] = partial.read_bytes()
        signer = verify_artifact(folder.name, contents, trust=trust).pinned.signer
        _put(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    assert signer is not None
    return signer


def _sign(
    folder: Path,
    out: Path,
    *,
    key: Path,
    password: str | None,
    certificate: Path | None,
    chain: tuple[Path, ...],
) -> None:
    try:
        # Partly without types, and only there where somebody signs.
        hashing: Any = importlib.import_module("model_signing.hashing")
        signing: Any = importlib.import_module("model_signing.signing")
    except ImportError as error:
        raise _refused(str(error), "the extra `signing`: pip install 'detent[signing]'") from error
    # The names of a repository's files are not ours: nothing but the signature is left out.
    hashed = hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)
    config = signing.Config().set_hashing_config(hashed)
    if certificate is not None and password is not None:
        raise _refused("a password", "a key without one, together with a certificate")
    try:
        if certificate is None:
            secret = None if password is None else password.encode()
            config.use_elliptic_key_signer(private_key=key, password=secret)
        else:
            config.use_certificate_signer(
                private_key=key,
                signing_certificate=certificate,
                # The library takes no empty chain; the certificate once more adds nothing.
                certificate_chain=chain or (certificate,),
            )
        config.sign(folder, out)
    except (ValueError, TypeError, OSError) as error:
        found = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise _refused(found, "a private EC key, and a certificate of that key") from error


def _trust_of(
    key: Path, password: str | None, certificate: Path | None, now: Callable[[], datetime]
) -> SignatureTrust:
    """Give the trust that accepts this signer and nobody else."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    from detent.adapters.signing_certificates import certificate_name  # noqa: PLC0415

    if certificate is not None:
        pem = certificate.read_bytes()
        return SignatureTrust(
            required=True, roots=(pem,), identities=(certificate_name(pem),), now=now
        )
    secret = None if password is None else password.encode()
    public = serialization.load_pem_private_key(key.read_bytes(), secret).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return SignatureTrust(
        required=True, public_keys=(public.public_bytes(serialization.Encoding.PEM, form),)
    )


def _put(partial: Path, target: Path) -> None:
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(target)


def _refused(found: str, expected: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"signing: found {found}, expected {expected}",
        gate_reason=Reason.SIGNATURE_REFUSED,
        file=SIGNATURE_FILE,
        found=found,
        expected=expected,
    )
