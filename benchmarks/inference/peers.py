"""Say how each foreign server of the Open Inference Protocol is started.

Each lives in an environment of its own, `.venv-NAME`, made from `requirements/NAME.txt`. All
listen on one core, run ONNX Runtime with one thread and write no line per call.
"""

import json
import sysconfig
from collections.abc import Callable
from pathlib import Path

import msgspec

from detent_cli.stack import HOST, free_port

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
KSERVE, MLSERVER = "KServe", "MLServer"
PYTRITON, PYTRITON_BATCHING = "PyTriton", "PyTriton, batching"


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a server is told.

    Attributes:
        python: The interpreter of its environment.
        model_name: What callers name the model.
        model_file: The graph.
        port: Where its gRPC endpoint is to listen.
        folder: An empty folder of its own.
    """

    python: Path
    model_name: str
    model_file: Path
    port: int
    folder: Path


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """States how to start one server, and what it then offers.

    Attributes:
        environment: What its environment and its requirements are named after.
        models: What it adds to the model's name, by the name in the tables.
        command: Gives its command line.
        variables: Its environment variables.
    """

    environment: str
    models: dict[str, str]
    command: Callable[[Launch], list[str]]
    variables: dict[str, str]

    @property
    def python(self) -> Path:
        """Name the interpreter of its environment."""
        return ROOT / f".venv-{self.environment}" / "bin" / "python"

    @property
    def how_to_install(self) -> str:
        """Say what is missing where there is no such interpreter."""
        return f"not installed: `make .venv-{self.environment}/.installed`"


def _kserve(launch: Launch) -> list[str]:
    runtime = str(HERE / "kserve_runtime.py")
    ports = [str(launch.port), str(free_port())]
    return [str(launch.python), runtime, launch.model_name, str(launch.model_file), *ports]


def _mlserver(launch: Launch) -> list[str]:
    # One process, as the others are one; what it does beside inferring is switched off.
    settings = {
        "debug": False,
        "host": HOST,
        "grpc_port": launch.port,
        "http_port": free_port(),
        "metrics_port": free_port(),
        "metrics_dir": str(launch.folder),
        "environments_dir": str(launch.folder),
        "parallel_workers": 0,
    }
    model = {
        "name": launch.model_name,
        "implementation": "mlserver_runtime.OnnxModel",
        "parameters": {"uri": str(launch.model_file)},
    }
    for name, content in (("settings.json", settings), ("model-settings.json", model)):
        (launch.folder / name).write_text(json.dumps(content), encoding="utf-8")
    start = "from mlserver.cli import main; main()"
    return [str(launch.python), "-c", start, "start", str(launch.folder)]


def _pytriton(launch: Launch) -> list[str]:
    runtime = str(HERE / "pytriton_runtime.py")
    command = [str(launch.python), runtime, launch.model_name, str(launch.model_file)]
    # It makes the folder itself, and refuses one that is there.
    return [*command, str(launch.port), str(launch.folder / "workspace")]


# Its C++ side embeds libpython, and would take the system's beside our interpreter's library.
_LIBPYTHON = {"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))}

PEERS = (
    Peer(
        environment="kserve",
        models={KSERVE: ""},
        command=_kserve,
        variables={"KSERVE_LOGLEVEL": "WARNING"},
    ),
    Peer(
        environment="mlserver",
        models={MLSERVER: ""},
        command=_mlserver,
        variables={"PYTHONPATH": str(HERE)},
    ),
    Peer(
        environment="pytriton",
        models={PYTRITON: "", PYTRITON_BATCHING: "_batching"},
        command=_pytriton,
        variables=_LIBPYTHON,
    ),
)
