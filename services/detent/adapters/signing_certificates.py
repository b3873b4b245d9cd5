"""Read signing keys and certificates, and judge a chain of certificates.

`cryptography` is imported where it is used: a process that requires no signature does not
need it.
"""

import hashlib
from datetime import datetime
from typing import Any, Self

import msgspec

CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}


class SignatureRefused(Exception):
    """A key, a chain or a signature is not what it should be.

    Attributes:
        rule: One of `SignatureRule`.
        found: What stood there.
        expected: What should have.
    """

    def __init__(self, rule: str, found: object, expected: str) -> None:
        """Keep the facts; `artifact_signature` makes the error of them."""
        super().__init__(f"{rule}: found {found}, expected {expected}")
        self.rule = rule
        self.found = found
        self.expected = expected


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a public key and the name under which it is trusted.

    Attributes:
        name: `key:<64 hex>`, or what the certificate names.
        hint: SHA-256 of the key's PEM text, 64 hex, as signatures cite it.
        key: The public key.
    """

    name: str
    hint: str
    key: Any

    @classmethod
    def of_key(cls, pem: bytes) -> Self:
        """Read a public key.

        Raises:
            SignatureRefused: It is none, or not on a curve that is supported.
        """
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, TypeError) as error:
            raise SignatureRefused("unknown_key", error, "a public key in PEM") from error
        return cls.of(key, name=None)

    @classmethod
    def of(cls, key: Any, *, name: str | None) -> Self:
        """Name a key by itself, or by the certificate that it came from."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

        curve = getattr(getattr(key, "curve", None), "name", type(key).__name__)
        if curve not in CURVES:
            raise SignatureRefused("unknown_key", f"a key on {curve}", ", ".join(CURVES))
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        pem = key.public_bytes(serialization.Encoding.PEM, form)
        hint = hashlib.sha256(pem).hexdigest()
        return cls(name=name or f"key:{hint}", hint=hint, key=key)

    def verify(self, signature: bytes, signed: bytes) -> None:
        """Check a signature; raises `SignatureRefused` when it is not this key's."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
        from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

        algorithm = getattr(hashes, CURVES[self.key.curve.name])()
        try:
            self.key.verify(signature, signed, ec.ECDSA(algorithm))
        except InvalidSignature as error:
            found = "a signature that is not this key's, over this statement"
            raise SignatureRefused("wrong_signature", found, self.name) from error


def chain_identity(
    chain: tuple[bytes, ...], roots: tuple[bytes, ...], *, now: datetime
) -> Identity:
    """Follow a chain from the signer's certificate to one that is trusted.

    Args:
        chain: Certificates in DER, the signer's first.
        roots: Trusted certificates in PEM, one or more in each.
        now: The instant at which each must be valid.

    Returns:
        The signer's key, under the name that its certificate gives.

    Raises:
        SignatureRefused: A certificate is malformed, expired, not for signing, or issued by
            nobody who is trusted.
    """
    from cryptography import x509  # noqa: PLC0415

    try:
        leaf, *between = [x509.load_der_x509_certificate(one) for one in chain]
        trusted = [one for pem in roots for one in x509.load_pem_x509_certificates(pem)]
    except ValueError as error:
        raise SignatureRefused("malformed", error, "certificates") from error
    _check_valid(leaf, now)
    _check_usage(leaf)
    if leaf in trusted:
        # Whoever trusts the signer's own certificate asks for no issuer.
        return Identity.of(leaf.public_key(), name=_name_of(leaf))
    issued, depth = leaf, 0
    # A chain only grows longer: each step uses a certificate up.
    while True:
        anchor = _issuer_of(issued, trusted, depth=depth, now=now)
        if anchor is not None:
            return Identity.of(leaf.public_key(), name=_name_of(leaf))
        issuer = _issuer_of(issued, between, depth=depth, now=now)
        if issuer is None:
            found = f"issued by {issued.issuer.rfc4514_string()}"
            raise SignatureRefused("certificate_untrusted", found, "a trusted certificate")
        between.remove(issuer)
        issued, depth = issuer, depth + 1


def certificate_name(pem: bytes) -> str:
    """Say under which name a certificate's signatures are trusted; PEM, the first one counts."""
    from cryptography import x509  # noqa: PLC0415

    return _name_of(x509.load_pem_x509_certificates(pem)[0])


def _issuer_of(issued: Any, candidates: list[Any], *, depth: int, now: datetime) -> Any | None:
    """Give the certificate that issued another, if it is among some and may do so."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm  # noqa: PLC0415

    for candidate in candidates:
        try:
            issued.verify_directly_issued_by(candidate)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        if _may_issue(candidate, depth):
            _check_valid(candidate, now)
            return candidate
    return None


def _may_issue(certificate: Any, depth: int) -> bool:
    from cryptography import x509  # noqa: PLC0415

    constraints = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    if constraints is None or not constraints.ca:
        return False
    if constraints.path_length is not None and constraints.path_length < depth:
        return False
    return usage is None or bool(usage.key_cert_sign)


def _check_usage(certificate: Any) -> None:
    """Refuse a certificate that is not for signing, or that makes demands unknown to us."""
    from cryptography import x509  # noqa: PLC0415

    usage = _extension(certificate, x509.KeyUsage)
    if usage is None or not usage.digital_signature:
        found = "a certificate without the key usage digitalSignature"
        raise SignatureRefused("certificate_untrusted", found, "one for signing")
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    if purposes is not None and x509.oid.ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
        found = "a certificate for other purposes"
        raise SignatureRefused("certificate_untrusted", found, "one for codeSigning")


def _check_valid(certificate: Any, now: datetime) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begins <= now <= ends:
        found = f"valid from {begins:%Y-%m-%dT%H:%M:%SZ} to {ends:%Y-%m-%dT%H:%M:%SZ}"
        raise SignatureRefused("certificate_expired", found, f"valid at {now:%Y-%m-%dT%H:%M:%SZ}")


def _extension(certificate: Any, kind: Any) -> Any | None:
    from cryptography import x509  # noqa: PLC0415

    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except (ValueError, x509.DuplicateExtension) as error:
        raise SignatureRefused("malformed", error, "a certificate") from error


def _name_of(certificate: Any) -> str:
    """Name the signer: the first alternative name, else the common name."""
    from cryptography import x509  # noqa: PLC0415

    alternatives = _extension(certificate, x509.SubjectAlternativeName)
    for kind, prefix in ((x509.UniformResourceIdentifier, "uri"), (x509.RFC822Name, "email")):
        names = [] if alternatives is None else alternatives.get_values_for_type(kind)
        if names:
            return f"{prefix}:{names[0]}"
    common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    if not common:
        raise SignatureRefused("other_identity", "a certificate without a name", "a signer's name")
    return f"name:{common[0].value}"
