"""What Redis does to a store and its replicas: nothing acknowledged is lost by it, and nothing false is said."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from processes import BUSY_SECONDS
from redis import Redis as Raw
from services import Cluster, Redis, Sentinels, wait_for

from collab import names
from collab.connection import COMMAND_SECONDS, Client, Endpoint, endpoint
from collab.errors import (
    CollabError,
    ConfigurationError,
    RoomNotFound,
    RoomUnavailable,
    StoreCorrupt,
    StoreUnavailable,
)
from collab.store.base import Attributed, Author, Checkpoint, Entry, Remembered
from collab.store.redis import answers, compacting, loading, scripts
from collab.store.redis.processes import PLACE
from collab.store.redis.promise import look
from collab.store.redis.store import RedisStore

pytestmark = pytest.mark.anyio

ALICE = Author("alice", "c1")
NUMBERS = count()


@pytest.fixture
def cluster() -> str:
    """Keys of one's own in a Redis that tests share."""
    return f"own-{next(NUMBERS)}"


@pytest.fixture
def alone() -> Iterator[Redis]:
    """A Redis that may be hurt."""
    with Redis() as server:
        yield server


def opened(
    server: Redis | Endpoint, cluster: str = "collab", **more: Any
) -> RedisStore:
    place = server if isinstance(server, Endpoint) else endpoint(server.url)
    return RedisStore(place, cluster=cluster, window_seconds=0, **more)


def entry(
    position: int, *updates: bytes, origin: str = "o1", room: str = "notes"
) -> Entry:
    return Entry(room, "e1", position, 1000, updates, [ALICE] * len(updates), origin)


async def append(
    store: RedisStore, *entries: Entry
) -> list[tuple[Entry, CollabError | None]]:
    """In one call, until each is answered."""
    answers: list[tuple[Entry, CollabError | None]] = []
    everything = asyncio.Event()

    def done(answered: Sequence[Entry], error: CollabError | None) -> None:
        answers.extend((one, error) for one in answered)
        if len(answers) == len(entries):
            everything.set()

    store.append(entries, done)
    await asyncio.wait_for(everything.wait(), 30)
    return answers


async def errors(store: RedisStore, *entries: Entry) -> list[type | None]:
    return [error and type(error) for _, error in await append(store, *entries)]


async def until_logged(store: RedisStore, *entries: Entry) -> list[Entry]:
    """As the journal does it: the same entries again as long as the store cannot write."""
    async with asyncio.timeout(40):
        while True:
            answers = await append(store, *entries)
            if all(error is None for _, error in answers):
                return [one for one, _ in answers]
            assert {type(error) for _, error in answers} <= {
                StoreUnavailable,
                type(None),
            }
            await asyncio.sleep(0.05)


