"""Runs every test of the transport on both event loops that it is served on."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Name the loops to pytest-asyncio: uvloop's transports are not asyncio's by class."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
