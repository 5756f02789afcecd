"""What becomes of the bus when Redis, the way to it, or somebody who may write to it fails: nothing silently."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from faults.proxy import Proxy
from hearing import Ear, eventually
from redis_user import make_user, of_user
from services import Redis

from collab.bus import publisher
from collab.bus.base import (
    EVERYBODY,
    KEPT_SECONDS,
    MAX_BODY_BYTES,
    MAX_INFO_BYTES,
    MAX_REPLICAS,
    PEER_SECONDS,
)
from collab.bus.keys import names
from collab.bus.redis import RedisBus
from collab.connection import COMMAND_SECONDS, Endpoint, endpoint
from collab.errors import BusUnavailable
from collab.metrics import Metrics

pytestmark = pytest.mark.anyio

NOTES = names("collab", 0, "notes")


@pytest.fixture
def server() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def make(place: Endpoint | Redis | str) -> RedisBus:
    """A bus; its figures are in its `metrics`."""
    if isinstance(place, Redis):
        place = place.url
    found = endpoint(place) if isinstance(place, str) else place
    return RedisBus(found, cluster="collab", metrics=Metrics())


@pytest.fixture
async def buses(server: Redis) -> AsyncIterator[tuple[RedisBus, RedisBus]]:
    async with AsyncExitStack() as stack:
        yield (
            await stack.enter_async_context(make(server)),
            await stack.enter_async_context(make(server)),
        )


async def listen(bus: RedisBus, channel: str = "notes") -> Ear:
    ear = Ear()
    bus.subscribe(channel, ear)
    await ear.until(lambda: ear.interruptions > 0)
    return ear


async def heard(bus: RedisBus, ear: Ear, body: bytes) -> None:
    """Publish until it is heard: what was said while nobody listened is gone."""
    async with asyncio.timeout(30):
        while body not in ear.bodies:
            bus.publish("notes", body)
            await asyncio.sleep(0.1)


def do(server: Redis, *words: str | bytes | int) -> object:
    return server.do(*words)  # type: ignore[arg-type]


# Order


async def test_order_is_kept_while_publisher_and_subscriber_are_killed(
    server: Redis, buses: tuple[RedisBus, RedisBus]
) -> None:
    count = 5000
    ear = await listen(buses[1])

    for n in range(count):
        buses[0].publish("notes", b"%d" % n)
        if n % 50 == 0:
            await asyncio.sleep(0)
        if n % 500 == 250:
            server.do("CLIENT", "KILL", "TYPE", "normal")
        if n % 1000 == 700:
            server.do("CLIENT", "KILL", "TYPE", "pubsub")
        await eventually(
            lambda n=n: buses[0].metrics.bus_published > n - publisher.ROOM_ENTRIES // 2
        )
    await eventually(lambda: buses[0].metrics.bus_published == count)
    await ear.until(lambda: ear.interruptions > 1)
    epoch, last = await buses[1].position("notes")
    everything = await buses[1].read("notes", epoch, 0)

    assert everything is not None
    assert [one.number for one in everything] == list(range(1, last + 1))
    # What was sent twice comes as a repeat of a whole batch: the first of each keep the order.
    bodies = list(dict.fromkeys(one.body for one in everything))
    assert bodies == [b"%d" % n for n in range(count)]
    # The subscriber has heard a part of this, in this order, and sees by the numbers what it lacks.
    assert ear.entries == [one for one in everything if one.number in set(ear.numbers)]
    missed = [
        (before, after)
        for before, after in zip(
            [0, *ear.numbers], [*ear.numbers, last + 1], strict=True
        )
        if after > before + 1
    ]
    for before, after in missed:
        filled = await buses[1].read("notes", epoch, before)
        assert filled is not None
        assert [one.number for one in filled[: after - before]][:1] == [before + 1]
    assert buses[0].metrics.bus_dropped == 0


async def test_many_entries_leave_in_few_pipelines(
    buses: tuple[RedisBus, RedisBus],
) -> None:
    first = buses[0]
    before = first.metrics.bus_round_trips

    for n in range(5000):
        first.publish(f"room {n % 100}", b"%d" % n)
    await eventually(lambda: first.metrics.bus_published == 5000)

    assert first.metrics.bus_round_trips - before <= 10


async def test_what_one_pipeline_carried_beyond_its_share_lets_the_next_leave_with_less(
    buses: tuple[RedisBus, RedisBus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "PIPELINES_AT_ONCE", 0)
    monkeypatch.setattr(publisher, "PIPELINES_PER_SECOND", 1e-6)
    metrics = buses[0].metrics

    for n in range(10):
        buses[0].publish(f"room {n}", b"one of many")
    await eventually(lambda: metrics.bus_published == 10)
    buses[0].publish("notes", b"alone")
    await eventually(lambda: metrics.bus_published == 11)
    before = metrics.bus_round_trips
    for n in range(5):
        buses[0].publish("notes", b"%d" % n)
        await asyncio.sleep(0)
    await eventually(lambda: metrics.bus_published == 16)

    assert metrics.bus_round_trips - before == 1


# Redis loses what it had


async def test_after_a_flush_counting_begins_anew(
    server: Redis, buses: tuple[RedisBus, RedisBus]
) -> None:
    ear = await listen(buses[1])
    buses[0].publish("notes", b"1")
    buses[0].publish("notes", b"2")
    await ear.until(lambda: len(ear.entries) == 2)

    server.flush()
    assert await buses[1].position("notes") == ("", 0)
    buses[0].publish("notes", b"3")
    await ear.until(lambda: len(ear.entries) == 3)

    before, _, after = ear.entries
    assert after.number == 1
    assert after.epoch != before.epoch
    assert await buses[1].read("notes", before.epoch, 1) is None
    assert await buses[1].read("notes", after.epoch, 0) == [after]


async def test_a_restart_without_data_is_an_interruption_and_what_waits_arrives(
    server: Redis, buses: tuple[RedisBus, RedisBus]
) -> None:
    ear = await listen(buses[1])
    await heard(buses[0], ear, b"before")

    server.kill()
    for n in range(100):
        buses[0].publish("notes", b"%d" % n)
    await eventually(lambda: not buses[0].is_up and not buses[1].is_up)
    await asyncio.to_thread(server.start)
    began = time.monotonic()
    await ear.until(lambda: ear.interruptions == 2)
    await eventually(lambda: buses[0].metrics.bus_published >= 101)
    took = time.monotonic() - began
    await heard(buses[0], ear, b"after")
    epoch, _ = await buses[1].position("notes")
    kept = await buses[1].read("notes", epoch, 0)

    assert took < 10  # on a machine that others use too
    assert kept is not None
    bodies = list(dict.fromkeys(one.body for one in kept))
    assert bodies[:101] == [*(b"%d" % n for n in range(100)), b"after"]
    assert epoch != ear.entries[0].epoch
    await eventually(lambda: buses[0].is_up and buses[1].is_up)


async def test_after_a_restart_no_number_comes_twice_in_the_same_epoch() -> None:
    """What the server had counted since its last write to disk is forgotten, and would be counted again."""
    with Redis(aof="always") as server:
        async with make(server) as bus:
            ear = await listen(bus)
            await heard(bus, ear, b"before")

            await asyncio.to_thread(server.restart)
            await ear.until(lambda: ear.interruptions == 2)
            kept = await bus.position("notes")
            await heard(bus, ear, b"after")

            assert kept == (ear.entries[-2].epoch, ear.entries[-2].number)
            assert ear.entries[-1].epoch != kept[0]


async def test_a_trimmed_stream_is_told(
    server: Redis, buses: tuple[RedisBus, RedisBus]
) -> None:
    ear = await listen(buses[0])
    for n in range(10):
        buses[0].publish("notes", b"%d" % n)
    await ear.until(lambda: len(ear.entries) == 10)
    epoch = ear.entries[0].epoch

    server.do("XTRIM", NOTES.stream, "MAXLEN", 5)

    assert await buses[1].read("notes", epoch, 4) is None
    assert await buses[1].read("notes", epoch, 5) == ear.entries[5:]


async def test_a_stream_expires_before_its_numbering_and_both_are_missed(
    server: Redis, buses: tuple[RedisBus, RedisBus]
) -> None:
    ear = await listen(buses[0])
    await heard(buses[0], ear, b"1")
    lives = [server.do("PTTL", key) for key in (NOTES.stream, NOTES.numbering)]

    server.do("DEL", NOTES.stream)
    hole = await buses[1].read("notes", ear.entries[0].epoch, 0)
    position = await buses[1].position("notes")
    buses[0].publish("notes", b"next")
    await ear.until(lambda: ear.bodies[-1] == b"next")

    assert hole is None
    assert position == (ear.entries[-2].epoch, ear.entries[-2].number)
    assert ear.entries[-1].epoch == position[0]
    assert ear.entries[-1].number == position[1] + 1
    assert isinstance(lives[0], int)
    assert isinstance(lives[1], int)
    assert 0 < lives[0] <= KEPT_SECONDS * 1000 < lives[1]


async def test_a_stream_of_large_entries_stays_small(
    server: Redis, buses: tuple[RedisBus, RedisBus]
) -> None:
    for _ in range(40):
        buses[0].publish("notes", bytes(MAX_BODY_BYTES))
        await eventually(lambda: not buses[0].queued_bytes)

    used = server.do("MEMORY", "USAGE", NOTES.stream)
    assert isinstance(used, int)
    assert used < 8 * MAX_BODY_BYTES


# Redis refuses


async def test_at_full_memory_nothing_is_published_and_later_everything() -> None:
    with Redis(maxmemory="5mb") as server:
        async with make(server) as first, make(server) as second:
            ear = await listen(second)
            await heard(first, ear, b"before")
            server.do("CONFIG", "SET", "maxmemory", "1mb")

            first.publish("notes", b"during")
            await eventually(lambda: first.troubles == ["memory"])
            bodies = ear.bodies
            server.do("CONFIG", "SET", "maxmemory", "0")
            await ear.until(lambda: ear.bodies[-1] == b"during")

            assert b"during" not in bodies
            await eventually(lambda: first.is_up)
            assert first.metrics.bus_failures["memory"] >= 1


async def test_a_server_that_has_become_a_follower_is_down_until_it_is_none(
    server: Redis, buses: tuple[RedisBus, RedisBus]
) -> None:
    ear = await listen(buses[1])
    await heard(buses[0], ear, b"before")

    server.do("CONFIG", "SET", "repl-diskless-sync-delay", 0)
    server.do("REPLICAOF", "127.0.0.1", 1)
    buses[0].publish("notes", b"during")
    await eventually(lambda: "read_only" in buses[0].troubles)
    server.do("REPLICAOF", "NO", "ONE")
    await ear.until(lambda: ear.bodies[-1] == b"during")

    await eventually(lambda: buses[0].is_up)


async def test_a_forgotten_script_is_taught_again(
    server: Redis, buses: tuple[RedisBus, RedisBus]
) -> None:
    ear = await listen(buses[1])

    for n in range(100):
        if n % 10 == 0:
            server.do("SCRIPT", "FLUSH")
        buses[0].publish("notes", b"%d" % n)
        await ear.until(lambda n=n: len(ear.entries) == n + 1)

    assert ear.bodies == [b"%d" % n for n in range(100)]
    assert buses[0].is_up


async def test_a_wrong_password_is_said_and_stays_out_of_the_way(
    tmp_path: Path,
) -> None:
    file = tmp_path / "password"
    file.write_text("wrong")
    with Redis(password="right") as server:
        async with make(endpoint(server.url, password_file=file)) as bus:
            ear = Ear()
            bus.subscribe("notes", ear)
            bus.publish("notes", b"1")

            await eventually(lambda: bus.troubles == ["auth"])

            with pytest.raises(BusUnavailable):
                await bus.position("notes")
            file.write_text("right")
        async with make(endpoint(server.url, password_file=file)) as bus:
            await heard(bus, await listen(bus), b"1")


async def test_one_body_that_redis_never_takes_is_given_up_and_the_others_go_on() -> (
    None
):
    with Redis(options=("--proto-max-bulk-len", "1mb")) as server:
        async with make(server) as bus:
            bad, good = await listen(bus, "bad"), await listen(bus, "good")

            bus.publish("bad", bytes(3 << 20))
            for n in range(10):
                bus.publish("good", b"%d" % n)
            await bad.until(lambda: bad.drops == 1)
            await good.until(lambda: len(set(good.bodies)) == 10)
            bus.publish("bad", b"small")
            await bad.until(lambda: bool(bad.entries))

            assert bad.bodies == [b"small"]
            await eventually(lambda: bus.is_up)


# The way to Redis


async def test_a_stopped_redis_holds_nobody_up_and_loses_nothing(
    server: Redis, buses: tuple[RedisBus, RedisBus]
) -> None:
    ear = await listen(buses[1])
    await heard(buses[0], ear, b"before")
    lag = 0.0
    done = asyncio.Event()

    async def measure() -> None:
        nonlocal lag
        while not done.is_set():
            before = time.monotonic()
            await asyncio.sleep(0.01)
            lag = max(lag, time.monotonic() - before - 0.01)

    async def ask() -> float:
        began = time.monotonic()
        with pytest.raises(BusUnavailable):
            await buses[1].read("notes", "e", 0)
        return time.monotonic() - began

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(measure())
        server.stop()
        began = time.monotonic()
        for n in range(100):
            buses[0].publish("notes", b"%d" % n)
            buses[0].say("notes", b"%d" % n)
        asked = await ask()
        await eventually(lambda: not buses[0].is_up and not buses[1].is_up)
        noticed = time.monotonic() - began
        await asyncio.sleep(max(0.0, began + 5 - time.monotonic()))
        server.cont()
        back = time.monotonic()
        await eventually(lambda: buses[0].is_up and buses[1].is_up)
        returned = time.monotonic() - back
        done.set()

    await eventually(lambda: buses[0].metrics.bus_published >= 101)
    epoch, _ = await buses[1].position("notes")
    kept = await buses[1].read("notes", epoch, 0)
    assert kept is not None
    bodies = dict.fromkeys(one.body for one in kept)
    assert list(bodies)[1:] == [b"%d" % n for n in range(100)]
    # On a machine that others use too.
    assert asked < COMMAND_SECONDS + 3
    assert noticed < 10
    assert returned < 10
    assert lag < COMMAND_SECONDS


async def test_a_link_that_is_dead_without_a_word_is_noticed(server: Redis) -> None:
    async with Proxy("127.0.0.1", server.port) as proxy:
        async with make(f"redis://127.0.0.1:{proxy.port}") as bus:
            ear = await listen(bus)

            proxy.hold()
            began = time.monotonic()
            await eventually(lambda: not bus.is_up)
            took = time.monotonic() - began
            proxy.reset()
            proxy.heal()
            await ear.until(lambda: ear.interruptions == 2)

            assert 1 < took < 15
            await heard(bus, ear, b"after")


async def test_an_answer_that_is_lost_means_the_same_again(server: Redis) -> None:
    async with Proxy("127.0.0.1", server.port) as proxy:
        async with (
            make(server) as other,
            make(f"redis://127.0.0.1:{proxy.port}") as bus,
        ):
            ear = await listen(other)
            await heard(bus, ear, b"before")

            proxy.cut_after(b"only once")
            bus.publish("notes", b"1 only once")
            bus.publish("notes", b"2")
            await eventually(lambda: proxy.cut > 0)
            proxy.heal()
            bus.publish("notes", b"3")
            await ear.until(lambda: ear.bodies[-1:] == [b"3"])

            sent = [b"1 only once", b"2", b"3"]
            assert [
                one for one in dict.fromkeys(ear.bodies) if one != b"before"
            ] == sent
            assert ear.numbers == list(range(1, len(ear.numbers) + 1))


async def test_a_reader_that_does_not_read_is_cut_off_and_knows_it() -> None:
    limit = ("--client-output-buffer-limit", "pubsub 1mb 512kb 1")
    with Redis(options=limit) as server:
        async with make(server) as bus:
            ear = await listen(bus)

            # All in one turn: our loop cannot read meanwhile.
            with server.client() as other:
                sent = 0
                while other.execute_command(
                    "SPUBLISH", NOTES.channel, "w" + "x" * 100_000
                ):
                    sent += 1
                    assert sent < 1000
            await ear.until(lambda: ear.interruptions == 2)

            assert len(ear.words) <= sent
            await heard(bus, ear, b"after")


# Too much


async def test_too_much_of_one_room_is_given_up_and_told() -> None:
    with Redis() as server:
        async with make(server) as bus:
            ear, other = await listen(bus), await listen(bus, "other")
            server.kill()

            for n in range(publisher.ROOM_ENTRIES + 1):
                bus.publish("notes", b"%d" % n)
            bus.publish("other", b"few")
            await ear.until(lambda: ear.drops == 1)
            bus.publish("notes", b"after")
            await asyncio.to_thread(server.start)
            await eventually(lambda: bus.queued_bytes == 0)

            epoch, number = await bus.position("notes")
            kept = await bus.read("notes", epoch, 0)
            assert kept is not None
            assert {one.body for one in kept} == {b"after"}
            assert (await bus.position("other"))[1] >= 1
            assert other.drops == 0
            assert number >= 1


async def test_too_many_bytes_of_one_room_and_of_all_are_given_up() -> None:
    with Redis() as server:
        async with make(server) as bus:
            server.kill()
            await eventually(lambda: not bus.is_up)

            body = bytes(1 << 20)
            for n in range(100):
                bus.publish(f"room {n}", body)
                assert bus.queued_bytes <= publisher.ALL_BYTES
            for _ in range(20):
                bus.publish("notes", body)
                assert bus.queued_bytes <= publisher.ALL_BYTES

            assert bus.metrics.bus_dropped > 0


async def test_words_for_a_server_that_is_away_are_dropped() -> None:
    with Redis() as server:
        async with make(server) as bus:
            ear = await listen(bus, EVERYBODY)
            server.kill()
            for _ in range(3 * publisher.WORDS):
                bus.say(EVERYBODY, b"lost")
            await eventually(lambda: not bus.is_up)
            await asyncio.to_thread(server.start)
            await ear.until(lambda: ear.interruptions == 2)

            async with asyncio.timeout(30):
                while b"heard" not in ear.words:
                    bus.say(EVERYBODY, b"heard")
                    await asyncio.sleep(0.05)

            assert set(ear.words) == {b"heard"}
            assert bus.metrics.bus_dropped >= publisher.WORDS


# Others who write there


JUNK = [
    b"",
    b"\x00",
    b"x",
    b"e",
    b"e:",
    b"e::",
    b"e:1:body",
    b"eabc:1",
    b"eabc:-1:body",
    b"eabc:1e3:body",
    b"eabc:" + b"9" * 16 + b":body",
    b"e" + b"a" * 33 + b":1:body",
    b"e\xff\xfe:1:body",
    b"eabc: 1:body",
    b"w" + bytes(MAX_BODY_BYTES + 1),
    b"eabc:1:" + bytes(MAX_BODY_BYTES + 1),
]


async def test_junk_on_a_channel_is_dropped_and_counted(
    server: Redis, buses: tuple[RedisBus, RedisBus]
) -> None:
    ear = await listen(buses[1])

    for junk in JUNK:
        do(server, "SPUBLISH", NOTES.channel, junk)
    buses[0].publish("notes", b"real")
    await ear.until(lambda: bool(ear.entries))

    assert ear.bodies == [b"real"]
    assert ear.words == []
    assert buses[1].metrics.bus_foreign == len(JUNK)
    assert ear.interruptions == 1


# By what is done to the keys of a room.
SPOILED: list[list[tuple[str | int, ...]]] = [
    [("SET", NOTES.numbering, "x")],
    [("SET", NOTES.stream, "x")],
    [("SET", NOTES.numbering, "x"), ("SET", NOTES.stream, "x")],
    [("DEL", NOTES.numbering)],
    [("HSET", NOTES.numbering, "number", "x")],
    [("HSET", NOTES.numbering, "number", "-5")],
    [("HSET", NOTES.numbering, "number", "1e300")],
    [("HSET", NOTES.numbering, "number", "inf")],
    [("HSET", NOTES.numbering, "number", "1.5")],
    [("HDEL", NOTES.numbering, "epoch")],
    [("HSET", NOTES.numbering, "epoch", "\n:" * 100)],
    [("XADD", NOTES.stream, "18446744073709551615-1", "b", "x")],
    [("XADD", NOTES.stream, "*", "b", "x")],
    [("XADD", NOTES.stream, "3-1", "c", "x")],
    [("XADD", NOTES.stream, "3-0", "c", "x")],
]


@pytest.mark.parametrize("commands", SPOILED, ids=range(len(SPOILED)))
async def test_whatever_is_done_to_its_keys_a_room_goes_on(
    server: Redis,
    buses: tuple[RedisBus, RedisBus],
    commands: list[tuple[str | int, ...]],
) -> None:
    ear = await listen(buses[1])
    buses[0].publish("notes", b"1")
    buses[0].publish("notes", b"2")
    await ear.until(lambda: len(ear.entries) == 2)

    for command in commands:
        server.do(*command)
    position = await buses[1].position("notes")
    read = await buses[1].read("notes", ear.entries[0].epoch, 0)
    for n in range(3, 6):
        buses[0].publish("notes", b"%d" % n)
        await ear.until(lambda n=n: len(ear.entries) == n)

    assert position in {("", 0), (ear.entries[0].epoch, 2)}
    assert read is None or [one.body for one in read] == [b"1", b"2"]
    assert ear.bodies == [b"%d" % n for n in range(1, 6)]
    places = [(one.epoch, one.number) for one in ear.entries]
    assert len(set(places)) == 5
    last = ear.entries[-1]
    again = await buses[1].read("notes", last.epoch, last.number - 1)
    assert again is None or again == [last]
    assert buses[0].is_up


async def test_a_roster_that_somebody_has_spoiled_is_mended(
    server: Redis, buses: tuple[RedisBus, RedisBus]
) -> None:
    roster = "collab:bus-replicas"
    server.do("SET", roster, "x")
    await buses[0].leave("a")

    alone = await buses[0].beat("a", b"1")
    server.do("HSET", roster, "junk", "junk", "old", "5:gone", "new", "9" * 15 + ":x")
    now, _ = server.do("TIME")  # type: ignore[misc]
    late = int(now) * 1000 - int(PEER_SECONDS * 1000) - 1000
    server.do("HSET", roster, "late", f"{late}:x", "alive", f"{late + 3000}:x")
    both = await buses[1].beat("b", b"2")

    assert alone == {"a": b"1"}
    assert both == {"a": b"1", "b": b"2", "alive": b"x"}
    assert set(server.do("HKEYS", roster)) == {"a", "b", "alive"}  # type: ignore[call-overload]


async def test_a_roster_that_somebody_has_filled_is_begun_anew(
    server: Redis, buses: tuple[RedisBus, RedisBus]
) -> None:
    roster = "collab:bus-replicas"
    now, _ = server.do("TIME")  # type: ignore[misc]
    alive = f"{int(now) * 1000}:"
    server.do("HSET", roster, "long", alive + "x" * (MAX_INFO_BYTES + 1))
    lean = await buses[0].beat("a", b"1")
    for number in range(MAX_REPLICAS):
        server.do("HSET", roster, f"forged{number}", f"{alive}x")

    full = await buses[0].beat("a", b"2")

    assert lean == {"a": b"1"}
    assert full == {"a": b"2"}


async def test_kept_values_go_by_themselves_and_foreign_ones_are_none(
    server: Redis, buses: tuple[RedisBus, RedisBus]
) -> None:
    await buses[0].keep("ticket", b"value", 5)
    left = server.do("PTTL", "collab:bus-kept:ticket")
    server.do("RPUSH", "collab:bus-kept:list", "x")

    assert isinstance(left, int)
    assert 0 < left <= 5000
    assert await buses[1].take("list") is None
    assert buses[1].metrics.bus_foreign == 1


@pytest.mark.parametrize(
    ("clusters", "databases"), [(("one", "two"), (0, 0)), (("one", "one"), (0, 3))]
)
async def test_two_clusters_on_one_redis_do_not_hear_each_other(
    server: Redis, clusters: tuple[str, str], databases: tuple[int, int]
) -> None:
    first, second = (
        RedisBus(
            endpoint(f"redis://127.0.0.1:{server.port}/{database}"),
            cluster=cluster,
            metrics=Metrics(),
        )
        for cluster, database in zip(clusters, databases, strict=True)
    )
    async with first, second:
        ears = [await listen(first), await listen(second)]

        first.publish("notes", b"first")
        second.publish("notes", b"second")
        for ear in ears:
            await ear.until(lambda ear=ear: bool(ear.entries))

        assert [ear.bodies for ear in ears] == [[b"first"], [b"second"]]
        await first.beat("a", b"")
        assert await second.beat("b", b"") == {"b": b""}


async def test_a_claim_that_a_stranger_left_goes_by_itself(
    server: Redis, buses: tuple[RedisBus, RedisBus]
) -> None:
    await buses[0].claim("theirs", "a", 0.05)  # so that the server knows the script
    for name, command in {"word": ("SET", "x"), "list": ("RPUSH", "x")}.items():
        server.do(command[0], names("collab", 0, name).claim, *command[1:])

    claimed = [await buses[0].claim(name, "a", 60) for name in ("word", "list")]
    kept = [await buses[0].renew(name, "a", 60) for name in ("word", "list")]
    await buses[0].release("list", "a")
    left = [
        int(str(server.do("PTTL", names("collab", 0, name).claim)))
        for name in ("word", "list")
    ]

    assert claimed == kept == [False, False]
    assert all(0 < each <= 60_000 for each in left)


async def test_a_user_with_the_documented_rights_may_claim(
    server: Redis, tmp_path: Path
) -> None:
    password = make_user([server], tmp_path)
    place = endpoint(of_user(server.url), password_file=password)

    async with make(place) as bus:
        assert await bus.claim("notes", "a", 60)
        assert await bus.renew("notes", "a", 60)
        await bus.release("notes", "a")
        assert not await bus.renew("notes", "a", 60)


async def test_without_redis_nothing_is_claimed(server: Redis) -> None:
    async with make(server) as bus:
        assert await bus.claim("notes", "a", 60)
        server.kill()

        with pytest.raises(BusUnavailable):
            await bus.claim("notes", "b", 60)
        with pytest.raises(BusUnavailable):
            await bus.renew("notes", "a", 60)