async def until(attempt: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(40):
        while True:
            try:
                if await attempt():
                    return
            except StoreUnavailable:
                pass
            await asyncio.sleep(0.05)


async def tail(store: RedisStore, room: str = "notes") -> list[tuple[int, bytes]]:
    return list((await store.load(room)).tail)


def key(cluster: str, what: str, room: str = "notes") -> str:
    return names.key_of(cluster, room, what)


# Several replicas


async def test_two_replicas_append_to_one_room_at_once(
    redis: Redis, cluster: str
) -> None:
    async with opened(redis, cluster) as one, opened(redis, cluster) as other:
        logged = await asyncio.gather(
            *(
                append(replica, entry(at, b"%s %d" % (name, at), origin=name.decode()))
                for at in range(1, 101)
                for replica, name in ((one, b"one"), (other, b"other"))
            )
        )

        found = await tail(one)
        assert found == await tail(other)
        assert [position for position, _ in found] == list(range(1, 201))
        said = {
            done.logged: done.updates[0] for answers in logged for done, _ in answers
        }
        assert said == dict(found)
        for name in (b"one", b"other"):
            own = [text for _, text in found if text.startswith(name + b" ")]
            assert own == [b"%s %d" % (name, at) for at in range(1, 101)]


async def test_replicas_that_open_a_new_room_agree_on_its_history(
    redis: Redis, cluster: str
) -> None:
    async with opened(redis, cluster) as one, opened(redis, cluster) as other:
        epochs = {(await each.load("notes")).next_epoch for each in (one, other)}
        (epoch,) = epochs
        first = entry(1, b"a")._replace(epoch=epoch)
        second = entry(1, b"b", origin="o2")._replace(epoch=epoch)

        assert await errors(one, first) == await errors(other, second) == [None]
        assert await tail(one) == [(1, b"a"), (2, b"b")]
        await one.delete("notes")
        assert (await other.load("notes")).next_epoch not in ("", epoch)


async def test_a_room_is_made_under_the_epoch_that_another_replica_has_open(
    redis: Redis, cluster: str
) -> None:
    async with opened(redis, cluster) as one, opened(redis, cluster) as other:
        epoch = (await one.load("notes")).next_epoch

        assert (await other.create("notes", {})).epoch == epoch


async def test_replicas_know_whether_they_share_a_store(
    redis: Redis, alone: Redis, cluster: str
) -> None:
    async with opened(redis, cluster) as one, opened(redis, cluster) as same:
        async with opened(alone, cluster) as other, opened(redis, "x") as another:
            names = [each.identity for each in (one, same, other, another)]

            assert names[0] == names[1]
            assert len(set(names)) == 3


async def test_origins_that_were_silent_longest_are_forgotten(
    redis: Redis, cluster: str
) -> None:
    async with opened(redis, cluster) as one:
        for number in range(3 * scripts.MAX_ORIGINS):
            await append(one, entry(1, b"x", origin=f"o{number}"))

        known = redis.do("HLEN", key(cluster, "e1:origins"))
        assert int(str(known)) <= scripts.MAX_ORIGINS
        last = entry(1, b"x", origin=f"o{3 * scripts.MAX_ORIGINS - 1}")
        assert (await append(one, last))[0][0].logged == 0


async def test_a_load_under_way_in_another_process_is_no_crash_and_one_of_a_dead_process_is(
    redis: Redis, cluster: str
) -> None:
    loading = key(cluster, "loading")
    async with opened(redis, cluster) as one, opened(redis, cluster) as other:
        await one.begin_load("notes")
        assert await other.begin_load("notes") == 0
        redis.do("HSET", loading, "4194999/abc/elsewhere", 1)  # never said it lives
        redis.do("HSET", loading, f"4194999/def/{PLACE}", 1)  # no such process here
        redis.do("SET", f"{cluster}:alive:4194999/def/{PLACE}", 1)

        assert await other.begin_load("notes") == 2
        await other.end_load("notes")

        assert await one.begin_load("notes") == 0


async def test_a_load_that_ended_while_redis_was_away_is_no_crash_later(
    alone: Redis,
) -> None:
    async with opened(alone) as one:
        await one.begin_load("notes")
        alone.stop()
        await one.end_load("notes")
        alone.cont()
        await until(lambda: told(one))

        assert alone.do("EXISTS", key("collab", "loading")) == 0


async def told(store: RedisStore) -> bool:
    await store._beat()
    return True


# What Redis does


async def test_connections_killed_between_appends_lose_and_double_nothing(
    alone: Redis,
) -> None:
    async with opened(alone) as ours:
        for at in range(1, 201):
            if at % 10 == 0:
                alone.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await until_logged(ours, entry(at, b"%d" % at))

        assert await tail(ours) == [(at, b"%d" % at) for at in range(1, 201)]


async def test_a_frozen_redis_is_given_up_in_time_and_what_it_does_late_is_not_doubled(
    alone: Redis,
) -> None:
    async with opened(alone) as ours:
        await append(ours, entry(1, b"a"))
        alone.stop()
        began = time.monotonic()
        failed = await errors(ours, entry(2, b"b", b"c"), entry(1, b"x", room="r"))
        took = time.monotonic() - began
        alone.cont()  # and it carries out what it was sent

        logged = await until_logged(
            ours, entry(2, b"b", b"c"), entry(1, b"x", room="r")
        )

        assert failed == [StoreUnavailable] * 2
        assert took < COMMAND_SECONDS + BUSY_SECONDS
        assert await tail(ours) == [(1, b"a"), (2, b"b"), (3, b"c")]
        assert [one.logged for one in logged] in ([0, 0], [3, 1])
        assert [info.name for info in await ours.rooms()] == ["notes", "r"]


async def test_what_is_queued_behind_a_failed_append_fails_with_it(
    alone: Redis,
) -> None:
    async with opened(alone) as ours:
        await append(ours, entry(1, b"a"))
        alone.kill()
        answers = asyncio.gather(
            errors(ours, entry(2, b"b")),
            errors(ours, entry(3, b"c")),
            *(ours.remember(f"k{n}", b"", b"") for n in range(2)),
            return_exceptions=True,
        )

        first, second, *jobs = await answers
        assert first == second == [StoreUnavailable]
        assert [type(job) for job in jobs] == [StoreUnavailable] * 2


async def test_full_memory_stops_appends_truthfully_and_heals(alone: Redis) -> None:
    async with opened(alone) as ours:
        await append(ours, entry(1, b"a"))
        alone.do("CONFIG", "SET", "maxmemory", 1)

        answers = await append(ours, entry(2, b"b"), entry(1, b"n", room="new"))
        read = await tail(ours)
        fresh = await ours.load("new")
        alone.do("CONFIG", "SET", "maxmemory", 0)
        await until_logged(ours, entry(2, b"b"), entry(1, b"n", room="new"))

        assert {type(error) for _, error in answers} == {StoreUnavailable}
        assert "memory" in str(answers[0][1])
        assert read == [(1, b"a")]
        assert (fresh.epoch, fresh.position) == ("", 0)
        assert await tail(ours) == [(1, b"a"), (2, b"b")]
        assert await tail(ours, "new") == [(1, b"n")]


async def test_a_replica_of_redis_takes_nothing_until_it_is_a_primary(
    alone: Redis,
) -> None:
    async with opened(alone) as ours:
        await append(ours, entry(1, b"a"))
        alone.do("REPLICAOF", "127.0.0.1", 1)

        failed = await errors(ours, entry(2, b"b"))
        read = await tail(ours)
        alone.do("REPLICAOF", "NO", "ONE")
        await until_logged(ours, entry(2, b"b"))

        assert failed == [StoreUnavailable]
        assert read == [(1, b"a")]
        assert await tail(ours) == [(1, b"a"), (2, b"b")]


async def test_too_few_followers_of_redis_stop_appends_until_they_are_there(
    alone: Redis,
) -> None:
    async with opened(alone) as ours:
        await append(ours, entry(1, b"a"))
        alone.do("CONFIG", "SET", "min-replicas-to-write", 1)

        ((_, error),) = await append(ours, entry(2, b"b"))
        alone.do("CONFIG", "SET", "min-replicas-to-write", 0)
        await until_logged(ours, entry(2, b"b"))

        assert isinstance(error, StoreUnavailable)
        assert "too few follow" in str(error)
        assert await tail(ours) == [(1, b"a"), (2, b"b")]


async def test_what_redis_was_made_to_write_at_once_survives_its_death() -> None:
    with Redis(aof="always") as server:
        async with opened(server) as ours:
            await until_logged(ours, entry(1, b"a", b"b"))
            fence = (await ours.load("notes")).fence
            assert await ours.checkpoint("notes", Checkpoint(1, b"A"), fence=fence)
            server.restart()

            await until_logged(ours, entry(2, b"b", b"c"))

            stored = await ours.load("notes")
            assert stored.checkpoint == Checkpoint(1, b"A")
            assert list(stored.tail) == [(2, b"b"), (3, b"c")]


async def test_a_room_that_was_lost_begins_again_with_what_comes_next(
    alone: Redis,
) -> None:
    async with opened(alone) as ours:
        await append(ours, entry(1, b"a", b"b", b"c"))
        identity = ours.identity
        old = (await ours.load("notes")).fence
        alone.flush()

        (again,) = await until_logged(ours, entry(4, b"d", b"e", b"f", b"g"))

        assert again.logged == 4
        assert [update for _, update in await tail(ours)] == [b"d", b"e", b"f", b"g"]
        assert not await ours.checkpoint("notes", Checkpoint(3, b"abc"), fence=old)
        await ours._beat()
        assert ours.identity == identity


async def test_an_empty_redis_that_comes_back_serves_again(alone: Redis) -> None:
    async with opened(alone) as ours:
        await append(ours, entry(1, b"a"))
        alone.restart(is_empty=True)

        await until_logged(ours, entry(2, b"b"))

        assert await tail(ours) == [(1, b"b")]


# What Redis must be like


async def test_a_redis_that_evicts_rooms_is_refused() -> None:
    with Redis(maxmemory="100mb", policy="allkeys-lru") as server:
        with pytest.raises(ConfigurationError, match="noeviction"):
            async with opened(server):
                pass


@pytest.mark.parametrize("policy", ["noeviction", "volatile-ttl"])
async def test_other_policies_are_accepted(alone: Redis, policy: str) -> None:
    alone.do("CONFIG", "SET", "maxmemory-policy", policy)

    async with opened(alone) as ours:
        assert ours.promise is not None
        assert ours.promise.policy == policy


async def test_a_policy_that_is_changed_later_stops_appends_until_it_is_right(
    alone: Redis,
) -> None:
    async with opened(alone) as ours:
        await append(ours, entry(1, b"a"))
        alone.do("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
        await ours._check()

        failed = await errors(ours, entry(2, b"b"))
        alone.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await ours._check()

        assert failed == [StoreUnavailable]
        assert await errors(ours, entry(2, b"b")) == [None]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"appendonly": "no"}, "nothing survives the end of Redis"),
        ({"appendfsync": "always"}, "survives a loss of power"),
        ({"appendfsync": "everysec"}, "in the last second"),
        ({"appendfsync": "no"}, "in the last half minute"),
        ({"min-replicas-to-write": "2"}, "only while 2 replicas"),
    ],
)
async def test_what_redis_promises_is_said(
    alone: Redis, settings: dict[str, str], said: str
) -> None:
    for name, value in {"appendonly": "yes", **settings}.items():
        alone.do("CONFIG", "SET", name, value)

    async with Client(endpoint(alone.url), unavailable=StoreUnavailable) as client:
        assert said in str(await look(client))


