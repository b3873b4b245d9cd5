"""Say what is wrong between objects: who may talk to whom, what an eviction may take, names."""

from collections.abc import Iterator

from tests.deploy.pod_rules import Object, Pod, pods

# Every connection that exists: (from, to, port). Anything else is a finding.
EDGES = {
    ("strategist", "feature", 7301),
    ("strategist", "policy", 7303),
    ("policy", "feature", 7301),
    ("policy", "inference", 7302),
    ("monitor", "policy", 7303),
}
SERVICES = {"feature", "inference", "policy", "monitor"}


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Give the objects of one kind."""
    return [item for item in objects if item["kind"] == kind]


def _matches(selector: Object, pod: Pod) -> bool:
    wanted = selector.get("matchLabels", {})
    return bool(wanted) and wanted.items() <= pod.labels.items()


def _party(selector: Object) -> str:
    """Name who a selector selects; a selector of anybody is named so and found."""
    labels: dict[str, str] = selector.get("matchLabels", {})
    if labels == {"detent/strategist": "true"}:
        return "strategist"
    return labels.get("app.kubernetes.io/name", "anybody")


def _peers(rule: Object, side: str) -> list[str]:
    """Name the other ends of one rule, the cluster's name server left out."""
    peers: list[Object] = rule.get(side, [{}])
    named = []
    for peer in peers:
        if peer.get("podSelector", {}).get("matchLabels") == {"k8s-app": "kube-dns"}:
            continue
        plain = set(peer) == {"podSelector"}
        named.append(_party(peer["podSelector"]) if plain else "anybody")
    return named


def edges(objects: list[Object], direction: str) -> set[tuple[str, str, int]]:
    """Collect what the network policies allow, in (`ingress`) or out (`egress`)."""
    found = set()
    for policy in of_kind(objects, "NetworkPolicy"):
        own = _party(policy["spec"]["podSelector"])
        for rule in policy["spec"].get(direction, []):
            ports = [port["port"] for port in rule.get("ports", [{"port": 0}])]
            for peer in _peers(rule, "from" if direction == "ingress" else "to"):
                pair = (peer, own) if direction == "ingress" else (own, peer)
                found |= {(*pair, port) for port in ports}
    return found


def default_deny_problems(objects: list[Object]) -> Iterator[str]:
    """Want one policy that selects every pod, covers both ways and allows nothing."""
    denying = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if not any(item["spec"] == denying for item in of_kind(objects, "NetworkPolicy")):
        yield "no network policy denies by default, both ways, for every pod"


def edge_problems(objects: list[Object]) -> Iterator[str]:
    """Want exactly the edges of the data flow, open at both of their ends."""
    for direction in ("ingress", "egress"):
        for edge in sorted(edges(objects, direction) ^ EDGES):
            verb = "missing" if edge in EDGES else "not allowed"
            yield f"{direction} {edge[0]} -> {edge[1]}:{edge[2]} is {verb}"


def disruption_problems(objects: list[Object]) -> Iterator[str]:
    """Want one budget for each workload that lets a node be drained."""
    budgets = of_kind(objects, "PodDisruptionBudget")
    for pod in pods(objects):
        own = [item for item in budgets if _matches(item["spec"]["selector"], pod)]
        if len(own) != 1 or own[0]["spec"].get("maxUnavailable") != 1:
            yield f"{pod.owner}: wants one disruption budget of one pod, found {len(own)}"


def account_problems(objects: list[Object]) -> Iterator[str]:
    """Want an own account for each workload, with no token to steal."""
    accounts = {item["metadata"]["name"]: item for item in of_kind(objects, "ServiceAccount")}
    for pod in pods(objects):
        account = accounts.get(pod.spec.get("serviceAccountName", "default"))
        if account is None or account.get("automountServiceAccountToken") is not False:
            yield f"{pod.owner}: wants an own service account that mounts no token"


def service_problems(objects: list[Object]) -> Iterator[str]:
    """Want one headless service for each process, whose selector finds a pod with that port."""
    services = {item["metadata"]["name"]: item for item in of_kind(objects, "Service")}
    for name in sorted(SERVICES | set(services)):
        spec = services.get(name, {}).get("spec", {})
        selector = {"matchLabels": spec.get("selector", {})}
        chosen = [pod for pod in pods(objects) if _matches(selector, pod)]
        ports = {
            port["containerPort"]
            for pod in chosen
            for container in pod.containers()
            for port in container.get("ports", [])
        }
        wanted = {port["port"] for port in spec.get("ports", [])}
        if spec.get("clusterIP") != "None" or not wanted or wanted != ports:
            yield f"service {name}: headless with ports {sorted(ports)} wanted, found {spec}"


def namespace_problems(objects: list[Object]) -> Iterator[str]:
    """Want every object in one namespace in which the API server enforces `restricted`."""
    enforced = {
        item["metadata"]["name"]
        for item in of_kind(objects, "Namespace")
        if item["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce")
        == "restricted"
    }
    for item in objects:
        if item["kind"] != "Namespace" and item["metadata"].get("namespace") not in enforced:
            yield f"{item['kind']}/{item['metadata']['name']}: outside a restricted namespace"


def reference_problems(objects: list[Object]) -> Iterator[str]:
    """Want every config map and claim that a pod names to be among the objects."""
    names = {(item["kind"], item["metadata"]["name"]) for item in objects}
    for pod in pods(objects):
        wanted = {
            ("ConfigMap", source["configMapRef"]["name"])
            for container in pod.containers()
            for source in container.get("envFrom", [])
        } | {
            ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
            for volume in pod.spec.get("volumes", [])
            if "persistentVolumeClaim" in volume
        }
        for kind, name in sorted(wanted - names):
            yield f"{pod.owner}: names {kind}/{name}, which is not there"
