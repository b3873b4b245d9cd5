"""Publish numbers to Prometheus, with labels that come from closed sets only.

A label with the name of a symbol, an order or a key grows without end, so a label here is an
enum of ours and nothing else: whoever needs more asks the ledger. Every series exists from the
start, so that one that is missing means a broken process and not a quiet one.

Source: seed 003, metrics contract; row R339.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from itertools import product
from typing import Any, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import make_wsgi_app

from detent.contracts.errors import ServiceUnavailable

# What a label may never be called: it would not stay a closed set.
OPEN_LABELS = frozenset(
    {"symbol", "order_id", "key", "client_id", "idempotency_key", "plan_id", "book"}
)
Series = TypeVar("Series", Gauge, Counter, Histogram)
Labels = Mapping[str, type[StrEnum]]
NO_LABELS: Labels = {}
HEALTH_PATHS = ("/healthz", "/readyz")


class Metrics:
    """Owns the numbers of one process."""

    def __init__(self) -> None:
        """Start with none: what a library counts by itself is none of ours."""
        self.registry = CollectorRegistry(auto_describe=True)

    def gauge(self, name: str, text: str, labels: Labels = NO_LABELS) -> Gauge:
        """Declare a number that goes up and down."""
        return self._declared(Gauge(name, text, _names(labels), registry=self.registry), labels)

    def counter(self, name: str, text: str, labels: Labels = NO_LABELS) -> Counter:
        """Declare a number that only grows; `name` ends in `_total`."""
        return self._declared(Counter(name, text, _names(labels), registry=self.registry), labels)

    def histogram(
        self, name: str, text: str, buckets: Iterable[float], labels: Labels = NO_LABELS
    ) -> Histogram:
        """Declare a distribution over buckets, each given by its upper edge."""
        made = Histogram(name, text, _names(labels), registry=self.registry, buckets=tuple(buckets))
        return self._declared(made, labels)

    @staticmethod
    def _declared(made: Series, labels: Labels) -> Series:
        for values in product(*(tuple(kind) for kind in labels.values())):
            if values:
                made.labels(*(value.value for value in values))
        return made


class MetricsServer:
    """Answers `/metrics`, and `/healthz` and `/readyz`, on a thread of its own."""

    def __init__(
        self, metrics: Metrics, *, listen: str, is_ready: Callable[[], bool] | None = None
    ) -> None:
        """Listen at once.

        Args:
            metrics: What is scraped.
            listen: Address, `host:port`; port 0 takes a free one.
            is_ready: What `/healthz` and `/readyz` are answered by; None leaves both to the
                health service of the process.

        Raises:
            ServiceUnavailable: The address is taken or cannot be bound.
        """
        host, _, port = listen.rpartition(":")
        scrape = make_wsgi_app(metrics.registry)

        def answer(environ: Any, start_response: Any) -> Any:
            path = environ["PATH_INFO"]
            if path == "/metrics":
                return scrape(environ, start_response)
            status = "404 Not Found"
            if is_ready is not None and path in HEALTH_PATHS:
                is_well = path == "/healthz" or is_ready()
                status = "200 OK" if is_well else "503 Service Unavailable"
            start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
            return [status.partition(" ")[2].encode() + b"\n"]

        try:
            self._server = make_server(
                host, int(port), answer, server_class=WSGIServer, handler_class=_Quiet
            )
        except OSError as error:
            message = f"cannot listen on {listen}: is another process there?"
            raise ServiceUnavailable(message, listen=listen) from error
        self.target = f"{host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._server.server_close()


class _Quiet(WSGIRequestHandler):
    """Does not write a line per scrape."""

    # A scraper that says nothing keeps nobody waiting for longer than this, seconds.
    timeout = 5

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  The name it has there.
        """Write nothing."""


def _names(labels: Labels) -> tuple[str, ...]:
    opened = OPEN_LABELS & set(labels)
    assert not opened, f"labels that are no closed set: {sorted(opened)}"

    return tuple(labels)