async def test_what_cannot_be_checked_is_said(alone: Redis, tmp_path: Path) -> None:
    alone.do("CONFIG", "SET", "appendonly", "yes")
    place = as_user(alone, tmp_path, "+@all", "-config")

    async with opened(place) as ours:
        assert "cannot be checked" in str(ours.promise)

    alone.do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(ConfigurationError, match="allkeys-lru"):
        async with opened(place):
            pass


async def test_a_wrong_password_is_a_mistake_in_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("wrong")

    with Redis(password="right") as server:
        with pytest.raises(ConfigurationError, match="password") as refused:
            async with opened(endpoint(server.url, password_file=file)):
                pass

    assert "wrong" not in str(refused.value)


async def test_a_user_who_may_not_do_all_of_it_is_told_which(
    alone: Redis, tmp_path: Path
) -> None:
    place = as_user(alone, tmp_path, "+@all", "-info")

    with pytest.raises(ConfigurationError, match="permission"):
        async with opened(place):
            pass


def as_user(server: Redis, directory: Path, *rules: str) -> Endpoint:
    """Somebody with these rights, and a password in a file."""
    server.do("ACL", "SETUSER", "ann", "reset", "on", ">between us", "~*", "&*", *rules)
    file = directory / "password"
    file.write_text("between us")
    return endpoint(f"redis://ann@127.0.0.1:{server.port}/0", password_file=file)


