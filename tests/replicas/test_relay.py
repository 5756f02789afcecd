"""Several replicas in one process, over the memory bus and a store that they share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest
from logged import capture_logs
from rooms import Client

from collab.bus.memory import Hub, MemoryBus
from collab.errors import ConfigurationError, RoomNotFound
from collab.metrics import Metrics
from collab.protocol.envelope import Alive, encode
from collab.protocol.varint import encode_bytes, encode_varint
from collab.replica import Replica
from collab.replicas.relay import MAX_LOCATING
from collab.room import Room
from collab.store.base import RoomInfo, Stored
from collab.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

KEY = b"k" * 32


class Cluster:
    """Replicas that share a store and a hub."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.hub = Hub()
        self.store = MemoryStore(is_shared=True)
        self._stack = stack

    async def add(self, **options: Any) -> Replica:
        replica = Replica(
            options.pop("store", self.store),
            Metrics(),
            bus=MemoryBus(self.hub),
            cluster_key=KEY,
            **options,
        )
        return await self._stack.enter_async_context(replica)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        yield Cluster(stack)


async def join(replica: Replica, name: str, client: Client) -> Room:
    room = await replica.open(name)
    replica.join(room, client.member)
    return room


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110  # it depends on several replicas at once
            await asyncio.sleep(0.005)


def text_of(room: Room) -> str:
    client = Client("reader")
    client.doc.apply_update(room.document.snapshot())
    return str(client.text)


async def test_an_edit_reaches_the_members_on_another_replica(cluster: Cluster) -> None:
    one, other = await cluster.add(), await cluster.add()
    ada, bob = Client("ada"), Client("bob")
    here, there = await join(one, "r", ada), await join(other, "r", bob)

    here.update(ada.member, ada.write("hello"))

    await until(lambda: text_of(there) == "hello")
    assert any(b"hello" in frame for frame in bob.written)


async def test_it_is_logged_once(cluster: Cluster) -> None:
    one, other = await cluster.add(), await cluster.add()
    ada, bob = Client("ada"), Client("bob")
    here, there = await join(one, "r", ada), await join(other, "r", bob)

    here.update(ada.member, ada.write("hello"))

    await until(lambda: text_of(there) == "hello")
    assert len(await cluster.store.history("r")) == 1


async def test_both_write_at_once_and_end_alike(cluster: Cluster) -> None:
    one, other = await cluster.add(), await cluster.add()
    ada, bob = Client("ada"), Client("bob")
    here, there = await join(one, "r", ada), await join(other, "r", bob)

    for _ in range(20):
        here.update(ada.member, ada.write("a"))
        there.update(bob.member, bob.write("b"))
        await asyncio.sleep(0)

    await until(lambda: len(text_of(here)) == len(text_of(there)) == 40)
    assert text_of(here) == text_of(there)
    assert one.metrics.divergences == other.metrics.divergences == 0


async def test_who_opens_the_room_later_finds_all_of_it(cluster: Cluster) -> None:
    one, other = await cluster.add(), await cluster.add()
    ada = Client("ada")
    here = await join(one, "r", ada)
    here.update(ada.member, ada.write("hello"))
    await one.settle()

    there = await other.open("r")

    assert text_of(there) == "hello"


async def test_what_was_written_while_the_bus_was_down_arrives_when_it_is_back(
    cluster: Cluster,
) -> None:
    one, other = await cluster.add(), await cluster.add()
    ada, bob = Client("ada"), Client("bob")
    here, there = await join(one, "r", ada), await join(other, "r", bob)
    cluster.hub.is_up = False
    here.update(ada.member, ada.write("hello"))
    await one.settle()
    assert one.worries
    assert text_of(there) == ""

    cluster.hub.heal()

    await until(lambda: text_of(there) == "hello")
    assert not one.worries


async def test_a_bus_that_forgot_everything_costs_nothing(cluster: Cluster) -> None:
    one, other = await cluster.add(), await cluster.add()
    ada, bob = Client("ada"), Client("bob")
    here, there = await join(one, "r", ada), await join(other, "r", bob)
    here.update(ada.member, ada.write("one "))
    await until(lambda: text_of(there) == "one ")

    cluster.hub.flush()
    here.update(ada.member, ada.write("two"))

    await until(lambda: text_of(there) == "one two")


