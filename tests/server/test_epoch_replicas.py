"""The name of a room's history reaches everybody who waits in the empty room, at whatever replica."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from processes import Server
from sdk.members import SECONDS, reads, text, until
from services import Redis

from collab.sdk import Provider

pytestmark = pytest.mark.anyio


async def test_who_waits_at_another_replica_is_told_what_the_history_is_called(
    serve: Callable[..., Server],
) -> None:
    with Redis(aof="always") as redis:
        flags = ("--redis", redis.url)
        here, there = serve(*flags), serve(*flags)
        async with Provider(here.url, "r") as one, Provider(there.url, "r") as two:
            for each in (one, two):
                await each.synced(SECONDS)
            before = one.epoch, two.epoch

            text(one.doc).insert(0, "first")
            await one.flush(timeout=SECONDS)
            named = one.epoch
            await reads(two, "first")
            await until(lambda: two.epoch != "")

            assert before == ("", "")
            assert named == two.epoch != ""
