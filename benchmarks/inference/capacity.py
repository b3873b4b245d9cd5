"""Ask what a processor and an accelerator can carry: `python -m benchmarks.inference.capacity`.

One session per model and device, runs of several sizes, inputs in the memory of the host as they
come from a call. From the rate follows how many symbols one device answers within a bar's budget.

Source: REQUIREMENTS R171.
"""

import json
import os
import platform
import time
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.inference.convolution import FEATURES, WINDOW_ROWS, convolution_model
from benchmarks.inference.graph import INPUT_NAME, OUTPUT_NAME, SEED, WIDTH
from benchmarks.inference.models import exported_model
from detent.adapters.device import device_of
from detent.adapters.onnx_session import PROVIDERS, Floats, GraphContract, OnnxSession, open_session
from detent.contracts.errors import ArtifactInvalid

SCHEMA = "detent.benchmark.capacity.v1"
ROWS = (1, 16, 256, 1_024, 4_096)
MODELS = ("logistic", "forest", "convolution")
# What one run may take inside, as the inference service has it by default.
BUDGET_S = 0.010
WARM_RUNS = 5
COLUMNS = 110


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what one size of run took on one device.

    Attributes:
        model: One of `MODELS`.
        provider: `cpu` or `cuda`.
        rows: Rows of a run.
        run_us: Median time of a run, microseconds.
    """

    model: str
    provider: str
    rows: int
    run_us: float

    @property
    def rows_per_second(self) -> float:
        """Give the rate."""
        return self.rows / self.run_us * 1e6


def main(
    *,
    seconds: Annotated[float, typer.Option(help="How long each size runs.", min=0.05)] = 0.5,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured to this file.")
    ] = None,
) -> None:
    """Measure every model on every device that is there."""
    devices, absent = {}, {}
    for provider in PROVIDERS:
        try:
            _session("logistic", provider)
            devices[provider] = device_of(provider)
        except ArtifactInvalid as error:
            absent[provider] = error.message
    cells = [(model, provider, rows) for model in MODELS for provider in devices for rows in ROWS]
    found = [
        _measured(*cell, seconds=seconds)
        for cell in track(cells, "capacity", console=Console(stderr=True), transient=True)
    ]
    console = Console()
    console = console if console.is_terminal else Console(width=COLUMNS)
    for provider, device in devices.items():
        console.print(f"{provider}: {device.name}, {device.instruction_set}")
    for provider, why in absent.items():
        console.print(f"{provider}: none here ({why})")
    console.print(f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
    console.print(_table(found, tuple(devices)))
    if json_file is not None:
        cells_json = [msgspec.to_builtins(one) for one in found]
        json_file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"schema": SCHEMA, "absent": absent, "cells": cells_json}, indent=2)
        json_file.write_text(text + "\n", encoding="utf-8")


def _session(model: str, provider: str) -> OnnxSession:
    is_window = model == "convolution"
    graph = GraphContract(
        input_name=INPUT_NAME,
        width=WINDOW_ROWS * FEATURES if is_window else WIDTH,
        output_name=OUTPUT_NAME,
        classes=2,
        input_shape=(WINDOW_ROWS, FEATURES) if is_window else (),
    )
    content = convolution_model() if is_window else exported_model(model)
    return open_session(content, graph, execution_provider=provider)


def _measured(model: str, provider: str, rows: int, *, seconds: float) -> Capacity:
    session = _session(model, provider)
    session = msgspec.structs.replace(session, batch_shapes=(rows,))
    width = session.graph.width
    inputs: Floats = np.random.default_rng(SEED).normal(0.0, 1.0, (rows, width)).astype("<f4")
    for _ in range(WARM_RUNS):
        session.outputs(inputs)
    times_s = []
    ends_s = time.perf_counter() + seconds
    while time.perf_counter() < ends_s:
        started_s = time.perf_counter()
        session.outputs(inputs)
        times_s.append(time.perf_counter() - started_s)
    return Capacity(
        model=model, provider=provider, rows=rows, run_us=float(np.median(times_s)) * 1e6
    )


def _table(found: list[Capacity], providers: tuple[str, ...]) -> Table:
    budget = f"{BUDGET_S * 1e3:g} ms"
    title = f"median time of a run, rate, and symbols that one device answers in {budget}"
    table = Table(title=title, title_justify="left")
    table.add_column("model")
    table.add_column("rows", justify="right")
    for provider in providers:
        for name in ("us", "rows/s", "symbols"):
            table.add_column(f"{provider} {name}", justify="right")
    by_key = {(one.model, one.provider, one.rows): one for one in found}
    for model in MODELS:
        for rows in ROWS:
            cells = []
            for provider in providers:
                one = by_key[model, provider, rows]
                symbols = int(one.rows_per_second * BUDGET_S)
                cells += [f"{one.run_us:,.1f}", f"{one.rows_per_second:,.0f}", f"{symbols:,}"]
            table.add_row(model, f"{rows:,}", *cells)
    return table


if __name__ == "__main__":
    typer.run(main)