async def test_a_store_that_lost_a_room_gets_it_back(cluster: Cluster) -> None:
    one = await cluster.add()
    ada = Client("ada")
    here = await join(one, "r", ada)
    here.update(ada.member, ada.write("hello"))
    await one.settle()
    cluster.store._rooms.clear()

    assert one.relay is not None
    link = one.relay.link("r")
    assert link is not None
    link.exchange()

    await until(lambda: "r" in cluster.store._rooms)
    fresh = await (await cluster.add()).open("r")
    assert text_of(fresh) == "hello"
    assert one.metrics.restatements == 1


async def test_a_deleted_room_ends_on_every_replica(cluster: Cluster) -> None:
    one, other = await cluster.add(), await cluster.add()
    ada, bob = Client("ada"), Client("bob")
    here = await join(one, "r", ada)
    await join(other, "r", bob)
    here.update(ada.member, ada.write("hello"))
    await one.settle()

    await one.delete("r")

    await until(lambda: bob.line.closed is not None)
    assert isinstance(bob.line.closed, RoomNotFound)


def presence(client: int, clock: int, state: bytes) -> bytes:
    return (
        encode_varint(1)
        + encode_varint(client)
        + encode_varint(clock)
        + encode_bytes(state)
    )


async def test_presence_crosses_and_ends_with_its_connection(cluster: Cluster) -> None:
    one, other = await cluster.add(), await cluster.add()
    ada, bob = Client("ada"), Client("bob")
    here, there = await join(one, "r", ada), await join(other, "r", bob)

    here.awareness.apply(presence(7, 1, b'{"at":1}'), ada.member, 0.0)
    one.present(here)
    await until(lambda: len(there.awareness) == 1)
    one.leave(here, ada.member)

    await until(lambda: len(there.awareness) == 0)


async def test_who_comes_later_learns_who_is_there(cluster: Cluster) -> None:
    one, other = await cluster.add(), await cluster.add()
    ada, bob = Client("ada"), Client("bob")
    here = await join(one, "r", ada)
    here.awareness.apply(presence(7, 1, b'{"at":1}'), ada.member, 0.0)
    one.present(here)

    there = await join(other, "r", bob)

    await until(lambda: len(there.awareness) == 1)


async def test_a_client_that_comes_over_is_taken_for_itself(cluster: Cluster) -> None:
    one, other = await cluster.add(), await cluster.add()
    ada, again, bob = Client("ada"), Client("ada"), Client("bob")
    here = await join(one, "r", ada)
    there = await join(other, "r", bob)
    here.awareness.apply(presence(7, 1, b'{"at":1}'), ada.member, 0.0)
    one.present(here)
    await until(lambda: len(there.awareness) == 1)

    other.join(there, again.member)
    there.awareness.apply(presence(7, 2, b'{"at":2}'), again.member, 0.0)
    other.present(there)

    assert again.member.clients == {7}
    assert again.member.strikes == 0


async def test_a_strangers_store_is_refused(cluster: Cluster) -> None:
    await cluster.add()

    with pytest.raises(ConfigurationError, match="keeps its rooms elsewhere"):
        await cluster.add(store=MemoryStore(is_shared=True))


async def test_a_room_nobody_has_here_costs_nothing_here(cluster: Cluster) -> None:
    one, other = await cluster.add(), await cluster.add()
    ada = Client("ada")
    here = await join(one, "r", ada)
    heard: list[object] = []
    assert other.relay is not None
    other.relay.bus.deliver = lambda *message: heard.append(message)  # type: ignore[attr-defined]  # the memory bus has it

    here.update(ada.member, ada.write("hello"))
    await one.settle()

    assert [each for each in heard if other.relay.link(each[0])] == []  # type: ignore[index]  # a message is a channel and a body


