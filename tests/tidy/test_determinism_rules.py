"""Nothing on the way to a decision reads a clock, chance or the environment; no bare float test."""

from __future__ import annotations

import pytest
from tests.tidy.determinism import check_float_equality, check_no_clock, on_decision_path
from tests.tidy.tree import SOURCE_ROOTS, Source, python_sources, report


def test_the_decision_path_reads_no_clock() -> None:
    looked_at = [s for s in python_sources("services") if on_decision_path(s.path)]
    offences = [offence for source in looked_at for offence in check_no_clock(source)]

    assert looked_at
    assert not offences, report(offences)


@pytest.mark.parametrize(
    "text",
    [
        "import time\nnow = time.time()",
        "from time import monotonic as tick\nnow = tick()",
        "def f(clock=__import__('time').time): ...",
        "import datetime as dt\nnow = dt.datetime.now()",
        "from datetime import datetime\nnow = datetime.utcnow()",
        "from datetime import date\nnow = date.today()",
        "import random",
        "import secrets",
        "import uuid\nkey = uuid.uuid4()",
        "from uuid import uuid1\nkey = uuid1()",
        "import os\nsalt = os.urandom(8)",
        "import os\nmode = os.environ['MODE']",
        "import os\nmode = os.environ.get('MODE')",
        "from os import getenv\nmode = getenv('MODE')",
        "import numpy as np\nnp.random.seed(1)",
        "import asyncio\nnow = asyncio.get_running_loop().time()",
    ],
)
@pytest.mark.parametrize(
    "path", ["core/signals/proxy.py", "contracts/plan.py", "servers/policy/handler.py"]
)
def test_a_clock_in_a_decision_is_reported(path: str, text: str) -> None:
    assert check_no_clock(Source(f"services/detent/{path}", text))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param("servers/policy/main.py", "import time\nclock = time.monotonic", id="wiring"),
        pytest.param(
            "servers/policy/handler.py",
            "from collections.abc import Callable\ndef f(clock_s: Callable[[], float]): clock_s()",
            id="injected",
        ),
        pytest.param(
            "core/features/bars.py",
            "from datetime import UTC, datetime\ndatetime.fromtimestamp(0, UTC)",
            id="conversion",
        ),
    ],
)
def test_an_injected_clock_is_accepted(path: str, text: str) -> None:
    assert check_no_clock(Source(f"services/detent/{path}", text)) == []


@pytest.mark.proves("R43")
def test_no_float_is_compared_bare() -> None:
    sources = python_sources(*SOURCE_ROOTS)
    offences = [offence for source in sources for offence in check_float_equality(source)]

    assert sources
    assert not offences, report(offences)


@pytest.mark.proves("R43")
@pytest.mark.parametrize(
    "text",
    [
        "x == 0.5",
        "0.5 != x",
        "x == -1.0",
        "x == 1 / 3.0",
        "float(x) == y",
        "0 < x == 1.0",
        "import numpy as np\nnp.float32(x) == y",
        "match x:\n    case 0.5:\n        pass",
    ],
)
def test_a_bare_float_comparison_is_reported(text: str) -> None:
    assert check_float_equality(Source("services/detent/core/x.py", text))


@pytest.mark.parametrize("text", ["x == 5", "x < 0.5", "abs(x - 0.5) <= 1e-9", "x == '0.5'"])
def test_a_tolerant_comparison_is_accepted(text: str) -> None:
    assert check_float_equality(Source("services/detent/core/x.py", text)) == []
