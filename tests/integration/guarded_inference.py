"""Runs the inference process off the network, then tells what it did; started by a test.

On its way out it prints one JSON line: the forbidden modules that were loaded, whether unpickling
was refused at the end, and whether leaving the machine was.
"""

from __future__ import annotations

import json
import pickle
import socket
import sys

from tests.airgap import LeftTheMachine, stay_on_the_machine

from detent.adapters.unpickling import UnpicklingRefused
from detent.servers.inference.main import main

FORBIDDEN = ("joblib", "cloudpickle", "torch", "sklearn", "skl2onnx", "onnx", "dill", "pandas")


def refuses_to_unpickle() -> bool:
    """Say whether a pickle that names anything is refused."""
    try:
        pickle.loads(pickle.dumps(json.JSONDecoder))
    except UnpicklingRefused:
        return True
    return False


def stays_on_the_machine() -> bool:
    """Say whether an address elsewhere is refused (it is one that documentation may use)."""
    with socket.socket() as elsewhere:
        try:
            elsewhere.connect(("192.0.2.1", 9))
        except LeftTheMachine:
            return True
    return False


if __name__ == "__main__":
    stay_on_the_machine()
    before = refuses_to_unpickle()
    main()
    facts = {
        "loaded": [name for name in FORBIDDEN if name in sys.modules],
        "refused_before": before,
        "refused_after": refuses_to_unpickle(),
        "stayed": stays_on_the_machine(),
    }
    sys.stdout.write(json.dumps(facts) + "\n")
