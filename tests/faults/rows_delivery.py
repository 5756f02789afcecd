"""What Redis pushes is lost, repeated, exchanged or gone from the stream, and connections are cut: F12 to F15."""

from __future__ import annotations

import asyncio
import random
from functools import partial

from ledger import disordered
from resp import Tamper
from rows_redis import each, go_on, together
from scenario import ROOM, Stage, Store
from services import Redis

from collab.bus.keys import names
from collab.protocol.envelope import Updates, decode


async def tampered(stage: Stage, *, store: Store, kind: str, share: float) -> None:
    """Some of the messages on their way to each replica are dropped, come twice, or behind the next one."""
    await together(stage, store, proxied=True)
    tampers: list[Tamper] = []

    def tamper() -> Tamper:
        one = Tamper(kind, share, random.Random(stage.chance.random()))
        tampers.append(one)
        return one

    stage.fault(kind)
    for proxy in stage.proxies:
        proxy.down.rewrite = tamper
        proxy.reset()
    await stage.edits(stage.size(150, 1000))
    if stage.is_long:  # that it has gone is a message too, and may take its time
        stage.bury(stage.typists[-1:])
    for proxy in stage.proxies:
        proxy.heal()
        proxy.reset()
    done = sum(one.done for one in tampers)
    stage.result.notes["messages tampered with"] = done
    stage.expect(done > 0, "some messages were tampered with")
    await go_on(stage)


async def killed_connections(stage: Stage, *, store: Store) -> None:
    """CLIENT KILL of all connections, or of those that listen, again and again; and buffers too small to listen with."""
    redis, _, _ = await together(stage, store)
    stage.fault("CLIENT KILL")
    for _ in range(stage.size(6, 30)):
        kind = stage.chance.choice(("pubsub", "normal"))
        await asyncio.to_thread(redis.do, "CLIENT", "KILL", "TYPE", kind)
        await stage.edits(stage.chance.randint(5, 20))
    limit = "client-output-buffer-limit"
    await asyncio.to_thread(redis.do, "CONFIG", "SET", limit, "pubsub 200 200 0")
    await asyncio.sleep(stage.size(1, 5))
    await asyncio.to_thread(redis.do, "CONFIG", "SET", limit, "pubsub 32mb 8mb 60")
    stage.bury(stage.typists[-1:])
    await go_on(stage)


async def trimmed(stage: Stage, *, store: Store) -> None:
    """The stream is emptied while one replica is parted from Redis."""
    redis, _, replicas = await together(stage, store, proxied=True)
    stage.fault("partition and XTRIM")
    stage.proxies[0].hold()
    here = [one for number, one in enumerate(stage.typists) if number % len(replicas)]
    before = len(stage.ledger.saved)
    await stage.until(lambda: len(stage.ledger.saved) > before + 40, "others type on")
    stream = names("collab", 0, ROOM).stream
    trimmed = await asyncio.to_thread(redis.do, "XTRIM", stream, "MAXLEN", 0)
    stage.expect(int(str(trimmed)) > 0, "there was something to trim")
    stage.bury(here[-1:])
    stage.proxies[0].heal()
    await go_on(stage)


async def in_order(stage: Stage, *, store: Store) -> None:
    """No fault: what each replica has published of a room is in the stream in the order in which it was logged."""
    redis, _, _ = await together(stage, store)
    await stage.edits(stage.size(200, 2000))
    entries = await asyncio.to_thread(published, redis)
    stage.expect(len(entries) > 20, "there are entries in the stream")
    stage.result.violations += disordered(entries)
    stage.result.notes["entries in the stream"] = len(entries)
    stage.healed()


def published(redis: Redis) -> list[tuple[str, int]]:
    """Sender and its own number of each entry that the stream of the room holds."""
    stream = names("collab", 0, ROOM).stream
    with redis.client(is_decoded=False) as client:
        found = client.execute_command("XRANGE", stream, "-", "+")
    entries = []
    for _, fields in found:
        body = fields[b"b"] if isinstance(fields, dict) else fields[1]
        message = decode(bytes(body), ROOM, None)
        if isinstance(message, Updates):
            entries.append((message.sender, message.sequence))
    return entries


ROWS = (
    *each(
        "F12 killed",
        "CLIENT KILL, and buffers too small to listen with",
        killed_connections,
    ),
    *each(
        "F12 lost",
        "a third of the pushed messages are lost",
        partial(tampered, kind="drop", share=0.3),
    )[:1],
    *each(
        "F13",
        "messages come twice, with those before them",
        partial(tampered, kind="repeat", share=0.3),
    )[:1],
    *each(
        "F14",
        "messages come behind the next one",
        partial(tampered, kind="exchange", share=0.3),
    )[:1],
    *each("F14 order", "none: the order in the stream", in_order)[:1],
    *each("F15", "the stream is emptied under a replica that is parted", trimmed),
)
