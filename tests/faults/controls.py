"""Small plays in which a broken build must be found out, and the real one must not."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

from rows_delivery import in_order
from rows_redis import together
from scenario import Scenario, Stage

CHECKPOINT_SECONDS = (
    20.0  # and what it is attributed to, where others use the machine too
)


async def killed_with_everybody(stage: Stage) -> None:
    """The process and all its clients end at once: the store alone knows."""
    (replica,) = await stage.open_replicas(1)
    stage.type(3)
    await stage.everybody()
    await stage.edits(60)
    stage.bury(list(stage.typists))
    await replica.kill()
    await replica.start()
    stage.type(1, per_second=0)


async def late_predecessor(stage: Stage) -> None:
    """What an update builds upon comes after it, with a checkpoint between them; then the process and its clients end."""
    (replica,) = await stage.open_replicas(1, "--compact-rows", "10")
    (typist,) = stage.type(1, per_second=0)
    await stage.everybody()
    checkpoints = 0.0
    for number in range(60):
        typist.keeps_back = number == 10
        await typist.edit()
        await asyncio.sleep(0.02)
        if number == 30:
            checkpoints = await replica.metric("collab_compactions_total")

    async def is_covered() -> bool:
        return await replica.metric("collab_compactions_total") > checkpoints

    await stage.until(lambda: typist.unsaved == 0, "all but one are saved")
    # An honest server may make none.
    with suppress(AssertionError):
        await stage.within(is_covered, "a checkpoint", seconds=CHECKPOINT_SECONDS)
    await typist.send_kept_back()
    await typist.barrier()
    stage.bury([typist])
    await replica.kill()
    await replica.start()
    stage.type(1, per_second=0)


async def calm(stage: Stage) -> None:
    """Nothing is broken but the build: two replicas, four who type."""
    await together(stage, "redis")
    for typist in stage.typists:
        typist.per_second = 100
    await stage.edits(700)


# Build → the play, the checks of which one at least must speak, and how long the harness waits for it to be well
CONTROLS = {
    "acknowledges first": (
        Scenario("control/kill", "", killed_with_everybody, 5),
        {"C2"},
    ),
    "drops entries": (
        Scenario("control/calm", "", calm, 5),
        {"C1", "C2"},
    ),
    "checkpoints too much": (
        Scenario("control/late", "", late_predecessor, 5),
        {"C2"},
    ),
    "publishes through a pool": (
        Scenario("control/order", "", partial(in_order, store="redis"), 5),
        {"C5"},
    ),
}
