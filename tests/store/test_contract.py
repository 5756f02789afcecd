"""What every store must do, run on each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from collab.errors import CollabError, RoomNotFound, StoreCorrupt
from collab.store.base import Author, Checkpoint, Entry, Store
from collab.store.memory import MemoryStore
from collab.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

ALICE, BOB = Author("alice", "c1"), Author("bob", "c2", "turn-7")


@pytest.fixture(params=["memory", "sqlite", "sqlite, swept at once"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    makers: dict[str, Callable[[], AbstractAsyncContextManager[Any]]] = {
        "memory": MemoryStore,
        "sqlite": lambda: SqliteStore(tmp_path, sweep_seconds=3600),
        "sqlite, swept at once": lambda: SqliteStore(tmp_path, sweep_seconds=0),
    }
    async with makers[request.param]() as store:
        yield store


def entry(
    position: int,
    *updates: bytes,
    room: str = "notes",
    epoch: str = "e1",
    authors: Sequence[Author] | None = None,
    milliseconds: int = 1000,
) -> Entry:
    return Entry(
        room,
        epoch,
        position,
        milliseconds,
        updates,
        authors or [ALICE] * len(updates),
    )


Answer = tuple[list[Entry], CollabError | None]


async def append(store: Store, *entries: Entry) -> list[Answer]:
    """Append in one call and wait until each entry is answered."""
    answers: list[Answer] = []
    everything = asyncio.Event()

    def done(answered: Sequence[Entry], error: CollabError | None) -> None:
        answers.append((list(answered), error))
        if sum(len(some) for some, _ in answers) == len(entries):
            everything.set()

    store.append(entries, done)
    await asyncio.wait_for(everything.wait(), 10)
    return answers


async def test_a_room_never_written_to_is_empty(store: Store) -> None:
    stored = await store.load("notes")

    assert stored[:5] == ("", 0, None, (), {})


async def test_what_was_appended_is_loaded_in_order(store: Store) -> None:
    answers = await append(store, entry(1, b"a", b"bb"), entry(3, b"ccc"))

    stored = await store.load("notes")

    assert [error for _, error in answers] == [None]
    assert stored.epoch == "e1"
    assert stored.position == 3
    assert list(stored.tail) == [(1, b"a"), (2, b"bb"), (3, b"ccc")]


async def test_calls_are_answered_in_their_order(store: Store) -> None:
    answered: list[int] = []
    finished = asyncio.Event()

    def done(entries: Sequence[Entry], error: CollabError | None) -> None:
        assert error is None
        answered.extend(entry.position for entry in entries)
        if len(answered) == 100:
            finished.set()

    for position in range(1, 101):
        store.append([entry(position, b"%d" % position)], done)
        if position % 7 == 0:
            await asyncio.sleep(0)
    await asyncio.wait_for(finished.wait(), 10)

    assert answered == list(range(1, 101))
    assert [at for at, _ in (await store.load("notes")).tail] == answered


async def test_each_callback_gets_its_own_entries(store: Store) -> None:
    finished = asyncio.Event()
    heard: list[tuple[str, int]] = []

    def listen(name: str) -> Callable[[Sequence[Entry], CollabError | None], None]:
        def done(entries: Sequence[Entry], error: CollabError | None) -> None:
            heard.extend((name, entry.position) for entry in entries)
            if len(heard) == 3:
                finished.set()

        return done

    first, second = listen("first"), listen("second")
    store.append([entry(1, b"a")], first)
    store.append([entry(2, b"b")], second)
    store.append([entry(3, b"c")], first)
    await asyncio.wait_for(finished.wait(), 10)

    assert heard == [("first", 1), ("second", 2), ("first", 3)]


async def test_appending_twice_changes_nothing(store: Store) -> None:
    await append(store, entry(1, b"a", b"b"))

    answers = await append(store, entry(1, b"a", b"b"), entry(2, b"b", b"c"))

    assert [error for _, error in answers] == [None]
    assert list((await store.load("notes")).tail) == [(1, b"a"), (2, b"b"), (3, b"c")]


async def test_a_position_that_is_there_is_left_as_it_is(store: Store) -> None:
    await append(store, entry(1, b"first"))

    await append(store, entry(1, b"second"))

    assert list((await store.load("notes")).tail) == [(1, b"first")]


async def test_an_entry_that_would_leave_a_hole_is_refused_alone(store: Store) -> None:
    answers = await append(
        store, entry(1, b"a"), entry(3, b"c"), entry(1, b"x", room="other")
    )

    errors = {
        (one.room, one.position): error for some, error in answers for one in some
    }
    assert isinstance(errors["notes", 3], StoreCorrupt)
    assert errors["notes", 1] is errors["other", 1] is None
    assert list((await store.load("notes")).tail) == [(1, b"a")]
    assert list((await store.load("other")).tail) == [(1, b"x")]


async def test_history_tells_who_and_when(store: Store) -> None:
    await append(
        store,
        entry(1, b"a", b"b", authors=[ALICE, BOB], milliseconds=5),
        entry(3, b"c", authors=[BOB], milliseconds=7),
    )

    rows = await store.history("notes")

    assert rows == [(1, 5, ALICE, b"a"), (2, 5, BOB, b"b"), (3, 7, BOB, b"c")]
    assert await store.history("notes", after=1, limit=1) == rows[1:2]
    assert await store.history("notes", after=3) == []


async def test_history_of_an_unknown_room_is_an_error(store: Store) -> None:
    with pytest.raises(RoomNotFound):
        await store.history("notes")


async def test_loading_begins_after_the_checkpoint_and_history_stays(
    store: Store,
) -> None:
    await append(store, entry(1, b"a", b"b", b"c"), entry(4, b"d"))
    stored = await store.load("notes")

    assert await store.checkpoint("notes", Checkpoint(2, b"ab"), fence=stored.fence)

    stored = await store.load("notes")
    assert stored.checkpoint == Checkpoint(2, b"ab")
    assert stored.position == 4
    assert list(stored.tail) == [(3, b"c"), (4, b"d")]
    assert len(await store.history("notes")) == 4


async def test_only_a_newer_checkpoint_of_the_newest_fence_counts(store: Store) -> None:
    await append(store, entry(1, *[b"x"] * 10))
    slow = (await store.load("notes")).fence
    fast = (await store.load("notes")).fence

    assert await store.checkpoint("notes", Checkpoint(5, b"5"), fence=fast)
    assert not await store.checkpoint("notes", Checkpoint(6, b"6"), fence=slow)
    assert not await store.checkpoint("notes", Checkpoint(5, b"5"), fence=fast)
    assert not await store.checkpoint("notes", Checkpoint(4, b"4"), fence=fast)
    assert not await store.checkpoint("notes", Checkpoint(11, b"11"), fence=fast)
    assert await store.checkpoint("notes", Checkpoint(10, b"10"), fence=fast)

    assert (await store.load("notes")).checkpoint == Checkpoint(10, b"10")


async def test_a_checkpoint_needs_a_room(store: Store) -> None:
    fence = (await store.load("notes")).fence

    assert not await store.checkpoint("notes", Checkpoint(1, b""), fence=fence)


async def test_a_fence_from_before_the_first_entry_is_good(store: Store) -> None:
    fence = (await store.load("notes")).fence
    await append(store, entry(1, b"a"))

    assert await store.checkpoint("notes", Checkpoint(1, b"a"), fence=fence)


async def test_the_first_owner_of_a_client_id_wins(store: Store) -> None:
    await store.bind("notes", {7: "alice"})
    await append(store, entry(1, b"a"))
    await store.bind("notes", {7: "bob", 2**53 - 1: "bob"})

    assert (await store.load("notes")).owners == {7: "alice", 2**53 - 1: "bob"}


async def test_a_rejected_row_is_left_out_of_loads(store: Store) -> None:
    await append(store, entry(1, b"a", b"poison", b"c"))

    await store.reject("notes", 2, "kills")

    stored = await store.load("notes")
    assert list(stored.tail) == [(1, b"a"), (3, b"c")]
    assert stored.position == 3


async def test_rooms_are_listed_by_page_and_prefix(store: Store) -> None:
    names = ["a/1", "a/2", "a/é", "b", "b%", "b_"]
    await append(store, *[entry(1, b"xyz", room=name) for name in reversed(names)])
    fence = (await store.load("a/1")).fence
    await store.checkpoint("a/1", Checkpoint(1, b"checkpoint"), fence=fence)

    infos = await store.rooms()
    page = await store.rooms(after="a/1", limit=2)
    some = await store.rooms(prefix="b%")

    assert [info.name for info in infos] == sorted(names)
    assert [info.name for info in page] == ["a/2", "a/é"]
    assert [info.name for info in some] == ["b%"]
    assert infos[0][1:4] == ("e1", 1, 1)
    assert infos[0].bytes >= 13
    assert infos[0][5:] == (1000, 1000)


async def test_a_deleted_room_is_gone_and_its_late_entries_are_refused(
    store: Store,
) -> None:
    await append(store, entry(1, b"a"))
    await store.bind("notes", {7: "alice"})
    await store.delete("notes")

    answers = await append(store, entry(2, b"late"))

    assert isinstance(answers[0][1], RoomNotFound)
    assert (await store.load("notes"))[:5] == ("", 0, None, (), {})
    assert await store.rooms() == []
    with pytest.raises(RoomNotFound):
        await store.history("notes")


async def test_a_deleted_name_may_begin_anew(store: Store) -> None:
    await append(store, entry(1, b"old"))
    old = (await store.load("notes")).fence
    await store.delete("notes")

    await append(store, entry(1, b"new", epoch="e2"))
    answers = await append(store, entry(2, b"late", epoch="e1"))

    assert isinstance(answers[0][1], RoomNotFound)
    assert not await store.checkpoint("notes", Checkpoint(1, b"old"), fence=old)
    stored = await store.load("notes")
    assert (stored.epoch, list(stored.tail)) == ("e2", [(1, b"new")])


async def test_an_entry_of_another_epoch_is_refused(store: Store) -> None:
    await append(store, entry(1, b"a"))

    answers = await append(store, entry(1, b"b", epoch="e2"))

    assert isinstance(answers[0][1], RoomNotFound)
    assert list((await store.load("notes")).tail) == [(1, b"a")]


async def test_deleting_an_unknown_room_does_nothing(store: Store) -> None:
    await store.delete("notes")

    assert await store.rooms() == []


async def test_loads_that_never_ended_are_counted(store: Store) -> None:
    assert await store.begin_load("notes") == 0
    assert await store.begin_load("notes") == 1

    await store.end_load("notes")

    assert await store.begin_load("notes") == 0
    assert await store.begin_load("other") == 0


async def test_updates_of_any_size_and_number_come_back(store: Store) -> None:
    updates = [bytes([n % 256]) * (n * 37 % 5000) for n in range(300)]
    big = b"\xff" * 3_000_000

    await append(store, entry(1, *updates), entry(301, big), entry(302, b""))

    tail = (await store.load("notes")).tail
    assert [update for _, update in tail] == [*updates, big, b""]


async def test_many_rooms_in_one_commit(store: Store) -> None:
    entries = [entry(1, b"%d" % n, room=f"room-{n}") for n in range(2000)]

    await append(store, *entries)

    assert (await store.load("room-1234")).tail == [(1, b"1234")]
    assert len(await store.rooms(limit=5000)) == 2000
