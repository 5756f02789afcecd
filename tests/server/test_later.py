"""Routes that are made when they are first asked for."""

from __future__ import annotations

import asyncio
import threading

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from collab.server.later import Later

pytestmark = pytest.mark.anyio


class Made:
    """Remembers in which threads it was made."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.is_wanted = threading.Event()

    def __call__(self) -> ASGIApp:
        self.threads.append(threading.current_thread())
        assert self.is_wanted.wait(20)
        return self.answer

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["path"])(scope, receive, send)


async def test_all_who_ask_wait_for_one_and_the_loop_for_none() -> None:
    made = Made()
    app = Starlette(routes=[Later("/v1", made)])
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://localhost"
    ) as client:
        async with asyncio.TaskGroup() as tasks:
            asked = [
                tasks.create_task(client.get(path)) for path in ("/v1", "/v1/rooms")
            ]
            made.is_wanted.set()  # by the loop, which is free meanwhile
        later = await client.get("/v1/a%2Fb")

    assert [task.result().text for task in asked] == ["/v1", "/v1/rooms"]
    assert later.text == "/v1/a/b"
    assert len(made.threads) == 1
    assert made.threads[0] is not threading.current_thread()


@pytest.mark.parametrize(
    ("kind", "path", "match"),
    [
        ("http", "/v1", Match.FULL),
        ("http", "/v1/rooms", Match.FULL),
        ("http", "/v1rooms", Match.NONE),
        ("http", "/", Match.NONE),
        ("websocket", "/v1/rooms", Match.NONE),
    ],
)
async def test_what_is_under_its_path_is_its_own(
    kind: str, path: str, match: Match
) -> None:
    later = Later("/v1", Made())

    assert later.matches({"type": kind, "path": path}) == (match, {})
    assert later.app is None
