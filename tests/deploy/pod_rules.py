"""Say what is wrong with one pod: a table of rules, each with edits that break it.

The table is our own and not a scanner's, so that a rule can be read where it is enforced. Each
rule carries its controls: edits of a good pod that it must refuse, or it checks nothing.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

Object = dict[str, Any]
Spoil = Callable[[Object], object]

# What the "restricted" Pod Security Standard allows, less what we have no use for.
VOLUME_KINDS = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
WORKLOAD_KINDS = {"Deployment", "StatefulSet", "DaemonSet", "Job"}


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """One pod template with the name of what owns it."""

    owner: str
    labels: dict[str, str]
    spec: Object

    def containers(self) -> list[Object]:
        """Give every container, those that run first included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of the table.

    Attributes:
        name: What must hold.
        problems: Yields one line for each place where it does not.
        spoils: Each edits the specification of a good pod so that it no longer holds.
        serving_only: Whether it concerns only pods that answer calls.
    """

    name: str
    problems: Callable[[Pod], Iterator[str]]
    spoils: tuple[Spoil, ...]
    serving_only: bool = False


def pods(objects: list[Object]) -> list[Pod]:
    """Find every pod that the objects would start."""
    found = []
    for item in objects:
        owner = f"{item['kind']}/{item['metadata']['name']}"
        if item["kind"] in WORKLOAD_KINDS:
            template = item["spec"]["template"]
            found.append(
                Pod(owner=owner, labels=template["metadata"]["labels"], spec=template["spec"])
            )
        elif item["kind"] == "Pod":
            found.append(Pod(owner=owner, labels=item["metadata"]["labels"], spec=item["spec"]))
    return found


def _each_container(
    holds: Callable[[Object, Object], bool], text: str
) -> Callable[[Pod], Iterator[str]]:
    """Make a rule of a statement about (pod specification, container)."""

    def problems(pod: Pod) -> Iterator[str]:
        for container in pod.containers():
            if not holds(pod.spec, container):
                yield f"{pod.owner}: container {container['name']}: {text}"

    return problems


def _whole_pod(holds: Callable[[Object], bool], text: str) -> Callable[[Pod], Iterator[str]]:
    """Make a rule of a statement about the pod specification."""

    def problems(pod: Pod) -> Iterator[str]:
        if not holds(pod.spec):
            yield f"{pod.owner}: {text}"

    return problems


def _effective(spec: Object, container: Object, field: str) -> object:
    """Give a security setting as the kubelet sees it: the container's own wins."""
    own = container.get("securityContext", {})
    return own.get(field, spec.get("securityContext", {}).get(field))


def _is_non_root(spec: Object, container: Object) -> bool:
    user = _effective(spec, container, "runAsUser")
    group = _effective(spec, container, "runAsGroup")
    named = isinstance(user, int) and user > 0 and isinstance(group, int) and group > 0
    return named and _effective(spec, container, "runAsNonRoot") is True


def _has_seccomp(spec: Object, container: Object) -> bool:
    return _effective(spec, container, "seccompProfile") == {"type": "RuntimeDefault"}


def _drops_all(_spec: Object, container: Object) -> bool:
    capabilities = container.get("securityContext", {}).get("capabilities", {})
    return bool(capabilities == {"drop": ["ALL"]})


def _cannot_escalate(_spec: Object, container: Object) -> bool:
    own = container.get("securityContext", {})
    return own.get("allowPrivilegeEscalation") is False and not own.get("privileged", False)


def _has_read_only_root(_spec: Object, container: Object) -> bool:
    return container.get("securityContext", {}).get("readOnlyRootFilesystem") is True


def _has_resources(_spec: Object, container: Object) -> bool:
    resources = container.get("resources", {})
    return all(
        resource in resources.get(side, {})
        for side in ("requests", "limits")
        for resource in ("cpu", "memory")
    )


def _has_no_token(spec: Object) -> bool:
    sources = [
        source
        for volume in spec.get("volumes", [])
        for source in volume.get("projected", {}).get("sources", [])
    ]
    planted = any("serviceAccountToken" in source for source in sources)
    return spec.get("automountServiceAccountToken") is False and not planted


def _is_off_the_host(spec: Object) -> bool:
    shared = any(spec.get(field, False) for field in ("hostNetwork", "hostPID", "hostIPC"))
    ports = [port for container in spec["containers"] for port in container.get("ports", [])]
    return not shared and not any("hostPort" in port for port in ports)


def _has_plain_volumes(spec: Object) -> bool:
    kinds = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
    return kinds <= VOLUME_KINDS


def _reads_artifacts_only(spec: Object) -> bool:
    claims = [volume.get("persistentVolumeClaim", {}) for volume in spec.get("volumes", [])]
    mounts = [
        mount
        for container in spec["containers"]
        for mount in container.get("volumeMounts", [])
        if mount["mountPath"] == "/artifacts"
    ]
    ours = [claim for claim in claims if claim.get("claimName") == "detent-artifacts"]
    return (
        len(ours) == len(mounts) == 1
        and ours[0].get("readOnly") is True
        and mounts[0].get("readOnly") is True
    )


def _probe_problems(pod: Pod) -> Iterator[str]:
    """Want three probes of an open port; readiness asks the service that is called, by name."""
    for container in pod.spec["containers"]:
        ports = {port["containerPort"] for port in container.get("ports", [])}
        ports |= {port["name"] for port in container.get("ports", []) if "name" in port}
        for kind in ("startup", "liveness", "readiness"):
            probe = container.get(f"{kind}Probe", {})
            asked = probe.get("grpc", {} if kind == "readiness" else probe.get("tcpSocket", {}))
            if pod.labels["app.kubernetes.io/name"] == "monitor":
                path = "/readyz" if kind == "readiness" else "/healthz"
                if probe.get("httpGet") != {"path": path, "port": "http"}:
                    yield f"{pod.owner}: no {kind} probe of {path}"
                continue
            if asked.get("port") not in ports:
                yield f"{pod.owner}: no {kind} probe of a port that is open"
            elif kind == "readiness" and asked.get("service") != _service_name(pod):
                yield f"{pod.owner}: readiness is not asked of the service that is called"


