"""The Dockerfile and the compose file, read as text: what an image and a stack must never do.

That they build and run is shown by `tests/containers`, where there is a container engine.
"""

import pathlib
import re
from typing import Any

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
TARGETS = ["feature", "inference", "inference-gpu", "policy", "monitor", "client"]
SERVERS = ["feature", "inference", "policy", "monitor"]


@pytest.fixture(name="stages", scope="module")
def _stages() -> dict[str, list[str]]:
    """Give the instructions of each stage, continuation lines joined."""
    text = (ROOT / "deploy/docker/Dockerfile").read_text().replace("\\\n", " ")
    lines = [re.sub(r"\s+", " ", line) for line in text.splitlines()]
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("FROM "):
            found[line.split(" AS ")[1]] = [line]
        elif line and not line.startswith("#"):
            found[list(found)[-1]].append(line)
    return found


@pytest.fixture(name="compose", scope="module")
def _compose() -> dict[str, Any]:
    """Give the compose file with its anchors resolved and its variables left alone."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


@pytest.mark.parametrize("target", TARGETS)
def test_image_runs_as_a_number_and_stops_on_sigterm(
    stages: dict[str, list[str]], target: str
) -> None:
    """Kubernetes can check `runAsNonRoot` only of a numeric user."""
    stage = stages[target]
    entrypoints = [line for line in stage if line.startswith("ENTRYPOINT")]

    assert "USER 10001:10001" in stage
    assert "STOPSIGNAL SIGTERM" in stage
    assert len(entrypoints) == 1
    assert entrypoints[0].startswith('ENTRYPOINT ["')


@pytest.mark.parametrize("target", [target for target in TARGETS if target != "client"])
def test_server_image_says_whether_it_is_healthy(stages: dict[str, list[str]], target: str) -> None:
    health = [line for line in stages[target] if line.startswith("HEALTHCHECK")]

    assert len(health) == 1
    if target == "monitor":
        assert "7304" in health[0]
        assert "'/readyz'" in health[0]
        return
    assert '"-m", "detent.rpc.probe"' in health[0]
    assert f"detent.api.v1.{target.split('-', maxsplit=1)[0].capitalize()}Service" in health[0]


@pytest.mark.parametrize("target", TARGETS)
def test_image_takes_one_environment_from_its_builder(
    stages: dict[str, list[str]], target: str
) -> None:
    """Compilers, caches and pip's own doings stay behind."""
    copies = [line for line in stages[target] if line.startswith(("COPY", "ADD"))]

    assert stages[target][0] == f"FROM base AS {target}"
    assert copies == [f"COPY --from={target}-venv /opt/detent /opt/detent"]


def test_everything_that_is_installed_is_pinned(stages: dict[str, list[str]]) -> None:
    installs = [line for lines in stages.values() for line in lines if " install " in line]
    by_pip = [line for line in installs if "pip " in line]

    assert len(by_pip) == 1 + 2 * len(TARGETS)
    assert all("--require-hashes" in line or "--no-index" in line for line in by_pip)
    assert not [line for line in installs if "apt" in line]


def test_no_image_names_a_host_or_needs_a_newer_builder(stages: dict[str, list[str]]) -> None:
    """Mounts of a cache or a bind are the only extras that every builder we meet knows."""
    lines = [line for stage in stages.values() for line in stage]
    mounts = [kind for line in lines for kind in re.findall(r"--mount=type=(\w+)", line)]

    assert not [line for line in lines if "://" in line or "<<" in line or "--link" in line]
    assert set(mounts) <= {"cache", "bind"}


def test_context_lets_in_only_what_is_copied() -> None:
    """Data, outputs and history must not reach a builder, wherever it runs."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}

    assert lines[1] == "*"
    assert allowed == {
        *("pyproject.toml", "README.md", "LICENSE", "requirements"),
        *("services", "clients", "deploy", "deploy/docker"),
    }


@pytest.mark.parametrize("service", [*SERVERS, "client"])
def test_service_is_confined(compose: dict[str, Any], service: str) -> None:
    found = compose["services"][service]
    artifacts = [volume for volume in found.get("volumes", []) if isinstance(volume, dict)]

    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in found.get("ports", []))
    assert all(volume["read_only"] is True for volume in artifacts)
    assert found["build"]["target"] == service


def test_no_server_waits_for_another(compose: dict[str, Any]) -> None:
    """Policy must answer from the proxy while the others are away, at its start as well."""
    assert not [name for name in SERVERS if "depends_on" in compose["services"][name]]


@pytest.mark.parametrize(
    ("variable", "default"),
    [
        ("DETENT_POLICY_INFER_ENABLED", "false"),
        ("DETENT_POLICY_ACTIVE_ENABLED", "false"),
        ("DETENT_POLICY_ACTIVE_ACK", ""),
    ],
)
def test_model_is_off_unless_both_keys_and_the_acknowledgement_are_given(
    compose: dict[str, Any], variable: str, default: str
) -> None:
    environment = compose["services"]["policy"]["environment"]
    switched_on = (ROOT / "deploy/config/model-active.env").read_text().splitlines()

    assert environment[variable] == f"${{{variable}:-{default}}}"
    assert [line for line in switched_on if line.startswith(f"{variable}=")] != []


def test_redis_is_confined_optional_and_may_not_forget(compose: dict[str, Any]) -> None:
    """The feature service refuses a Redis that evicts, so ours must not."""
    found = compose["services"]["redis"]
    address = compose["services"]["feature"]["environment"]["DETENT_FEATURE_REDIS_URL"]

    assert found["profiles"] == ["redis"]
    assert address == "${DETENT_FEATURE_REDIS_URL:-}"
    assert (found["read_only"], found["cap_drop"]) == (True, ["ALL"])
    assert "ports" not in found
    assert "--maxmemory-policy noeviction" in found["command"]
    assert "--appendonly yes --appendfsync always" in found["command"]