async def test_what_others_log_while_a_document_is_rebuilt_is_not_missed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await cluster.add(), await cluster.add()
    ada, bob = Client("ada"), Client("bob")
    here, there = await join(one, "r", ada), await join(other, "r", bob)
    here.update(ada.member, ada.write("early "))
    await until(lambda: text_of(there) == "early ")
    is_read, may_end = asyncio.Event(), asyncio.Event()
    load = cluster.store.load

    async def slow(name: str) -> Stored:
        stored = await load(name)
        is_read.set()
        await may_end.wait()
        return stored

    monkeypatch.setattr(cluster.store, "load", slow)
    rebuilding = asyncio.create_task(one.rebuild(here))
    await is_read.wait()
    there.update(bob.member, bob.write("late"))
    await until(lambda: "late" in text_of(here))  # in the document that is to go
    may_end.set()
    await rebuilding

    await until(lambda: text_of(here) == text_of(there))


async def test_who_has_not_signed_its_line_in_the_roster_is_none(
    cluster: Cluster,
) -> None:
    one, other = await cluster.add(), await cluster.add()
    assert one.relay is not None
    assert other.relay is not None
    line = orjson.dumps({"store": "elsewhere", "beats": 1})
    signed = cluster.hub.peers[other.relay.me][1]
    cluster.hub.peers |= {
        "plain": (cluster.hub.clock(), line),
        "unsigned": (cluster.hub.clock(), encode(Alive("unsigned", line), "", None)),
        "copied": (cluster.hub.clock(), signed),
    }

    await one.relay._beat()

    assert set(one.relay.peers) == {other.relay.me}
    assert one.troubles == []
    assert one.metrics.bus_refused == 2


async def test_a_line_in_the_roster_that_is_shown_again_brings_nobody_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await cluster.add()
    relay = one.relay
    assert relay is not None
    monkeypatch.setattr("collab.replicas.relay.PEER_SECONDS", 0.0)

    seen = []
    for beats in (1, 2, 2, 1, 3):
        line = orjson.dumps({"store": cluster.store.identity, "beats": beats})
        body = encode(Alive("other", line), "", KEY)
        cluster.hub.peers["other"] = cluster.hub.clock(), body
        await relay._beat()
        seen.append("other" in relay.peers)

    assert seen == [True, True, False, False, True]


async def test_however_often_a_room_is_said_to_be_lost_it_is_logged_whole_once(
    cluster: Cluster,
) -> None:
    one = await cluster.add()
    ada = Client("ada")
    here = await join(one, "r", ada)
    here.update(ada.member, ada.write("hello"))
    await one.settle()
    assert one.relay is not None
    link = one.relay.link("r")
    assert link is not None

    for _ in range(5):
        link.seen.reset(1000)
        await one.relay._catch_up(link)

    assert one.metrics.restatements == 1


async def test_however_often_it_is_asked_for_a_room_is_read_ten_times_a_second(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await cluster.add()
    await join(one, "r", Client("ada"))
    asked: list[str] = []
    info = cluster.store.info

    async def count(name: str) -> RoomInfo | None:
        asked.append(name)
        return await info(name)

    monkeypatch.setattr(cluster.store, "info", count)
    assert one.relay is not None
    link = one.relay.link("r")
    assert link is not None

    for _ in range(1000):
        one.relay.reload(link)
        await asyncio.sleep(0)

    assert len(asked) <= 3


async def test_what_was_dropped_is_said_in_a_line(cluster: Cluster) -> None:
    one = await cluster.add()
    await join(one, "r", Client("ada"))
    assert one.relay is not None
    link = one.relay.link("r")
    assert link is not None

    with capture_logs() as lines:
        link.word(b"junk")
        link.word(b"junk")
        one.relay._report()
        one.relay._report()

    assert [line["messages"] for line in lines] == [2]


async def test_after_an_interruption_of_all_rooms_a_few_are_asked_about_at_a_time(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await cluster.add()
    assert one.relay is not None
    links = [await one.relay.attach(f"r{number}") for number in range(100)]
    asking, most, asked = 0, 0, 0

    async def position(channel: str) -> tuple[str, int]:
        nonlocal asking, most, asked
        asking, asked = asking + 1, asked + 1
        most = max(most, asking)
        await asyncio.sleep(0)
        asking -= 1
        return "", 0

    monkeypatch.setattr(one.relay.bus, "position", position)
    for link in links:
        link.interrupted()

    await until(lambda: asked == len(links))
    assert most == MAX_LOCATING
