"""A connection keeps answers in their order and gives up on whoever does not speak as Redis does."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import pytest
from hearing import eventually
from hypothesis import given
from hypothesis import strategies as st
from services import Redis

from collab.bus import wire
from collab.bus.base import MAX_BODY_BYTES, Published
from collab.bus.keys import names
from collab.bus.scripts import decode
from collab.bus.slots import SLOTS, Slots
from collab.bus.wire import Dialer, NotPrimary, Wire, pack, reason_of
from collab.connection import endpoint

pytestmark = pytest.mark.anyio

GREETING = b"%1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(serve: Serve) -> AsyncIterator[Dialer]:
    """Somebody who answers as told; every connection is ended with the block."""

    links: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def serve_and_close(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None, "the server has made one"
        links[task] = writer
        with contextlib.suppress(OSError):
            await serve(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(serve_and_close, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield Dialer(endpoint(f"redis://127.0.0.1:{port}"))
        for writer in links.values():
            writer.transport.abort()
        await asyncio.gather(*links)


def saying(*answers: bytes) -> Serve:
    """One answer to each command, then it hangs up when the other does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.read(1000)
            writer.write(answer)
            await writer.drain()
        await reader.read()

    return serve


async def dial(dialer: Dialer, heard: Callable[[Any], None] = lambda _: None) -> Wire:
    async with asyncio.timeout(30):
        return await dialer.dial(dialer.endpoint.places[0], heard)


async def test_answers_come_in_the_order_of_the_questions() -> None:
    with Redis() as server:
        dialer = Dialer(endpoint(server.url))
        heard: list[Any] = []
        connection = await dial(dialer, heard.append)

        answers = await asyncio.gather(
            *(
                connection.ask(pack("ECHO", n), pack("NONSENSE"), pack("ECHO", -n))
                for n in range(100)
            )
        )
        connection.write(pack("SSUBSCRIBE", "x"), pack("PING"))
        await eventually(lambda: len(heard) == 2)

        assert [(one[0], one[2]) for one in answers] == [
            (b"%d" % n, b"%d" % -n) for n in range(100)
        ]
        assert {type(one[1]) for one in answers} == {hiredis.ReplyError}
        assert heard == [[b"ssubscribe", b"x", 1], b"PONG"]
        connection.close()
        await connection.lost
        with pytest.raises(ConnectionError):
            await connection.ask(pack("PING"))


@pytest.mark.parametrize(
    "anyio_backend",
    [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)
async def test_what_is_written_to_a_connection_that_has_ended_is_lost_and_no_error() -> (
    None
):
    async with served(saying(GREETING)) as dialer:
        connection = await dial(dialer)

        connection.close()
        connection.write(pack("PING"))
        await connection.lost
        connection.write(pack("PING"))

        with pytest.raises(ConnectionError):
            await connection.ask(pack("PING"))


async def test_who_waits_is_told_when_the_connection_ends() -> None:
    async with served(saying(GREETING, b"+one\r\n$5\r\nhal")) as dialer:
        connection = await dial(dialer)
        waiting = asyncio.create_task(connection.ask(pack("A"), pack("B")))
        await asyncio.sleep(0)

        connection.close()

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(waiting, 30)
        assert connection.lost.done()


@pytest.mark.parametrize(
    "greeting",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"+OK\r\n",
        b"*0\r\n",
        b"-ERR unknown command 'HELLO'\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"\x00\xff" * 50,
        b"$99999999999\r\n",
    ],
)
async def test_whoever_does_not_greet_as_redis_does_is_left(greeting: bytes) -> None:
    async with served(saying(greeting)) as dialer:
        with pytest.raises((OSError, hiredis.HiredisError)):
            await asyncio.wait_for(dial(dialer), 1)


async def test_an_answer_that_never_ends_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "_MAX_ANSWER_BYTES", 1 << 20)

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(GREETING + b"$400000000\r\n")
        while not writer.is_closing():
            writer.write(bytes(100_000))
            await writer.drain()

    async with served(flood) as dialer:
        connection = await dial(dialer)

        await asyncio.wait_for(connection.lost, 30)

    assert connection.lost.done()


