"""Forks policy processes that follow a control database, sound ones or, as a control, broken ones.

Every line on standard input is a JSON object with the variables of one process; its process id
is the answering line. The child is the real thing: it reads its settings and runs `main`. With
`leaseless` as an argument, its readings of the switches are believed for ever.
"""

import json
import os
import signal
import sys

# What a policy process loads when it has a control database; a restart shall take no second.
from detent.adapters import kill_reader, kill_store
from detent.core.rollout import kill_state
from detent.servers.policy import main as policy

LEASELESS = "leaseless"
LOADED = (kill_reader, kill_store)


def believe_for_ever(state: kill_state.KillState, _now_s: float) -> bool:
    """Say that a reading is fresh however old it is, as a replica without a lease would."""
    return state.read_s is None


def main() -> None:
    """Fork until standard input ends."""
    # Nobody waits for the children: they are killed.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if sys.argv[1:] == [LEASELESS]:
        kill_state.is_stale = believe_for_ever
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.environ.update(json.loads(line))
            policy.main()
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
