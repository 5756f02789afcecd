"""A turn that was taken at one replica is taken back at another, and brought again after both have started anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from processes import Server
from sdk.members import SECONDS, reads, text
from services import Redis

from collab.sdk import Provider

pytestmark = pytest.mark.anyio


async def ask(
    server: Server, method: str, path: str, **options: Any
) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=30) as client:
        answer = await client.request(
            method, f"{server.url}/v1/rooms/r{path}", **options
        )
    assert answer.status_code == 200, answer.text
    return answer


async def test_a_turn_is_taken_back_at_any_replica(
    serve: Callable[..., Server],
) -> None:
    with Redis(aof="always") as redis:
        flags = ("--redis", redis.url)
        here, there = serve(*flags), serve(*flags)
        async with Provider(there.url, "r") as ada:
            await ada.synced(SECONDS)
            text(ada.doc).insert(0, "one two")
            await ada.flush(timeout=SECONDS)
            async with Provider(here.url, "r") as bot:
                await reads(bot, "one two")
                bot.turn("t", {"reason": "to help"})
                text(bot.doc).insert(3, " AGENT")
                await bot.flush(timeout=SECONDS)
            await reads(ada, "one AGENT two")
            text(ada.doc).insert(6, "[ada]")
            await ada.flush(timeout=SECONDS)

            undone = (await ask(there, "POST", "/turns/t/undo", json={})).json()
            await reads(ada, "one[ada] two")
            again = (await ask(here, "POST", "/turns/t/undo", json={})).json()
        here.restart()
        there.kill()
        redone = (await ask(here, "POST", "/turns/t/redo", json={})).json()
        left = await ask(here, "GET", "/document?format=text&root=text")
        blamed = (await ask(here, "GET", "/blame")).json()
        then = await ask(
            here, "GET", f"/document?format=text&root=text&at={undone['position']}"
        )

    assert (undone["changed"], again["changed"], redone["changed"]) == (
        True,
        False,
        True,
    )
    assert left.text == "one AG[ada]ENT two"
    assert then.text == "one[ada] two"
    assert blamed["spans"][-1]["end"] == len(left.text)
