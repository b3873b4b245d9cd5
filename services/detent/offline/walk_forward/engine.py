"""Run independent fits: in this process, in local processes, or on a Ray cluster.

What a fit gives does not depend on where it runs, and results come back in the order of the
tasks, so that the same run gives the same bytes on every engine.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, TypeVar

import joblib
import msgspec

from detent.contracts.errors import DataInvalid, InvalidField

T = TypeVar("T")
R = TypeVar("R")


class EngineKind(StrEnum):
    """Names where fits run."""

    LOCAL = "local"
    RAY = "ray"


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """States where fits run.

    Attributes:
        kind: Local processes, or Ray.
        workers: Processes; 1 for this one alone. With Ray: tasks at a time.
        address: Ray's cluster; None starts one on this machine. Local processes have none.
    """

    kind: EngineKind = EngineKind.LOCAL
    workers: int = 1
    address: str | None = None

    def __post_init__(self) -> None:
        """Refuse a cluster that nothing would run on."""
        if self.address is not None and self.kind is not EngineKind.RAY:
            raise InvalidField("address", self.address, f"none: the engine is {self.kind}")


def run_all(
    work: Callable[[T], R], tasks: Sequence[T], engine: Engine, *, told: Callable[[int], None]
) -> list[R]:
    """Run every task and give the results in the order of the tasks.

    Args:
        work: A function of a module; it is sent by name.
        tasks: What it is called with, one by one.
        engine: Where.
        told: Called with how many are done.

    Raises:
        DataInvalid: Ray is asked for and not installed.
    """
    calls = [joblib.delayed(work)(task) for task in tasks]
    results: list[R] = []
    if engine.kind is EngineKind.RAY:
        # Ray's backend gives all results at once, or none.
        with _ray(engine):
            results = joblib.Parallel()(calls)
        told(len(results))
        return results
    # All processes start at once, also those that no task is left for.
    workers = max(1, min(engine.workers, len(calls)))
    backend = "sequential" if workers == 1 else "loky"
    with joblib.parallel_config(backend, n_jobs=workers):
        for result in joblib.Parallel(return_as="generator")(calls):
            results.append(result)
            told(len(results))
    return results


@contextmanager
def _ray(engine: Engine) -> Iterator[None]:
    ray, backend = _import_ray()
    started = not ray.is_initialized()
    if started:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if engine.address is None:
            options |= {"num_cpus": engine.workers, "include_dashboard": False}
        ray.init(address=engine.address, **options)
    try:
        backend.register_ray()
        with joblib.parallel_config("ray", n_jobs=engine.workers):
            yield
    finally:
        if started:
            ray.shutdown()


def _import_ray() -> tuple[Any, Any]:
    try:
        return importlib.import_module("ray"), importlib.import_module("ray.util.joblib")
    except ImportError as error:
        expected = "the extra: pip install detent[ray]"
        message = f"engine ray: found no ray, expected {expected}"
        raise DataInvalid(message, found="no ray", expected=expected) from error
