"""More than a server takes at once, against a real one: it goes in parts, and all of it arrives once."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from faults.proxy import Proxy
from members import SECONDS, comes_to, reads, text, until, waits
from processes import Server
from pycrdt import Array, Doc, Map

import collab
from collab.protocol.statevector import state_vector
from collab.sdk import Phase, Provider, Replaced
from collab.sdk.errors import TooLarge
from collab.sdk.outgoing import MAX_WAITING_BYTES

pytestmark = pytest.mark.anyio

LIMIT = 1 << 19  # the default of a server
PAGE = "".join(chr(0x20 + number % 0x50) for number in range(10_000)) + "Grüße 😀\n"
LINE = "a line of a letter " * 5


def soon() -> float:
    """In place of chance: comes back almost at once."""
    return 0.01


def write(doc: Doc[Any], megabytes: int) -> str:
    """As somebody who types, pastes and deletes in a document of many places; what its text says then."""
    chance = random.Random(7)
    shown = text(doc)
    for number in range(megabytes * 100):
        end = len(shown)
        shown.insert(end, f"{number} {PAGE}")
        if number % 10 == 0:
            del shown[end : end + 5000]
        if number % 3 == 0:
            doc.get("places", type=Map)[str(chance.randrange(100))] = number
            doc.get("list", type=Array).append({"number": number})
    return str(shown)


def whole(doc: Doc[Any]) -> tuple[str, object, object]:
    return (
        str(text(doc)),
        doc.get("places", type=Map).to_py(),
        doc.get("list", type=Array).to_py(),
    )


async def agree(one: Provider, two: Provider) -> None:
    def vector(provider: Provider) -> object:
        return state_vector(provider.doc.get_state())

    await until(lambda: vector(one) == vector(two))
    assert whole(one.doc) == whole(two.doc)


async def test_five_megabytes_written_without_a_connection_arrive_over_dropped_sockets(
    house: Server, room: str
) -> None:
    """Of the document that the provider makes itself: it is never replaced."""
    heard: list[object] = []
    async with Proxy("127.0.0.1", house.port) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        async with Provider(url, room, chance=soon) as one:
            await one.synced(SECONDS)
            one.observe(heard.append)
            proxy.is_refusing = True
            proxy.reset()
            await waits(one)
            written = write(one.doc, 5)

            proxy.up.rewrite = lambda: breaks(proxy, 900_000)
            proxy.is_refusing = False
            await one.flush(timeout=SECONDS)

            async with Provider(house.url, room) as two:
                await agree(one, two)
                assert str(text(two.doc)) == written
    assert proxy.accepted >= 5
    assert one.position >= 10
    assert not any(isinstance(event, Replaced) for event in heard)


def breaks(proxy: Proxy, after: int) -> Callable[[bytes], bytes]:
    """A connection that is lost once so many bytes have gone up."""
    left = after

    def pass_on(chunk: bytes) -> bytes:
        nonlocal left
        left -= len(chunk)
        if left < 0:
            asyncio.get_running_loop().call_soon(proxy.reset)
        return chunk

    return pass_on


async def test_a_document_of_the_programs_own_arrives_in_parts(
    house: Server, room: str
) -> None:
    doc: Doc[Any] = Doc()
    write(doc, 2)

    async with Provider(house.url, room, doc) as one, Provider(house.url, room) as two:
        await one.flush(timeout=SECONDS)

        await agree(one, two)
        assert one.doc is doc
        assert one.position >= 4


async def test_people_type_on_while_much_is_on_its_way(
    house: Server, room: str
) -> None:
    doc: Doc[Any] = Doc()
    write(doc, 1)
    async with Provider(house.url, room, doc) as one, Provider(house.url, room) as two:
        await two.synced(SECONDS)
        for number in range(50):
            text(two.doc).insert(0, f"{number},")
            text(doc).insert(len(text(doc)), f"№{number};")
            await asyncio.sleep(0)
        for provider in (one, two):
            await provider.flush(timeout=SECONDS)

        await agree(one, two)
        typed = re.findall("№([0-9]+);", str(text(doc)))
        assert typed == [str(number) for number in range(50)]


async def test_one_transaction_over_the_limit_arrives_whole(
    house: Server, room: str
) -> None:
    async with Provider(house.url, room) as one, Provider(house.url, room) as two:
        await one.synced(SECONDS)
        text(one.doc).insert(0, "before|after")
        with one.doc.transaction():
            text(one.doc).insert(7, PAGE * 150)
        text(one.doc).insert(0, "on ")
        await one.flush(timeout=SECONDS)

        await reads(two, f"on before|{PAGE * 150}after")
        assert one.state.phase is Phase.SAVED


async def throttled(server: Server) -> float:
    """How often it has slowed somebody's reading."""
    async with httpx2.AsyncClient() as client:
        answer = await client.get(f"{server.url}/metrics")
    found = re.search(r"^collab_throttles_total (\S+)", answer.text, re.MULTILINE)
    assert found is not None
    return float(found[1])