def _service_name(pod: Pod) -> str:
    """Give the health name of what a pod serves."""
    return f"detent.api.v1.{pod.labels['app.kubernetes.io/name'].capitalize()}Service"


def _has_fixed_image(_spec: Object, container: Object) -> bool:
    image = container["image"]
    return "@sha256:" in image or (":" in image and not image.endswith(":latest"))


def _is_spread(spec: Object) -> bool:
    keys = {rule["topologyKey"] for rule in spec.get("topologySpreadConstraints", [])}
    return "kubernetes.io/hostname" in keys


def _inside(*path: str, **changes: object) -> Spoil:
    """Make an edit of the first container, or of what lies below it."""

    def spoil(spec: Object) -> None:
        part = spec["containers"][0]
        for step in path:
            part = part[step]
        part.update(changes)

    return spoil


def _without(*path: str) -> Spoil:
    """Make an edit that takes one field away from the first container."""

    def spoil(spec: Object) -> None:
        part = spec["containers"][0]
        for step in path[:-1]:
            part = part[step]
        del part[path[-1]]

    return spoil


def _token_volume(spec: Object) -> None:
    token = {"serviceAccountToken": {"path": "token"}}
    spec["volumes"].append({"name": "token", "projected": {"sources": [token]}})


def _writable_mount(spec: Object) -> None:
    for mount in spec["containers"][0]["volumeMounts"]:
        mount.pop("readOnly", None)


RULES = [
    Rule(
        name="non-root",
        problems=_each_container(_is_non_root, "may run as root"),
        spoils=(
            _inside("securityContext", runAsUser=0),
            _inside("securityContext", runAsGroup=0),
            _inside("securityContext", runAsNonRoot=False),
            lambda spec: spec["securityContext"].pop("runAsUser"),
        ),
    ),
    Rule(
        name="drop-all",
        problems=_each_container(_drops_all, "keeps or adds a capability"),
        spoils=(
            _without("securityContext", "capabilities"),
            _inside("securityContext", "capabilities", add=["NET_BIND_SERVICE"]),
        ),
    ),
    Rule(
        name="seccomp",
        problems=_each_container(_has_seccomp, "has no RuntimeDefault seccomp profile"),
        spoils=(
            lambda spec: spec["securityContext"].pop("seccompProfile"),
            _inside("securityContext", seccompProfile={"type": "Unconfined"}),
        ),
    ),
    Rule(
        name="no-escalation",
        problems=_each_container(_cannot_escalate, "may gain privileges"),
        spoils=(
            _without("securityContext", "allowPrivilegeEscalation"),
            _inside("securityContext", privileged=True),
        ),
    ),
    Rule(
        name="read-only-root",
        problems=_each_container(_has_read_only_root, "can write its own root"),
        spoils=(_without("securityContext", "readOnlyRootFilesystem"),),
    ),
    Rule(
        name="resources",
        problems=_each_container(_has_resources, "lacks a request or a limit"),
        spoils=(
            _without("resources"),
            _without("resources", "limits", "memory"),
            _without("resources", "requests", "cpu"),
        ),
    ),
    Rule(
        name="fixed-image",
        problems=_each_container(_has_fixed_image, "runs whatever `latest` is"),
        spoils=(_inside(image="detent-policy"), _inside(image="detent-policy:latest")),
    ),
    Rule(
        name="no-token",
        problems=_whole_pod(_has_no_token, "holds a service account token"),
        spoils=(lambda spec: spec.pop("automountServiceAccountToken"), _token_volume),
    ),
    Rule(
        name="no-service-links",
        problems=_whole_pod(
            lambda spec: spec.get("enableServiceLinks") is False,
            "gets variables named after services, beside its settings",
        ),
        spoils=(lambda spec: spec.pop("enableServiceLinks"),),
    ),
    Rule(
        name="off-the-host",
        problems=_whole_pod(_is_off_the_host, "shares something of its host"),
        spoils=(
            lambda spec: spec.update(hostNetwork=True),
            lambda spec: spec.update(hostPID=True),
            _inside(ports=[{"containerPort": 7301, "hostPort": 7301}]),
        ),
    ),
    Rule(
        name="plain-volumes",
        problems=_whole_pod(_has_plain_volumes, "mounts a volume kind that is not allowed"),
        spoils=(lambda spec: spec["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),),
    ),
    Rule(
        name="read-only-artifacts",
        problems=_whole_pod(_reads_artifacts_only, "could write the artifacts that it serves"),
        spoils=(_writable_mount, lambda spec: spec["volumes"].clear()),
        serving_only=True,
    ),
    Rule(
        name="probes",
        problems=_probe_problems,
        spoils=(
            _without("startupProbe"),
            _without("livenessProbe"),
            _without("readinessProbe"),
            _without("readinessProbe", "grpc", "service"),
            _inside("readinessProbe", "grpc", service="detent.api.v1.LedgerService"),
            _inside("livenessProbe", "grpc", port=1),
        ),
        serving_only=True,
    ),
    Rule(
        name="spread",
        problems=_whole_pod(_is_spread, "may sit with all its replicas on one node"),
        spoils=(lambda spec: spec.pop("topologySpreadConstraints"),),
        serving_only=True,
    ),
]
