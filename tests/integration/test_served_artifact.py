"""Proves what `detent up` serves: who acts is answered for, or nothing starts."""

import shutil
from pathlib import Path

import pytest
from tests.conftest import Artifacts

from detent.adapters.artifact_store import read_artifact
from detent.adapters.control_database import ControlDatabase
from detent.adapters.ml_settings import read_ml_settings
from detent.adapters.model_registry import Act, ModelRegistry
from detent.contracts.errors import (
    ArtifactInvalid,
    ControlUnavailable,
    DetentError,
    GuardRefused,
    InvalidField,
    ModelNotRegistered,
)
from detent.core.rollout.gates import ACTIVE_ACK
from detent.core.rollout.ladder import Guard, Mode
from detent.offline.registry.artifact_url import url_of
from detent_cli.served import ServedBy, served
from detent_cli.stack import Stack, StackOptions

LINE = "direction_test"
ACT = Act(actor="quant", source="test", at_ms=1_700_000_000_000, reason="because")
FLAGS = {
    Mode.OFF: "enabled: false",
    Mode.SHADOW: "enabled: true, shadow_only: true",
    Mode.ACTIVE: "enabled: true",
}


class Place:
    """Is a folder with every way in which a name can resolve, or not."""

    def __init__(self, root: Path, artifact: Path) -> None:
        self.root = root
        self.stored = root / "stored" / artifact.name
        shutil.copytree(artifact, self.stored)
        self.registry = ModelRegistry(ControlDatabase(self.url("registry")))
        self.empty = self.url("empty")
        ControlDatabase(self.empty).migrate()
        manifest = read_artifact(self.stored).manifest
        self.registry.register(
            manifest, url_of(str(self.stored)), ACT, git_sha="a" * 40, dataset_id="data-set"
        )
        self.registry.promote(manifest.model_id, ACT, champion=None, evidence_sha256=None)

    def url(self, name: str) -> str:
        return f"sqlite:///{self.root / name}.sqlite"

    def spoil(self) -> None:
        with (self.stored / "model.onnx").open("ab") as model:
            model.write(b" ")

    def settings(self, flags: str, **keys: str) -> Path:
        path = self.root / "ml.yaml"
        rest = "".join(f", {name}: {value}" for name, value in keys.items())
        path.write_text(f"ml: {{{flags}{rest}}}")
        return path


@pytest.fixture(name="place")
def _place(artifacts: Artifacts, tmp_path: Path) -> Place:
    return Place(tmp_path, artifacts.stable)


def told(place: Place, by: ServedBy) -> Mode | str | type[DetentError]:
    """Give the rung, or the guard or the error that refused it."""
    try:
        return served(by, place.root / "state").mode
    except GuardRefused as refused:
        return refused.guard
    except DetentError as error:
        return type(error)


@pytest.mark.proves("R334")
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    ("named", "acting", "otherwise"),
    [
        pytest.param("production", Mode.ACTIVE, None, id="resolved"),
        pytest.param("folder", Mode.ACTIVE, None, id="a folder whose digest is pinned"),
        pytest.param(
            "folder in production", Guard.ACTIVE_LEGACY_PATH, None, id="G-REG-1: a bare path"
        ),
        pytest.param("model_dir", Guard.ACTIVE_LEGACY_PATH, None, id="G-REG-1: model_dir"),
        pytest.param(
            "no file", Guard.REGISTRY_MISSING, ControlUnavailable, id="G-REG-2: no registry"
        ),
        pytest.param(
            "no host", Guard.REGISTRY_MISSING, ControlUnavailable, id="G-REG-2: it is away"
        ),
        pytest.param(
            "nothing", Guard.REGISTRY_UNRESOLVED, ModelNotRegistered, id="G-REG-3: none promoted"
        ),
        pytest.param(
            "spoilt", Guard.REGISTRY_UNRESOLVED, ArtifactInvalid, id="G-REG-3: not what it was"
        ),
    ],
)
def test_what_acts_resolves_or_nothing_starts(
    *,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    mode: Mode,
    named: str,
    acting: Mode | Guard,
    otherwise: type[DetentError] | None,
) -> None:
    """The truth table: a rung by a way to name what is served (G-REG-4: a shadow may be bare)."""
    keys = {"model_dir": str(place.stored)} if named == "model_dir" else {}
    settings = read_ml_settings(place.settings(FLAGS[mode], **keys))
    ack = ACTIVE_ACK if mode is Mode.ACTIVE else ""
    urls = {
        "production": place.url("registry"),
        "spoilt": place.url("registry"),
        "no file": place.url("none"),
        "no host": "postgresql://somebody@127.0.0.1:9/control",
        "nothing": place.empty,
    }
    if named == "spoilt":
        place.spoil()
    if named == "folder in production":
        monkeypatch.setenv("DETENT_POLICY_PROFILE", "production")
    by = ServedBy(
        artifact=place.stored if named.startswith("folder") else None,
        registry=urls.get(named),
        name=LINE if named in urls else None,
        settings=settings,
        ack=ack,
    )

    expected = acting if mode is Mode.ACTIVE else otherwise or mode
    assert told(place, by) == expected