async def test_more_than_may_wait_and_than_the_server_reads_at_once_arrives_slowly(
    house: Server, room: str
) -> None:
    before = await throttled(house)
    async with Provider(house.url, room, chance=soon) as one:
        await one.synced(SECONDS)
        text(one.doc).insert(0, "x" * (MAX_WAITING_BYTES + LIMIT))
        await one.flush(timeout=SECONDS)

        async with Provider(house.url, room) as two:
            await two.synced(SECONDS)
            assert len(text(two.doc)) == MAX_WAITING_BYTES + LIMIT
    assert await throttled(house) > before


async def test_all_parts_of_what_a_turn_wrote_belong_to_it(
    house: Server, room: str
) -> None:
    async with collab.connect(house.url, name="Ada") as agent:
        doc = await agent.open(room)
        async with doc.turn(reason="much") as turn:
            text(doc.raw).insert(0, PAGE * 90)
        blame = await doc.blame()

        assert {span.author.turn for span in blame.spans} == {turn.id}
        assert blame.spans[-1].end == len(PAGE * 90)


async def test_one_edit_writes_as_much_as_it_is_given(house: Server, room: str) -> None:
    page = "\n\n".join(f"{number} {LINE}**b**." for number in range(6000))
    async with collab.connect(house.url, name="Ada") as agent:
        doc = await agent.open(room)
        async with doc.turn(reason="much") as turn:
            await turn.insert("end", PAGE * 60)
        rich = await agent.open(f"{room}-rich", editor="tiptap")
        async with rich.turn(reason="much") as turn:
            await turn.insert("end", "Letter")
        async with rich.turn(reason="more") as turn:
            await turn.stream("end", pieces("\n\n## Pages\n"))
            await turn.section("Pages").replace(page)

    async with collab.connect(house.url, name="Bob") as agent:
        assert (await agent.open(room)).text == PAGE * 60
        lines = (await agent.open(f"{room}-rich")).text.split("\n")
        assert lines[-1] == f"5999 {LINE}b."
        assert len(lines) == 6002


async def pieces(*texts: str) -> AsyncIterator[str]:
    for each in texts:
        yield each


async def test_who_takes_less_at_once_is_sent_less(
    serve: Callable[..., Server], room: str
) -> None:
    server = serve("--max-update-bytes", "2048")
    async with Provider(server.url, room) as one, Provider(server.url, room) as two:
        text(one.doc).insert(0, PAGE)
        await one.synced(SECONDS)
        for number in range(2000):
            text(one.doc).insert(0, f"{number} ")
        await one.flush(timeout=SECONDS)
        text(one.doc).insert(0, PAGE)
        await one.flush(timeout=SECONDS)

        await agree(one, two)


async def test_a_value_that_cannot_be_divided_is_not_sent_and_the_document_begins_anew(
    house: Server, room: str
) -> None:
    heard: list[object] = []
    async with Provider(house.url, room, chance=soon) as one:
        await one.synced(SECONDS)
        one.observe(heard.append)
        text(one.doc).insert(0, "kept")
        one.doc.get("places", type=Map)["a"] = "x" * (LIMIT + 1)
        with pytest.raises(TooLarge) as raised:
            await one.flush(timeout=SECONDS)

        assert raised.value.limit_bytes == LIMIT
        assert f"{LIMIT} bytes" in str(raised.value)
        assert "nothing of it was sent" in str(raised.value)
        await one.synced(SECONDS)
        assert whole(one.doc) == ("kept", {}, [])
        assert any(isinstance(event, Replaced) for event in heard)
        text(one.doc).insert(4, " on")
        await one.flush(timeout=SECONDS)


async def test_a_document_of_the_programs_own_with_such_a_value_is_left_as_it_is(
    house: Server, room: str
) -> None:
    doc: Doc[Any] = Doc()
    doc.get("places", type=Map)["a"] = "x" * (LIMIT + 1)
    text(doc).insert(0, "not sent either")

    async with Provider(house.url, room, doc) as one, Provider(house.url, room) as two:
        with pytest.raises(TooLarge):
            await one.flush(timeout=SECONDS)
        await comes_to(one, Phase.REFUSED)
        await two.synced(SECONDS)

        assert whole(two.doc) == ("", {}, [])
        assert str(text(doc)) == "not sent either"