# What is in Redis


async def test_a_room_of_a_newer_version_is_left_as_it_is(
    redis: Redis, cluster: str
) -> None:
    async with opened(redis, cluster) as ours:
        await append(ours, entry(1, b"a"))
        fence = (await ours.load("notes")).fence
        redis.do("HSET", key(cluster, "room"), "format", 2)

        assert await errors(ours, entry(2, b"b")) == [RoomUnavailable]
        for attempt in (
            lambda: ours.load("notes"),
            lambda: ours.info("notes"),
            lambda: ours.delete("notes"),
            lambda: ours.describe("notes", {}),
            lambda: ours.checkpoint("notes", Checkpoint(1, b"a"), fence=fence),
        ):
            with pytest.raises(RoomUnavailable):
                await attempt()
        await ours.tidy()
        assert redis.do("XLEN", key(cluster, "e1:log")) == 1
        assert redis.do("HGET", key(cluster, "room"), "live") == "e1"


def damage(server: Redis, log: str, place: str) -> None:
    """Turn a bit at the end of an entry."""
    with Raw(port=server.port) as client:
        entries = client.xrange(log)
        client.delete(log)
        for id, fields in entries:
            if id == place.encode():
                fields[b"e"] = fields[b"e"][:-1] + bytes([fields[b"e"][-1] ^ 4])
            client.xadd(log, fields, id=id)


