"""Holds documents and plans to the files that they name."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ACCEPTANCE_FILES = (
    "test_model_binding_contract.py",
    "test_phat_to_signal_mapping.py",
    "test_model_signal_fallback.py",
    "test_policy_model_boundary.py",
    "test_model_telemetry_persistence.py",
)
TESTS_MIN = 8


def list_tests(text: str) -> list[str]:
    """Name the tests of a module that `make test` runs."""
    named = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            marks = " ".join(ast.unparse(mark) for mark in node.decorator_list)
            left_out = any(word in marks for word in ("mark.long", "mark.skip", "mark.xfail"))
            if node.name.startswith("test_") and not left_out:
                named.append(node.name)
    return named


def owned_paths(text: str) -> list[str]:
    """List the paths that the ownership map of an architecture names."""
    section = text.split("## Who owns what")[1].split("\n## ", maxsplit=1)[0]
    found = [path for path in re.findall(r"`([^`]+)`", section) if "/" in path]
    # `a/{b,c}/d` names two paths.
    return [
        path.replace(group.group(0), name) if group else path
        for path in found
        for group in [re.search(r"\{([^}]+)\}", path)]
        for name in (group.group(1).split(",") if group else [""])
    ]


@pytest.mark.proves("R303")
@pytest.mark.parametrize("name", ACCEPTANCE_FILES)
def test_an_acceptance_file_stands_under_its_name_and_is_full(name: str) -> None:
    assert len(list_tests((ROOT / "tests" / name).read_text(encoding="utf-8"))) >= TESTS_MIN


def test_an_empty_acceptance_file_would_be_seen() -> None:
    text = "import pytest\n@pytest.mark.skip\ndef test_one() -> None: ...\ndef helper(): ..."

    assert list_tests(text) == []


@pytest.mark.proves("R309")
def test_every_owner_in_the_map_exists() -> None:
    paths = owned_paths((ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    roots = (ROOT, ROOT / "services" / "detent", ROOT / "clients")
    lost = [path for path in paths if not any((root / path).exists() for root in roots)]

    assert len(paths) >= TESTS_MIN
    assert not lost


def test_a_lost_owner_would_be_seen() -> None:
    assert owned_paths("## Who owns what\n| store | `core/nowhere.py` |\n## Next") == [
        "core/nowhere.py"
    ]
