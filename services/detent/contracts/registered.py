"""Hold what the registry knows of a model, where it points, and how that came about.

Source: seed 003, section 12.10; rows R124 to R127, R330 and R331.
"""

import re
from enum import StrEnum
from typing import ClassVar

import msgspec

from detent.contracts.checks import check_hash64, check_name, check_text, check_ts_ms
from detent.contracts.errors import InvalidField
from detent.contracts.manifest import Manifest, check_provenance, is_model_id

URL_CHARS_MAX = 1_024
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[\x21-\x7e]+")
_UTC = re.compile(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z")
_REGISTRY_ID = re.compile(r"(.+)_(20[0-9]{6}_[0-9]{6})")


class ModelStatus(StrEnum):
    """Says how far a model has come; exactly one of a name is in production."""

    STAGED = "staged"
    PRODUCTION = "production"
    DEPRECATED = "deprecated"


class RegistryAction(StrEnum):
    """Names what was done to a model."""

    REGISTER = "register"
    PROMOTE = "promote"
    DEMOTE = "demote"
    ROLL_BACK = "roll_back"
    DEPRECATE = "deprecate"
    PRUNE = "prune"


class ModelPointer(msgspec.Struct, frozen=True, kw_only=True):
    """Points to one artifact, with all that pins it.

    Attributes:
        registry_id: `<name>_<version>_<YYYYMMDD>_<HHMMSS>`.
        status: How far it has come.
        artifact_url: Where its folder lies, any URL that fsspec knows.
        model_id: Name of the folder, `<name>_v<major>.<minor>.<patch>`.
        model_version_hash: Hash of its manifest, 64 hex.
        feature_version: Hash of its feature set, which holds the order of features, 64 hex.
        git_sha: Commit that it was built from; production needs it.
        dataset_id: What it was trained on; production needs it.
        promoted_at_utc: When it came to production, `2024-01-15T10:30:00Z`; production needs it.
        actor: Who registered it, or brought it where it is.
        source: By what, for example `cli`.
        notes: What a person wants to remember.
    """

    SCHEMA: ClassVar[str] = "detent.model_pointer.v1"

    registry_id: str
    status: ModelStatus
    artifact_url: str
    model_id: str
    model_version_hash: str
    feature_version: str
    git_sha: str | None
    dataset_id: str | None
    promoted_at_utc: str | None
    actor: str
    source: str
    notes: str | None

    def __post_init__(self) -> None:
        """Refuse a pointer that is not pinned, or is in production without an origin."""
        if not is_model_id(self.model_id):
            raise InvalidField("model_id", self.model_id, "<name>_v<major>.<minor>.<patch>")
        found = _REGISTRY_ID.fullmatch(self.registry_id)
        if found is None or found.group(1) != self.model_id:
            expected = f"{self.model_id}_<YYYYMMDD>_<HHMMSS>"
            raise InvalidField("registry_id", self.registry_id, expected)
        check_artifact_url("artifact_url", self.artifact_url, self.model_id)
        check_hash64("model_version_hash", self.model_version_hash)
        check_hash64("feature_version", self.feature_version)
        check_provenance(
            {"git_sha": self.git_sha, "dataset_id": self.dataset_id, "notes": self.notes}
        )
        check_name("actor", self.actor)
        check_name("source", self.source)
        if self.promoted_at_utc is not None and not _UTC.fullmatch(self.promoted_at_utc):
            raise InvalidField("promoted_at_utc", self.promoted_at_utc, "UTC, ending in Z")
        if self.status is ModelStatus.PRODUCTION:
            for field in ("git_sha", "dataset_id", "promoted_at_utc"):
                if getattr(self, field) is None:
                    raise InvalidField(field, "(missing)", "the field, for production")

    @property
    def model_name(self) -> str:
        """Give the name of the model's line."""
        return self.model_id.rpartition("_")[0]


class RegisteredModel(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one registered model: where it points, and the manifest that it was read with."""

    pointer: ModelPointer
    registered_at_ms: int
    manifest: Manifest

    def __post_init__(self) -> None:
        """Refuse a pointer to something else than the manifest."""
        check_ts_ms("registered_at_ms", self.registered_at_ms)
        found, expected = self.pointer.model_version_hash, self.manifest.model_version_hash
        if found != expected:
            raise InvalidField("model_version_hash", found, expected)


class RegistryEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Says what was done, by whom and why, with the whole pointer as it was afterwards.

    Attributes:
        at_ms: When, Unix milliseconds.
        action: What.
        from_status: Status before; None where there was none.
        to_status: Status after; None where it is gone.
        actor: Who.
        source: By what.
        reason: Why.
        pointer: The model's pointer, afterwards.
        production: Registry id in production afterwards; None where there is none.
        evidence_sha256: SHA-256 of the report that it was based on; None where it needed none.
    """

    at_ms: int
    action: RegistryAction
    from_status: ModelStatus | None
    to_status: ModelStatus | None
    actor: str
    source: str
    reason: str
    pointer: ModelPointer
    production: str | None
    evidence_sha256: str | None

    def __post_init__(self) -> None:
        """Refuse an act without an actor or a reason."""
        check_ts_ms("at_ms", self.at_ms)
        check_name("actor", self.actor)
        check_name("source", self.source)
        check_text("reason", self.reason)
        if self.evidence_sha256 is not None:
            check_hash64("evidence_sha256", self.evidence_sha256)


def check_artifact_url(field: str, url: str, model_id: str) -> None:
    """Refuse what is no URL of the artifact's own folder, or leaves a folder on the way."""
    is_url = isinstance(url, str) and len(url) <= URL_CHARS_MAX and _URL.fullmatch(url)
    if not is_url or ".." in url.split("/") or url.rpartition("/")[2] != model_id:
        raise InvalidField(field, url, f"a URL that ends in /{model_id}, without ..")
