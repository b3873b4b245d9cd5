"""Name the processor or the accelerator that runs a graph, as far as bits depend on it."""

import ctypes
import ctypes.util
import platform
from pathlib import Path

import msgspec

from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason

CPU_INFO = Path("/proc/cpuinfo")
# What the kernels of the runtime choose their path by.
EXTENSIONS = (
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_tile",
    "asimd",
    "asimddp",
    "sve",
    "bf16",
)
NAME_BYTES_MAX = 256


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """Names a device.

    Attributes:
        name: As it names itself.
        instruction_set: Machine and the extensions that matter, or the compute capability.
    """

    name: str
    instruction_set: str


def device_of(execution_provider: str) -> Device:
    """Name the device that an execution provider runs on.

    Args:
        execution_provider: `cpu` or `cuda`.

    Raises:
        ArtifactInvalid: There is no accelerator that answers.
    """
    return cuda_device() if execution_provider == "cuda" else cpu_device()


def cpu_device(info: Path = CPU_INFO) -> Device:
    """Name the processor; where the system does not tell, the machine's name stands for it."""
    try:
        text = info.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            facts.setdefault(key.strip().lower(), value.strip())
    flags = set((facts.get("flags") or facts.get("features") or "").split())
    found = [extension for extension in EXTENSIONS if extension in flags]
    machine = platform.machine() or "unknown"
    return Device(
        name=facts.get("model name") or platform.processor() or machine,
        instruction_set=" ".join([machine, *found]),
    )


def cuda_device() -> Device:
    """Name the first accelerator, as its driver does.

    Raises:
        ArtifactInvalid: There is no driver, or no accelerator.
    """
    library = ctypes.util.find_library("cuda") or "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError as error:
        raise _absent(str(error)) from error
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(NAME_BYTES_MAX)
    steps = (
        driver.cuInit(0),
        driver.cuDeviceGet(ctypes.byref(device), 0),
        driver.cuDeviceGetName(name, NAME_BYTES_MAX, device),
        driver.cuDeviceComputeCapability(ctypes.byref(major), ctypes.byref(minor), device),
    )
    if any(steps):
        raise _absent(f"CUDA driver results {steps}")
    return Device(
        name=name.value.decode("ascii", "replace"),
        instruction_set=f"compute capability {major.value}.{minor.value}",
    )


def _absent(found: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"accelerator: found {found}, expected a CUDA device",
        gate_reason=Reason.ONNX_UNAVAILABLE,
        found=found,
        expected="a CUDA device",
    )
