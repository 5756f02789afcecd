"""A server is told to end while many type: each is told, has its answers and is closed, and the server ends in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from commuters import commuting, crew, until
from processes import Server

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

CLIENTS, ROOMS = 60, 3
# A drain takes less than a second here; one that waits for a moment in which nobody types may never end.
END_SECONDS = 20.0


async def test_a_drain_under_many_who_type_keeps_what_it_acknowledged(
    serve: Callable[..., Server],
) -> None:
    server = serve()
    commuters = list(crew(CLIENTS, ROOMS, [server.address]))

    async with commuting(commuters):
        await until(lambda: all(len(each.saved) > 2 for each in commuters))
        begun = time.monotonic()
        code = await asyncio.to_thread(server.terminate)
        seconds = time.monotonic() - begun
        await until(lambda: not any(each.is_here for each in commuters))

    assert code == 0
    assert seconds < END_SECONDS
    assert all([kind for kind, _ in each.notices] == ["drain"] for each in commuters)
    assert {code for each in commuters for code in each.codes} == {1012}
    for number in range(ROOMS):
        room = f"r{number}"
        found = server.run("export", room).stdout.split()
        saved = {word for each in commuters if each.room == room for word in each.saved}
        assert saved <= set(found)
        assert len(found) == len(set(found))
