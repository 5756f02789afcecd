"""Edits over HTTP and a server that is killed: what was answered is there, and nothing is there twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx2
import pytest
from processes import Server

pytestmark = pytest.mark.anyio

WRITERS = 6
ANSWERS = 60  # then the server is killed, in the midst of others


async def test_every_edit_that_was_answered_survives_a_kill(
    serve: Callable[..., Server],
) -> None:
    server = serve()
    answered: list[str] = []
    enough = asyncio.Event()

    async def write(writer: int) -> None:
        async with httpx2.AsyncClient(base_url=server.url, timeout=30) as client:
            for number in range(10_000):
                word = f"<{writer}.{number}>"
                splice = {"root": "text", "index": 0, "insert": word}
                try:
                    answer = await client.patch(
                        "/v1/rooms/r/document", json={"splices": [splice]}
                    )
                except httpx2.TransportError:
                    return
                assert answer.status_code == 200
                answered.append(word)
                if len(answered) >= ANSWERS:
                    enough.set()

    async with asyncio.TaskGroup() as tasks:
        for writer in range(WRITERS):
            tasks.create_task(write(writer))
        await enough.wait()
        await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)

    async with httpx2.AsyncClient(base_url=server.url, timeout=30) as client:
        text = (await client.get("/v1/rooms/r/document?format=text")).text
        log = (await client.get("/v1/rooms/r/updates?limit=1000")).json()

    assert [word for word in answered if text.count(word) != 1] == []
    assert log["position"] == len(log["updates"]) == text.count("<")
