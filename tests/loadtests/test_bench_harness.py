"""The benchmark's load client must see what a server does wrong, or its figures prove nothing."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from anyio import to_thread
from pycrdt import merge_updates
from websockets.asyncio.server import ServerConnection, serve

from collab.protocol.varint import Reader, encode_bytes

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "loadtests"))

import client
import scenarios
import traces

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        shutil.which("cc") is None,
        reason="the load client needs a C compiler: apt install gcc libc6-dev",
    ),
]

SYNC, AWARENESS = b"\x00", b"\x01"
STEP_1, EMPTY_STEP_2, UPDATE = b"\x00", b"\x01\x02\x00\x00", b"\x02"
LOAD = {"rooms": 2, "members": 4, "writers": 2, "rate": 60, "warm": 0.1, "seconds": 1}

Forward = Callable[[bytes], list[bytes]]  # an update comes, these go out


@asynccontextmanager
async def relay(forward: Forward, *, echo: bool = True) -> AsyncIterator[int]:
    """A server that keeps nothing and hands updates on as `forward` says; yields its port."""
    rooms: dict[str, set[ServerConnection]] = {}

    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        members = rooms.setdefault(connection.request.path, set())
        members.add(connection)
        async for frame in connection:
            assert isinstance(frame, bytes)
            if frame[:1] == AWARENESS:
                outgoing = [frame]
            elif frame[1:2] == STEP_1:
                await connection.send(SYNC + EMPTY_STEP_2)
                continue
            else:
                update = Reader(frame, 2).read_bytes()
                outgoing = [SYNC + UPDATE + encode_bytes(u) for u in forward(update)]
            for member in tuple(members):
                for message in outgoing:
                    if echo or member is not connection:
                        await member.send(message)

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        yield next(iter(server.sockets)).getsockname()[1]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Updates that insert and delete, as the load client reads them."""
    chance = random.Random(1)
    edits = [
        (i // 2, 0, chance.choice("ab éß😀")) if i % 5 else (0, min(i, 1), "x")
        for i in range(400)
    ]
    path = tmp_path / "trace.bin"
    path.write_bytes(traces.pack(traces.updates(iter(edits), len(edits))))
    return path


async def load(mode: str, port: int, **arguments: object) -> dict[str, float]:
    process = client.start(mode, port, **arguments)
    return await to_thread.run_sync(client.finish, process)


async def test_an_honest_server_misses_nothing(trace: Path) -> None:
    async with relay(lambda update: [update]) as port:
        facts = await load("steady", port, trace=trace, echo=1, **LOAD)

    assert facts["sent"] > 100
    assert facts["expected"] == facts["sent"] * 3
    assert facts["missing"] == facts["echo_missing"] == facts["undecoded"] == 0


async def test_one_update_lost_in_a_hundred_is_missed(trace: Path) -> None:
    seen = []

    def lose(update: bytes) -> list[bytes]:
        seen.append(update)
        return [] if len(seen) % 100 == 0 else [update]

    async with relay(lose) as port:
        facts = await load("steady", port, trace=trace, grace=0.2, **LOAD)

    assert facts["missing"] == len(seen) // 100 * 3 > 0


async def test_merged_and_repeated_updates_count_once(trace: Path) -> None:
    waiting: list[bytes] = []

    def merge(update: bytes) -> list[bytes]:
        waiting.append(update)
        merged = merge_updates(*waiting)
        return [merged, update]

    async with relay(merge) as port:
        shape = LOAD | {"rooms": 1}
        facts = await load("steady", port, trace=trace, **shape)

    assert facts["delivered"] == facts["expected"]
    assert facts["undecoded"] == 0


async def test_a_server_that_never_echoes_fails_those_who_wait_for_it(
    trace: Path,
) -> None:
    async with relay(lambda update: [update], echo=False) as port:
        facts = await load("steady", port, trace=trace, echo=1, grace=0.2, **LOAD)

    assert facts["missing"] == 0
    assert facts["echo_missing"] == facts["sent"]


async def test_bytes_that_are_no_update_are_reported(trace: Path) -> None:
    async with relay(lambda update: [update[:-3]]) as port:
        facts = await load("steady", port, trace=trace, grace=0.2, **LOAD)

    assert facts["undecoded"] > 0


async def test_awareness_states_reach_every_other_member() -> None:
    async with relay(lambda update: [update]) as port:
        facts = await load("awareness", port, members=5, rate=20, warm=0.1, seconds=0.5)

    assert facts["delivered"] == facts["expected"] > 0


def test_a_target_is_missed_when_nothing_was_measured() -> None:
    target = scenarios.Target("hot", "µs/delivery", float("nan"), 0.75)

    assert not target.is_reached
    assert str(target).startswith("MISSED")
