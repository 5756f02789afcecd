"""Compaction over a real store with real child processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pycrdt import Doc, Text

from collab import compaction
from collab.compaction import Child, ChildDied, Compactor
from collab.document.attribution import attribute, credits_in
from collab.document.replay import Answer, Request, encode_request
from collab.metrics import Metrics
from collab.store import base
from collab.store.base import Attributed, Author, Checkpoint, Entry
from collab.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

Tail = list[tuple[int, bytes]]
ALICE, BOB = Author("alice", "c1"), Author("bob", "c2", "t1", '{"kind":"agent"}')


@dataclass
class Room:
    """What the compactor needs of a room."""

    name: str
    rows_since_checkpoint: int = 0
    bytes_since_checkpoint: int = 0


def keystrokes(count: int) -> Tail:
    """The same ones each time, and more of them."""
    doc: Doc[Any] = Doc(client_id=7)
    log: Tail = []
    doc.observe(lambda event: log.append((len(log) + 1, event.update)))
    text = doc.get("text", type=Text)
    for n in range(count):
        text.insert(n, "x")
    return log


async def store_of(*logs: tuple[str, Tail]) -> MemoryStore:
    store = MemoryStore()
    for name, log in logs:
        await fill(store, name, log)
    return store


async def fill(
    store: MemoryStore, name: str, log: Tail, author: Author = ALICE
) -> None:
    updates = [update for _, update in log]
    logged = asyncio.Event()
    store.append(
        [Entry(name, "e1", log[0][0], 0, updates, [author] * len(updates))],
        lambda entries, error: logged.set(),
    )
    await logged.wait()


@pytest.fixture
async def compactor_of() -> AsyncIterator[Callable[..., Any]]:
    compactors: list[Compactor] = []

    async def make(store: MemoryStore, metrics: Metrics, **more: Any) -> Compactor:
        compactor = Compactor(store, metrics=metrics, rest=0.0, **more)
        compactors.append(await compactor.__aenter__())
        return compactor

    yield make
    for compactor in compactors:
        await compactor.__aexit__()


class Counting(Metrics):
    """Metrics that can be waited for."""

    def __init__(self) -> None:
        self.is_counted = asyncio.Event()
        super().__init__()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name.startswith("compaction") and value:
            self.is_counted.set()

    async def wait(self) -> None:
        await asyncio.wait_for(self.is_counted.wait(), 30)
        self.is_counted.clear()


async def test_a_long_log_becomes_a_checkpoint(compactor_of: Any) -> None:
    log, metrics = keystrokes(60), Counting()
    store = await store_of(("notes", log))
    compactor = await compactor_of(store, metrics, rows=50)
    room = Room("notes", 60, sum(len(update) for _, update in log))

    compactor.consider(room)
    await metrics.wait()
    await asyncio.sleep(0)

    stored = await store.load("notes")
    assert stored.checkpoint is not None
    assert stored.checkpoint.position == 60
    assert list(stored.tail) == []
    doc: Doc[Any] = Doc()
    doc.apply_update(stored.checkpoint.snapshot)
    assert str(doc.get("text", type=Text)) == "x" * 60
    assert (metrics.compactions, metrics.compaction_failures) == (1, 0)
    assert (room.rows_since_checkpoint, room.bytes_since_checkpoint) == (0, 0)


async def test_a_second_room_uses_the_same_child(compactor_of: Any) -> None:
    metrics = Counting()
    store = await store_of(("one", keystrokes(10)), ("two", keystrokes(20)))
    compactor = await compactor_of(store, metrics, rows=5)

    compactor.consider(Room("one", 10, 10))
    compactor.consider(Room("two", 20, 20))
    while metrics.compactions < 2:
        await metrics.wait()

    assert (await store.load("two")).checkpoint is not None


@pytest.fixture
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "LANDMARK_ROWS", 10)
    monkeypatch.setattr(base, "LANDMARK_BYTES", 1 << 20)
    monkeypatch.setattr(compaction, "STEP_ROWS", 20)


async def idle(compactor: Compactor) -> None:
    async with asyncio.timeout(30):
        while not compactor.is_idle:  # noqa: ASYNC110 - it tells nobody that it is
            await asyncio.sleep(0.01)


async def checkpoints(store: MemoryStore, last: int) -> list[int]:
    found = [await store.checkpoint_before("notes", at) for at in range(1, last + 1)]
    return sorted({each.position for each in found if each is not None})


async def test_a_log_that_grew_fast_is_compacted_in_steps_that_leave_landmarks(
    compactor_of: Any, short_steps: None
) -> None:
    store, metrics = await store_of(("notes", keystrokes(95))), Counting()
    compactor = await compactor_of(store, metrics, rows=5)
    room = Room("notes", 95, 5000)

    compactor.consider(room)
    await idle(compactor)

    assert metrics.compactions == 5
    assert room.rows_since_checkpoint == 0
    assert await checkpoints(store, 95) == [20, 40, 60, 80, 95]


async def test_between_the_steps_of_one_room_others_have_their_turn(
    compactor_of: Any, short_steps: None
) -> None:
    class Noting(MemoryStore):
        async def checkpoint(self, room: str, *more: Any, **rest: Any) -> bool:
            made.append(room)
            return await super().checkpoint(room, *more, **rest)

    made: list[str] = []
    store, metrics = Noting(), Counting()
    for name, log in (("notes", keystrokes(60)), ("other", keystrokes(10))):
        await fill(store, name, log)
    compactor = await compactor_of(store, metrics, rows=5)

    compactor.consider(Room("notes", 60, 1000))
    compactor.consider(Room("other", 10, 100))
    await idle(compactor)

    assert made == ["notes", "other", "notes", "notes"]


async def test_what_waits_for_longer_than_a_step_holds_up_nothing(
    compactor_of: Any, short_steps: None
) -> None:
    log = keystrokes(60)
    updates = [update for _, update in log]
    late = [*updates[:5], *updates[6:50], updates[5], *updates[50:]]
    store, metrics = MemoryStore(), Counting()
    await fill(store, "notes", list(enumerate(late, 1)))
    compactor = await compactor_of(store, metrics, rows=5)

    compactor.consider(Room("notes", 60, 1000))
    await idle(compactor)

    assert await checkpoints(store, 60) == [5, 60]
    assert (metrics.compactions, metrics.compaction_failures) == (2, 0)


# Attribution


async def attributed(store: MemoryStore) -> Attributed:
    found = await store.attribution("notes")
    assert found is not None
    return found


async def test_what_a_checkpoint_covers_is_attributed_as_from_the_whole_log(
    compactor_of: Any, short_steps: None
) -> None:
    store, metrics = MemoryStore(), Counting()
    for start, author in enumerate((ALICE, BOB, ALICE)):
        await fill(store, "notes", keystrokes(90)[start * 30 :][:30], author)
    compactor = await compactor_of(store, metrics, rows=5)

    compactor.consider(Room("notes", 90, 1000))
    await idle(compactor)

    found = await attributed(store)
    assert found == Attributed(90, attribute(None, await store.history("notes")))


async def test_a_log_from_before_there_was_attribution_is_attributed_in_steps(
    compactor_of: Any, short_steps: None
) -> None:
    store, metrics = await store_of(("notes", keystrokes(70))), Counting()
    fence = (await store.load("notes")).fence
    doc: Doc[Any] = Doc()
    for row in (await store.history("notes"))[:65]:
        doc.apply_update(row.update)
    checkpoint = Checkpoint(65, doc.get_update())
    await store.checkpoint("notes", checkpoint, fence=fence)
    compactor = await compactor_of(store, metrics, rows=5)

    compactor.consider(Room("notes", 5, 100))
    await idle(compactor)

    found = await attributed(store)
    assert found == Attributed(70, attribute(None, await store.history("notes")))
    assert metrics.compactions == 1


async def test_where_the_log_begins_later_nobody_wrote_what_was_before(
    compactor_of: Any,
) -> None:
    store, metrics = await store_of(("notes", keystrokes(30))), Counting()
    compactor = await compactor_of(store, metrics, rows=5)
    compactor.consider(Room("notes", 30, 100))
    await idle(compactor)
    known = store._rooms["notes"]
    del known.rows[:]  # as a room was whose log went before there was attribution
    known.trimmed, known.attributed = 30, None
    await fill(store, "notes", keystrokes(40)[30:])

    compactor.consider(Room("notes", 10, 100))
    await idle(compactor)

    (credit,) = credits_in((await attributed(store)).encoded)
    assert (credit.author.principal, credit.first) == ("alice", 31)


async def test_an_attribution_that_cannot_be_read_is_made_anew(
    compactor_of: Any, short_steps: None
) -> None:
    store, metrics = await store_of(("notes", keystrokes(70))), Counting()
    fence = (await store.load("notes")).fence
    await store.attribute("notes", Attributed(45, b"of another version"), fence=fence)
    compactor = await compactor_of(store, metrics, rows=5)

    compactor.consider(Room("notes", 70, 1000))
    await idle(compactor)

    found = await attributed(store)
    assert found == Attributed(70, attribute(None, await store.history("notes")))
    assert metrics.compaction_failures == 0


async def test_a_child_that_dies_over_an_attribution_costs_no_checkpoint(
    compactor_of: Any, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, zlib\nzlib.compress = lambda *more, **rest: os.abort()\n"
    )
    store, metrics = await store_of(("notes", keystrokes(20))), Counting()
    environment = {"PYTHONPATH": str(tmp_path)}
    compactor = await compactor_of(store, metrics, rows=5, environment=environment)

    compactor.consider(Room("notes", 20, 1000))
    await idle(compactor)
    await fill(store, "notes", keystrokes(30)[20:])
    compactor.consider(Room("notes", 10, 1000))
    await idle(compactor)

    assert (metrics.compactions, metrics.compaction_failures) == (2, 2)
    assert await store.attribution("notes") is None


# When


async def test_a_short_log_is_left_alone(compactor_of: Any) -> None:
    store = await store_of(("notes", keystrokes(10)))
    compactor = await compactor_of(store, Metrics(), rows=50, max_bytes=10_000)

    compactor.consider(Room("notes", 10, 100))

    assert compactor.is_idle


async def test_many_bytes_in_few_rows_are_enough(compactor_of: Any) -> None:
    store, metrics = await store_of(("notes", keystrokes(10))), Counting()
    compactor = await compactor_of(store, metrics, rows=50, max_bytes=100)

    compactor.consider(Room("notes", 10, 100))
    await metrics.wait()

    assert metrics.compactions == 1


async def test_a_log_that_cannot_be_replayed_stays_and_is_counted(
    compactor_of: Any,
) -> None:
    log = keystrokes(10)
    store, metrics = await store_of(("notes", [*log, (11, b"\xff")])), Counting()
    compactor = await compactor_of(store, metrics, rows=5)

    compactor.consider(Room("notes", 11, 100))
    await metrics.wait()

    assert (metrics.compactions, metrics.compaction_failures) == (0, 1)
    stored = await store.load("notes")
    assert stored.checkpoint is None
    assert len(stored.tail) == 11


async def test_a_room_that_would_not_compact_must_grow_before_the_next_try(
    compactor_of: Any,
) -> None:
    store, metrics = await store_of(("notes", [(1, b"\xff")])), Counting()
    compactor = await compactor_of(store, metrics, rows=5)
    compactor.consider(Room("notes", 5, 0))
    await metrics.wait()

    compactor.consider(Room("notes", 9, 0))
    assert compactor.is_idle
    compactor.consider(Room("notes", 10, 0))
    await metrics.wait()

    assert metrics.compaction_failures == 2


async def test_what_waits_at_the_end_of_the_log_stays_in_the_log(
    compactor_of: Any,
) -> None:
    log = keystrokes(10)
    gap = [*log[:7], *log[8:]]
    store, metrics = await store_of(("notes", gap)), Counting()
    compactor = await compactor_of(store, metrics, rows=5)
    room = Room("notes", 9, sum(len(update) for _, update in gap))

    compactor.consider(room)
    await metrics.wait()
    await asyncio.sleep(0)

    stored = await store.load("notes")
    assert stored.checkpoint is not None
    assert stored.checkpoint.position == 7
    assert len(stored.tail) == room.rows_since_checkpoint == 2


async def test_a_child_that_is_killed_costs_one_compaction(compactor_of: Any) -> None:
    log, metrics = keystrokes(30), Counting()
    store = await store_of(("notes", log[:10]))
    compactor = await compactor_of(store, metrics, rows=5)
    compactor.consider(Room("notes", 10, 0))
    await metrics.wait()
    for pid in compactor.pids:
        os.kill(pid, signal.SIGKILL)

    await fill(store, "notes", log[10:])
    compactor.consider(Room("notes", 10, 0))
    await metrics.wait()
    compactor.consider(Room("notes", 20, 0))
    await metrics.wait()

    assert (metrics.compactions, metrics.compaction_failures) == (2, 1)


async def test_leaving_ends_the_children() -> None:
    store, metrics = await store_of(("notes", keystrokes(10))), Counting()
    async with Compactor(store, metrics=metrics, rows=5) as compactor:
        compactor.consider(Room("notes", 10, 0))
        await metrics.wait()
        pids = compactor.pids
        assert len(pids) == 1

    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


# Killers


async def test_a_log_that_survives_has_no_killer() -> None:
    compactor = Compactor(MemoryStore(), metrics=Metrics())

    assert await compactor.find_killer(None, keystrokes(30)) is None


async def test_the_row_that_is_refused_is_the_killer() -> None:
    compactor = Compactor(MemoryStore(), metrics=Metrics())
    log = keystrokes(30)
    log[20] = (21, b"\xff")

    assert await compactor.find_killer(None, log) == 21


async def test_the_row_at_which_the_process_dies_is_the_killer(tmp_path: Path) -> None:
    """A child whose native code is replaced by one that dies at a mark."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pycrdt\n"
        "class Deadly(pycrdt.Doc):\n"
        "    def apply_update(self, update):\n"
        "        if update.endswith(b'Z\\0'): os.abort()\n"
        "        super().apply_update(update)\n"
        "pycrdt.Doc = Deadly\n"
    )
    doc: Doc[Any] = Doc()
    log: Tail = []
    doc.observe(lambda event: log.append((len(log) + 1, event.update)))
    for character in "abcdeZfg":
        doc.get("text", type=Text).insert(0, character)
    compactor = Compactor(
        MemoryStore(), metrics=Metrics(), environment={"PYTHONPATH": str(tmp_path)}
    )

    assert await compactor.find_killer(None, log) == 6


