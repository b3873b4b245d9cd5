"""Whose artifacts each process accepts: the same settings for all three, checked at the start."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.signing_keys import KeyPair, issue, key_pair
from tests.unit.artifacts import artifact, artifact_in

from detent.adapters.artifact_store import read_manifest_folder
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason
from detent.offline.signing import sign_artifact
from detent.servers.feature.settings import FeatureSettings
from detent.servers.inference.handler import InferenceHandler
from detent.servers.inference.main import health_of, load
from detent.servers.inference.settings import InferenceSettings
from detent.servers.policy.settings import PolicySettings

Settings = FeatureSettings | InferenceSettings | PolicySettings
KINDS: list[type[Settings]] = [FeatureSettings, InferenceSettings, PolicySettings]


def settings_of(
    monkeypatch: pytest.MonkeyPatch, kind: type[Settings], folder: Path, **values: str
) -> Settings:
    prefix = str(kind.model_config["env_prefix"])
    needed = {
        "ARTIFACTS_DIR": str(folder.parent),
        "ARTIFACT_DIR": str(folder),
        "LEDGER_FILE": str(folder.parent / "ledger.sqlite"),
    }
    for name, value in (needed | values).items():
        monkeypatch.setenv(f"{prefix}{name}", value)
    return kind()


def trusting(*keys: KeyPair) -> dict[str, str]:
    files = json.dumps([str(key.public) for key in keys])
    return {"SIGNATURE_POLICY": "required", "SIGNATURE_KEYS": files}


@pytest.fixture(name="key")
def _key(tmp_path: Path) -> KeyPair:
    return key_pair(tmp_path / "keys", "signer")


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_policy_no_signature_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type[Settings]
) -> None:
    settings = settings_of(monkeypatch, kind, tmp_path / "a_v1.0.0")

    assert settings.signature_policy == "none"
    assert settings.signature_trust.required is False


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "case",
    [
        ({"SIGNATURE_POLICY": "required"}, "needs signature_keys"),
        ({"SIGNATURE_POLICY": "sometimes"}, "none"),
        ({"SIGNATURE_KEYS": '["{pub}"]'}, "need signature_policy=required"),
        ({"SIGNATURE_OLDEST": '["a_v1.0.0"]'}, "need signature_policy=required"),
        ({"SIGNATURE_POLICY": "required", "SIGNATURE_ROOTS": '["{crt}"]'}, "a root is nobody"),
        ({"SIGNATURE_POLICY": "required", "SIGNATURE_KEYS": '["{none}"]'}, "No such file"),
        ({"SIGNATURE_POLICY": "required", "SIGNATURE_KEYS": '["{key}"]'}, "a private key"),
        ({"SIGNATURE_POLICY": "required", "SIGNATURE_KEYS": '["{text}"]'}, "no PEM"),
        (
            {
                "SIGNATURE_POLICY": "required",
                "SIGNATURE_KEYS": '["{pub}"]',
                "SIGNATURE_OLDEST": '["v1.0.0"]',
            },
            "signature_oldest",
        ),
    ],
)
def test_settings_that_trust_nobody_or_anybody_stop_the_process(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: type[Settings],
    case: tuple[dict[str, str], str],
) -> None:
    values, message = case
    key = key_pair(tmp_path / "keys", "signer")
    (tmp_path / "text").write_text("no key")
    files = {
        "pub": key.public,
        "key": key.private,
        "crt": issue(tmp_path / "keys", "root", may_issue=True).path,
        "none": tmp_path / "none",
        "text": tmp_path / "text",
    }
    for name, file in files.items():
        values = {field: text.replace(f"{{{name}}}", str(file)) for field, text in values.items()}

    with pytest.raises(ValidationError, match=message):
        settings_of(monkeypatch, kind, tmp_path / "a_v1.0.0", **values)


def test_one_artifact_meets_the_policy_of_each_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: KeyPair
) -> None:
    """What staging signed is served in staging, and refused in production by every process."""
    production = key_pair(tmp_path / "keys", "production")
    path = artifact_in(tmp_path / "artifacts")
    signer = sign_artifact(path, key=key.private, now=lambda: datetime.now(UTC))
    for environment, served, named in (
        ({}, True, None),
        (trusting(key), True, signer),
        (trusting(production), False, None),
        (trusting(production, key), True, signer),
    ):
        for kind in (FeatureSettings, PolicySettings):
            trust = settings_of(monkeypatch, kind, path, **environment).signature_trust
            folder = read_manifest_folder(path.parent, trust=trust)
            assert [pinned.signer for pinned in folder.accepted.values()] == [named] * served
            assert len(folder.refused) == (not served)
        settings = settings_of(monkeypatch, InferenceSettings, path, **environment)
        assert isinstance(settings, InferenceSettings)
        found = load(settings)
        assert health_of(found)["detent.api.v1.InferenceService"] is served
        if isinstance(found, ArtifactInvalid):
            assert found.gate_reason is Reason.SIGNATURE_REFUSED
        else:
            assert found.artifact.pinned.signer == named


async def test_inference_says_who_signed_what_it_serves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: KeyPair
) -> None:
    from tests.builders import call_of

    from detent.contracts.calls.inference import DescribeArtifactRequest

    path = artifact_in(tmp_path / "artifacts")
    signer = sign_artifact(path, key=key.private, now=lambda: datetime.now(UTC))
    settings = settings_of(monkeypatch, InferenceSettings, path, **trusting(key))
    assert isinstance(settings, InferenceSettings)
    handler = InferenceHandler(load(settings), clock=lambda: 0.0)
    query = DescribeArtifactRequest(binding_hash=artifact().pinned.binding_hash)
    described = await handler.describe_artifact(query, call_of())
    handler.close()

    assert described.signer == signer


def test_certificate_is_judged_by_the_clock_of_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An expired certificate is refused, although it was valid when it signed."""
    root = issue(tmp_path / "keys", "root", may_issue=True, days=(-4_000, 40_000))
    leaf = issue(
        tmp_path / "keys", "leaf", issuer=root, email="quant@example.com", days=(-4_000, -3_000)
    )
    path = artifact_in(tmp_path / "artifacts")
    then = leaf.certificate.not_valid_before_utc + timedelta(days=1)
    sign_artifact(path, key=leaf.pair.private, certificate=leaf.path, now=lambda: then)
    values = {
        "SIGNATURE_POLICY": "required",
        "SIGNATURE_ROOTS": json.dumps([str(root.path)]),
        "SIGNATURE_IDENTITIES": '["email:quant@example.com"]',
    }
    settings = settings_of(monkeypatch, InferenceSettings, path, **values)
    assert isinstance(settings, InferenceSettings)
    found = load(settings)

    assert isinstance(found, ArtifactInvalid)
    assert found.metadata["rule"] == "certificate_expired"
