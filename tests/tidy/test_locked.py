"""Checks that what pyproject.toml asks for is locked, so that a bare machine gets it."""

from __future__ import annotations

import re
import tomllib

import pytest
from tests.tidy.tree import ROOT

NAME = re.compile(r"[A-Za-z0-9_.-]+")
# Which locked file answers for which extras.
FILES = {
    "client.txt": (),
    "feature.txt": ("feature",),
    "inference-cpu.txt": ("inference-cpu",),
    "inference-gpu.txt": ("inference-gpu",),
    "policy.txt": ("policy",),
    "monitor.txt": ("monitor",),
    "all.txt": ("feature", "inference-cpu", "policy", "monitor", "offline", "signing", "console"),
}


def canonical(requirement: str) -> str:
    found = NAME.match(requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found.group()).lower()


def wanted(extras: tuple[str, ...]) -> set[str]:
    """Name every distribution that the project and some of its extras ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: set[str] = set()
    waiting = list(project["dependencies"])
    seen: set[str] = set()

    def add(extra: str) -> None:
        if extra not in seen:
            seen.add(extra)
            waiting.extend(project["optional-dependencies"][extra])

    for extra in extras:
        add(extra)
    while waiting:
        requirement = waiting.pop()
        if requirement.startswith("detent["):
            add(requirement.removeprefix("detent[").partition("]")[0])
        else:
            found.add(canonical(requirement))
    return found


def locked(name: str) -> set[str]:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return {canonical(line) for line in text.splitlines() if NAME.match(line)}


@pytest.mark.parametrize("name", FILES)
def test_what_is_asked_for_is_locked(name: str) -> None:
    assert wanted(FILES[name]) - locked(name) == set()


def test_what_is_not_locked_is_seen() -> None:
    assert "uvloop" in wanted(("feature",))
    assert "uvloop" not in locked("client.txt")