async def test_a_row_at_which_the_process_hangs_is_the_killer(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import pycrdt\n"
        "class Endless(pycrdt.Doc):\n"
        "    def apply_update(self, update):\n"
        "        while update.endswith(b'Z\\0'): pass\n"
        "        super().apply_update(update)\n"
        "pycrdt.Doc = Endless\n"
    )
    doc: Doc[Any] = Doc()
    log: Tail = []
    doc.observe(lambda event: log.append((len(log) + 1, event.update)))
    for character in "abZ":
        doc.get("text", type=Text).insert(0, character)
    compactor = Compactor(
        MemoryStore(),
        metrics=Metrics(),
        environment={"PYTHONPATH": str(tmp_path)},
        cpu_seconds=1,
    )

    assert await compactor.find_killer(None, log) == 3


async def test_a_checkpoint_that_kills_is_no_row() -> None:
    compactor = Compactor(MemoryStore(), metrics=Metrics())

    assert await compactor.find_killer(Checkpoint(5, b"\xff\xff"), keystrokes(3)) == 0


async def test_a_child_is_bounded_in_memory() -> None:
    async with Child(memory_bytes=1 << 28, cpu_seconds=20, hang_seconds=30) as child:
        request = encode_request(Request.COMPACT, None, 0, [(1, bytes(1 << 28))])

        answer, _, reason = await ask(child, request)

    assert answer is Answer.FAILED
    assert b"MemoryError" in reason


async def ask(child: Child, request: bytes) -> tuple[Answer, int, bytes]:
    """A child that could not even read the request counts as one that said so."""
    try:
        await child.ask(request)
        return await child.answer()
    except ChildDied:
        return Answer.FAILED, 0, b"MemoryError"
