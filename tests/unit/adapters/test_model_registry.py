"""The registry: one in production per name, acts in order, and each act whole or not at all."""

from __future__ import annotations

import concurrent.futures
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from sqlalchemy import create_engine
from tests.postgres_server import PostgresServer
from tests.unit.artifacts import manifest_of

from detent.adapters.control_database import NEWEST_STEP, VERSION_TABLE, ControlDatabase
from detent.adapters.control_tables import METADATA
from detent.adapters.ledger_migrating import migrate_postgresql
from detent.adapters.model_registry import Act, ModelRegistry
from detent.contracts.errors import (
    ControlUnavailable,
    InvalidField,
    ModelNotRegistered,
    RegistryConflict,
)
from detent.contracts.manifest import Manifest
from detent.contracts.registered import ModelStatus, RegisteredModel, RegistryAction

GIT_SHA, DATASET = "c" * 40, "d" * 64
START_MS = 1_750_000_000_000
NAME, OTHER = "momentum_direction", "regime_forest"


@pytest.fixture(name="url", params=["sqlite", "postgresql"])
def _url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/control.sqlite"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.url(server.fresh_database())
    ControlDatabase(url).migrate()
    yield url


@pytest.fixture(name="registry")
def _registry(url: str) -> ModelRegistry:
    return ModelRegistry(ControlDatabase(url))


def manifest(minor: int, *, name: str = NAME) -> Manifest:
    return structs.replace(
        manifest_of(),
        model_name=name,
        model_version=f"v1.{minor}.0",
        git_sha=GIT_SHA,
        dataset_id=DATASET,
    )


def act(second: int, *, actor: str = "quant", reason: str = "a test") -> Act:
    return Act(actor=actor, source="cli", at_ms=START_MS + second * 1_000, reason=reason)


def registered(registry: ModelRegistry, minor: int, *, name: str = NAME) -> RegisteredModel:
    found = manifest(minor, name=name)
    return registry.register(found, f"file:///models/{found.model_id}", act(minor))


def promoted(registry: ModelRegistry, model: RegisteredModel, second: int) -> RegisteredModel:
    name = model.pointer.model_name
    current = [m for m in registry.models(name) if m.pointer.status is ModelStatus.PRODUCTION]
    champion = current[0].pointer.model_version_hash if current else None
    return registry.promote(
        model.pointer.registry_id, act(second), champion=champion, evidence_sha256="e" * 64
    )


def statuses(registry: ModelRegistry, name: str = NAME) -> dict[str, str]:
    return {m.pointer.model_id: m.pointer.status.value for m in registry.models(name)}


@pytest.mark.proves("R124")
def test_a_registered_model_is_staged_with_all_that_is_known_of_it(
    registry: ModelRegistry,
) -> None:
    model = registered(registry, 1)

    assert model.pointer.registry_id == "momentum_direction_v1.1.0_20250615_150641"
    assert model.pointer.status is ModelStatus.STAGED
    assert registry.find(model.pointer.registry_id) == model
    assert registry.find("momentum_direction_v1.1.0") == model
    assert model.manifest == manifest(1)
    with pytest.raises(RegistryConflict, match=r"registered as momentum_direction_v1\.1\.0_2025"):
        registered(registry, 1)


@pytest.mark.proves("R125")
def test_promoting_takes_back_the_current_and_leaves_other_names_alone(
    registry: ModelRegistry,
) -> None:
    other = promoted(registry, registered(registry, 1, name=OTHER), 50)
    first, second = registered(registry, 1), registered(registry, 2)
    promoted(registry, first, 100)
    promoted(registry, second, 101)

    assert statuses(registry) == {
        "momentum_direction_v1.2.0": "production",
        "momentum_direction_v1.1.0": "deprecated",
    }
    assert registry.production(OTHER) == other
    assert registry.production(NAME).pointer.promoted_at_utc == "2025-06-15T15:08:21Z"


@pytest.mark.proves("R126")
def test_what_is_not_there_is_a_typed_error(registry: ModelRegistry) -> None:
    registered(registry, 1)

    with pytest.raises(ModelNotRegistered, match="none is in production"):
        registry.production(NAME)
    with pytest.raises(ModelNotRegistered, match="no such model"):
        registry.find("momentum_direction_v9.9.9")
    with pytest.raises(ModelNotRegistered):
        registry.promote("nobody", act(1), champion=None, evidence_sha256=None)


def test_only_what_is_staged_is_promoted(registry: ModelRegistry) -> None:
    model = promoted(registry, registered(registry, 1), 10)
    with pytest.raises(RegistryConflict, match="expected staged"):
        promoted(registry, model, 11)
    registry.deprecate(model.pointer.registry_id, act(12))
    with pytest.raises(RegistryConflict, match="is deprecated"):
        registry.deprecate(model.pointer.registry_id, act(13))
    with pytest.raises(RegistryConflict, match="expected staged"):
        promoted(registry, model, 14)


