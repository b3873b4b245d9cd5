"""Runs the tools that keep the wire contract honest: code generation, buf, and descriptor rules.

Each function takes the folder of protos that it judges, so that a test can hand it a damaged copy.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from tests.tidy.tree import ROOT, Offence

PROTOS = ROOT / "protos"
"""Where the contract is written."""

GENERATED = ROOT / "services" / "detent" / "api" / "v1"
"""Where its Python form is committed."""

BASELINE = PROTOS / "baseline.binpb"
"""The frozen contract that a change is measured against."""

PACKAGE_FOLDER = "detent/api/v1"
"""Folder of our own package, below the protos and below the generated code alike."""

FOREIGN_FOLDER = "inference"
"""Folder of the Open Inference Protocol, below the protos and below `services/detent/api`."""

DECISION_CALLS = frozenset(
    {"GetFeatureSnapshots", "InferSignals", "DecideTargetWeights", "StreamDecisions"}
)
"""Calls on the path of a decision: their first field says which binding they are about."""

FORBIDDEN_TYPES = {
    FieldDescriptorProto.TYPE_DOUBLE: "double",
    FieldDescriptorProto.TYPE_FLOAT: "float",
    FieldDescriptorProto.TYPE_UINT32: "uint32",
    FieldDescriptorProto.TYPE_UINT64: "uint64",
    FieldDescriptorProto.TYPE_FIXED32: "fixed32",
    FieldDescriptorProto.TYPE_FIXED64: "fixed64",
}
"""Floats round differently elsewhere, and unsigned integers wrap; neither may cross the wire."""


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    # The code generators are plugins that the compiler looks up beside the interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        text=True,
        timeout=120,
    )


def proto_files(protos: Path) -> list[Path]:
    """List the files of our package below a folder of protos, sorted."""
    return sorted((protos / PACKAGE_FOLDER).glob("*.proto"))


def generate(protos: Path, out: Path) -> None:
    """Generate Python code the way `make protos` does, into a folder of its own.

    Raises:
        RuntimeError: The compiler refused a file; the message is its own.

    """
    flags = ("python", "grpc_python", "mypy", "mypy_grpc")
    result = _run(
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{protos}",
        *(f"--{flag}_out={out}" for flag in flags),
        *proto_files(protos),
    )
    if result.returncode != 0:
        raise RuntimeError(result.stderr)


def generate_foreign(protos: Path, out: Path) -> None:
    """Generate the messages of the foreign protocol the way `make protos` does.

    Raises:
        RuntimeError: The compiler refused a file; the message is its own.

    """
    files = sorted((protos / FOREIGN_FOLDER).glob("*.proto"))
    command = (sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}")
    result = _run(*command, f"--python_out={out}", f"--mypy_out={out}", *files)
    if result.returncode != 0:
        raise RuntimeError(result.stderr)


def check_drift(
    generated: Path, committed: Path, folder: str = f"services/{PACKAGE_FOLDER}"
) -> list[Offence]:
    """Compare two folders of generated code byte by byte, and report each file that differs."""
    fresh = {path.name: path.read_bytes() for path in generated.glob("*_pb2*")}
    known = {path.name: path.read_bytes() for path in committed.glob("*_pb2*")}
    offences = []
    for name in sorted({*fresh, *known}):
        if fresh.get(name) == known.get(name):
            continue
        what = "differs from what the protos generate; run `make protos`"
        if name not in known:
            what = "is generated but not committed; run `make protos`"
        elif name not in fresh:
            what = "is committed but no proto generates it; delete it"
        offences.append(Offence(path=f"{folder}/{name}", line=1, what=what))
    return offences


def buf(*arguments: str | Path) -> str:
    """Run buf and return its complaints, empty when it has none."""
    result = _run(Path(sys.executable).parent / "buf", *arguments)
    complaints = (result.stdout + result.stderr).strip()
    if result.returncode == 0:
        return ""
    return complaints or f"buf ended with status {result.returncode}"


def lint(protos: Path) -> str:
    """Return what `buf lint` says against a folder of protos."""
    return buf("lint", protos)


def check_format(protos: Path) -> str:
    """Return the difference between a folder of protos and its canonical format."""
    return buf("format", "--diff", "--exit-code", protos)


def breaking(protos: Path, baseline: Path) -> str:
    """Return what in a folder of protos breaks those who speak the baseline."""
    return buf("breaking", protos, "--against", baseline)


def describe(protos: Path, out: Path) -> FileDescriptorSet:
    """Compile our package to descriptors; `out` is a file that this may write.

    Raises:
        RuntimeError: The compiler refused a file; the message is its own.

    """
    command = (sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}")
    result = _run(*command, f"--descriptor_set_out={out}", *proto_files(protos))
    if result.returncode != 0:
        raise RuntimeError(result.stderr)
    return FileDescriptorSet.FromString(out.read_bytes())


def check_field_types(files: Iterable[FileDescriptorProto]) -> list[Offence]:
    """Report every field whose type a decision must not depend on."""
    return [
        Offence(
            path=f"protos/{file.name}",
            line=1,
            what=f"{name}.{field.name} is a {FORBIDDEN_TYPES[field.type]}",
        )
        for file in files
        for message in file.message_type
        for name, field in _fields(message, message.name)
        if field.type in FORBIDDEN_TYPES
    ]


def _fields(message: DescriptorProto, name: str) -> Iterator[tuple[str, FieldDescriptorProto]]:
    for field in message.field:
        yield name, field
    for nested in message.nested_type:
        yield from _fields(nested, f"{name}.{nested.name}")


def check_binding_first(files: Iterable[FileDescriptorProto]) -> list[Offence]:
    """Report messages on the path of a decision whose field 1 is not the binding's hash."""
    offences = []
    for file in files:
        messages = {f".{file.package}.{message.name}": message for message in file.message_type}
        methods = [method for service in file.service for method in service.method]
        for method in methods:
            if method.name not in DECISION_CALLS:
                continue
            for name in (method.input_type, method.output_type):
                first = {f.number: f.name for f in messages[name].field}.get(1)
                if first != "binding_hash":
                    what = f"field 1 of {name.rpartition('.')[2]} is {first}, not binding_hash"
                    offences.append(Offence(path=f"protos/{file.name}", line=1, what=what))
    return offences
