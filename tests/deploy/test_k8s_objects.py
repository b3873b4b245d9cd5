"""The rendered Kubernetes objects: valid to the field, restricted, and closed to strangers."""

import copy
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Iterator

import kubernetes_validate  # type: ignore[import-untyped]  # It has none.
import pytest
import yaml
from tests.deploy import cluster_rules
from tests.deploy.pod_rules import RULES, Object, Pod, Rule, Spoil, pods

ROOT = pathlib.Path(__file__).parents[2]
OVERLAYS = sorted(path.name for path in (ROOT / "k8s/overlays").iterdir())
# The newest release whose schemas are served and the oldest that knows every field we use.
KUBERNETES_VERSIONS = ["1.31.0", kubernetes_validate.latest_version()]


@pytest.fixture(name="objects", scope="module", params=OVERLAYS)
def _objects(request: pytest.FixtureRequest) -> list[Object]:
    """Render one overlay as `kubectl apply -k` would."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed, so nothing can be rendered")
    rendered = subprocess.run(
        [kubectl, "kustomize", str(ROOT / "k8s/overlays" / request.param)],
        check=True,
        capture_output=True,
        text=True,
    )
    return [item for item in yaml.safe_load_all(rendered.stdout) if item]


@pytest.fixture(name="loader", scope="module")
def _loader() -> list[Object]:
    """Give the pod that copies artifacts in, which no overlay starts."""
    return [yaml.safe_load((ROOT / "k8s/artifact-loader.yaml").read_text())]


@pytest.fixture(name="pod")
def _pod(objects: list[Object]) -> Pod:
    """Give one good serving pod that a test may spoil."""
    return copy.deepcopy(pods(objects)[0])


def _edited(objects: list[Object], kind: str, edit: Spoil) -> list[Object]:
    """Give a copy of the objects in which the first of a kind is edited."""
    copied = copy.deepcopy(objects)
    edit(cluster_rules.of_kind(copied, kind)[0])
    return copied


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_every_object_is_valid_to_the_field(
    objects: list[Object], loader: list[Object], version: str
) -> None:
    for item in [*objects, *loader]:
        kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize(
    ("kind", "misspell"),
    [
        pytest.param(
            "Deployment",
            lambda item: item["spec"]["template"]["spec"]["containers"][0].update(
                readynessProbe={"grpc": {"port": 7301}}
            ),
            id="container field",
        ),
        pytest.param(
            "NetworkPolicy", lambda item: item["spec"].update(policyType=["Egress"]), id="network"
        ),
        pytest.param(
            "PodDisruptionBudget",
            lambda item: item["spec"].update(maxUnavailible=1),
            id="disruption budget",
        ),
    ],
)
def test_a_misspelt_field_is_refused(objects: list[Object], kind: str, misspell: Spoil) -> None:
    """Without this the schema check could be one that lets everything pass."""
    spoilt = cluster_rules.of_kind(_edited(objects, kind, misspell), kind)[0]

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(spoilt, kubernetes_validate.latest_version(), strict=True)


def test_the_four_processes_are_rendered(objects: list[Object]) -> None:
    """A rule about every pod says nothing when there are none."""
    owners = {pod.owner for pod in pods(objects)}

    assert owners == {
        *("Deployment/feature", "Deployment/inference", "Deployment/monitor"),
        "StatefulSet/policy",
    }


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.name) for rule in RULES])
def test_every_pod_is_restricted(objects: list[Object], loader: list[Object], rule: Rule) -> None:
    checked = objects if rule.serving_only else [*objects, *loader]
    problems = [line for pod in pods(checked) for line in rule.problems(pod)]

    assert problems == []


@pytest.mark.parametrize(
    ("rule", "spoil"),
    [
        pytest.param(rule, spoil, id=f"{rule.name}-{number}")
        for rule in RULES
        for number, spoil in enumerate(rule.spoils)
    ],
)
def test_a_pod_that_breaks_the_rule_is_found(pod: Pod, rule: Rule, spoil: Spoil) -> None:
    """The controls of each rule: the same pod, spoilt in one place."""
    assert list(rule.problems(pod)) == []
    spoil(pod.spec)

    assert list(rule.problems(pod)) != []


def test_a_careless_init_container_is_found(pod: Pod) -> None:
    """What runs first runs with the same data, so the rules about containers cover it."""
    pod.spec["initContainers"] = [{"name": "careless", "image": "busybox"}]
    refusing = {rule.name for rule in RULES if list(rule.problems(pod))}

    assert refusing == {"drop-all", "no-escalation", "read-only-root", "resources", "fixed-image"}


Problems = Callable[[list[Object]], Iterator[str]]

CLUSTER_RULES: list[tuple[Problems, str, Spoil]] = [
    (
        cluster_rules.default_deny_problems,
        "NetworkPolicy",
        lambda item: item["spec"].update(policyTypes=["Ingress"]),
    ),
    (
        cluster_rules.disruption_problems,
        "PodDisruptionBudget",
        lambda item: item["spec"]["selector"].update(matchLabels={"app": "none"}),
    ),
    (
        cluster_rules.account_problems,
        "ServiceAccount",
        lambda item: item.update(automountServiceAccountToken=True),
    ),
    (
        cluster_rules.service_problems,
        "Service",
        lambda item: item["spec"].pop("clusterIP"),
    ),
    (
        cluster_rules.namespace_problems,
        "Namespace",
        lambda item: item["metadata"].pop("labels"),
    ),
    (
        cluster_rules.reference_problems,
        "ConfigMap",
        lambda item: item["metadata"].update(name="elsewhere"),
    ),
]
CLUSTER_IDS = [problems.__name__ for problems, _, _ in CLUSTER_RULES]


@pytest.mark.parametrize(("problems", "_kind", "_spoil"), CLUSTER_RULES, ids=CLUSTER_IDS)
def test_the_objects_agree(
    objects: list[Object],
    problems: Problems,
    _kind: str,
    _spoil: Spoil,
) -> None:
    assert list(problems(objects)) == []


@pytest.mark.parametrize(("problems", "kind", "spoil"), CLUSTER_RULES, ids=CLUSTER_IDS)
def test_an_object_that_disagrees_is_found(
    objects: list[Object], problems: Problems, kind: str, spoil: Spoil
) -> None:
    assert list(problems(_edited(objects, kind, spoil))) != []


def test_the_network_allows_the_data_flow_and_nothing_else(objects: list[Object]) -> None:
    assert list(cluster_rules.edge_problems(objects)) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"ingress": [{}]}, id="anybody in"),
        pytest.param({"egress": [{}]}, id="out to anywhere"),
        pytest.param(
            {"ingress": [{"from": [{"namespaceSelector": {}, "podSelector": {}}]}]},
            id="every namespace",
        ),
        pytest.param({"ingress": []}, id="nobody in"),
    ],
)
def test_a_changed_edge_is_found(objects: list[Object], change: Object) -> None:
    copied = copy.deepcopy(objects)
    policies = cluster_rules.of_kind(copied, "NetworkPolicy")
    feature = next(item for item in policies if item["metadata"]["name"] == "feature")
    feature["spec"].update(change)

    assert list(cluster_rules.edge_problems(copied)) != []
