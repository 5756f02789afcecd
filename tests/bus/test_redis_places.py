"""The bus finds the servers that have its slots, after a failover and a move too, and gets along with few permissions."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hearing import Ear, eventually
from services import Cluster, Redis, Sentinels, wait_for
from tls_redis import TlsRedis

from collab.bus.base import EVERYBODY
from collab.bus.keys import names
from collab.bus.redis import RedisBus
from collab.connection import Endpoint, endpoint
from collab.errors import ConfigurationError
from collab.metrics import Metrics

pytestmark = pytest.mark.anyio

README = Path(__file__).parents[2] / "deploy" / "README.md"


def documented_rules() -> list[str]:
    """What the user of a server may do, as deploy/README.md has it."""
    found = re.search(
        r"ACL SETUSER collab reset on >PASSWORD ([^`]*)```", README.read_text()
    )
    assert found is not None
    return found[1].split()


def make(place: Endpoint | str) -> RedisBus:
    found = endpoint(place) if isinstance(place, str) else place
    return RedisBus(found, cluster="collab", metrics=Metrics())


async def listen(bus: RedisBus, channel: str = "notes") -> Ear:
    ear = Ear()
    bus.subscribe(channel, ear)
    await ear.until(lambda: ear.interruptions > 0)
    return ear


async def goes_on(bus: RedisBus, ears: dict[str, Ear], body: bytes) -> float:
    """Seconds until every room hears something new."""
    began = time.monotonic()
    async with asyncio.timeout(30):
        while not all(body in ear.bodies for ear in ears.values()):
            for room, ear in ears.items():
                if body not in ear.bodies:
                    bus.publish(room, body)
            await asyncio.sleep(0.05)
    return time.monotonic() - began


async def test_behind_sentinels_the_new_primary_is_found() -> None:
    with Sentinels() as group:
        async with make(group.url) as first, make(group.url) as second:
            ear = await listen(second)
            await goes_on(first, {"notes": ear}, b"before")

            old = group.primary
            old.kill()
            for n in range(100):
                first.publish("notes", b"%d" % n)
            assert await asyncio.to_thread(wait_for, lambda: group.primary is not old)
            took = await goes_on(first, {"notes": ear}, b"after")
            await eventually(lambda: first.is_up and second.is_up)
            epoch, _ = await second.position("notes")
            kept = await second.read("notes", epoch, 0)

            assert took < 15
            assert ear.interruptions >= 2
            assert epoch != ear.entries[0].epoch
            assert kept is not None
            bodies = list(dict.fromkeys(one.body for one in kept))
            assert bodies == [*(b"%d" % n for n in range(100)), b"after"]


async def test_an_old_primary_that_lives_on_is_left(tmp_path: Path) -> None:
    """Sentinel makes a follower of it, which still takes connections. Here the sentinels want a password."""
    password = tmp_path / "password"
    password.write_text("secret\n")
    with Sentinels(sentinel_password="secret") as group:
        known = endpoint(group.url, sentinel_password_file=password)
        async with make(group.url) as stranger:
            await eventually(lambda: stranger.troubles == ["auth"])
        async with make(known) as first, make(known) as second:
            ear = await listen(second)
            await goes_on(first, {"notes": ear}, b"before")
            old = group.primary

            group.sentinels[0].do("SENTINEL", "FAILOVER", group.service)
            assert await asyncio.to_thread(wait_for, lambda: group.primary is not old)
            new = group.primary
            await eventually(lambda: listeners(new) == 1 and listeners(old) == 0)
            await goes_on(first, {"notes": ear}, b"after")

            await eventually(lambda: first.is_up and second.is_up)
            assert ear.entries[-1].epoch != ear.entries[0].epoch


def listeners(node: Redis) -> int:
    _, count = node.do("PUBSUB", "SHARDNUMSUB", names("collab", 0, "notes").channel)  # type: ignore[misc]
    return int(count)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


async def test_rooms_of_all_nodes_are_served(cluster: Cluster) -> None:
    rooms = [f"room {n}" for n in range(60)]
    async with make(cluster.url) as first, make(cluster.url) as second:
        ears = {room: await listen(second, room) for room in rooms}

        for n in range(20):
            for room in rooms:
                first.publish(room, b"%d" % n)
            await asyncio.sleep(0)
        for ear in ears.values():
            await ear.until(lambda ear=ear: len(ear.entries) == 20)

        for ear in ears.values():
            assert ear.numbers == list(range(1, 21))
            assert ear.bodies == [b"%d" % n for n in range(20)]
        held = [node.do("DBSIZE") for node in cluster.nodes]
        assert all(isinstance(count, int) and count > 0 for count in held)


async def test_a_slot_may_move_while_its_room_is_edited(cluster: Cluster) -> None:
    slot = names("collab", 0, "notes").slot
    nodes = {str(node.do("CLUSTER", "MYID")): node for node in cluster.nodes}
    source = next(
        name
        for name, node in nodes.items()
        if node.do("CLUSTER", "COUNTKEYSINSLOT", slot) or owns(node, slot)
    )
    target = next(name for name in nodes if name != source)
    count = 600
    async with make(cluster.url) as first, make(cluster.url) as second:
        ear, everybody = await listen(second), await listen(second, EVERYBODY)
        await goes_on(first, {"notes": ear}, b"before")

        async def move() -> None:
            nodes[target].do("CLUSTER", "SETSLOT", slot, "IMPORTING", source)
            nodes[source].do("CLUSTER", "SETSLOT", slot, "MIGRATING", target)
            await asyncio.sleep(0.2)  # edits meet a slot that is on its way
            with nodes[source].client() as client:
                while keys := client.execute_command(
                    "CLUSTER", "GETKEYSINSLOT", slot, 10
                ):
                    client.execute_command(
                        *("MIGRATE", "127.0.0.1", nodes[target].port, "", 0, 1000),
                        *("KEYS", *keys),
                    )
                    await asyncio.sleep(0.05)
            for node in (nodes[target], nodes[source], *nodes.values()):
                node.do("CLUSTER", "SETSLOT", slot, "NODE", target)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(move())
            for n in range(count):
                first.publish("notes", b"%d" % n)
                await asyncio.sleep(0.001)
        took = await goes_on(first, {"notes": ear}, b"after")
        await eventually(lambda: first.is_up and second.is_up)

        assert took < 15
        assert ear.interruptions >= 2
        assert everybody.interruptions >= 1
        assert first.metrics.bus_dropped == 0
        heard = list(dict.fromkeys(ear.bodies))
        assert [body for body in heard if body.isdigit()] == sorted(
            (body for body in heard if body.isdigit()), key=int
        )
        # What was not heard is in the stream, or the epoch has changed and says so.
        last = ear.entries[-1]
        kept = await second.read("notes", last.epoch, 0)
        assert kept is not None
        assert kept[-1].body == b"after"
        bodies = {one.body for one in kept} | set(ear.bodies)
        assert bodies >= {b"%d" % n for n in range(count)}


def owns(node: Redis, slot: int) -> bool:
    rows = node.do("CLUSTER", "SLOTS")
    assert isinstance(rows, (list, dict))
    return any(
        int(row[0]) <= slot <= int(row[1]) and int(row[2][1]) == node.port
        for row in rows
    )


async def test_a_primary_of_a_cluster_dies_and_its_follower_takes_over() -> None:
    rooms = [f"room {n}" for n in range(30)]
    with Cluster(has_followers=True) as cluster:
        async with make(cluster.url) as first, make(cluster.url) as second:
            ears = {room: await listen(second, room) for room in rooms}
            await goes_on(first, ears, b"before")

            cluster.nodes[0].kill()
            took = await goes_on(first, ears, b"after")

            assert took < 20
            await eventually(lambda: first.is_up and second.is_up)
            for ear in ears.values():
                assert list(dict.fromkeys(ear.bodies)) == [b"before", b"after"]


async def test_a_user_with_the_documented_permissions_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("between us")
    with Redis() as server:
        server.do("ACL", "SETUSER", "ann", "on", ">between us", *documented_rules())
        url = f"redis://ann@127.0.0.1:{server.port}/0"
        async with make(endpoint(url, password_file=file)) as bus:
            ear = await listen(bus)

            bus.publish("notes", b"1")
            bus.say("notes", b"2")
            await ear.until(lambda: bool(ear.entries and ear.words))

            epoch, _ = await bus.position("notes")
            assert await bus.read("notes", epoch, 0) == ear.entries
            assert await bus.beat("a", b"1") == {"a": b"1"}
            await bus.leave("a")
            await bus.keep("k", b"v", 5)
            assert await bus.take("k") == b"v"
            assert bus.is_up
            assert server.do("ACL", "LOG") == []


async def test_a_user_without_its_permissions_is_told(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("between us")
    with Redis() as server:
        server.do(
            *("ACL", "SETUSER", "ann", "on", ">between us", "+@all", "~other:*"),
            *("&other:*",),
        )
        url = f"redis://ann@127.0.0.1:{server.port}/0"
        async with make(endpoint(url, password_file=file)) as bus:
            ear = Ear()
            bus.subscribe("notes", ear)
            bus.publish("notes", b"1")

            await eventually(lambda: bus.troubles == ["auth"])
            server.do("ACL", "SETUSER", "ann", "allkeys", "allchannels")
            await ear.until(lambda: ear.interruptions == 1)
            await eventually(lambda: bus.is_up and bus.metrics.bus_published == 1)


async def test_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    with TlsRedis(tmp_path) as server:
        known = endpoint(
            server.url,
            ca=server.ca,
            certificate=server.certificate,
            key=server.key,
        )
        async with make(known) as bus:
            ear = await listen(bus)
            bus.publish("notes", bytes(3 << 20))
            await ear.until(lambda: bool(ear.entries))
        async with make(server.url) as bus:
            await eventually(lambda: bus.troubles == ["tls"])


def test_certificates_that_cannot_be_used_stop_the_start(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no certificate")

    for place in (
        endpoint("rediss://r", ca=file),
        endpoint("rediss://r", certificate=file, key=file),
    ):
        with pytest.raises(ConfigurationError, match="redis_ca"):
            make(place)