@pytest.mark.proves("R330")
@pytest.mark.parametrize("missing", ["git_sha", "dataset_id"])
def test_production_needs_to_know_where_it_comes_from(
    registry: ModelRegistry, missing: str
) -> None:
    bare = structs.replace(manifest(1), **{missing: None})
    model = registry.register(bare, f"file:///models/{bare.model_id}", act(1))

    with pytest.raises(InvalidField, match=missing):
        promoted(registry, model, 2)
    assert statuses(registry) == {"momentum_direction_v1.1.0": "staged"}
    assert [event.action for event in registry.history(NAME)] == [RegistryAction.REGISTER]


def test_evidence_against_another_champion_promotes_nothing(registry: ModelRegistry) -> None:
    """Between evaluation and promotion somebody else promoted: the comparison is void."""
    first, second = registered(registry, 1), registered(registry, 2)
    promoted(registry, first, 10)

    with pytest.raises(RegistryConflict, match="in production: found"):
        registry.promote(
            second.pointer.registry_id, act(11), champion=None, evidence_sha256="e" * 64
        )
    assert statuses(registry)["momentum_direction_v1.2.0"] == "staged"


@pytest.mark.proves("R331")
def test_history_is_newest_first_whole_and_at_most_fifty(registry: ModelRegistry) -> None:
    models = [registered(registry, minor) for minor in range(1, 8)]
    for second, model in enumerate(models):
        promoted(registry, model, 100 + second)
    for second in range(6):
        registry.roll_back(NAME, act(200 + second, actor="operator", reason="worse"))
    for minor in range(20, 34):
        registered(registry, minor)
    found = registry.history(NAME)

    assert len(found) == 50
    assert [event.action for event in found[:2]] == [RegistryAction.PRUNE, RegistryAction.REGISTER]
    assert found[1].pointer.model_id == "momentum_direction_v1.33.0"
    back = [event for event in found if event.action is RegistryAction.ROLL_BACK]
    assert {(event.actor, event.reason) for event in back} == {("operator", "worse")}
    assert back[-1].pointer.model_id == "momentum_direction_v1.6.0"
    assert back[-1].pointer.artifact_url == "file:///models/momentum_direction_v1.6.0"
    assert back[-1].production == back[-1].pointer.registry_id
    assert all(event.evidence_sha256 == "e" * 64 for event in found if event.action == "promote")


@pytest.mark.proves("R333")
def test_a_rollback_restores_the_exact_hash_and_goes_on_backwards(
    registry: ModelRegistry,
) -> None:
    models = [promoted(registry, registered(registry, minor), minor + 50) for minor in (1, 2, 3)]

    hashes = [registry.roll_back(NAME, act(100 + n)).pointer.model_version_hash for n in (1, 2)]

    assert hashes == [models[1].pointer.model_version_hash, models[0].pointer.model_version_hash]
    assert registry.production(NAME) == models[0]
    with pytest.raises(ModelNotRegistered, match="nothing was in production before"):
        registry.roll_back(NAME, act(110))
    assert registry.production(NAME) == models[0]


@pytest.mark.proves("R263")
def test_the_eleventh_version_prunes_the_oldest_spare_one(registry: ModelRegistry) -> None:
    """Production stays however old it is, and so does what a rollback would need."""
    for minor in (1, 2):
        promoted(registry, registered(registry, minor), minor + 50)
    for minor in range(3, 11):
        registered(registry, minor)
    assert len(registry.models(NAME)) == 10

    registered(registry, 11)

    assert "momentum_direction_v1.3.0" not in statuses(registry)
    assert {"momentum_direction_v1.1.0", "momentum_direction_v1.2.0"} <= statuses(registry).keys()
    assert len(registry.models(NAME)) == 10
    assert registry.history(NAME)[0].action is RegistryAction.PRUNE
    assert registry.roll_back(NAME, act(99)).pointer.model_id == "momentum_direction_v1.1.0"


@pytest.mark.proves("R263")
def test_as_many_versions_stay_as_one_says(url: str) -> None:
    registry = ModelRegistry(ControlDatabase(url), versions_max=3)
    promoted(registry, registered(registry, 1), 10)
    for minor in range(2, 6):
        registered(registry, minor)

    assert statuses(registry).keys() == {f"momentum_direction_v1.{minor}.0" for minor in (1, 4, 5)}
    with pytest.raises(InvalidField):
        ModelRegistry(ControlDatabase(url), versions_max=0)