async def test_a_damaged_record_is_found_and_the_room_not_served_without_it(
    redis: Redis, cluster: str
) -> None:
    async with opened(redis, cluster) as ours:
        await append(ours, entry(1, b"a"), entry(1, b"x", room="other"))
        await append(ours, entry(2, b"b"))
        await append(ours, entry(3, b"c"))
        damage(redis, key(cluster, "e1:log"), "2-0")

        with pytest.raises(StoreCorrupt, match="position 2"):
            await ours.load("notes")
        rows = await ours.history("notes")

        assert [row.position for row in rows] == [1, 3]
        assert await tail(ours, "other") == [(1, b"x")]


async def test_a_damaged_record_that_a_checkpoint_covers_is_no_matter(
    redis: Redis, cluster: str
) -> None:
    async with opened(redis, cluster) as ours:
        for at, update in enumerate((b"a", b"b", b"c"), 1):
            await append(ours, entry(at, update))
        fence = (await ours.load("notes")).fence
        assert await ours.checkpoint("notes", Checkpoint(2, b"AB"), fence=fence)
        damage(redis, key(cluster, "e1:log"), "2-0")

        assert await tail(ours) == [(3, b"c")]


async def test_a_log_of_large_and_small_entries_comes_back_in_pages(
    redis: Redis, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "PAGE_BYTES", 2000)
    updates = [bytes([at % 256]) * (at * 101 % 3000) for at in range(1, 301)]
    async with opened(redis, cluster) as ours:
        for at, update in enumerate(updates, 1):
            ours.append([entry(at, update)], lambda *_: None)
        await append(ours, entry(301, b"last"))

        found = await tail(ours)

        assert [update for _, update in found] == [*updates, b"last"]
        assert len(await ours.history("notes", after=100, limit=50)) == 50


async def test_a_missing_record_is_found(redis: Redis, cluster: str) -> None:
    async with opened(redis, cluster) as ours:
        for at, update in enumerate((b"a", b"b", b"c"), 1):
            await append(ours, entry(at, update))
        for place in ("3-0", "1-0"):
            redis.do("XDEL", key(cluster, "e1:log"), place)

            with pytest.raises(StoreCorrupt, match="missing"):
                await ours.load("notes")


