"""Resolve an alias of an MLflow registry to an artifact of ours, and so to a digest.

An alias is moved by anybody; a digest is not. So an alias is resolved once, when a model is
registered with us, and what is kept is the hash of the artifact that it pointed to. Only the
REST interface is used, and mlflow is not needed here.

Source: PEERS, section 3, registry; MLflow REST API 2.0.
"""

import json
import posixpath
from pathlib import Path
from typing import Any
from urllib import error, parse, request

import msgspec

from detent.adapters.artifact_signature import SIGNATURE_FILE
from detent.adapters.artifact_store import (
    BYTES_MAX,
    Artifact,
    check_listing,
    verify_artifact,
    write_artifact,
)
from detent.contracts.errors import ArtifactInvalid, InvalidField, ModelNotRegistered
from detent.contracts.manifest import LISTED_FILES, is_model_id
from detent.contracts.reasons import Reason
from detent.offline.registry.artifact_url import read_artifact_at

DIGEST_TAG = "detent.model_version_hash"
ANSWER_BYTES_MAX = 4 * 2**20
WAIT_S = 10.0
_PROXIED = "mlflow-artifacts:"
# It answers 404 for a model that is not there, and 400 for an alias.
_NOT_FOUND = (400, 404)


class ResolvedAlias(msgspec.Struct, frozen=True, kw_only=True):
    """Says what an alias pointed to when it was asked.

    Attributes:
        model_name: Registered model.
        alias: The alias.
        version: Version that it pointed to.
        source: Where the artifacts of that version lie.
        digest: What the tag `DIGEST_TAG` says; None where nobody set it.
    """

    model_name: str
    alias: str
    version: str
    source: str
    digest: str | None


class MlflowRegistry:
    """Asks one MLflow server."""

    def __init__(self, url: str, *, token: str | None = None) -> None:
        """Take the address of a tracking server, and a bearer token if it wants one.

        Raises:
            InvalidField: It is no address of http or https.
        """
        if parse.urlsplit(url).scheme not in ("http", "https"):
            raise InvalidField("tracking", url, "http:// or https://")
        self._url = url.rstrip("/")
        self._token = token

    def resolve(self, name: str, alias: str) -> ResolvedAlias:
        """Ask what an alias points to.

        Raises:
            ModelNotRegistered: There is no such model or alias.
            ArtifactInvalid: The server cannot be asked, or answers something else.
        """
        found = self._asked("registered-models/alias", name=name, alias=alias)["model_version"]
        version = str(found["version"])
        source = self._asked("model-versions/get-download-uri", name=name, version=version)
        tags = {tag.get("key"): tag.get("value") for tag in found.get("tags", [])}
        return ResolvedAlias(
            model_name=name,
            alias=alias,
            version=version,
            source=str(source["artifact_uri"]),
            digest=tags.get(DIGEST_TAG),
        )

    def load(self, resolved: ResolvedAlias, into: Path) -> Path:
        """Give a verified local copy of the artifact that an alias pointed to.

        The artifact is the source itself, or the one folder of an artifact in it.

        Raises:
            ArtifactInvalid: There is none, it is not what it says, or not what the tag says.
        """
        artifact, contents = self._read(resolved.source)
        found = artifact.manifest.model_version_hash
        if resolved.digest not in (None, found):
            message = f"{DIGEST_TAG}: found {found}, expected {resolved.digest}"
            raise ArtifactInvalid(message, found=found, expected=resolved.digest)
        names = (*LISTED_FILES, SIGNATURE_FILE)
        kept = {name: contents[name] for name in names if name in contents}
        return write_artifact(into, artifact.manifest, kept)

    def _read(self, source: str) -> tuple[Artifact, dict[str, bytes]]:
        if not source.startswith(_PROXIED):
            return read_artifact_at(source.rstrip("/"))
        root = source.removeprefix(_PROXIED).lstrip("/")
        names = self._listed(root)
        if not is_model_id(posixpath.basename(root)):
            folders = [name for name in names if is_model_id(name)]
            if len(folders) != 1:
                found = f"{len(folders)} folders of an artifact in {names}"
                raise ArtifactInvalid(f"{source}: found {found}, expected one")
            root = posixpath.join(root, folders[0])
            names = self._listed(root)
        check_listing(names)
        contents = {
            name: self._fetched(f"artifacts/{root}/{name}", limit=BYTES_MAX[name]) for name in names
        }
        return verify_artifact(posixpath.basename(root), contents), contents

    def _listed(self, root: str) -> list[str]:
        text = self._fetched(f"artifacts?{parse.urlencode({'path': root})}", limit=ANSWER_BYTES_MAX)
        return [str(one["path"]) for one in _parsed(text).get("files", [])]

    def _fetched(self, path: str, *, limit: int) -> bytes:
        return self._got(f"/api/2.0/mlflow-artifacts/{path}", limit=limit)

    def _asked(self, path: str, **query: str) -> dict[str, Any]:
        text = self._got(f"/api/2.0/mlflow/{path}?{parse.urlencode(query)}", limit=ANSWER_BYTES_MAX)
        return _parsed(text)

    def _got(self, path: str, *, limit: int) -> bytes:
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        # The scheme was checked when the address was taken.
        question = request.Request(self._url + path, headers=headers)  # noqa: S310
        try:
            with request.urlopen(question, timeout=WAIT_S) as answer:  # noqa: S310
                text: bytes = answer.read(limit + 1)
        except error.HTTPError as failed:
            if failed.code in _NOT_FOUND:
                raise ModelNotRegistered(f"mlflow: no such model or alias: {path}") from failed
            raise _unusable(f"status {failed.code}") from failed
        except OSError as failed:
            raise _unusable(type(failed).__name__) from failed
        if len(text) > limit:
            raise _unusable(f"more than {limit} bytes")
        return text


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as failed:
        raise _unusable("no JSON") from failed
    if not isinstance(found, dict):
        raise _unusable("no JSON object")
    return found


def _unusable(cause: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"mlflow: {cause}, expected an answer of its REST interface",
        gate_reason=Reason.ARTIFACT_DIR_MISSING,
        found=cause,
        expected="an answer of its REST interface",
    )
