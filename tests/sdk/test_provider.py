"""Providers against a real server."""

from __future__ import annotations

import pytest
from processes import Server
from pycrdt import Doc, Text

from collab.sdk import Phase, Provider
from collab.sdk.errors import NotAcknowledged

SECONDS = 20.0

pytestmark = pytest.mark.anyio


def text(doc: Doc) -> Text:
    return doc.get("text", type=Text)


async def reads(provider: Provider, expected: str) -> bool:
    """Wait until a document holds this and nothing else."""
    import asyncio

    async with asyncio.timeout(SECONDS):
        while str(text(provider.doc)) != expected:
            await asyncio.sleep(0.005)
    return True


async def test_what_one_writes_another_reads(server: Server) -> None:
    async with Provider(server.url, "room") as one, Provider(server.url, "room") as two:
        await one.synced(SECONDS)
        await two.synced(SECONDS)
        text(one.doc).insert(0, "Grüße 😀")

        await one.flush(timeout=SECONDS)

        assert await reads(two, "Grüße 😀")
        assert one.state.phase is Phase.SAVED
        assert two.state.phase is Phase.SYNCED
        assert one.position == 1


async def test_nobody_says_when_a_change_is_stored(server: Server) -> None:
    async with Provider(server.url, "room") as one:
        with pytest.raises(NotAcknowledged):
            await one.flush("stored")