async def test_behind_a_damaged_checkpoint_stands_the_older_one(
    redis: Redis, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compacting, "PIECE_BYTES", 10)  # so that there are some
    async with opened(redis, cluster) as ours:
        await append(ours, entry(1, *[b"%d" % at for at in range(1, 9)]))
        for position in (4, 6):
            fence = (await ours.load("notes")).fence
            whole = Checkpoint(position, b"%d" % position * 45)
            assert await ours.checkpoint("notes", whole, fence=fence)
        assert (await ours.load("notes")).checkpoint == Checkpoint(6, b"6" * 45)
        redis.do("LSET", key(cluster, "e1:b"), 2, "6666x66666")

        stored = await ours.load("notes")

        assert stored.checkpoint == Checkpoint(4, b"4" * 45)
        assert [position for position, _ in stored.tail] == [5, 6, 7, 8]
        redis.do("DEL", key(cluster, "e1:a"), key(cluster, "e1:b"))
        assert [position for position, _ in await tail(ours)] == list(range(1, 9))


async def test_a_damaged_landmark_or_attribution_is_not_served(
    redis: Redis, cluster: str
) -> None:
    async with opened(redis, cluster) as ours:
        await append(ours, entry(1, *[b"x"] * 9))
        for position in (2, 4, 6):
            fence = (await ours.load("notes")).fence
            whole = Checkpoint(position, b"%d" % position)
            assert await ours.checkpoint("notes", whole, fence=fence)
        await ours.attribute("notes", Attributed(6, b"who"), fence=fence)
        redis.do("LSET", key(cluster, "e1:at-2"), 0, "3")
        redis.do("LSET", key(cluster, "e1:attribution"), 0, "whom")

        assert await ours.checkpoint_before("notes", 3) is None
        assert await ours.attribution("notes") is None
        assert ours.damaged_records == 1
        assert await ours.attribute("notes", Attributed(5, b"who"), fence=fence)
        assert await ours.attribution("notes") == Attributed(5, b"who")


async def test_what_a_purge_by_the_version_before_leaves_is_removed(
    redis: Redis, cluster: str
) -> None:
    """It knows of two checkpoints, and of no attribution."""
    async with opened(redis, cluster) as ours:
        await append(ours, entry(1, *[b"x"] * 9))
        for position in (2, 4, 6):
            fence = (await ours.load("notes")).fence
            whole = Checkpoint(position, b"%d" % position)
            await ours.checkpoint("notes", whole, fence=fence)
        await ours.attribute("notes", Attributed(6, b"who"), fence=fence)
        await ours.delete("notes")
        known = ("log", "origins", "owners", "a", "b")
        redis.do("DEL", *(key(cluster, f"e1:{name}") for name in known))
        fields = "created changed position bytes metadata history fence new old rejected purge"
        names = [f"{field}:e1" for field in fields.split()]
        redis.do("HDEL", key(cluster, "room"), *names)
        left = redis.do("KEYS", key(cluster, "e1:*"))

        await ours.tidy()

        assert isinstance(left, list)
        assert len(left) == 2
        assert redis.do("KEYS", key(cluster, "e1:*")) == []
        fields_left = redis.do("HKEYS", key(cluster, "room"))
        assert fields_left == ["format", "deletions", "deleted:e1"]


async def test_a_foreign_key_in_the_place_of_a_room_is_that_rooms_trouble_alone(
    redis: Redis, cluster: str
) -> None:
    async with opened(redis, cluster) as ours:
        for room in ("list", "log", "ahead"):
            await append(ours, entry(1, b"a", room=room))
        redis.do("DEL", key(cluster, "room", "list"), key(cluster, "e1:log", "log"))
        redis.do("LPUSH", key(cluster, "room", "list"), "x")
        redis.do("SET", key(cluster, "e1:log", "log"), "x")
        redis.do("XADD", key(cluster, "e1:log", "ahead"), "7-7", "junk", "x")

        found = await errors(
            ours,
            *(entry(2, b"b", room=room) for room in ("list", "log", "ahead")),
            entry(1, b"ok", room="fine"),
        )

        assert sorted(map(str, found)) == sorted(map(str, [StoreCorrupt] * 3 + [None]))
        assert await tail(ours, "fine") == [(1, b"ok")]
        for room in ("list", "ahead"):
            with pytest.raises(StoreCorrupt):
                await ours.load(room)


