"""Ask a policy service one question from the command line."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from detent_client import ClientOptions, DetentClient

T = TypeVar("T")
DEADLINE_S = 10.0
POLICY = "127.0.0.1:7303"
Target = Annotated[str, typer.Option(help="Address of the policy service.")]


def ask_policy(target: str, question: Callable[[DetentClient], Awaitable[T]]) -> T:
    """Open a client that keeps nothing behind, ask, and close it."""

    async def asked() -> T:
        with tempfile.TemporaryDirectory() as folder:
            options = ClientOptions(
                journal_file=Path(folder) / "journal.jsonl",
                policy_target=target,
                deadline_s=DEADLINE_S,
            )
            async with DetentClient(options) as client:
                return await question(client)

    return asyncio.run(asked())
