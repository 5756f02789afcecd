"""Postgres stops, freezes, and loses answers to commits; rooms are deleted while somebody types: F21, F39."""

from __future__ import annotations

import asyncio

from fresh import look
from ledger import Ledger
from rows_redis import go_on, together
from scenario import ROOM, Scenario, Stage
from services import Postgres, Redis


async def stopped(stage: Stage) -> None:
    """`stop -m immediate`, a while without, and back."""
    _, postgres, _ = await together(stage, "postgres")
    assert postgres is not None
    for _ in range(stage.size(1, 4)):
        stage.bury(stage.typists[-1:])
        stage.fault("stop -m immediate")
        await asyncio.to_thread(postgres.stop_immediately)
        await asyncio.sleep(stage.size(1, 8) * stage.chance.random() + 0.3)
        await asyncio.to_thread(postgres.start)
        await go_on(stage)
        stage.type(1)
    await stage.edits(20)


async def frozen(stage: Stage) -> None:
    """SIGSTOP of all its processes."""
    _, postgres, replicas = await together(stage, "postgres")
    assert postgres is not None
    stage.fault("SIGSTOP")
    postgres.stop()
    await asyncio.sleep(stage.size(3, 20))
    status, _ = await replicas[0].get("/healthz")
    stage.expect(status == 200, "it lives")
    postgres.cont()
    await go_on(stage)


async def ambiguous(stage: Stage) -> None:
    """What is appended arrives and its answer does not: it may not be lost, nor be there twice."""
    redis = await stage.open(Redis())
    postgres = await stage.open(Postgres())
    await stage.open_replicas(
        stage.size(2, 3), redis=redis, postgres=postgres, proxied="postgres"
    )
    stage.type(2 * len(stage.replicas), at=stage.replicas)
    await stage.everybody()
    await stage.edits(30)
    for number in range(stage.size(4, 20)):
        proxy = stage.proxies[number % len(stage.proxies)]
        before = proxy.cut
        stage.fault("cut after the append")
        proxy.cut_after(b"<w")  # a token on its way
        await stage.until(lambda p=proxy, b=before: p.cut > b, "a commit is cut")
        proxy.heal()
        await stage.edits(20)
    stage.bury(stage.typists[-1:])
    stage.result.notes["commits without an answer"] = sum(
        proxy.cut for proxy in stage.proxies
    )
    await go_on(stage)


async def deleted(stage: Stage, *, count: int) -> None:
    """A room is deleted while many type: it stays deleted, and what is made anew under its name is empty."""
    if count > 1:
        await together(stage, "postgres", count=count)
    else:
        await stage.open_replicas(1)
        stage.type(3)
        await stage.everybody()
        await stage.edits(40)
    first, last = stage.replicas[0], stage.replicas[-1]
    old = list(stage.typists)

    stage.fault("DELETE")
    status, body = await first.get(f"/v1/rooms/{ROOM}", method="DELETE")
    stage.expect(status in (200, 204), f"it is deleted: {status} {body[:200]}")
    await stage.until(lambda: all(one.is_barred for one in old), "all are told")
    stage.expect(all(4404 in one.closes for one in old), "each was closed with 4404")
    (late,) = stage.type(1, at=[last])
    await stage.until(lambda: late.is_barred, "whoever comes late is told too")
    stage.bury([*old, late])
    await asyncio.sleep(0.3)
    status, body = await last.get("/v1/rooms", method="POST", body={"name": ROOM})
    stage.expect(status in (200, 201), f"it is made anew: {status} {body[:200]}")
    seen = await look(last.address, ROOM)
    stage.expect(not seen.tokens, "and is empty")

    stage.result.acked += len(stage.ledger.saved)
    stage.start_over(Ledger(stage.directory / "anew.jsonl"))
    stage.type(3)
    await go_on(stage)


async def deleted_alone(stage: Stage) -> None:
    await deleted(stage, count=1)


async def deleted_on_many(stage: Stage) -> None:
    await deleted(stage, count=2)


ROWS = (
    Scenario("F21 stopped/postgres", "Postgres: stop -m immediate", stopped),
    Scenario("F21 frozen/postgres", "Postgres: SIGSTOP", frozen),
    Scenario("F21 answers/postgres", "the answers to commits are lost", ambiguous),
    Scenario("F39/single", "a room is deleted while it is typed in", deleted_alone),
    Scenario("F39/postgres", "the same, on another replica", deleted_on_many),
)