async def test_junk_in_the_fields_of_a_room_is_that_rooms_trouble_alone(
    redis: Redis, cluster: str
) -> None:
    junk = {
        "format": "x",
        "live": b"\xff",
        "position:e1": "9" * 99,
        "deleted:e0": "x",
        "fence:e1": "-",
        b"\xff": "x",
    }
    async with opened(redis, cluster) as ours:
        for number, (field, value) in enumerate(junk.items()):
            await append(ours, entry(1, b"a", room=f"r{number}"))
            redis.do("HSET", key(cluster, "room", f"r{number}"), field, value)  # type: ignore[arg-type]
        await append(ours, entry(1, b"a", room="fine"))

        for number in range(len(junk)):
            with pytest.raises(StoreCorrupt):
                await ours.load(f"r{number}")
        await ours.tidy()
        assert [info.name for info in await ours.rooms()] == ["fine"]


async def test_foreign_keys_in_the_place_of_what_all_rooms_share_stop_no_room(
    alone: Redis,
) -> None:
    async with opened(alone) as ours:
        for name in ("rooms", "deleted", "identity", "{answers-0}:kept"):
            alone.do("DEL", f"collab:{name}")
            alone.do("LPUSH", f"collab:{name}", "junk")
        alone.do("LPUSH", key("collab", "loading"), "junk")

        assert await errors(ours, entry(1, b"a")) == [None]
        assert await tail(ours) == [(1, b"a")]
        for attempt in (ours._beat(), ours.rooms(), ours.begin_load("notes")):
            with pytest.raises(StoreCorrupt):
                await attempt
        assert await ours.ends(["notes", "other"]) == {"notes": 1}


async def test_a_log_whose_room_is_gone_is_not_written_over(
    redis: Redis, cluster: str
) -> None:
    async with opened(redis, cluster) as ours:
        await append(ours, entry(1, b"a"))
        redis.do("DEL", key(cluster, "room"))

        assert await errors(ours, entry(2, b"b")) == [StoreCorrupt]
        assert redis.do("XLEN", key(cluster, "e1:log")) == 1


async def test_a_listing_that_has_lost_rooms_is_repaired_from_their_own_keys(
    redis: Redis, cluster: str
) -> None:
    rooms = ["a", "b\x1fé/{}", "c:"]
    async with opened(redis, cluster) as ours:
        for room in rooms:
            await append(ours, entry(1, b"a", room=room))
        await append(ours, entry(1, b"a", room="gone"))
        await ours.delete("gone")
        redis.do("DEL", f"{cluster}:rooms", f"{cluster}:deleted")
        redis.do("ZADD", f"{cluster}:rooms", 0, "gone", 0, "never")
        redis.do("HSET", f"{cluster}:{{junk}}:room", "live", "e1")

        before = [info.name for info in await ours.rooms()]
        await ours.tidy()

        assert before == []
        assert [info.name for info in await ours.rooms()] == sorted(rooms)
        assert [info.name for info in await ours.rooms(deleted=True)] == ["gone"]


async def test_only_what_may_go_has_an_end(alone: Redis) -> None:
    async with opened(alone) as ours:
        await ours.load("new")
        await ours.bind("notes", {7: "alice"})
        await append(ours, entry(1, b"a", b"b"))
        fence = (await ours.load("notes")).fence
        await ours.checkpoint("notes", Checkpoint(2, b"ab"), fence=fence)
        await ours.remember("key", b"digest", b"answer")
        await append(ours, entry(1, b"a", room="gone"))
        await ours.delete("gone")

        ends = {name: int(str(alone.do("TTL", name))) for name in keys(alone)}

        assert {name for name, seconds in ends.items() if seconds >= 0} == {
            name for name in ends if name.startswith("collab:alive:")
        }


