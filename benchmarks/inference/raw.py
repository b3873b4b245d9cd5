"""Run a graph and nothing around it: `python -m benchmarks.inference.raw MODEL ROWS SECONDS`.

Prints the time of each run in microseconds, as JSON.
"""

import json
import sys
import time

import onnxruntime

from benchmarks.inference.graph import INPUT_NAME, OUTPUT_NAME, drawn_rows

WARM_RUNS = 100


def main() -> None:
    """Run for some seconds and print the times."""
    model_file, rows, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model_file, sess_options=options, providers=["CPUExecutionProvider"]
    )
    feed = {INPUT_NAME: drawn_rows(rows)}
    for _ in range(WARM_RUNS):
        session.run([OUTPUT_NAME], feed)
    times_us = []
    ends_ns = time.perf_counter_ns() + int(seconds * 1e9)
    started_ns = time.perf_counter_ns()
    while started_ns < ends_ns:
        session.run([OUTPUT_NAME], feed)
        ended_ns = time.perf_counter_ns()
        times_us.append((ended_ns - started_ns) / 1_000)
        started_ns = ended_ns
    json.dump(times_us, sys.stdout)


if __name__ == "__main__":
    main()
