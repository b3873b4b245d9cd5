"""Runs every test of the transport on both event loops that it is served on."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Name the loops to pytest-asyncio: uvloop's transports are not asyncio's by class."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(
    name="loop_factory", params=[asyncio.new_event_loop, uvloop.new_event_loop], scope="session"
)
def _loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Give the loops to tests that run one of their own for every example."""
    factory: Callable[[], asyncio.AbstractEventLoop] = request.param
    return factory


@pytest.fixture(name="quiet", scope="session")
def _quiet() -> Iterator[None]:
    """Say nothing of thousands of peers that are refused."""
    log = logging.getLogger("detent.rpc.http2")
    before = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(before)
