"""Signatures: who signed, which bytes, and every way in which that can be wrong."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import verifying
from tests.signing_keys import NOW, SIGNER, Issued, KeyPair, issue, key_pair
from tests.unit.artifacts import (
    artifact,
    artifact_in,
    contents_of,
    other_artifact_in,
    repinned,
)

from detent.adapters.artifact_signature import SIGNATURE_FILE, SignatureTrust
from detent.adapters.artifact_store import (
    read_artifact,
    read_manifest_folder,
    read_pinned_manifest,
    verify_artifact,
)
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason
from detent.offline.signing import sign_artifact

EMAIL = SIGNER.removeprefix("email:")


def at(instant: datetime = NOW) -> Callable[[], datetime]:
    return lambda: instant


def trust_of(*keys: KeyPair, oldest: tuple[str, ...] = ()) -> SignatureTrust:
    texts = tuple(key.public.read_bytes() for key in keys)
    return SignatureTrust(required=True, public_keys=texts, oldest=oldest)


def chain_trust(root: Issued, *names: str, now: datetime = NOW) -> SignatureTrust:
    return SignatureTrust(
        required=True,
        roots=(root.path.read_bytes(),),
        identities=names or (SIGNER,),
        now=at(now),
    )


def refused(path: Path, trust: SignatureTrust) -> str:
    """Give the rule by which both readers refuse an artifact."""
    rules = set()
    for read in (read_artifact, read_pinned_manifest):
        with pytest.raises(ArtifactInvalid) as caught:
            read(path, trust=trust)
        assert caught.value.gate_reason is Reason.SIGNATURE_REFUSED
        assert caught.value.metadata.keys() >= {"file", "rule", "found", "expected"}
        rules.add(caught.value.metadata["rule"])
    (rule,) = rules
    return rule


@pytest.fixture(name="key")
def _key(tmp_path: Path) -> KeyPair:
    return key_pair(tmp_path / "keys", "signer")


@pytest.fixture(name="signed")
def _signed(tmp_path: Path, key: KeyPair) -> Path:
    path = artifact_in(tmp_path / "artifacts")
    sign_artifact(path, key=key.private, now=at())
    return path


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_signed_artifact_is_read_and_names_its_signer(
    tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    key = key_pair(tmp_path / "keys", "signer", curve=curve)
    path = artifact_in(tmp_path / "artifacts")
    signer = sign_artifact(path, key=key.private, now=at())

    assert signer.startswith("key:")
    assert len(signer) == 4 + 64
    found = read_artifact(path, trust=trust_of(key))
    assert found.pinned.signer == signer
    assert read_pinned_manifest(path, trust=trust_of(key)) == found.pinned
    assert found.model == artifact().model
    # Without a policy the same folder is read as if it were unsigned.
    assert read_artifact(path) == artifact()


def test_public_tool_verifies_what_was_signed_here(signed: Path, key: KeyPair) -> None:
    config = verifying.Config().use_elliptic_key_verifier(public_key=key.public)
    config.verify(signed, signed / SIGNATURE_FILE)
    (signed / "golden.json").write_bytes(b"{}")

    with pytest.raises(ValueError, match="golden"):
        config.verify(signed, signed / SIGNATURE_FILE)


def test_unsigned_artifact_is_refused(tmp_path: Path, key: KeyPair) -> None:
    assert refused(artifact_in(tmp_path), trust_of(key)) == "unsigned"


def test_artifact_signed_by_an_unknown_key_is_refused(tmp_path: Path, signed: Path) -> None:
    assert refused(signed, trust_of(key_pair(tmp_path / "keys", "other"))) == "unknown_key"


def test_one_of_several_trusted_keys_is_enough(tmp_path: Path, signed: Path, key: KeyPair) -> None:
    """A key is rotated by trusting both for a while."""
    new = key_pair(tmp_path / "keys", "new")
    both = trust_of(new, key)
    before = read_artifact(signed, trust=both).pinned.signer
    sign_artifact(signed, key=new.private, now=at(), replace=True)

    assert read_artifact(signed, trust=both).pinned.signer != before
    assert refused(signed, trust_of(key)) == "unknown_key"


def test_trusted_key_over_another_bundle_is_refused(
    tmp_path: Path, signed: Path, key: KeyPair
) -> None:
    other = other_artifact_in(tmp_path / "artifacts")
    shutil.copy(signed / SIGNATURE_FILE, other)

    assert refused(other, trust_of(key)) == "other_name"


def test_older_bundle_under_a_newer_name_is_refused(
    tmp_path: Path, signed: Path, key: KeyPair
) -> None:
    """Whoever can write renames the folder and the manifest; the statement stays the old one."""
    newer = signed.parent / "momentum_direction_v9.0.0"
    signed.rename(newer)
    with pytest.raises(ArtifactInvalid) as caught:
        read_artifact(newer, trust=trust_of(key))
    assert caught.value.metadata["file"] == "directory name"

    manifest = (newer / "manifest.json").read_bytes()
    (newer / "manifest.json").write_bytes(manifest.replace(b'"v1.2.3"', b'"v9.0.0"'))
    read_artifact(newer)

    assert refused(newer, trust_of(key)) == "other_name"


@pytest.mark.parametrize("name", ["manifest.json", "train_report.json"])
def test_bundle_that_was_pinned_anew_is_refused(signed: Path, key: KeyPair, name: str) -> None:
    """Every hash fits, and without a policy it loads: only the signature says no."""
    contents = contents_of(signed)
    if name == "manifest.json":
        text = contents[name].replace(b'"framework":"scikit-learn"', b'"framework":"lightgbm"')
        assert text != contents[name]
        contents[name] = text
    else:
        contents = repinned(contents, name, b'{"accuracy":"1"}')
    for file, content in contents.items():
        (signed / file).write_bytes(content)

    read_artifact(signed)
    assert refused(signed, trust_of(key)) == "other_content"


def test_file_that_is_not_what_was_signed_is_refused_before_anything_is_parsed(
    signed: Path, key: KeyPair
) -> None:
    model = signed / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")

    with pytest.raises(ArtifactInvalid) as caught:
        read_artifact(signed, trust=trust_of(key))
    assert caught.value.metadata["file"] == "model.onnx"


def test_downgrade_needs_a_setting_of_its_own(signed: Path, key: KeyPair) -> None:
    name = artifact().manifest.model_name

    assert refused(signed, trust_of(key, oldest=(f"{name}_v1.2.4",))) == "downgrade"
    assert refused(signed, trust_of(key, oldest=(f"{name}_v1.10.0",))) == "downgrade"
    for oldest in (f"{name}_v1.2.3", f"{name}_v1.2.0", "another_line_v9.0.0"):
        read_artifact(signed, trust=trust_of(key, oldest=(oldest,)))


def _flip(where: str) -> Callable[[dict[str, Any]], None]:
    def change(bundle: dict[str, Any]) -> None:
        envelope = bundle["dsseEnvelope"]
        holder = envelope if where == "payload" else envelope["signatures"][0]
        data = bytearray(base64.b64decode(holder[where]))
        data[len(data) // 2] ^= 1
        holder[where] = base64.b64encode(data).decode()

    return change


def _two_signatures(bundle: dict[str, Any]) -> None:
    bundle["dsseEnvelope"]["signatures"] *= 2


def _no_material(bundle: dict[str, Any]) -> None:
    bundle["verificationMaterial"] = {"tlogEntries": []}


def _other_type(bundle: dict[str, Any]) -> None:
    bundle["dsseEnvelope"]["payloadType"] = "text/plain"


def _other_hint(bundle: dict[str, Any]) -> None:
    bundle["verificationMaterial"]["publicKey"]["hint"] = "0" * 64


def _hint_of_another_type(bundle: dict[str, Any]) -> None:
    bundle["verificationMaterial"]["publicKey"]["hint"] = ["0" * 64]


def _no_certificate(bundle: dict[str, Any]) -> None:
    chain = {"certificates": [{"rawBytes": "AAAA"}]}
    bundle["verificationMaterial"] = {"x509CertificateChain": chain}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (_flip("payload"), "wrong_signature"),
        (_flip("sig"), "wrong_signature"),
        (_two_signatures, "malformed"),
        (_no_material, "malformed"),
        (_other_type, "malformed"),
        (_other_hint, "unknown_key"),
        (_hint_of_another_type, "malformed"),
        (_no_certificate, "unknown_key"),
    ],
)
def test_bundle_that_was_altered_is_refused(
    signed: Path, key: KeyPair, change: Callable[[dict[str, Any]], None], rule: str
) -> None:
    file = signed / SIGNATURE_FILE
    bundle = json.loads(file.read_bytes())
    change(bundle)
    file.write_text(json.dumps(bundle))

    assert refused(signed, trust_of(key)) == rule


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"dsseEnvelope":3}', b"null"]
)
def test_file_that_is_no_signature_is_refused(signed: Path, key: KeyPair, text: bytes) -> None:
    (signed / SIGNATURE_FILE).write_bytes(text)

    assert refused(signed, trust_of(key)) == "malformed"


@pytest.mark.parametrize("name", ["model.sig.bak", "MODEL.SIG", "other.sig", ".model.sig"])
def test_signature_is_the_one_file_more(signed: Path, key: KeyPair, name: str) -> None:
    (signed / name).write_bytes(b"x")

    with pytest.raises(ArtifactInvalid) as caught:
        read_artifact(signed, trust=trust_of(key))
    assert caught.value.metadata["file"] == name


def test_signature_that_is_no_plain_file_is_refused(signed: Path, key: KeyPair) -> None:
    real = signed.parent / "elsewhere.sig"
    (signed / SIGNATURE_FILE).rename(real)
    (signed / SIGNATURE_FILE).symlink_to(real)

    with pytest.raises(ArtifactInvalid) as caught:
        read_artifact(signed, trust=trust_of(key))
    assert caught.value.metadata["file"] == SIGNATURE_FILE


def _signed_by(tmp_path: Path, leaf: Issued, *chain: Issued) -> Path:
    path = artifact_in(tmp_path / "artifacts")
    now = at(leaf.certificate.not_valid_before_utc + timedelta(hours=1))
    sign_artifact(
        path,
        key=leaf.pair.private,
        certificate=leaf.path,
        chain=tuple(one.path for one in chain),
        now=now,
    )
    return path


def test_certificate_of_a_trusted_issuer_names_the_signer(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    root = issue(keys, "root", may_issue=True)
    between = issue(keys, "between", issuer=root, may_issue=True)
    leaf = issue(keys, "leaf", issuer=between, email=EMAIL)
    path = _signed_by(tmp_path, leaf, between)

    assert read_artifact(path, trust=chain_trust(root)).pinned.signer == SIGNER
    assert read_artifact(path, trust=chain_trust(leaf)).pinned.signer == SIGNER
    assert refused(path, chain_trust(root, "email:somebody@example.com")) == "other_identity"
    assert refused(path, chain_trust(issue(keys, "r2", may_issue=True))) == "certificate_untrusted"
    assert refused(path, trust_of(leaf.pair)) == "unknown_key"
    verifying.Config().use_certificate_verifier(certificate_chain=[root.path]).verify(
        path, path / SIGNATURE_FILE
    )


def test_certificate_without_an_alternative_name_is_named_by_its_subject(tmp_path: Path) -> None:
    root = issue(tmp_path / "keys", "root", may_issue=True)
    leaf = issue(tmp_path / "keys", "research desk", issuer=root)
    path = _signed_by(tmp_path, leaf)

    trust = chain_trust(root, "name:research desk")
    assert read_artifact(path, trust=trust).pinned.signer == "name:research desk"


def test_chain_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    root = issue(tmp_path / "keys", "root", may_issue=True)
    path = _signed_by(tmp_path, issue(tmp_path / "keys", "leaf", issuer=root, email=EMAIL))
    file = path / SIGNATURE_FILE
    bundle = json.loads(file.read_bytes())
    entries = bundle["verificationMaterial"]["x509CertificateChain"]["certificates"]
    entries[0]["rawBytes"] = "AAAA"
    file.write_text(json.dumps(bundle))
    assert refused(path, chain_trust(root)) == "malformed"

    entries[:] = entries[1:] * 9
    file.write_text(json.dumps(bundle))
    assert refused(path, chain_trust(root)) == "malformed"


@pytest.mark.parametrize("days", [301, 5_000, -11])
def test_certificate_outside_its_time_is_refused(tmp_path: Path, days: int) -> None:
    root = issue(tmp_path / "keys", "root", may_issue=True, days=(-1_000, 10_000))
    leaf = issue(tmp_path / "keys", "leaf", issuer=root, email=EMAIL)
    path = _signed_by(tmp_path, leaf)

    trust = chain_trust(root, now=NOW + timedelta(days=days))
    assert refused(path, trust) == "certificate_expired"


def test_issuer_outside_its_time_is_refused(tmp_path: Path) -> None:
    root = issue(tmp_path / "keys", "root", may_issue=True, days=(-10, 5))
    leaf = issue(tmp_path / "keys", "leaf", issuer=root, email=EMAIL)
    path = _signed_by(tmp_path, leaf)

    trust = chain_trust(root, now=NOW + timedelta(days=6))
    assert refused(path, trust) == "certificate_expired"


def test_certificate_that_may_not_issue_issues_nothing(tmp_path: Path) -> None:
    """The holder of any certificate could else make one in any name."""
    keys = tmp_path / "keys"
    root = issue(keys, "root", may_issue=True, path_length=0)
    thief = issue(keys, "thief", issuer=root, email="thief@example.com")
    forged = issue(keys, "forged", issuer=thief, email=EMAIL)
    too_deep = issue(keys, "deep", issuer=root, may_issue=True)
    deep_leaf = issue(keys, "deep leaf", issuer=too_deep, email=EMAIL)

    path = _signed_by(tmp_path / "a", forged, thief)
    assert refused(path, chain_trust(root)) == "certificate_untrusted"
    path = _signed_by(tmp_path / "b", deep_leaf, too_deep)
    assert refused(path, chain_trust(root)) == "certificate_untrusted"


def test_certificate_that_is_not_for_signing_signs_nothing(tmp_path: Path) -> None:
    root = issue(tmp_path / "keys", "root", may_issue=True)
    leaf = issue(tmp_path / "keys", "leaf", issuer=root, email=EMAIL, signs=False)

    with pytest.raises(ArtifactInvalid, match="digitalSignature"):
        _signed_by(tmp_path, leaf)


def test_artifact_is_not_signed_twice_unless_asked(signed: Path, key: KeyPair) -> None:
    before = (signed / SIGNATURE_FILE).read_bytes()
    with pytest.raises(ArtifactInvalid, match="--replace"):
        sign_artifact(signed, key=key.private, now=at())

    assert (signed / SIGNATURE_FILE).read_bytes() == before


def test_artifact_that_does_not_verify_is_not_signed(tmp_path: Path, key: KeyPair) -> None:
    path = artifact_in(tmp_path / "artifacts")
    (path / "golden.json").write_bytes(b"{}")
    with pytest.raises(ArtifactInvalid):
        sign_artifact(path, key=key.private, now=at())

    assert not (path / SIGNATURE_FILE).exists()


def test_signing_with_what_is_no_key_leaves_nothing_behind(tmp_path: Path, key: KeyPair) -> None:
    path = artifact_in(tmp_path / "artifacts")
    leaf = issue(tmp_path / "keys", "leaf", email=EMAIL)
    before = sorted(path.parent.rglob("*"))
    for wrong in (key.public, tmp_path / "none"):
        with pytest.raises(ArtifactInvalid, match="private EC key"):
            sign_artifact(path, key=wrong, now=at())
    with pytest.raises(ArtifactInvalid, match="private EC key"):
        sign_artifact(path, key=key.private, certificate=leaf.path, now=at())

    assert sorted(path.parent.rglob("*")) == before


def test_one_unsigned_artifact_does_not_hide_the_signed(signed: Path, key: KeyPair) -> None:
    other = other_artifact_in(signed.parent)
    folder = read_manifest_folder(signed.parent, trust=trust_of(key))

    assert [pinned.manifest.model_id for pinned in folder.accepted.values()] == [signed.name]
    assert folder.refused[other.name].gate_reason is Reason.SIGNATURE_REFUSED


def test_signature_covers_what_was_read_and_not_what_is_there_now(
    signed: Path, key: KeyPair
) -> None:
    """A folder swapped after the read changes nothing, and one swapped before is refused."""
    contents = contents_of(signed) | {SIGNATURE_FILE: (signed / SIGNATURE_FILE).read_bytes()}
    shutil.rmtree(signed)

    found = verify_artifact(signed.name, contents, trust=trust_of(key))
    assert found.model == artifact().model
    repacked = repinned(contents, "model.onnx", b"another model")
    with pytest.raises(ArtifactInvalid) as caught:
        verify_artifact(signed.name, repacked, trust=trust_of(key))
    assert caught.value.metadata["rule"] == "other_content"


def test_trust_in_nobody_or_in_anybody_is_no_policy(tmp_path: Path) -> None:
    root = issue(tmp_path, "root", may_issue=True).path.read_bytes()
    for trust in ({}, {"roots": (root,)}, {"roots": (root,), "identities": (SIGNER,)}):
        with pytest.raises(ArtifactInvalid) as caught:
            SignatureTrust(required=True, **trust)
        assert caught.value.gate_reason is Reason.SIGNATURE_REFUSED
