"""Verify the signature of an artifact against the bytes that were read.

The file is what OpenSSF model-signing writes: a Sigstore bundle, in it a DSSE envelope, in
it an in-toto statement that names every file with its SHA-256. That library verifies paths;
here the bytes are in memory already and are not read again, so the statement is compared
with them. Certificates are judged at the present instant, as there is no time stamp.

Source: RELIABILITY D6 and D1; docs/adr/0021.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from detent.adapters.signing_certificates import Identity, SignatureRefused, chain_identity
from detent.contracts.canonical import sha256_hex
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.manifest import MANIFEST_FILE, Manifest, is_model_id
from detent.contracts.reasons import Reason
from detent.core.artifacts.version_step import version_numbers

SIGNATURE_FILE = "model.sig"
SIGNATURE_BYTES_MAX = 256 * 2**10
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
CHAIN_MAX = 8


class SignatureRule(StrEnum):
    """Names what a signature was refused for."""

    UNSIGNED = "unsigned"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    WRONG_SIGNATURE = "wrong_signature"
    CERTIFICATE_UNTRUSTED = "certificate_untrusted"
    CERTIFICATE_EXPIRED = "certificate_expired"
    OTHER_IDENTITY = "other_identity"
    OTHER_NAME = "other_name"
    OTHER_CONTENT = "other_content"
    DOWNGRADE = "downgrade"


class SignatureTrust(msgspec.Struct, frozen=True, kw_only=True):
    """States whose signature is accepted, and on what.

    Attributes:
        required: Whether an artifact needs a signature; if not, none is looked at.
        public_keys: Trusted public keys, PEM, by their identity.
        roots: Trusted certificates, PEM, that may issue signing certificates.
        identities: Signers that certificates must name; a root alone trusts nobody.
        oldest: The oldest version accepted of a line, as a model id: `name_v1.2.0`.
        now: Gives the present instant, with its zone.
    """

    required: bool
    public_keys: tuple[bytes, ...] = ()
    roots: tuple[bytes, ...] = ()
    identities: tuple[str, ...] = ()
    oldest: tuple[str, ...] = ()
    now: Callable[[], datetime] | None = None

    def __post_init__(self) -> None:
        """Refuse trust that would refuse everything, or that would trust anybody."""
        if not self.required:
            return
        if not self.public_keys and not self.roots:
            raise _refused(SignatureRule.UNKNOWN_KEY, "no trusted key", "a key or a certificate")
        if self.roots and not (self.identities and self.now):
            found = "a trusted certificate, but nobody's name"
            raise _refused(SignatureRule.OTHER_IDENTITY, found, "the signers that it may issue")
        for name in self.oldest:
            if not is_model_id(name):
                raise _refused(SignatureRule.DOWNGRADE, name, "<model_name>_v<version>")


UNSIGNED_ALLOWED = SignatureTrust(required=False)


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a signature file, taken apart and not yet believed."""

    payload: bytes
    signature: bytes
    key_hint: str | None
    chain: tuple[bytes, ...]


def verify_signature(
    manifest: Manifest, manifest_text: bytes, signature: bytes | None, trust: SignatureTrust
) -> str | None:
    """Say who signed an artifact.

    The statement has to name the digest of `manifest_text` and of each file as the manifest
    pins it. Whoever read a file has compared it with the manifest, so that is every byte.

    Args:
        manifest: The manifest, parsed from `manifest_text`.
        manifest_text: The bytes of `manifest.json` that were read.
        signature: The bytes of the signature file that were read; None without one.
        trust: Whose signature is accepted.

    Returns:
        `key:<SHA-256 of the public key>` or the certificate's identity; None where no
        signature is required.

    Raises:
        ArtifactInvalid: With `SIGNATURE_REFUSED`, and `rule` one of `SignatureRule`.
    """
    if not trust.required:
        return None
    if signature is None:
        raise _refused(SignatureRule.UNSIGNED, "no signature", f"{SIGNATURE_FILE} in the artifact")
    # (1) The file is a bundle with one signature.
    envelope = _open(signature)
    # (2) A key that is trusted made it, or a certificate that is, in a trusted name.
    try:
        identity = _identity_of(envelope, trust)
        # (3) The signature is that key's, over this statement.
        identity.verify(envelope.signature, _pre_authentication(envelope.payload))
    except SignatureRefused as refusal:
        raise _refused(SignatureRule(refusal.rule), refusal.found, refusal.expected) from refusal
    # (4) The statement is about this name and exactly these bytes.
    _check_statement(envelope.payload, manifest, manifest_text)
    # (5) The version is not older than what was allowed.
    _check_age(manifest, trust.oldest)
    return identity.name


