"""Checks that policy cannot tell one model from another, nor look behind the strength it is given.

The rule that only `signal_strength` crosses into policy is kept by types at run time. Here it is
kept in the source as well: what policy code cannot name, it cannot make an exception for.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.tidy.names import imports
from tests.tidy.tree import Offence, Source

POLICY = "services/detent/core/policy/"
"""The code that turns strength into weight."""

BEHIND_THE_SIGNAL = (
    "detent.contracts.signals",
    "detent.contracts.snapshots",
    "detent.core.features",
    "detent.core.signals",
)
"""Modules that know features, model answers or probabilities."""

MODEL_WORDS = frozenset(
    {
        "architecture_id",
        "calibration_version",
        "feature_version",
        "features_hash",
        "model_hash",
        "model_id",
        "model_name",
        "model_version",
        "model_version_hash",
        "top_features",
    }
)
"""Fields that tell which model spoke, or what it saw."""


def check_policy_sees_strength_only(source: Source) -> list[Offence]:
    """Report policy code that names a model, a probability or a feature."""
    if not source.path.startswith(POLICY):
        return []
    offences = [
        source.offence(found.line, f"policy must not see {found.name}")
        for found in imports(source)
        if found.name.startswith(BEHIND_THE_SIGNAL)
    ]
    for node, word in _words(source.tree):
        if word in MODEL_WORDS or word.startswith("p_hat"):
            offences.append(source.offence(node, f"policy must not know {word}"))
    return offences


def _words(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Yield every identifier and every one-word text, with the place where it stands."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.arg(arg=word):
                yield node, word
            case ast.keyword(arg=str(word)) | ast.Constant(value=str(word)):
                yield node, word
