"""What landmarks and attribution cost: CPU of the child, and bytes on disk, over a whole recorded editing session.

Run `python loadtests/bench_compaction.py` from the repository. The session is in the log at once, as after an import, in
entries of 64 keystrokes by two people in turns; it is then compacted without a pause until nothing is left to do. The
first line makes one checkpoint of it all, as without steps.
"""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import traces

from collab import compaction
from collab.compaction import Child, make_attribution, make_checkpoint
from collab.errors import CollabError
from collab.store.base import Author, Entry
from collab.store.sqlite import SqliteStore

ROOM = "paper"
AT_ONCE = 64
SITTING = 500  # keystrokes of one person
PEOPLE = [
    Author("ada", "c1", None, '{"kind":"human","name":"Ada"}'),
    Author("bot", "c2", "turn", '{"kind":"agent","model":"m","task":"edit"}'),
]
SECOND = 1000  # between two entries


def author(keystroke: int) -> Author:
    """A turn is a sitting of the agent."""
    sitting = keystroke // SITTING
    who = PEOPLE[sitting % 2]
    return who._replace(turn=who.turn and f"turn-{sitting}")


async def fill(store: SqliteStore, updates: Sequence[bytes]) -> None:
    everything = asyncio.Event()

    def done(entries: Sequence[Entry], error: CollabError | None) -> None:
        if error is not None:
            raise error
        if entries[-1].last == len(updates):
            everything.set()

    for start in range(0, len(updates), AT_ONCE):
        some = updates[start : start + AT_ONCE]
        authors = [author(start + at) for at in range(len(some))]
        moment = start // AT_ONCE * SECOND
        store.append([Entry(ROOM, "e", start + 1, moment, some, authors)], done)
    await everything.wait()


async def compact(store: SqliteStore) -> tuple[int, float, float]:
    """Steps, and CPU seconds of the child for checkpoints and for attribution."""
    steps, spent = 0, [0.0, 0.0]
    for kind in (0, 1):
        before = _child_seconds()
        async with Child(
            memory_bytes=4 << 30, cpu_seconds=600, hang_seconds=600.0
        ) as child:
            stored, made = await store.load(ROOM), None
            while kind == 0:
                stored, made = await make_checkpoint(store, ROOM, child)
                if made is None:
                    break
                steps += 1
            until = stored.position
            while kind == 1 and await make_attribution(
                store, ROOM, child, fence=stored.fence, until=until
            ):
                pass
        spent[kind] = _child_seconds() - before
    return steps, *spent


def _child_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sizes(directory: Path) -> dict[str, tuple[int, int]]:
    """Table → how many records, and their bytes."""
    db = sqlite3.connect(directory / "collab.db")
    found = {}
    for table, column in (
        ("log", "updates"),
        ("checkpoint", "snapshot"),
        ("attribution", "encoded"),
    ):
        query = f"SELECT count(*), coalesce(sum(length({column})), 0) FROM {table}"
        found[table] = db.execute(query).fetchone()
    (found["newest"],) = db.execute(
        "SELECT 1, length(snapshot) FROM checkpoint ORDER BY position DESC LIMIT 1"
    ).fetchall()
    db.close()
    return found


async def measure(updates: Sequence[bytes], step_rows: int) -> None:
    compaction.STEP_ROWS = step_rows
    with tempfile.TemporaryDirectory() as directory:
        async with SqliteStore(Path(directory)) as store:
            await fill(store, updates)
            started = time.monotonic()
            steps, checkpoints, attribution = await compact(store)
            elapsed = time.monotonic() - started
        found = sizes(Path(directory))
    share = found["attribution"][1] / found["newest"][1]
    print(  # noqa: T201 - a script that prints its figures
        f"{step_rows:>8} {steps:>6} {elapsed:>9.1f} {checkpoints:>12.2f} {attribution:>12.2f}"
        f" {found['checkpoint'][0]:>12} {found['checkpoint'][1]:>12} {found['newest'][1]:>9}"
        f" {found['log'][1]:>10} {found['attribution'][1]:>12} {share:>7.1%}"
    )


async def main() -> None:
    updates = [*traces.updates(traces.edits(), traces.EDITS)]
    print(  # noqa: T201 - likewise
        f"{traces.source()}, {len(updates)} updates\n"
        f"{'step':>8} {'steps':>6} {'seconds':>9} {'checkpt CPU':>12} {'attrib. CPU':>12} {'checkpoints':>12}"
        f" {'their bytes':>12} {'newest':>9} {'log bytes':>10} {'attribution':>12} {'share':>7}"
    )
    for step_rows in (1 << 30, compaction.STEP_ROWS):
        await measure(updates, step_rows)


if __name__ == "__main__":
    asyncio.run(main())
