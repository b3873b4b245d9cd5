"""Gives a shadow of its own to tests: real code and ledger, models that say what they are told."""

import time
from collections.abc import Callable

from tests.fakes import ACTIVE

from detent.adapters.sqlite_ledger import SqliteLedger
from detent.adapters.sqlite_shadows import SqliteShadows
from detent.rpc.tracing import no_tracer
from detent.servers.policy.model_path import ModelPath
from detent.servers.policy.routes import FixedRoutes
from detent.servers.policy.shadowing import Shadowing, ShadowLimits


def shadowing_of(
    ledger: SqliteLedger,
    routes: FixedRoutes,
    *,
    limits: ShadowLimits | None = None,
    clock: Callable[[], float] = time.monotonic,
    is_busy: Callable[[], bool] = lambda: False,
) -> Shadowing:
    return Shadowing(
        model_path=ModelPath(
            routes=routes,
            enablement=ACTIVE,
            kill_switch_env=lambda: False,
            tracer=no_tracer(),
        ),
        store=SqliteShadows(ledger.file),
        own=False,
        limits=limits or ShadowLimits(),
        clock=clock,
        is_busy=is_busy,
    )