@pytest.mark.proves("R334")
def test_nothing_is_made_of_a_registry_that_is_not_there(place: Place) -> None:
    by = ServedBy(registry=place.url("none"), name=LINE, ack=ACTIVE_ACK)

    assert told(place, by) == Guard.REGISTRY_MISSING
    assert not (place.root / "none.sqlite").exists()


@pytest.mark.proves("R263")
def test_the_files_registry_is_where_a_line_is_looked_for(place: Place) -> None:
    folder = place.root / "models"
    settings = read_ml_settings(place.settings("enabled: true", registry=f"{{path: {folder}}}"))
    by = ServedBy(name=LINE, settings=settings, ack=ACTIVE_ACK)
    before = told(place, by)
    folder.mkdir()
    shutil.copy(place.root / "registry.sqlite", folder / "registry.sqlite")

    assert (before, told(place, by)) == (Guard.REGISTRY_MISSING, Mode.ACTIVE)


def test_a_folder_that_is_not_there_is_refused_by_its_name(place: Place) -> None:
    """Not after half a minute, by a process that says that it does not serve."""
    with pytest.raises(InvalidField, match="none_v1"):
        served(ServedBy(artifact=place.root / "none_v1"), place.root / "state")
    options = StackOptions(
        artifact_dir=place.stored,
        state_dir=place.root / "state",
        candidate_dir=place.stored.parent / "none_v2",
    )
    with pytest.raises(InvalidField, match="none_v2"):
        Stack(options)


def test_an_acknowledgement_is_no_file(place: Place) -> None:
    settings = read_ml_settings(place.settings("enabled: true"))

    assert told(place, ServedBy(artifact=place.stored, settings=settings)) == Guard.ACK


@pytest.mark.proves("R74")
def test_a_kill_switch_leaves_what_is_served_and_takes_the_rung(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_KILL_SWITCH", "1")

    assert told(place, ServedBy(artifact=place.stored, ack=ACTIVE_ACK)) is Mode.OFF


@pytest.mark.proves("R74")
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"fallback_on_error": "previous"}, "ml.fallback_on_error: found previous"),
        ({"fallback_on_error": "error"}, "ml.fallback_on_error: found error"),
        ({"use_l1_features": "false"}, None),
        ({"use_l2_features": "false"}, None),
    ],
)
def test_what_the_file_says_of_fallbacks_and_features_is_held_against_what_is_bound(
    place: Place, keys: dict[str, str], message: str | None
) -> None:
    """The artifact is of direction and reads bars: it has one fallback and needs no quotes."""
    settings = read_ml_settings(place.settings("enabled: false", **keys))
    by = ServedBy(artifact=place.stored, settings=settings)
    if message is None:
        assert told(place, by) is Mode.OFF
        return
    with pytest.raises(ArtifactInvalid, match=message):
        served(by, place.root / "state")


def test_a_name_without_a_registry_is_refused(place: Place) -> None:
    with pytest.raises(InvalidField, match="--registry and --name"):
        served(ServedBy(name=LINE), place.root)
