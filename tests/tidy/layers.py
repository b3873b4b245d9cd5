"""Checks who may import whom: the layers, and the purity of the two innermost hand-written ones.

The order is `api <- contracts <- core <- rpc <- adapters <- servers | offline <- clients`. A layer
imports itself and what stands to its left. Beyond that order, core and contracts stay pure, servers
do not know one another, and a strategist's client pulls in no server dependency.
"""

from __future__ import annotations

import ast
import sys

from tests.tidy.names import COMPUTED, Import, imports, references
from tests.tidy.tree import Offence, Source

ORDER = ("api", "contracts", "core", "rpc", "adapters")
"""The linear part of the layers, innermost first; above it servers and offline are siblings."""

COMPOSITION_ROOT = "detent.servers.single"
"""The one module that may join several servers in one process."""

CLIENT_LAYERS = ("api", "contracts", "core", "rpc")
"""What a client may use, so that installing it needs neither a database nor a model runtime."""

WIRE_CODEC = "detent.contracts.wire"
"""The one module of the contracts that may touch protobuf messages, which it finds by name."""

COMPILER = "detent.contracts.compiled"
"""The one module that runs text as code: the codecs that it writes for our own classes."""

PROTOBUF = "google.protobuf"
"""The protobuf runtime; the rest of `google` holds clients of services."""

PURE_STDLIB = frozenset(
    {
        "__future__",
        "abc",
        "base64",
        "binascii",
        "bisect",
        "collections",
        "copy",
        "dataclasses",
        "decimal",
        "enum",
        "fractions",
        "functools",
        "hashlib",
        "heapq",
        "itertools",
        "json",
        "math",
        "numbers",
        "operator",
        "re",
        "statistics",
        "string",
        "struct",
        "textwrap",
        "types",
        "typing",
        "unicodedata",
    }
)
"""Standard library that computes and nothing else: no clock, chance, file, log or event loop."""

CLIENT_THIRD_PARTY = frozenset(
    {
        "google",
        "grpc",
        "msgspec",
        "numpy",
        "opentelemetry",
        "pydantic",
        "rich",
        "typer",
    }
)
"""The distribution's base dependencies; everything else is an extra that a client need not have."""

DRAWN_LATE = frozenset(
    {
        "detent_cli.attribution_page",
        "detent_cli.backtest_page",
        "detent_cli.sweep_page",
        "detent_cli.demo.report",
        "detent_cli.evaluation_page",
        "detent_cli.monitor_page",
        "detent_cli.pictures",
        "detent_cli.reliability_plot",
        "detent_cli.shadow_page",
    }
)
"""Modules that draw, whose importers load them late; they need the extra `console`."""

PURE_THIRD_PARTY = frozenset({"msgspec", "numpy"})
"""Libraries that compute and nothing else."""

IMPURE_BUILTINS = frozenset({"breakpoint", "eval", "exec", "input", "open", "print"})
"""Builtins by which a pure function would touch the world."""


def layer_of(module: str) -> str | None:
    """Name the layer that a dotted module name belongs to, or None outside the product.

    Servers answer with their own folder, `servers/policy`, because they are layers apart.
    """
    parts = module.split(".")
    if parts[0] in {"detent_client", "detent_cli"}:
        return parts[0]
    if parts[0] != "detent":
        return None
    match parts[1:]:
        case []:
            return "detent"
        case ["servers", server, *_]:
            return f"servers/{server}"
        case [layer, *_]:
            return layer
    return None


def allowed_layers(module: str) -> frozenset[str] | None:
    """List the layers that a module may import; None where every layer is allowed."""
    layer = layer_of(module)
    if module == COMPOSITION_ROOT:
        return None
    if layer in ORDER:
        return frozenset(ORDER[: ORDER.index(layer) + 1])
    if layer is not None and (layer.startswith("servers") or layer == "offline"):
        return frozenset({*ORDER, layer})
    if layer == "detent_client":
        return frozenset({*CLIENT_LAYERS, "detent_client"})
    if layer == "detent_cli":
        return frozenset({*CLIENT_LAYERS, "detent_client", "detent_cli"})
    return frozenset()


