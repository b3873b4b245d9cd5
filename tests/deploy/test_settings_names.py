"""Every variable that we deploy is one that a process reads, with a value that it accepts."""

import json
import pathlib
import re
from typing import Any

import pytest
import yaml

from detent.servers.feature.settings import FeatureSettings
from detent.servers.inference.settings import InferenceSettings
from detent.servers.monitor.settings import MonitorSettings
from detent.servers.policy.settings import PolicySettings

ROOT = pathlib.Path(__file__).parents[2]
Settings = FeatureSettings | InferenceSettings | MonitorSettings | PolicySettings
SETTINGS: dict[str, type[Settings]] = {
    "feature": FeatureSettings,
    "inference": InferenceSettings,
    "monitor": MonitorSettings,
    "policy": PolicySettings,
}
# Read by policy at every bar, and not a setting.
NOT_SETTINGS = {"ML_KILL_SWITCH"}


def _variables(settings: type[Settings]) -> set[str]:
    """Give the names of the variables that a process reads."""
    prefix = settings.model_config["env_prefix"]
    return {
        str(field.validation_alias) if field.validation_alias else f"{prefix}{name}".upper()
        for name, field in settings.model_fields.items()
    }


def _from_k8s(service: str) -> dict[str, str]:
    """Give what the base says, and over it what the dev overlay says."""
    base = (ROOT / f"k8s/base/{service}/settings.env").read_text().splitlines()
    overlay = yaml.safe_load((ROOT / "k8s/overlays/dev/kustomization.yaml").read_text())
    lines = [
        line
        for generator in overlay["configMapGenerator"]
        if generator["name"] == f"{service}-settings"
        for line in generator["literals"]
    ]
    return dict(line.split("=", 1) for line in [*base, *lines])


def _from_compose(service: str) -> dict[str, str]:
    """Give what compose sets, each variable at its default."""
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    found = compose["services"][service]["environment"]
    return {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        for name, value in found.items()
        if name not in NOT_SETTINGS
    }


def _from_image(service: str) -> dict[str, str]:
    """Give what the image sets by itself."""
    text = (ROOT / "deploy/docker/Dockerfile").read_text()
    return dict(re.findall(rf"\b(DETENT_{service.upper()}_\w+)=(\S+)", text))


SOURCES = {"k8s": _from_k8s, "compose": _from_compose, "image": _from_image}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("service", SETTINGS)
def test_deployed_variable_is_one_that_the_process_reads(service: str, source: str) -> None:
    """A misspelt variable is silently a default: nothing else would find it."""
    deployed = SOURCES[source](service)

    assert deployed != {}
    assert set(deployed) - _variables(SETTINGS[service]) == set()


@pytest.mark.parametrize("source", ["k8s", "compose"])
@pytest.mark.parametrize("service", SETTINGS)
def test_process_accepts_what_is_deployed(
    service: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SOURCES[source](service).items():
        monkeypatch.setenv(name, value)
    settings = SETTINGS[service]()

    assert settings.listen.startswith("0.0.0.0:730")


def test_compose_answers_from_the_proxy_until_it_is_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in _from_compose("policy").items():
        monkeypatch.setenv(name, value)
    off = PolicySettings().enablement
    for line in (ROOT / "deploy/config/model-active.env").read_text().splitlines():
        if not line.startswith("#"):
            monkeypatch.setenv(*line.split("=", 1))
    on = PolicySettings().enablement

    assert (off.infer_enabled, off.active_enabled, off.active_ack) == (False, False, "")
    assert (on.infer_enabled, on.active_enabled) == (True, True)
    assert on.active_ack == "I_UNDERSTAND_THIS_AFFECTS_TRADING"
    assert on.environment in on.allowed_environments


def test_dev_cluster_allows_the_model_in_dev_alone() -> None:
    deployed = _from_k8s("policy")

    assert json.loads(deployed["DETENT_POLICY_ACTIVE_ALLOWED_ENVS"]) == [deployed["DETENT_ENV"]]
