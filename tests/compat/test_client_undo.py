"""What a server takes back and brings again, a stock client shows as the server does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from driving import Driver
from kinds import write
from sdk.members import SECONDS, text, until
from serving import Server

from collab.sdk import Provider

pytestmark = pytest.mark.anyio


async def do(function: Callable[..., object], *given: object, **named: object) -> None:
    """What waits for Node, beside what the members do meanwhile."""
    await asyncio.to_thread(function, *given, **named)


async def ask(server: Server, path: str) -> dict[str, Any]:
    async with httpx2.AsyncClient() as client:
        answer = await client.post(f"{server.url}/v1/rooms/{path}", json={})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("kind", ["y-websocket-3", "hocuspocus-3"])
async def test_a_stock_client_types_into_a_turn_that_is_taken_back_and_again_after_a_restart(
    clients: Driver, serving: Callable[..., Server], room: str, kind: str
) -> None:
    server = serving()
    await do(clients.open, "ada", kind, server.url, room)
    await do(clients.wait, "ada", "synced")
    await do(clients.edit, "ada", write("one 😀 two"))
    await do(clients.wait, "ada", "saved")
    async with Provider(server.url, room) as bot:
        await bot.synced(SECONDS)
        await until(lambda: str(text(bot.doc)) == "one 😀 two")
        bot.turn("t", {"reason": "to help"})
        with bot.doc.transaction():
            del text(bot.doc)[4:8]
            text(bot.doc).insert(4, "AGENT 一")
        await bot.flush(timeout=SECONDS)
    await do(clients.wait, "ada", "text", "one AGENT 一 two")
    await do(clients.edit, "ada", write("[ada]", 7))
    await do(clients.wait, "ada", "saved")

    undone = await ask(server, f"{room}/turns/t/undo")
    await do(clients.wait, "ada", "text", "one 😀[ada] two")
    await do(server.kill)
    await do(server.start)
    await do(clients.wait, "ada", "synced")
    again = await ask(server, f"{room}/turns/t/undo")
    redone = await ask(server, f"{room}/turns/t/redo")
    await do(clients.wait, "ada", "text", "one AGE[ada]NT 一 two")
    twice = await ask(server, f"{room}/turns/t/undo")
    await do(clients.wait, "ada", "text", "one 😀[ada] two")
    await do(clients.open, "eve", kind, server.url, room)
    await do(clients.wait, ["ada", "eve"], "equal")

    done = (undone, again, redone, twice)
    assert [each["changed"] for each in done] == [True, False, True, True]
