"""Redis restarts, is emptied, fails over, freezes, is full, or out of reach: F5 to F11."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

import cable
from cluster import Replica
from ledger import ADD
from scenario import ROOM, Scenario, Stage, Store
from services import Cluster, Postgres, Redis, Sentinels

from collab.bus.keys import names

POOLED = (
    30  # connections kept to nodes of a Cluster that once were needed at the same time
)


async def together(
    stage: Stage, store: Store, *flags: str, count: int = 0, proxied: bool = False
) -> tuple[Redis, Postgres | None, list[Replica]]:
    """Replicas on one Redis, which is the store too unless there is a Postgres; two typists at each."""
    # It answers at the end of the cable too, if there is one.
    near = ("--bind", f"127.0.0.1 {stage.cable.near}") if stage.cable else ()
    redis = await stage.open(
        Redis(
            aof="always" if store == "redis" else "",
            options=(*near, *(("--protected-mode", "no") if near else ())),
        )
    )
    stage.redis = redis
    postgres = await stage.open(Postgres()) if store == "postgres" else None
    replicas = await stage.open_replicas(
        count or stage.size(2, 3),
        *flags,
        redis=redis,
        postgres=postgres,
        proxied="redis" if proxied else "",
    )
    stage.type(2 * len(replicas), at=replicas)
    await stage.everybody()
    await stage.edits(stage.chance.randint(30, 100))
    stage.note_keys()
    return redis, postgres, replicas


async def go_on(stage: Stage) -> None:
    """What is wanted of every healed system."""
    stage.healed()
    await stage.everybody()
    await stage.edits(30)


async def restarted(stage: Stage, *, store: Store, is_empty: bool) -> None:
    """SIGKILL, a while without, and back with or without what it had."""
    redis, _, _ = await together(stage, store)
    for _ in range(stage.size(1, 4)):
        if not is_empty or store == "postgres":
            await stage.part(stage.typists[-1:])
        stage.fault("SIGKILL of Redis")
        await asyncio.to_thread(redis.kill)
        await asyncio.sleep(stage.size(1, 4) * stage.chance.random())
        await asyncio.to_thread(redis.restart, is_empty=is_empty)
        await go_on(stage)
        stage.type(1)
    await stage.edits(20)


async def flushed(stage: Stage, *, store: Store) -> None:
    redis, _, _ = await together(stage, store)
    for _ in range(stage.size(2, 6)):
        if store == "postgres":
            await stage.part(stage.typists[-1:])
            stage.type(1)
        stage.fault("FLUSHALL")
        await asyncio.to_thread(redis.flush)
        await go_on(stage)
    if store == "redis":
        stage.may_lose = "Redis was the store, and its author had gone"


async def failed_over(stage: Stage, *, store: Store) -> None:
    """The primary is killed and the sentinels promote its follower."""
    group = await stage.open(Sentinels())
    postgres = await stage.open(Postgres()) if store == "postgres" else None
    replicas = await stage.open_replicas(2, redis=group, postgres=postgres)
    stage.type(4, at=replicas)
    await stage.everybody()
    await stage.edits(60)

    first = group.primary
    (follower,) = (one for one in group.nodes if one is not first)
    await _lose_a_primary(stage, first, follower)
    await stage.until(lambda: group.primary is not first, "the follower takes over")
    await go_on(stage)


async def cluster_loses_a_primary(stage: Stage, *, store: Store) -> None:
    """Of a Redis Cluster, that of the room; its follower takes over."""
    stage.slack_files = POOLED
    cluster = await stage.open(Cluster(has_followers=True))
    postgres = await stage.open(Postgres()) if store == "postgres" else None
    replicas = await stage.open_replicas(2, redis=cluster, postgres=postgres)
    stage.type(stage.size(8, 50), at=replicas, per_second=stage.size(20, 1))
    await stage.everybody()
    await stage.edits(60)

    slot = names("collab", 0, ROOM).slot
    first = cluster.home(slot)
    await _lose_a_primary(stage, first, cluster.follower(first))
    await stage.until(
        lambda: cluster.home(slot) is not first, "its follower takes over"
    )
    await go_on(stage)


async def _lose_a_primary(stage: Stage, primary: Redis, follower: Redis) -> None:
    """Its follower lacks what was saved last, and one who typed that is gone too.

    A Redis that is the store has then lost what it had called saved. The documents of the replicas still have it, and
    offer it again: it would be gone only if they had died as well.
    """
    stage.fault("the follower falls behind")
    follower.stop()
    await asyncio.to_thread(primary.do, "CLIENT", "KILL", "TYPE", "replica")
    await stage.edits(20)
    await stage.part(stage.typists[-1:])
    stage.fault("SIGKILL of the primary")
    await asyncio.to_thread(primary.kill)
    follower.cont()


async def parted(stage: Stage, *, store: Store, ways: str) -> None:
    """One replica cannot reach Redis; the others can."""
    await together(stage, store, proxied=True)
    proxy = stage.proxies[0]
    stage.fault(f"partition {ways}")
    proxy.up.is_held = "up" in ways
    proxy.down.is_held = "down" in ways
    await asyncio.sleep(stage.size(4, 15))
    here = [one for one in stage.typists if one.is_connected]
    stage.result.notes["typists connected during the partition"] = len(here)
    proxy.heal()
    stage.bury(stage.typists[-1:])
    await go_on(stage)


async def unplugged(stage: Stage, *, store: Store) -> None:
    """The cable to Redis is pulled: what is on its way is lost, and nobody is told."""
    cable = await stage.open_cable()
    _, _, replicas = await together(stage, store, proxied=True)

    async def all_reach_it() -> bool:
        return not any([await replica.troubles() for replica in replicas])

    stage.fault("cable pulled")
    cable.pull()
    await asyncio.sleep(stage.size(4, 15))
    cable.plug()
    await stage.within(all_reach_it, "the replicas reach Redis again", seconds=60)
    stage.bury(stage.typists[-1:])
    await go_on(stage)


async def frozen(stage: Stage, *, store: Store) -> None:
    """SIGSTOP: it takes connections and answers nothing. No process may wait for it in its event loop."""
    redis, _, replicas = await together(stage, store)
    stage.fault("SIGSTOP")
    redis.stop()
    worst = 0.0
    end = asyncio.get_running_loop().time() + stage.size(5, 30)
    while asyncio.get_running_loop().time() < end:
        for replica in replicas:
            began = asyncio.get_running_loop().time()
            status, _ = await replica.get("/healthz")
            worst = max(worst, asyncio.get_running_loop().time() - began)
            stage.expect(status == 200, "it lives")
        await asyncio.sleep(0.1)
    troubles = await replicas[0].troubles()
    stage.expect(bool(troubles), "it says that it misses Redis")
    redis.cont()
    stage.result.notes["slowest /healthz"] = f"{worst * 1000:.0f} ms"
    stage.expect(worst < 0.5, f"the loop is not held up: {worst:.2f} s")
    await go_on(stage)


async def slow(stage: Stage, *, store: Store) -> None:
    """200 ms each way."""
    await together(stage, store, proxied=True)
    stage.fault("latency")
    for proxy in stage.proxies:
        proxy.up.latency_seconds = proxy.down.latency_seconds = 0.1
        proxy.down.jitter_seconds = 0.1
        proxy.up.slice_bytes = 700
    await stage.edits(60)
    await asyncio.sleep(stage.size(1, 10))
    for proxy in stage.proxies:
        proxy.heal()
    await go_on(stage)


async def full(stage: Stage, *, store: Store) -> None:
    """No memory for what is written; PUBLISH alone would still work."""
    redis, _, _ = await together(stage, store)
    stage.fault("maxmemory")
    await asyncio.to_thread(redis.do, "CONFIG", "SET", "maxmemory", "1")
    await asyncio.sleep(0.5)
    if store == "redis":
        saved, since = len(stage.ledger.saved), time.monotonic()
        await asyncio.sleep(1)
        stage.expect(
            len(stage.ledger.saved) - saved == 0, "nothing is saved at full memory"
        )
        await _nothing_unlogged_crosses(stage, since)
    else:
        await stage.edits(30)
    await asyncio.to_thread(redis.do, "CONFIG", "SET", "maxmemory", "0")
    await go_on(stage)


async def _nothing_unlogged_crosses(stage: Stage, since: float) -> None:
    """No typist holds what was typed at another replica since then. Of what came before, an answer may still be on its way."""
    unsaved = {
        each.token
        for each, at in stage.ledger.sent.items()
        if at > since and each.kind == ADD
    }
    for number, typist in enumerate(stage.typists):
        far = {
            one.name
            for other, one in enumerate(stage.typists)
            if other % len(stage.replicas) != number % len(stage.replicas)
        }
        seen = {
            token
            for token in typist.view().tokens
            if token in unsaved and token.split("-")[0] in far
        }
        stage.expect(not seen, f"{typist.name} sees what is not logged: {seen}")


async def evicting(stage: Stage) -> None:
    """A policy that throws keys away: refused at the start, and nothing is called saved when it is set later."""
    redis = await stage.open(Redis(aof="always", policy="allkeys-lru"))
    (replica,) = await stage.open_replicas(1, redis=redis, is_started=False)
    code = await replica.start(is_expected=False)
    stage.expect(code not in (None, 0), f"it refuses to start: {code}")
    stage.expect("allkeys-lru" in replica.log, "and names the policy")
    await asyncio.to_thread(redis.do, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    await replica.start()
    stage.note_size(replica)
    stage.type(3)
    await stage.everybody()
    await stage.edits(50)

    if not stage.is_long:
        return
    stage.fault("allkeys-lru")
    await asyncio.to_thread(
        redis.do, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru"
    )

    async def says_so() -> bool:
        return "allkeys-lru" in str(await replica.troubles())

    try:
        await stage.within(says_so, "readiness names the policy", seconds=60)
    finally:
        policy = ("maxmemory-policy", "noeviction")
        await asyncio.to_thread(redis.do, "CONFIG", "SET", *policy)
    await go_on(stage)


STORES: tuple[Store, ...] = ("postgres", "redis")


def each(name: str, fault: str, play: Callable[..., Awaitable[None]]) -> list[Scenario]:
    """With Redis as the bus alone, and as the store too."""
    return [
        Scenario(f"{name}/{store}", fault, partial(play, store=store))
        for store in STORES
    ]


ROWS = (
    *each(
        "F5",
        "SIGKILL of Redis; it comes back with its file",
        partial(restarted, is_empty=False),
    )[1:],
    *each(
        "F6 restart",
        "SIGKILL of Redis; it comes back empty",
        partial(restarted, is_empty=True),
    ),
    *each("F6 flush", "FLUSHALL", flushed),
    *each("F7 Sentinel", "SIGKILL of the primary behind Sentinel", failed_over),
    *each(
        "F7 Cluster", "SIGKILL of a primary of a Redis Cluster", cluster_loses_a_primary
    ),
    *each(
        "F8 both ways",
        "one replica is parted from Redis",
        partial(parted, ways="up down"),
    ),
    *each(
        "F8 answers", "one replica hears nothing of Redis", partial(parted, ways="down")
    ),
    *each(
        "F8 questions", "one replica is not heard by Redis", partial(parted, ways="up")
    ),
    *(
        each(
            "F8 cable", "the cable between the replicas and Redis is pulled", unplugged
        )
        if cable.is_available()
        else ()
    ),
    *each("F9 frozen", "SIGSTOP of Redis", frozen),
    *each("F9 slow", "200 ms between the replicas and Redis", slow),
    *each("F10", "Redis has no memory left", full),
    Scenario("F11/redis", "a policy that evicts rooms", evicting),
)
