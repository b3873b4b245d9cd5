"""The layers hold: nothing imports outward, servers do not meet in memory, the core is pure."""

from __future__ import annotations

import pytest
from tests.tidy.layers import (
    check_client_dependencies,
    check_import_direction,
    check_purity,
    layer_of,
    reachable,
)
from tests.tidy.tree import SOURCE_ROOTS, Source, python_sources, report

LAYERS = {
    "contracts",
    "core",
    "rpc",
    "adapters",
    "servers/feature",
    "servers/inference",
    "servers/policy",
    "servers/monitor",
    "offline",
    "detent_client",
    "detent_cli",
}

OUT_OF_REACH = (
    "detent.core.policy",
    "detent.core.ledger",
    "detent.core.rollout",
    "detent.adapters.sqlite_ledger",
    "detent.servers.policy",
)
"""Modules that hold or change plans, weights and records."""


def test_every_layer_is_looked_at() -> None:
    """A rule that is checked against no file at all would hold whatever the code does."""
    found = {layer_of(source.module) for source in python_sources(*SOURCE_ROOTS)}

    assert LAYERS - found == set()


def test_imports_point_inward() -> None:
    offences = [o for s in python_sources(*SOURCE_ROOTS) for o in check_import_direction(s)]

    assert not offences, report(offences)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param("contracts/plan.py", "from detent.core import policy", id="contracts-core"),
        pytest.param("core/policy/weight.py", "import detent.rpc.call", id="core-rpc"),
        pytest.param("rpc/channel.py", "from detent.adapters import telemetry", id="rpc-adapters"),
        pytest.param("adapters/store.py", "from ..servers.policy import x", id="relative"),
        pytest.param("servers/policy/main.py", "from detent.offline import bars", id="offline"),
        pytest.param("servers/policy/main.py", "import detent.servers.feature.handler", id="peer"),
        pytest.param("servers/policy/main.py", "from detent.servers import single", id="single"),
        pytest.param("offline/demo.py", "from detent.servers.policy import main", id="sideways"),
        pytest.param("servers/single.py", "from detent.offline import demo", id="root-offline"),
        pytest.param("rpc/probe.py", "def run():\n    from detent.adapters import x", id="late"),
        pytest.param(
            "rpc/probe.py",
            "import importlib\nimportlib.import_module('detent.adapters.x')",
            id="dynamic",
        ),
        pytest.param(
            "rpc/probe.py",
            "import importlib\nimportlib.import_module(f'detent.{x}')",
            id="computed",
        ),
        pytest.param(
            "core/policy/weight.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import detent.rpc.call",
            id="typing-only",
        ),
        pytest.param("adapters/store.py", "import detent_client", id="client"),
        pytest.param("stray.py", "import detent.contracts", id="outside-every-layer"),
    ],
)
def test_an_outward_import_is_reported(path: str, text: str) -> None:
    assert check_import_direction(Source(f"services/detent/{path}", text))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param("detent_client/client.py", "import detent.adapters.telemetry", id="adapters"),
        pytest.param("detent_client/client.py", "from detent_cli import main", id="command"),
        pytest.param("detent_cli/main.py", "import detent.offline.demo", id="eager-offline"),
    ],
)
def test_an_outward_import_of_a_client_is_reported(path: str, text: str) -> None:
    assert check_import_direction(Source(f"clients/{path}", text))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param(
            "services/detent/servers/single.py",
            "from detent.servers.policy import handler\nfrom detent.servers.feature import main",
            id="composition-root",
        ),
        pytest.param(
            "clients/detent_cli/demo.py",
            "import detent_client\ndef demo() -> None:\n    from detent.offline import bars",
            id="command-imports-late",
        ),
        pytest.param(
            "services/detent/servers/policy/handler.py",
            "from detent.servers.policy.settings import Settings\nfrom . import bars",
            id="own-folder",
        ),
    ],
)
def test_an_inward_import_is_accepted(path: str, text: str) -> None:
    assert check_import_direction(Source(path, text)) == []


def test_clients_need_base_dependencies_only() -> None:
    offences = [o for s in python_sources(*SOURCE_ROOTS) for o in check_client_dependencies(s)]

    assert not offences, report(offences)


@pytest.mark.parametrize("module", ["onnxruntime", "redis", "pydantic_settings", "sklearn"])
def test_a_server_dependency_in_the_client_is_reported(module: str) -> None:
    planted = Source("clients/detent_client/client.py", f"import {module}")

    assert check_client_dependencies(planted)


def test_core_and_contracts_are_pure() -> None:
    offences = [o for s in python_sources("services") for o in check_purity(s)]

    assert not offences, report(offences)


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "import random",
        "import os",
        "import os.path as p",
        "import logging",
        "import asyncio",
        "import grpc",
        "import datetime",
        "from pathlib import Path",
        "from detent.api.v1 import plan_pb2",
        "from google.protobuf import message",
        "import numpy as np\nnp.random.default_rng()",
        "from numpy.random import default_rng\ndefault_rng(1)",
        "def load() -> str:\n    return open('x').read()",
        "count = 0\ndef bump() -> None:\n    global count",
        "print('hello')",
        "exec('x = 1')",
    ],
)
def test_an_impure_core_is_reported(text: str) -> None:
    assert check_purity(Source("services/detent/core/policy/weight.py", text))


def test_protobuf_is_for_the_wire_codec_alone() -> None:
    text = "from google.protobuf import message\nfrom detent.api.v1 import plan_pb2"

    assert check_purity(Source("services/detent/contracts/wire.py", text)) == []
    assert len(check_purity(Source("services/detent/contracts/plan.py", text))) == 2


def test_code_is_compiled_in_one_place_alone() -> None:
    text = "exec('x = 1')"

    assert check_purity(Source("services/detent/contracts/compiled.py", text)) == []
    assert check_purity(Source("services/detent/contracts/wire.py", text))


@pytest.mark.proves("R195")
@pytest.mark.parametrize("server", ["detent.servers.inference", "detent.servers.feature"])
def test_model_side_servers_cannot_reach_policy(server: str) -> None:
    """What is not in the process cannot be called: no import leads to plans, weights or records."""
    loaded = reachable(server, python_sources(*SOURCE_ROOTS))

    assert f"{server}.handler" in loaded
    assert [name for name in loaded if name.startswith(OUT_OF_REACH)] == []


def test_a_detour_to_policy_is_followed() -> None:
    planted = (
        Source("services/detent/servers/inference/handler.py", "from detent.adapters import a"),
        Source("services/detent/adapters/a.py", "from detent.core.policy.weight import weigh"),
        Source("services/detent/core/policy/weight.py", ""),
    )

    assert "detent.core.policy.weight" in reachable("detent.servers.inference", planted)