def test_the_database_itself_refuses_a_second_one_in_production(url: str) -> None:
    database = ControlDatabase(url)
    registry = ModelRegistry(database)
    promoted(registry, registered(registry, 1), 10)
    registered(registry, 2)

    with pytest.raises(ControlUnavailable, match="IntegrityError"), database.writing() as link:
        link.exec_driver_sql("UPDATE registry_models SET status = 'production'")


@given(acts=st.lists(st.sampled_from(["register", "promote", "roll_back", "deprecate"])))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_done_one_at_most_is_in_production(
    tmp_path_factory: pytest.TempPathFactory, acts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("acts") / "control.sqlite"
    registry = ModelRegistry(ControlDatabase(f"sqlite:///{path}"))
    for second, kind in enumerate(acts, start=1):
        models = registry.models(NAME)
        try:
            if kind == "register":
                registered(registry, second)
            elif kind == "roll_back":
                registry.roll_back(NAME, act(second))
            elif models and kind == "promote":
                promoted(registry, models[0], second)
            elif models:
                registry.deprecate(models[0].pointer.registry_id, act(second))
        except (RegistryConflict, ModelNotRegistered):
            assert registry.models(NAME) == models
        found = list(statuses(registry).values())
        assert found.count("production") <= 1
        history = registry.history(NAME)
        if history:
            current = [m for m in registry.models(NAME) if m.pointer.status == "production"]
            assert history[0].production == (current[0].pointer.registry_id if current else None)


PROMOTER = """
import sys
from detent.adapters.control_database import ControlDatabase
from detent.adapters.model_registry import Act, ModelRegistry
from detent.contracts.errors import RegistryConflict
url, key, champion = sys.argv[1:]
act = Act(actor=key, source="cli", at_ms=1_750_000_900_000, reason="at once")
try:
    ModelRegistry(ControlDatabase(url)).promote(
        key, act, champion=champion or None, evidence_sha256=None
    )
except RegistryConflict:
    sys.exit(3)
"""


@pytest.mark.proves("R331")
def test_promotions_at_once_serialise(url: str) -> None:
    """Of processes that all saw the same model in production, one wins and the others learn."""
    registry = ModelRegistry(ControlDatabase(url))
    first = promoted(registry, registered(registry, 1), 10)
    keys = [registered(registry, minor).pointer.registry_id for minor in (2, 3)]
    champion = first.pointer.model_version_hash

    def run(key: str) -> int:
        return subprocess.run(
            [sys.executable, "-c", PROMOTER, url, key, champion], check=False
        ).returncode

    with concurrent.futures.ThreadPoolExecutor(len(keys)) as pool:
        codes = sorted(pool.map(run, keys))

    assert codes == [0, 3]
    assert sorted(statuses(registry).values()) == ["deprecated", "production", "staged"]
    actions = [event.action for event in registry.history(NAME)[:2]]
    assert actions == [RegistryAction.PROMOTE, RegistryAction.DEMOTE]


def test_both_databases_are_what_the_tables_declare(url: str) -> None:
    ControlDatabase(url).migrate()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "version_table": VERSION_TABLE}
        )
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_a_ledger_in_the_same_database_stays_as_it_is(postgres: PostgresServer) -> None:
    url = postgres.url(postgres.fresh_database())
    step = migrate_postgresql(url)

    assert ControlDatabase(url).migrate() == NEWEST_STEP
    assert migrate_postgresql(url) == step


def test_a_database_that_cannot_be_used_is_a_typed_error(postgres: PostgresServer) -> None:
    bare = ModelRegistry(ControlDatabase(postgres.url(postgres.fresh_database())))
    away = ModelRegistry(ControlDatabase("postgresql://somebody:secret@127.0.0.1:9/control"))

    with pytest.raises(ControlUnavailable, match="detent registry migrate"):
        bare.models()
    with pytest.raises(ControlUnavailable) as refused:
        away.models()
    assert "secret" not in refused.value.message
    for url in ("mysql://x", "postgresql://ada:secret@db:port/control"):
        with pytest.raises(InvalidField, match="sqlite:///FILE") as refused_url:
            ControlDatabase(url)
        assert "secret" not in refused_url.value.message


def test_a_file_of_something_else_gets_no_registry(tmp_path: Path) -> None:
    """A ledger's file named by mistake stays a ledger's file, whoever would write there."""
    file = tmp_path / "ledger.sqlite"
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE records (canonical TEXT)")
    before = file.read_bytes()
    registry = ModelRegistry(ControlDatabase(f"sqlite:///{file}"))

    with pytest.raises(ControlUnavailable, match="tables of something else"):
        registered(registry, 1)
    assert file.read_bytes() == before
    empty = tmp_path / "empty.sqlite"
    empty.touch()
    with pytest.raises(ControlUnavailable, match="an empty file"):
        ModelRegistry(ControlDatabase(f"sqlite:///{empty}", must_exist=True)).models()
