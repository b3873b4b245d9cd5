"""Run our back-test once in this process and print what it cost, as JSON."""

import json
import resource
import sys
import time

BEGUN_S = time.process_time()

from pathlib import Path  # noqa: E402 - start-up is part of what is measured

from benchmarks.backtest.market import market_of, setup_of  # noqa: E402
from detent.offline.backtesting.engine import run  # noqa: E402
from detent.offline.backtesting.execution import Execution  # noqa: E402
from detent.offline.backtesting.folder import run_into  # noqa: E402
from detent.offline.backtesting.tally import Tally  # noqa: E402


def main() -> None:
    """Run `way bars symbols folder`."""
    way, bars, symbols, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    started_s = time.process_time() - BEGUN_S
    market = market_of(bars, symbols)
    begun_s = time.process_time()
    execution = Execution.NEXT_BAR if way == "next_bar" else Execution.PARITY_B
    setup = setup_of(market, execution)
    prepared_s = time.process_time() - begun_s
    if way == "records":
        run_into(Path(folder) / "run", setup, signal_origin="stored", records=True)
    else:
        run(setup, (Tally(setup),))
    facts = {
        "start_s": started_s,
        "prepare_s": prepared_s,
        "cpu_s": time.process_time() - begun_s,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(facts))  # noqa: T201 - the answer of this process


if __name__ == "__main__":
    main()