async def test_random_bytes_end_the_connection_or_are_heard() -> None:
    chance = random.Random(7)
    for _ in range(100):
        noise = chance.randbytes(chance.randrange(1, 300))
        async with served(saying(GREETING + noise)) as dialer:
            connection = await dial(dialer)
            await asyncio.sleep(0)
            connection.close()
            await asyncio.wait_for(connection.lost, 30)


def test_every_failure_has_a_word() -> None:
    assert reason_of(hiredis.ReplyError("OOM command not allowed")) == "memory"
    assert reason_of(hiredis.ReplyError("ERR whatever")) == "other"
    assert reason_of(hiredis.ProtocolError("?")) == "other"
    assert reason_of(TimeoutError()) == "timeout"
    assert reason_of(ConnectionResetError()) == "connection"
    assert reason_of(NotPrimary()) == "read_only"


# What stands in a message


@given(st.binary(max_size=100))
def test_a_message_is_an_entry_a_word_or_nothing(message: bytes) -> None:
    found = decode(message)

    if message[:1] == b"w":
        assert found == message[1:]
    else:
        assert found is None or isinstance(found, Published)


@given(st.binary(max_size=100), st.integers(0, 10**15 - 1))
def test_an_entry_comes_back(body: bytes, number: int) -> None:
    message = b"eabc123:%d:" % number + body

    assert decode(message) == Published("abc123", number, body)


def test_a_message_over_the_limit_is_nothing() -> None:
    assert decode(b"w" + bytes(MAX_BODY_BYTES)) is not None
    assert decode(b"w" + bytes(MAX_BODY_BYTES + 1)) is None
    assert decode(b"eabc:1:" + bytes(MAX_BODY_BYTES + 1)) is None


def test_all_of_a_room_is_in_one_slot() -> None:
    for room in ("notes", "a{b}c", "acme\x1f}{", "é"):
        of = names("collab", 0, room)

        tags = {
            name[name.index("{") + 1 : name.index("}")]
            for name in (of.numbering, of.stream, of.channel)
        }
        assert len(tags) == 1
        assert 0 <= of.slot < SLOTS


# Who has which slot


@pytest.mark.parametrize(
    "answer",
    [
        b"+OK\r\n",
        b"*0\r\n",
        b"-ERR This instance has cluster support disabled\r\n",
        b"*1\r\n*2\r\n:0\r\n:5\r\n",
        b"*1\r\n*3\r\n:0\r\n:5\r\n*0\r\n",
        b"*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$1\r\n\xff\r\n:1\r\n",
        b"*1\r\n$1\r\nx\r\n",
        b"*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$1\r\nh\r\n$1\r\np\r\n",
    ],
)
async def test_an_answer_that_makes_no_sense_gives_nobody_a_slot(answer: bytes) -> None:
    async with served(saying(GREETING, answer)) as dialer:
        ((host, port),) = dialer.endpoint.places
        clustered = Dialer(endpoint(f"redis+cluster://{host}:{port}"))
        slots = Slots(clustered, lambda: None)

        assert await slots._ask() == []
        assert slots.place(0) is None


async def test_a_node_without_a_name_is_where_it_was_asked() -> None:
    answer = b"*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n_\r\n:7\r\n"
    async with served(saying(GREETING, answer)) as dialer:
        ((host, port),) = dialer.endpoint.places
        changes: list[None] = []
        slots = Slots(
            Dialer(endpoint(f"redis+cluster://{host}:{port}")),
            lambda: changes.append(None),
        )
        watch = asyncio.create_task(slots.run())
        await eventually(lambda: bool(changes))

        slots.moved(hiredis.ReplyError("MOVED 3 other:8"), (host, port))
        slots.moved(hiredis.ReplyError("MOVED 4 :9"), (host, port))
        slots.moved(hiredis.ReplyError("MOVED nonsense"), (host, port))

        assert [slots.place(slot) for slot in (0, 3, 4, 5, 6)] == [
            *((host, 7), ("other", 8), (host, 9), (host, 7), None)
        ]
        assert len(changes) == 3
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
