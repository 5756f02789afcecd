"""Stock clients in Node and members in Python edit one room, and see each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from driving import Driver
from kinds import write
from sdk.members import SECONDS, text, until
from serving import Server

from collab.sdk import Provider

pytestmark = pytest.mark.anyio


def soon() -> float:
    return 0.02


async def do(function: Callable[..., object], *given: object, **named: object) -> None:
    """What waits for Node, beside what the members do meanwhile."""
    await asyncio.to_thread(function, *given, **named)


@pytest.mark.parametrize("kind", ["y-websocket-2", "y-websocket-3", "hocuspocus-3"])
async def test_members_and_a_stock_client_edit_one_room(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    async with (
        Provider(house.url, room) as one,
        Provider(house.url, room) as two,
    ):
        await one.synced(SECONDS)
        await two.synced(SECONDS)
        await do(clients.open, "bob", kind, house.url, room)
        await do(clients.wait, "bob", "synced")

        text(one.doc).insert(0, "一😀")
        text(two.doc).insert(0, "two ")
        await do(clients.edit, "bob", write("bob "))

        length = len("一😀two bob ")
        await until(lambda: len(str(text(one.doc))) == length)
        await until(lambda: str(text(two.doc)) == str(text(one.doc)))
        await do(clients.wait, "bob", "text", str(text(one.doc)))


async def test_a_crash_loses_nothing_of_members_nor_of_a_stock_client(
    clients: Driver, serving: Callable[..., Server], room: str
) -> None:
    server = serving()
    async with (
        Provider(server.url, room, chance=soon) as one,
        Provider(server.url, room, chance=soon) as two,
    ):
        await one.synced(SECONDS)
        await two.synced(SECONDS)
        await do(clients.open, "bob", "y-websocket-3", server.url, room)
        await do(clients.wait, "bob", "synced")
        await do(server.kill)
        await until(lambda: one.state.attempt > 0 and two.state.attempt > 0)
        text(one.doc).insert(0, "one ")
        text(two.doc).insert(0, "two ")
        await do(clients.edit, "bob", write("bob "))

        await do(server.start)
        await one.flush(timeout=SECONDS)
        await two.flush(timeout=SECONDS)

        await until(lambda: sorted(str(text(one.doc)).split()) == ["bob", "one", "two"])
        await until(lambda: str(text(two.doc)) == str(text(one.doc)))
        await do(clients.wait, "bob", "text", str(text(one.doc)))
