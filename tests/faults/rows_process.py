"""Servers that die, drain, start again and differ: F1 to F4, F23."""

from __future__ import annotations

import asyncio

from scenario import Scenario, Stage


async def killed_alone(stage: Stage) -> None:
    """One process, SQLite: half of its clients die with it."""
    (replica,) = await stage.open_replicas(1)
    for _ in range(stage.size(3, 12)):
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
    """One process, many clients that type: each is told, has its answers, and comes back."""
    (replica,) = await stage.open_replicas(1)
    typists = stage.type(stage.size(20, 200), per_second=stage.size(10, 3))
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


ROWS = (
    Scenario("F1/single", "SIGKILL of the only process, mid-write", killed_alone),
    Scenario("F2/single", "SIGTERM under clients that type", drained_alone),
)
