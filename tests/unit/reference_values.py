"""Reads the values that independent libraries computed, where a checkout has them beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "reference" / "quant"


def fixture(file: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give the inputs and the expected values of a fixture, or skip the test."""
    found = fixtures(file)[name]
    return found["inputs"], found["expected"]


def fixtures(file: str) -> dict[str, dict[str, Any]]:
    """Give all fixtures of a file by their name, or skip the test."""
    path = FOLDER / file
    if not path.exists():
        pytest.skip("the reference values are not beside this checkout")
    text = json.loads(path.read_text(encoding="utf-8"))
    return {found["id"]: found for found in text["fixtures"]}
