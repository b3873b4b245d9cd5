"""Skips what needs an accelerator where there is none, and says what is missing."""

import pytest

from detent.adapters.device import cuda_device
from detent.adapters.onnx_session import PROVIDERS
from detent.contracts.errors import ArtifactInvalid


def missing() -> str | None:
    """Say what keeps CUDA from being used here; None where nothing does."""
    import onnxruntime

    if PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
        return "the installed onnxruntime has no CUDA provider: install the extra inference-gpu"
    try:
        cuda_device()
    except ArtifactInvalid as error:
        return error.message
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if item.get_closest_marker("gpu")]
    why = missing() if here else None
    for item in here:
        if why is not None:
            item.add_marker(pytest.mark.skip(reason=why))
