"""The servers of the inference benchmark: those that are missing, and what counts of the others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.decide.timing import timing_of
from benchmarks.inference.load import cpu_s
from benchmarks.inference.peers import (
    KSERVE,
    MLSERVER,
    PEERS,
    PYTRITON,
    PYTRITON_BATCHING,
    ROOT,
    Launch,
    Peer,
)
from benchmarks.inference.report import MANY, SMALL, Cell, Report, ratios_of
from benchmarks.inference.servers import FACADE, NotStartedError, _peer

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
BURN_BELOW = (
    "import subprocess, sys\n"
    f"child = subprocess.Popen([sys.executable, '-c', {BURN + 'print(1, flush=True); input()'!r}],"
    " stdout=subprocess.PIPE)\n"
    "child.stdout.readline(); print(1, flush=True); input()\n"
)


def _cell(name: str, *turns: float) -> Cell:
    return Cell(
        model="logistic",
        name=name,
        rows=SMALL,
        in_flight=MANY,
        call=timing_of([1.0]),
        calls_per_s=sum(turns) / len(turns),
        turns=turns,
        server_cpu_us=1.0,
        client_busy=0.1,
        unanswered_rows=0,
    )


def _ratios(*cells: Cell) -> dict[str, float]:
    report = Report(
        rounds=1,
        seconds=1.0,
        cores=(0, 1),
        cells=cells,
        missing={},
        load_before=0.0,
        load_after=0.0,
    )
    values = {ratio.name: ratio.value for ratio in ratios_of(report)}
    return {
        peer: values[f"T4: open inference over {peer}, logistic, 1 row, 16 in flight"]
        for peer in (KSERVE, MLSERVER, PYTRITON)
    }


def test_ratio_counts_the_better_form_of_a_server() -> None:
    ratios = _ratios(_cell(FACADE, 300.0), _cell(PYTRITON, 100.0), _cell(PYTRITON_BATCHING, 200.0))
    assert ratios[PYTRITON] == 1.5


def test_ratio_is_the_median_of_the_rounds() -> None:
    """A machine that was slow for one round was slow for both sides of it."""
    ratios = _ratios(_cell(FACADE, 300.0, 30.0, 290.0), _cell(KSERVE, 100.0, 10.0, 29.0))
    assert ratios[KSERVE] == 3.0


def test_ratio_over_a_missing_server_is_zero() -> None:
    assert _ratios(_cell(FACADE, 300.0), _cell(KSERVE, 100.0)) == {
        KSERVE: 3.0,
        MLSERVER: 0.0,
        PYTRITON: 0.0,
    }


def test_peer_without_environment_says_how_to_install_it(tmp_path: Path) -> None:
    def command(launch: Launch) -> list[str]:
        pytest.fail(f"started {launch}")

    peer = Peer(environment="nowhere", models={"Nobody": ""}, command=command, variables={})
    with (
        pytest.raises(NotStartedError, match=r"make \.venv-nowhere/\.installed"),
        _peer(peer, tmp_path, tmp_path, 0),
    ):
        pass


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.environment)
def test_peer_has_pinned_requirements(peer: Peer) -> None:
    pinned = (ROOT / "requirements" / f"{peer.environment}.txt").read_text(encoding="utf-8")
    assert "--hash=sha256:" in pinned


def test_processor_time_counts_the_processes_below() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BURN_BELOW], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        used_s = cpu_s(process.pid)
        process.communicate(b"\n\n")
    assert used_s >= 0.3 - 1 / os.sysconf("SC_CLK_TCK")
