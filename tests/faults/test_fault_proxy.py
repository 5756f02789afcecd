"""The proxy between a server and whoever it is to be parted from."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from proxy import Proxy
from resp import Replies, Tamper

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Proxy, list[bytes]]]:
    """A server that says everything back and keeps what it heard, behind a proxy."""
    heard: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(1000):
                heard.append(chunk)
                writer.write(chunk)
            writer.write(b"<end>")
        except OSError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Proxy("127.0.0.1", port) as proxy:
            yield proxy, heard


@asynccontextmanager
async def client(
    proxy: Proxy,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: bytes
) -> bytes:
    writer.write(words)
    return await asyncio.wait_for(reader.readexactly(len(words)), 30)


async def test_what_is_said_passes_both_ways() -> None:
    async with echoing() as (proxy, heard), client(proxy) as (reader, writer):
        assert await ask(reader, writer, b"hello") == b"hello"

        assert heard == [b"hello"]


async def test_latency_holds_each_direction_for_its_time_and_keeps_the_order() -> None:
    async with echoing() as (proxy, _), client(proxy) as (reader, writer):
        proxy.up.latency_seconds, proxy.down.latency_seconds = 0.05, 0.1
        proxy.down.jitter_seconds = 0.05
        began = asyncio.get_running_loop().time()

        answer = await ask(reader, writer, b"".join(b"%d" % n for n in range(100)))

        assert asyncio.get_running_loop().time() - began > 0.15
        assert answer == b"".join(b"%d" % n for n in range(100))


async def test_bandwidth_is_bounded() -> None:
    async with echoing() as (proxy, _), client(proxy) as (reader, writer):
        proxy.up.bytes_per_second, proxy.up.slice_bytes = 10_000, 200
        began = asyncio.get_running_loop().time()

        await ask(reader, writer, b"x" * 2000)

        assert asyncio.get_running_loop().time() - began > 0.15


async def test_bytes_come_in_slices() -> None:
    async with echoing() as (proxy, heard), client(proxy) as (reader, writer):
        proxy.up.slice_bytes, proxy.up.bytes_per_second = 1, 1000

        await ask(reader, writer, b"slices")

        assert b"".join(heard) == b"slices"
        assert len(heard) > 1


async def test_a_held_direction_passes_nothing_until_it_heals() -> None:
    async with echoing() as (proxy, heard), client(proxy) as (reader, writer):
        await ask(reader, writer, b"before")
        proxy.down.is_held = True
        writer.write(b"during")

        async with asyncio.timeout(30):
            while heard[-1] != b"during":  # noqa: ASYNC110 - the other direction is open
                await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        proxy.heal()

        assert await asyncio.wait_for(reader.readexactly(6), 30) == b"during"


async def test_a_partition_takes_connections_and_lets_nothing_through() -> None:
    async with echoing() as (proxy, heard):
        proxy.hold()
        async with client(proxy) as (reader, writer):
            writer.write(b"lost?")

            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.1)
            assert heard == []
            proxy.heal()

            assert await asyncio.wait_for(reader.readexactly(5), 30) == b"lost?"


async def test_a_reset_is_seen_as_such() -> None:
    async with echoing() as (proxy, _), client(proxy) as (reader, writer):
        await ask(reader, writer, b"before")

        proxy.reset()

        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 30)


async def test_a_refusing_proxy_resets_new_connections() -> None:
    async with echoing() as (proxy, heard):
        proxy.is_refusing = True

        async with client(proxy) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.read(), 30)
        assert heard == []


async def test_half_of_a_connection_can_end() -> None:
    async with echoing() as (proxy, _), client(proxy) as (reader, writer):
        await ask(reader, writer, b"before")

        proxy.half_close(proxy.up)

        assert await asyncio.wait_for(reader.read(), 30) == b"<end>"


async def test_a_cut_lets_the_server_hear_what_the_client_never_has_an_answer_to() -> (
    None
):
    async with echoing() as (proxy, heard), client(proxy) as (reader, writer):
        proxy.cut_after(b"COMMIT")
        await ask(reader, writer, b"before")

        writer.write(b"COMMIT")

        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 30)
        assert heard == [b"before", b"COMMIT"]


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [("drop", ""), ("repeat", "0 1 0 2 0 1 3 0 1 2"), ("exchange", "1 0 3 2")],
)
async def test_messages_of_redis_can_be_tampered_with(kind: str, numbers: str) -> None:
    replies = [
        b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\n%d\r\n" % number
        for number in range(4)
    ]
    stream = b"+OK\r\n" + b"".join(replies) + b"%1\r\n+a\r\n:1\r\n"
    tamper = Tamper(kind, 1.0, random.Random(1))

    out = b"".join(tamper(stream[at : at + 3]) for at in range(0, len(stream), 3))

    said = [reply[-3:-2].decode() for reply in Replies().feed(out) if reply[:1] == b">"]
    assert " ".join(said) == numbers
    assert out.startswith(b"+OK\r\n")
    assert out.endswith(b"%1\r\n+a\r\n:1\r\n")
