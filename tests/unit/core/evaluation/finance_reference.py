"""Reads the values that independent libraries gave for returns and paired losses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[5] / "shared" / "reference" / "quant" / "finance.json"


def reference(name: str) -> dict[str, Any]:
    """Give one fixture, or skip where the reference values are absent."""
    if not FILE.is_file():
        pytest.skip("the reference values of independent libraries are not on this machine")
    fixtures = json.loads(FILE.read_text(encoding="utf-8"))["fixtures"]
    found: dict[str, Any] = next(one for one in fixtures if one["id"] == name)
    return found
