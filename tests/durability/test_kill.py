"""SIGKILL at random moments and at every marked step: what was called saved is there, once.

`KILL_RUNS=50 pytest tests/durability` makes fifty random runs on one directory instead of two.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest
from crashing import STEPS
from pycrdt import Doc
from writers import ROOM, Ledger, serving

from collab.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

RUNS = int(os.environ.get("KILL_RUNS", "2"))
PARTS = 3  # into which the steps are divided, to run side by side
SEED = int(os.environ.get("KILL_SEED", "1"))


async def faults(directory: Path, ledger: Ledger) -> list[str]:
    """What the store holds wrong after a crash."""
    doc: Doc[object] = Doc()
    async with SqliteStore(directory) as store:
        stored = await store.load(ROOM)
    if stored.checkpoint is not None:
        doc.apply_update(stored.checkpoint.snapshot)
    for _, update in stored.tail:
        doc.apply_update(update)
    return ledger.faults(doc)


async def faults_served(directory: Path, ledger: Ledger) -> list[str]:
    """What a fresh client finds wrong after a restart."""
    async with serving(directory) as server, server.peer(Ledger()) as peer:
        return ledger.faults(peer.doc)


@pytest.mark.parametrize("part", range(PARTS))
async def test_a_crash_at_any_step_loses_nothing_that_was_saved(
    tmp_path: Path, part: int
) -> None:
    """Each step on the directory that the one before left."""
    ledger = Ledger()

    for step in list(STEPS)[part::PARTS]:
        nth = random.Random(f"{SEED} {step}").randint(1, STEPS[step][1])
        async with serving(tmp_path, step, nth) as server, asyncio.timeout(60):
            await server.run_writers(ledger, count=3, run=step, is_v1=True, seed=SEED)
            assert await server.wait() == -9, f"this step was reached: {step}"
        assert await faults(tmp_path, ledger) == [], f"after a crash when {step}"
    assert await faults_served(tmp_path, ledger) == []


@pytest.mark.parametrize("is_v1", [True, False], ids=["ack", "echo"])
@pytest.mark.timeout(60 + 20 * RUNS)
async def test_kills_at_random_moments_lose_nothing_that_was_saved(
    tmp_path: Path, is_v1: bool
) -> None:
    """Every run goes on with the directory of the one before, so nothing may ever be lost later, either."""
    ledger, chance = Ledger(), random.Random(f"{SEED} {is_v1}")

    for run in range((RUNS + 1) // 2):
        async with serving(tmp_path) as server, asyncio.TaskGroup() as tasks:
            async with server.peer(Ledger()) as peer:
                assert ledger.faults(peer.doc) == [], f"after run {run}"
            tasks.create_task(
                server.run_writers(
                    ledger, count=4, run=f"{run}", is_v1=is_v1, seed=SEED + run
                )
            )
            await asyncio.wait_for(
                ledger.wait_for_saved(chance.randint(1, 400)), timeout=30
            )
            await asyncio.sleep(chance.random() * 0.02)
            server.kill()

    assert len(ledger.saved) > RUNS
    assert await faults_served(tmp_path, ledger) == []
    assert await faults(tmp_path, ledger) == []


async def test_a_build_that_acknowledges_before_it_appends_is_found_out(
    tmp_path: Path,
) -> None:
    """The negative control: if this passes unnoticed, the harness is broken."""
    ledger = Ledger()

    async with (
        serving(tmp_path, "acknowledges first") as server,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(
            server.run_writers(ledger, count=3, run="w", is_v1=True, seed=SEED)
        )
        await asyncio.wait_for(ledger.wait_for_saved(50), timeout=30)
        server.kill()

    found = await faults_served(tmp_path, ledger)
    assert any(fault.startswith("lost") for fault in found)
