"""Makes keys and certificates for tests, the way `docs/signing.md` has people make them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
SIGNER = "email:quant@example.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """Holds the files of one key."""

    private: Path
    public: Path
    key: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """Holds the file of one certificate and the key that it is for."""

    path: Path
    pair: KeyPair
    certificate: x509.Certificate


def key_pair(folder: Path, name: str, *, curve: ec.EllipticCurve | None = None) -> KeyPair:
    """Make a key and write both halves."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(curve or ec.SECP256R1())
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return KeyPair(private=private, public=public, key=key)


def issue(
    folder: Path,
    name: str,
    *,
    issuer: Issued | None = None,
    email: str | None = None,
    may_issue: bool = False,
    signs: bool = True,
    days: tuple[int, int] = (-10, 300),
    path_length: int | None = None,
) -> Issued:
    """Issue a certificate, by itself or by another; days count from `NOW`."""
    pair = key_pair(folder, name)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(pair.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=may_issue, path_length=path_length), critical=True)
        .add_extension(_usage(signs=signs, may_issue=may_issue), critical=True)
    )
    if email:
        names = x509.SubjectAlternativeName([x509.RFC822Name(email)])
        builder = builder.add_extension(names, critical=False)
    signing_key = issuer.pair.key if issuer else pair.key
    certificate = builder.sign(signing_key, hashes.SHA256())
    path = folder / f"{name}.crt"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Issued(path=path, pair=pair, certificate=certificate)


def _usage(*, signs: bool, may_issue: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=may_issue,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
