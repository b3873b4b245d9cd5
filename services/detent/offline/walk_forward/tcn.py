"""Fit a small temporal convolution over a window of rows, with torch where it is installed.

Source: seed 000, section 5; rows R163 and R164.
"""

import importlib
import io
import warnings
from typing import Any

import numpy as np

from detent.contracts.errors import DataInvalid
from detent.core.evaluation.scores import Floats
from detent.offline.walk_forward.candidate import Fitted, Params, Rows
from detent.offline.walk_forward.export import (
    INPUT_NAME,
    ONNX_OPSET,
    OUTPUT_NAME,
    Exported,
    Inputs,
    named_graph,
)

BATCH_ROWS = 512
LEARNING_RATE = 3e-3
KERNEL = 3
# Each layer looks twice as far back as the one before: 1 + 2 * (1 + 2 + 4 + 8 + 16) = 63 rows.
DILATIONS = (1, 2, 4, 8, 16)


def fit_tcn(rows: Rows, params: Params, *, seed: int) -> Fitted:
    """Fit a causal convolution with dilations; the scaler is part of the graph.

    Raises:
        DataInvalid: torch is not installed, or rows are no windows.
    """
    torch = import_torch()
    if not rows.window:
        found = f"rows of {rows.values.shape[1]} values"
        expected = "windows: a feature set with window_rows above 1, such as direction_window_v1"
        raise DataInvalid(f"tcn: found {found}, expected {expected}", found=found)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(1)
    model = _network(torch, rows, params["channels"])
    windows = torch.tensor(rows.values.reshape(-1, *rows.window))
    labels = torch.tensor(rows.labels.astype(np.int64))
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    loss = torch.nn.NLLLoss()
    draws = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(params["epochs"]):
        order = torch.randperm(len(labels), generator=draws)
        for start in range(0, len(labels), BATCH_ROWS):
            batch = order[start : start + BATCH_ROWS]
            optimiser.zero_grad()
            loss(torch.log(model(windows[batch])), labels[batch]).backward()
            optimiser.step()
    model.eval()

    def native(values: Inputs) -> Floats:
        with torch.no_grad():
            found = model(torch.tensor(values.reshape(-1, *rows.window)))
        return np.asarray(found.numpy()[:, 1], dtype=np.float64)

    return Fitted(exported=_exported(torch, model, windows[:1], rows.window), native=native)


def import_torch() -> Any:
    """Give torch.

    Raises:
        DataInvalid: It is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        expected = "the extra: pip install detent[torch]"
        message = f"tcn: found no torch, expected {expected}"
        raise DataInvalid(message, found="no torch", expected=expected) from error


def _network(torch: Any, rows: Rows, channels: int) -> Any:
    layers, functional = torch.nn, torch.nn.functional
    columns = rows.values.reshape(-1, *rows.window).reshape(-1, rows.window[1]).astype(np.float64)
    spread = np.maximum(columns.std(axis=0), np.finfo(np.float32).tiny)

    class Network(layers.Module):  # type: ignore[misc, name-defined]
        """Scales, convolves with growing reach, and reads the newest row."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.tensor(columns.mean(axis=0), dtype=torch.float32))
            self.register_buffer("spread", torch.tensor(spread, dtype=torch.float32))
            sizes = (rows.window[1], *(channels for _ in DILATIONS))
            self.steps = layers.ModuleList(
                layers.Conv1d(size, channels, KERNEL, dilation=dilation)
                for size, dilation in zip(sizes, DILATIONS, strict=False)
            )
            self.out = layers.Linear(channels, 2)

        def forward(self, windows: Any) -> Any:
            found = ((windows - self.mean) / self.spread).transpose(1, 2)
            for step, dilation in zip(self.steps, DILATIONS, strict=True):
                padded = functional.pad(found, ((KERNEL - 1) * dilation, 0))
                found = torch.relu(step(padded))
            return torch.softmax(self.out(found[:, :, -1]), dim=1)

    return Network()


def _exported(torch: Any, model: Any, example: Any, window: tuple[int, ...]) -> Exported:
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter's own, of the libraries that it uses.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (example,),
            file,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes={INPUT_NAME: {0: "n"}, OUTPUT_NAME: {0: "n"}},
            opset_version=ONNX_OPSET,
            dynamo=False,
        )
    return Exported(graph=named_graph(file.getvalue()), input_shape=window)
