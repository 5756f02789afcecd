"""Documents of providers, and waiting for what another process brings into them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pycrdt import Doc, Text

from collab.sdk import Phase, Provider

SECONDS = 30.0  # before a test gives up; nothing is as slow as that


def text(doc: Doc[Any]) -> Text:
    """The root that all tests write into."""
    return doc.get("text", type=Text)


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for what comes over a socket or from a process."""
    async with asyncio.timeout(SECONDS):
        while not is_true():  # noqa: ASYNC110 - it is another process's doing
            await asyncio.sleep(0.005)


async def reads(provider: Provider, expected: str) -> None:
    """Wait until a document holds this and nothing else."""
    try:
        await until(lambda: str(text(provider.doc)) == expected)
    except TimeoutError:
        assert str(text(provider.doc)) == expected


async def comes_to(provider: Provider, phase: Phase) -> None:
    await until(lambda: provider.state.phase is phase)


async def waits(provider: Provider) -> None:
    """Until the provider has lost its connection and says so."""
    await until(lambda: provider.state.attempt > 0)