def check_import_direction(source: Source) -> list[Offence]:
    """Report imports that point outward, or sideways from one server to another."""
    layer = layer_of(source.module)
    allowed = allowed_layers(source.module)
    offences = []
    for found in imports(source):
        target = layer_of(found.name)
        if found.name == COMPUTED and source.module != WIRE_CODEC:
            offences.append(source.offence(found.line, "an import that nobody can check"))
        if target is None or _is_allowed(source.module, found, target, allowed):
            continue
        offences.append(source.offence(found.line, f"{layer} must not import {found.name}"))
    return offences


def _is_allowed(module: str, found: Import, target: str, allowed: frozenset[str] | None) -> bool:
    if layer_of(module) == "detent_cli" and (found.deferred or found.typing_only):
        # The command is the outermost root: it loads servers only for the command that needs them.
        return True
    if allowed is None:
        return target not in {"offline", "detent_client", "detent_cli"}
    return target in allowed


def check_client_dependencies(source: Source) -> list[Offence]:
    """Report third-party imports of the clients and of what they stand on, beyond the base set."""
    if layer_of(source.module) not in {"contracts", "core", "detent_client", "detent_cli"}:
        return []
    offences = []
    for found in imports(source):
        top = found.name.split(".")[0]
        outside = layer_of(found.name) is None and top not in sys.stdlib_module_names
        outside = outside and found.name != COMPUTED
        runs_late = layer_of(source.module) == "detent_cli" and found.deferred
        runs_late = runs_late or source.module in DRAWN_LATE
        if outside and top not in CLIENT_THIRD_PARTY and not runs_late:
            offences.append(source.offence(found.line, f"{top} is not a base dependency"))
    return offences


def check_purity(source: Source) -> list[Offence]:
    """Report whatever would let core or contracts see or change the world around them."""
    if layer_of(source.module) not in {"core", "contracts"}:
        return []
    offences = [
        source.offence(found.line, f"a pure layer must not import {found.name}")
        for found in imports(source)
        if not _is_pure(source.module, found)
    ]
    offences.extend(
        source.offence(used, f"a pure layer must not use {name}")
        for used, name in references(source)
        if name.startswith("numpy.random")
    )
    for node in ast.walk(source.tree):
        match node:
            case ast.Call(func=ast.Name(id="exec")) if source.module == COMPILER:
                continue
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_BUILTINS:
                offences.append(source.offence(node, f"a pure layer must not call {name}()"))
            case ast.Global(names=names):
                what = f"a pure layer has no global state: {', '.join(names)}"
                offences.append(source.offence(node, what))
    return offences


def _is_pure(module: str, found: Import) -> bool:
    top = found.name.split(".")[0]
    if top == "detent":
        inner = {"contracts"} if layer_of(module) == "contracts" else {"contracts", "core"}
        if module == WIRE_CODEC:
            inner = {"contracts", "api"}
        return layer_of(found.name) in inner
    if module == WIRE_CODEC and found.name.startswith(("importlib", PROTOBUF, COMPUTED)):
        return True
    return top in PURE_THIRD_PARTY or top in PURE_STDLIB


def reachable(start: str, sources: tuple[Source, ...]) -> frozenset[str]:
    """List the modules that get loaded, directly or not, when a module is imported.

    Args:
        start: Dotted name of a module, or of a package and so of everything below it.
        sources: The files among which imports are followed.

    """
    by_module = {source.module: source for source in sources}
    waiting = [name for name in by_module if name == start or name.startswith(f"{start}.")]
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in seen or module not in by_module:
            continue
        seen.add(module)
        for found in imports(by_module[module]):
            parts = found.name.split(".")
            waiting.extend(".".join(parts[:size]) for size in range(1, len(parts) + 1))
    return frozenset(seen)