def keys(server: Redis) -> list[str]:
    found = server.do("KEYS", "*")
    assert isinstance(found, list)
    return found


async def test_of_a_purged_room_only_the_tombstone_stays(alone: Redis) -> None:
    async with opened(alone) as ours:
        await ours.bind("notes", {7: "alice"})
        await append(ours, entry(1, *[b"x"] * 9))
        for position in (4, 6, 8):
            fence = (await ours.load("notes")).fence
            await ours.checkpoint("notes", Checkpoint(position, b"s"), fence=fence)
        await ours.reject("notes", 9, "kills")

        await ours.delete("notes", purge=True)

        assert [name for name in keys(alone) if "{" in name] == [key("collab", "room")]
        left = alone.do("HKEYS", key("collab", "room"))
        assert isinstance(left, list)
        assert sorted(left) == ["deleted:e1", "deletions", "format"]
        assert await errors(ours, entry(2, b"y")) == [RoomNotFound]


async def test_answers_are_bounded_in_bytes_too(
    redis: Redis, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "BUCKETS", 1)
    monkeypatch.setattr(answers, "MAX_ANSWERS_BYTES", 3000)
    async with opened(redis, cluster) as ours:
        for number in range(5):
            await ours.remember(f"k{number}", b"d", bytes(900))

        kept = [await ours.recall(f"k{number}") for number in range(5)]

        assert kept == [None, None, *[Remembered(b"d", bytes(900))] * 3]
        assert redis.do("GET", f"{cluster}:{{answers-0}}:bytes") == str(3 * 915)


# Work for Redis


async def test_a_turn_of_many_rooms_is_one_round_trip_a_room_one_command(
    alone: Redis,
) -> None:
    def calls() -> int:
        found = re.search(r"cmdstat_evalsha:calls=(\d+)", stats(alone))
        return int(found[1]) if found else 0

    async with opened(alone) as ours:
        turn = [entry(1, b"x", room=f"r{n}") for n in range(100)]
        await append(ours, *turn)
        before = calls()
        more = [entry(2, b"x", room=f"r{n}") for n in range(100)] + [
            entry(3, b"y", room=f"r{n}") for n in range(100)
        ]

        await append(ours, *more)

        assert calls() - before == 100


def stats(server: Redis) -> str:
    with server.client() as client:
        found = client.info("commandstats")
    return "\n".join(f"{name}:calls={each['calls']}" for name, each in found.items())


# Behind Sentinel, and a Cluster


async def test_behind_sentinels_rooms_move_with_the_primary() -> None:
    with Sentinels() as group:
        async with opened(endpoint(group.url)) as ours:
            await append(ours, entry(1, b"a"))
            group.primary.do("WAIT", 1, 5000)
            first = group.primary
            first.kill()
            assert await asyncio.to_thread(wait_for, lambda: group.primary is not first)

            await until_logged(ours, entry(2, b"b"))

            assert await tail(ours) == [(1, b"a"), (2, b"b")]


async def test_a_cluster_that_loses_a_primary_keeps_all_rooms() -> None:
    rooms = [f"room-{number}" for number in range(60)]
    with Cluster(has_followers=True) as nodes:
        async with opened(endpoint(nodes.url)) as ours:
            await until_logged(ours, *(entry(1, b"a", room=room) for room in rooms))
            for node in nodes.nodes[:3]:
                node.do("WAIT", 1, 5000)
            nodes.nodes[0].kill()

            for room in rooms:
                await until_logged(ours, entry(2, b"b", room=room))

            for room in rooms:
                assert await tail(ours, room) == [(1, b"a"), (2, b"b")]

            async def lists_all() -> bool:
                return [info.name for info in await ours.rooms()] == sorted(rooms)

            await until(lists_all)
