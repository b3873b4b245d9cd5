"""Run a program on one core: `python -m benchmarks.inference.pinned CORE PROGRAM ARGUMENT...`.

The core is set before the program starts, so that every thread it makes inherits it.
"""

import os
import sys


def main() -> None:
    """Pin this process and become the program."""
    core, *command = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    os.execvp(command[0], command)  # noqa: S606  The benchmark's own servers.


if __name__ == "__main__":
    main()
