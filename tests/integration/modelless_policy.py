"""Runs a policy process where no package that a model needs can be imported, not even by name."""

from __future__ import annotations

import sys

MODEL_PACKAGES = (
    *("onnx", "onnxruntime", "onnxmltools", "skl2onnx"),
    *("sklearn", "lightgbm", "xgboost", "torch", "optuna", "joblib", "scipy", "pandas"),
)

if __name__ == "__main__":
    for name in MODEL_PACKAGES:
        sys.modules[name] = None  # type: ignore[assignment]

    from detent.servers.policy.main import main

    main()
