"""Checks that a decision depends on its inputs alone, and that no float is compared bare.

A clock, a seed or an environment variable that is read on the way to a decision makes its replay a
matter of luck. Outside the core they enter as injected callables, from `main.py` and the adapters.
"""

from __future__ import annotations

import ast
import re

from tests.tidy.names import imports, references
from tests.tidy.tree import Offence, Source

DECISION_PATH = (
    "services/detent/core/",
    "services/detent/contracts/",
    "services/detent/servers/",
)
"""Folders through which the inputs of a decision pass."""

WIRING = frozenset({"main.py", "settings.py", "single.py"})
"""Files of a server that read the world once, at start, and hand it on."""

FORBIDDEN_MODULES = frozenset({"random", "secrets", "time"})
"""Modules with nothing in them that a decision could use."""

FORBIDDEN_NAMES = re.compile(
    r"""(time\..+
      | datetime\.(datetime|date)\.(now|utcnow|today)
      | random\..+ | secrets\..+ | numpy\.random(\..+)?
      | uuid\.uuid[14]
      | os\.(urandom|environb?|getenvb?|getrandom)(\..+)?
      )""",
    re.VERBOSE,
)
"""Dotted names that read a clock, chance or the environment."""

LOOP_CLOCK = re.compile(r"(.*\b(get_running_loop|get_event_loop)\(\)|(.*\.)?_?loop)\.time")
"""A call that reads the clock of an event loop."""

FLOAT_TYPES = frozenset({"float", "float16", "float32", "float64"})
"""Calls that certainly yield a binary float."""


def on_decision_path(path: str) -> bool:
    """Say whether a file may influence a decision while it is being made."""
    return path.startswith(DECISION_PATH) and path.rpartition("/")[2] not in WIRING


def check_no_clock(source: Source) -> list[Offence]:
    """Report clocks, randomness and environment variables on the decision path."""
    if not on_decision_path(source.path):
        return []
    offences = [
        source.offence(found.line, f"no clock or chance in a decision: import of {found.name}")
        for found in imports(source)
        if found.name.split(".")[0] in FORBIDDEN_MODULES or FORBIDDEN_NAMES.fullmatch(found.name)
    ]
    offences.extend(
        source.offence(used, f"no clock or chance in a decision: {name}")
        for used, name in references(source)
        if FORBIDDEN_NAMES.fullmatch(name)
    )
    offences.extend(
        source.offence(node, "no clock in a decision: the event loop's time")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and LOOP_CLOCK.fullmatch(ast.unparse(node.func))
    )
    return offences


def check_float_equality(source: Source) -> list[Offence]:
    """Report `==` and `!=` with a float literal or conversion on either side, and such patterns."""
    offences = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for operator, left, right in zip(node.ops, sides, sides[1:], strict=False):
                exact = isinstance(operator, ast.Eq | ast.NotEq)
                if exact and (_is_float(left) or _is_float(right)):
                    offences.append(source.offence(node, "floats compared without a tolerance"))
        elif isinstance(node, ast.MatchValue) and _is_float(node.value):
            offences.append(source.offence(node, "a float as a pattern compares exactly"))
    return offences


def _is_float(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=float()):
            return True
        case ast.UnaryOp(operand=operand):
            return _is_float(operand)
        case ast.BinOp(left=left, right=right):
            return _is_float(left) or _is_float(right)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in FLOAT_TYPES
    return False
