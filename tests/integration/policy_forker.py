"""Forks policy processes out of one that has imported everything: a restart takes no second.

Every line on standard input starts one; its process id is the answering line. The child is
the real thing from its first instruction on: it reads its settings and runs `main`.
"""

import os
import signal
import sys

from detent.servers.policy import main as policy


def main() -> None:
    """Fork until standard input ends."""
    # Nobody waits for the children: they are killed.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            policy.main()
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