def _open(signature: bytes) -> _Envelope:
    try:
        bundle = msgspec.json.decode(signature)
        envelope, material = bundle["dsseEnvelope"], bundle["verificationMaterial"]
        kinds = (bundle["mediaType"], envelope["payloadType"])
        signatures = envelope["signatures"]
        chain = material.get("x509CertificateChain", {}).get("certificates", [])
        opened = _Envelope(
            payload=_base64(envelope["payload"]),
            signature=_base64(signatures[0]["sig"]),
            key_hint=material.get("publicKey", {}).get("hint"),
            chain=tuple(_base64(entry["rawBytes"]) for entry in chain[: CHAIN_MAX + 1]),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _refused(SignatureRule.MALFORMED, error, "a Sigstore bundle") from error
    if kinds != (BUNDLE_TYPE, PAYLOAD_TYPE):
        raise _refused(SignatureRule.MALFORMED, kinds, f"{BUNDLE_TYPE} of {PAYLOAD_TYPE}")
    if len(signatures) != 1 or len(opened.chain) > CHAIN_MAX:
        found = f"{len(signatures)} signatures, {len(chain)} certificates"
        raise _refused(SignatureRule.MALFORMED, found, f"1, and at most {CHAIN_MAX}")
    if not isinstance(opened.key_hint, str | None):
        raise _refused(SignatureRule.MALFORMED, "a key hint that is no text", "64 hex")
    if (opened.key_hint is None) == (not opened.chain):
        raise _refused(SignatureRule.MALFORMED, "both or neither", "a key or a certificate")
    return opened


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _identity_of(envelope: _Envelope, trust: SignatureTrust) -> Identity:
    if not envelope.chain:
        known = {key.hint: key for key in map(Identity.of_key, trust.public_keys)}
        found = known.get(envelope.key_hint or "")
        if found is None:
            shown = ", ".join(sorted(known)) or "no key"
            raise SignatureRefused(SignatureRule.UNKNOWN_KEY, envelope.key_hint, shown)
        return found
    if not trust.roots or trust.now is None:
        raise SignatureRefused(SignatureRule.UNKNOWN_KEY, "a certificate", "a trusted key")
    identity = chain_identity(envelope.chain, trust.roots, now=trust.now())
    if identity.name not in trust.identities:
        expected = ", ".join(trust.identities)
        raise SignatureRefused(SignatureRule.OTHER_IDENTITY, identity.name, expected)
    return identity


def _pre_authentication(payload: bytes) -> bytes:
    """Give what DSSE signs: type and content, each with its length."""
    head = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} "
    return head.encode("ascii") + payload


def _check_statement(payload: bytes, manifest: Manifest, manifest_text: bytes) -> None:
    expected = {entry.path: entry.sha256 for entry in manifest.files}
    expected[MANIFEST_FILE] = sha256_hex(manifest_text)
    try:
        statement = msgspec.json.decode(payload)
        kinds = (statement["_type"], statement["predicateType"])
        subject, *others = statement["subject"]
        resources = statement["predicate"]["resources"]
        listed = [(one["name"], one["algorithm"], one["digest"]) for one in resources]
        root = subject["digest"]["sha256"]
        name = subject["name"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _refused(SignatureRule.MALFORMED, error, "an in-toto statement") from error
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE) or others:
        raise _refused(SignatureRule.MALFORMED, kinds, f"one subject, {PREDICATE_TYPE}")
    if name != manifest.model_id:
        raise _refused(SignatureRule.OTHER_NAME, name, manifest.model_id)
    _check_listed(listed, expected)
    if root != _root_digest(listed):
        raise _refused(SignatureRule.OTHER_CONTENT, root, "the digest over all files")


def _check_listed(listed: list[tuple[Any, Any, Any]], expected: Mapping[str, str]) -> None:
    found = {name: digest for name, _, digest in listed}
    if len(found) != len(listed) or any(algorithm != "sha256" for _, algorithm, _ in listed):
        raise _refused(SignatureRule.MALFORMED, "a file twice, or no SHA-256", "each file once")
    for name in sorted({*found, *expected}, key=str):
        if found.get(name) != expected.get(name):
            shown = f"{name} {found.get(name, '(not signed)')}"
            wanted = f"{name} {expected.get(name, '(not in the artifact)')}"
            raise _refused(SignatureRule.OTHER_CONTENT, shown, wanted)


def _root_digest(listed: list[tuple[Any, Any, Any]]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(digest) for _, _, digest in listed)).hexdigest()


def _check_age(manifest: Manifest, oldest: tuple[str, ...]) -> None:
    for model_id in oldest:
        name, _, version = model_id.rpartition("_")
        if name != manifest.model_name:
            continue
        if version_numbers(manifest.model_version) < version_numbers(version):
            raise _refused(SignatureRule.DOWNGRADE, manifest.model_id, f"{model_id} or later")


def _refused(rule: SignatureRule, found: object, expected: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"{SIGNATURE_FILE}: {rule.replace('_', ' ')}: found {found}, expected {expected}",
        gate_reason=Reason.SIGNATURE_REFUSED,
        file=SIGNATURE_FILE,
        rule=rule,
        found=found,
        expected=expected,
    )
