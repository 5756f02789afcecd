"""Servers that die, drain, start again and differ: F1 to F4, F23."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fresh import look
from rows_redis import each, go_on, together
from scenario import ROOM, Scenario, Stage, Store

FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


async def killed_alone(stage: Stage) -> None:
    """One process, SQLite: half of its clients die with it."""
    (replica,) = await stage.open_replicas(1)
    for _ in range(stage.size(2, 12)):
        mortal = stage.type(2)
        stage.type(max(0, 3 - len(stage.typists) + len(mortal)))
        await stage.everybody()
        await stage.edits(stage.chance.randint(20, 150))
        await asyncio.sleep(stage.chance.random() * 0.02)

        stage.fault("SIGKILL")
        stage.bury(mortal)
        await replica.kill()
        await replica.start()
        stage.healed()

        await stage.everybody()
    stage.type(1)
    await stage.edits(20)


async def drained_alone(stage: Stage) -> None:
    """One process, many clients that type: each is told, has its answers, and comes back.

    More than this and the typists are behind with reading: then they type on when they have been told already.
    """
    (replica,) = await stage.open_replicas(1)
    typists = stage.type(stage.size(20, 60), per_second=stage.size(4, 1))
    await stage.everybody()
    await stage.edits(100)

    stage.fault("SIGTERM")
    code = await replica.drain()
    await replica.start()
    stage.healed()

    stage.expect(code == 0, f"the exit code is 0, not {code}")
    await stage.everybody()
    told = [one for one in typists if one.unsaved_at_drain]
    unsaved = sum(one.unsaved_at_drain[0] for one in told)
    stage.expect(len(told) == len(typists), f"{len(told)} of {len(typists)} were told")
    stage.expect(unsaved == 0, f"no edit without an answer at the end, not {unsaved}")
    stage.expect(
        all(1012 in one.closes for one in typists), "each was closed with 1012"
    )
    await stage.edits(50)


async def killed_among_others(stage: Stage, *, store: Store) -> None:
    """One of several; its clients go to the others, but for some that die with it."""
    _, _, replicas = await together(stage, store)
    for number in range(stage.size(2, 10)):
        victim = replicas[number % len(replicas)]
        mortal = stage.type(2, at=[victim])
        roaming = stage.type(1, per_second=10)
        await stage.everybody()
        await stage.edits(stage.chance.randint(20, 100))
        await asyncio.sleep(stage.chance.random() * 0.02)

        stage.fault("SIGKILL")
        stage.bury(mortal)
        await victim.kill()
        await stage.until(
            lambda one=roaming[0]: one.is_connected, "another replica takes over"
        )
        await victim.start()
        await go_on(stage)
    away = max(s for one in stage.typists for s in [0.0, *one.away_seconds[1:]])
    stage.result.notes["longest away"] = round(away, 2)


async def drained_among_others(stage: Stage, *, store: Store) -> None:
    """One of several goes down in order; everybody who was there has an answer to all, and types on elsewhere."""
    _, _, replicas = await together(stage, store)
    for typist in stage.typists:
        typist.per_second = 10
    leaving = stage.type(stage.size(6, 40), per_second=stage.size(8, 1))
    await stage.everybody()
    await stage.edits(60)
    stage.fault("SIGTERM")
    code = await replicas[0].drain()
    stage.expect(code == 0, f"the exit code is 0, not {code}")
    unsaved = sum(sum(one.unsaved_at_drain) for one in [*leaving, *stage.typists])
    stage.expect(unsaved == 0, f"no edit without an answer at the end, not {unsaved}")
    stage.typists[0].places = stage.typists[-1].places
    await replicas[0].start()
    await go_on(stage)


async def rolled(stage: Stage, *, store: Store) -> None:
    """Three replicas restart in turn while clients type: nobody is away for more than five seconds."""
    _, _, replicas = await together(stage, store, count=3)
    roaming = stage.type(stage.size(6, 50), per_second=stage.size(10, 1))
    await stage.dismiss(stage.typists[:6])
    await stage.everybody()
    await stage.edits(40)
    for replica in replicas:
        stage.fault("SIGTERM")
        code = await replica.drain()
        stage.expect(code == 0, f"the exit code is 0, not {code}")
        await replica.start()
        await stage.edits(20)
    await go_on(stage)
    away = max(s for one in roaming for s in [0.0, *one.away_seconds[1:]])
    stage.expect(away < 5, f"nobody is away for more than 5 s: {away:.1f}")


async def mixed(stage: Stage, *, store: Store) -> None:
    """A replica of a newer release, which says more than the old one understands."""
    _, postgres, _ = await together(stage, store)
    newer = await stage.open_replicas(
        1,
        redis=stage.redis,
        postgres=postgres,
        program=(str(Path(__file__).parent / "patched.py"), "newer"),
    )
    stage.type(2, at=newer)
    await stage.everybody()
    await stage.edits(100)
    stage.fault("SIGKILL of the newer one")
    stage.bury(stage.typists[-2:])
    await newer[0].kill()
    stage.replicas.remove(newer[0])
    await go_on(stage)


async def clocks_apart(stage: Stage, *, store: Store) -> None:
    """One replica's clock is two hours ahead and then jumps back by four."""
    clock = stage.directory / "clock"
    clock.write_text("+2h")
    _, postgres, replicas = await together(stage, store)
    ahead = await stage.open_replicas(
        1,
        redis=stage.redis,
        postgres=postgres,
        env={
            "LD_PRELOAD": str(FAKETIME[-1]),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
        },
    )
    typists = [*stage.typists, *stage.type(2, at=ahead)]
    await stage.everybody()
    await stage.edits(60)
    stage.fault("the clock jumps")
    clock.write_text("-2h")
    await stage.edits(100)
    await asyncio.sleep(stage.size(1, 40))
    stage.expect(all(one.opened == 1 for one in typists), "nobody was cut off")
    live = {one.doc.client_id for one in typists}
    for replica in (*replicas, *ahead):
        seen = (await look(replica.address, ROOM)).present
        stage.expect(seen == live, f"everybody is seen at replica {replica.number}")
    await go_on(stage)


ROWS = (
    Scenario("F1/single", "SIGKILL of the only process, mid-write", killed_alone),
    *each("F1", "SIGKILL of one replica, mid-write", killed_among_others),
    Scenario("F2/single", "SIGTERM under clients that type", drained_alone),
    *each("F2", "SIGTERM of one replica", drained_among_others)[:1],
    *each("F3", "a rolling restart of three replicas", rolled)[:1],
    *each("F4", "a replica of a newer release among others", mixed)[:1],
    *each("F23", "clocks two hours apart, one jumps", clocks_apart)[:1],
)
