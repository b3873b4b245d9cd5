"""Compile the straight-line functions that take domain values apart and put them together.

A codec that walks a list of fields pays for the walk on every row of every batch. What a class
looks like is known once, so its codec is written out once, as the code that a person would
write by hand, and compiled; the standard library makes its dataclasses in the same way. The
source holds names of fields and of our own helpers only, never a value from outside.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast


def compile_function(signature: str, body: str, names: Mapping[str, object]) -> Callable[..., Any]:
    """Compile a function.

    Args:
        signature: Name and parameters, for example `write(value)`.
        body: Its statements, indented by four spaces.
        names: What it refers to, beside the built-in names.
    """
    name = signature.partition("(")[0]
    namespace = dict(names)
    source = f"def {signature}:\n{body}\n"
    exec(compile(source, f"<compiled {name}>", "exec"), namespace)  # noqa: S102 - our own source
    return cast("Callable[..., Any]", namespace[name])
