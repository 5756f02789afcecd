"""The journal over stores that work, fail, and heal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest
from logged import capture_logs

from collab.errors import CollabError, RoomNotFound, StoreUnavailable
from collab.journal import Journal
from collab.metrics import Metrics
from collab.store.base import Author, Done, Entry
from collab.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

ALICE = Author("alice", "c1")


def entry(position: int, room: str = "notes", size: int = 1) -> Entry:
    return Entry(room, "e1", position, 0, [b"x" * size], [ALICE])


class ManualStore(MemoryStore):
    """Answers when told to, one commit at a time, well or with an error; like SQLite, nothing overtakes a failure."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: list[tuple[Sequence[Entry], Done]] = []
        self.order: list[tuple[str, int]] = []
        self.is_asked = asyncio.Event()

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        self.queue.append((entries, done))
        self.is_asked.set()

    def commit(self, error: CollabError | None = None) -> None:
        """Answer all that is queued as one commit."""
        queue, self.queue = self.queue, []
        self.is_asked.clear()
        together = [entry for entries, _ in queue for entry in entries]
        if error is None:
            self.order += [(entry.room, entry.position) for entry in together]
        if together:
            queue[0][1](together, error)


class Listener:
    """Writes down what the journal says."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.refused_entries: list[Entry] = []
        self.healing = asyncio.Event()

    def logged(self, entries: Sequence[Entry]) -> None:
        self.said.append([entry.position for entry in entries])

    def failed(self, error: StoreUnavailable) -> None:
        self.said.append("failed")

    def healed(self) -> None:
        self.said.append("healed")
        self.healing.set()

    def refused(self, entries: Sequence[Entry], error: CollabError) -> None:
        self.refused_entries += entries


def journal_of(
    store: MemoryStore, listener: Listener, metrics: Metrics | None = None, **more: Any
) -> Journal:
    return Journal(
        store,
        logged=listener.logged,
        failed=listener.failed,
        healed=listener.healed,
        refused=listener.refused,
        metrics=metrics or Metrics(),
        retry_seconds=0.0,
        **more,
    )


async def retried(store: ManualStore) -> None:
    """Until the journal has tried again."""
    await asyncio.wait_for(store.is_asked.wait(), 30)


async def test_what_was_appended_is_logged_once_per_commit() -> None:
    store, listener, metrics = ManualStore(), Listener(), Metrics()
    journal = journal_of(store, listener, metrics)
    journal.append([entry(1), entry(1, "other")])
    journal.append([entry(2)])

    store.commit()

    assert listener.said == [[1, 1, 2]]
    assert (metrics.commits, metrics.logged_updates) == (1, 3)
    assert sum(metrics.logged.counts) == 3


async def test_the_age_and_number_of_unsaved_updates_are_known() -> None:
    now = 100.0
    store = ManualStore()
    journal = journal_of(store, Listener(), clock=lambda: now)
    assert (journal.oldest_unsaved_seconds, journal.unsaved_updates) == (0, 0)

    journal.append([entry(1, size=10)])
    now = 103.0
    journal.append([entry(2, size=5)])

    assert journal.oldest_unsaved_seconds == 3.0
    assert (journal.unsaved_updates, journal.unsaved_bytes) == (2, 15)
    store.commit()
    assert (journal.oldest_unsaved_seconds, journal.unsaved_updates) == (0, 0)


async def test_time_to_logged_is_observed_from_each_arrival() -> None:
    now, metrics, store = 0.0, Metrics(), ManualStore()
    journal = journal_of(store, Listener(), metrics, clock=lambda: now)
    journal.append([entry(1), entry(1, "other")])
    now = 2.0
    journal.append([entry(2)])
    now = 3.0

    store.commit()

    assert metrics.logged.total == 3.0 + 3.0 + 1.0


async def test_flush_waits_for_what_is_on_its_way() -> None:
    store = ManualStore()
    journal = journal_of(store, Listener())
    journal.append([entry(1)])

    flushing = asyncio.ensure_future(journal.flush())
    await asyncio.sleep(0)
    assert not flushing.done()
    store.commit()

    assert await flushing


async def test_flush_of_nothing_returns_at_once() -> None:
    assert await journal_of(ManualStore(), Listener()).flush()


async def test_flush_gives_up_when_the_store_fails() -> None:
    store = ManualStore()
    async with journal_of(store, Listener()) as journal:
        journal.append([entry(1)])
        flushing = asyncio.ensure_future(journal.flush())
        await asyncio.sleep(0)

        store.commit(StoreUnavailable("full"))

        assert not await flushing


async def test_what_could_not_be_saved_in_the_end_is_said() -> None:
    store = ManualStore()

    with capture_logs() as lines:
        async with journal_of(store, Listener()) as journal:
            journal.append([entry(1, size=5), entry(2, size=5)])
            store.commit(StoreUnavailable("full"))

    assert [(line["updates"], line["bytes"]) for line in lines] == [(2, 10)]


async def test_a_failed_commit_is_never_logged_and_is_tried_again_in_order() -> None:
    store, listener, metrics = ManualStore(), Listener(), Metrics()
    journal = journal_of(store, listener, metrics)
    journal.append([entry(1)])
    journal.append([entry(2)])
    store.commit(StoreUnavailable("full"))
    journal.append([entry(3)])
    assert listener.said == ["failed"]
    assert journal.is_failing

    await retried(store)
    store.commit(StoreUnavailable("still full"))
    await retried(store)
    store.commit()

    assert store.order == [("notes", 1), ("notes", 2), ("notes", 3)]
    assert listener.said == ["failed", [1, 2, 3], "healed"]
    assert metrics.append_failures == 2
    assert not journal.is_failing
    assert journal.unsaved_updates == 0


async def test_what_was_queued_behind_a_failure_keeps_its_place() -> None:
    store, listener = ManualStore(), Listener()
    journal = journal_of(store, listener)
    journal.append([entry(1)])
    journal.append([entry(2)])
    (first, done), (second, _) = store.queue
    store.queue.clear()
    store.is_asked.clear()

    done(first, StoreUnavailable("full"))
    journal.append([entry(3)])  # kept: the second is still in the store
    await asyncio.sleep(0)
    assert store.queue == []
    done(second, StoreUnavailable("full"))
    await retried(store)
    journal.append([entry(4)])
    store.commit()

    assert [position for _, position in store.order] == [1, 2, 3, 4]


async def test_entries_the_store_never_takes_are_dropped_and_reported() -> None:
    store, listener = ManualStore(), Listener()
    journal = journal_of(store, listener)
    journal.append([entry(1, "deleted"), entry(1)])
    entries, done = store.queue.pop()

    done(entries[:1], RoomNotFound("deleted"))
    done(entries[1:], None)

    assert [one.room for one in listener.refused_entries] == ["deleted"]
    assert listener.said == [[1]]
    assert not journal.is_failing
    assert await journal.flush()


async def test_a_store_that_is_too_slow_counts_as_failing_until_it_has_caught_up() -> (
    None
):
    store, listener = ManualStore(), Listener()
    journal = journal_of(store, listener, max_bytes=1000)
    for position in range(1, 12):
        journal.append([entry(position, size=100)])
    assert listener.said == ["failed"]
    assert journal.is_failing
    queue = list(store.queue)
    store.queue.clear()

    for entries, done in queue[:5]:
        done(entries, None)
    assert journal.is_failing
    for entries, done in queue[5:7]:
        done(entries, None)

    assert not journal.is_failing
    assert listener.said.count("healed") == 1


async def test_over_the_memory_store_all_is_logged() -> None:
    listener = Listener()

    async with MemoryStore() as store, journal_of(store, listener) as journal:
        for position in range(1, 51):
            journal.append([entry(position)])
        await journal.flush()

        assert len((await store.load("notes")).tail) == 50
    assert list(chain(*listener.said)) == list(range(1, 51))
