"""What every store must do, run on each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from collab.errors import (
    CollabError,
    Conflict,
    InvalidRequest,
    RoomNotFound,
    StoreCorrupt,
    TooLarge,
)
from collab.store import base
from collab.store.base import (
    Attributed,
    Author,
    Checkpoint,
    Entry,
    Remembered,
    Store,
)
from collab.store.memory import MemoryStore
from collab.store.postgres.store import PostgresStore
from collab.store.redis.store import RedisStore
from collab.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

ALICE = Author("alice", "c1")
BOB = Author("bob", "c2", "turn-7", '{"kind":"agent","task":"é\\u0000"}')


DAY = 24 * 3600
NUMBERS = count()


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.milliseconds = 1_000_000

    def __call__(self) -> int:
        return self.milliseconds

    def turn(self, seconds: float) -> None:
        self.milliseconds += int(seconds * 1000)


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture(
    params=[
        "memory",
        "memory, shared",
        "sqlite",
        "sqlite, swept at once",
        "postgres",
        "redis",
        "redis, as its user",
        "redis cluster",
    ]
)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Hand
) -> AsyncIterator[Store]:
    def of_redis(fixture: str) -> RedisStore:
        return RedisStore(
            request.getfixturevalue(fixture),
            cluster=f"collab:{next(NUMBERS)}",
            window_seconds=0,
            clock=clock,
        )

    makers: dict[str, Callable[[], AbstractAsyncContextManager[Any]]] = {
        "memory": lambda: MemoryStore(clock=clock),
        "memory, shared": lambda: MemoryStore(is_shared=True, clock=clock),
        "sqlite": lambda: SqliteStore(tmp_path, sweep_seconds=3600, clock=clock),
        "sqlite, swept at once": lambda: SqliteStore(
            tmp_path, sweep_seconds=0, clock=clock
        ),
        "postgres": lambda: PostgresStore(
            request.getfixturevalue("dsn"), window_seconds=0, clock=clock
        ),
        "redis": lambda: of_redis("redis_place"),
        "redis, as its user": lambda: of_redis("redis_as_its_user"),
        "redis cluster": lambda: of_redis("redis_cluster"),
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
    await asyncio.wait_for(everything.wait(), 30)
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
    await asyncio.wait_for(finished.wait(), 30)

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
    await asyncio.wait_for(finished.wait(), 30)

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
    if store.is_shared:
        # Positions are the store's own, and those of an origin may skip.
        assert list((await store.load("notes")).tail) == [(1, b"a"), (2, b"c")]
        return
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


async def test_what_is_known_of_a_turn_tells_two_authors_apart(store: Store) -> None:
    authors = [BOB, BOB._replace(about=""), BOB._replace(about="{}"), BOB]
    await append(store, entry(1, b"a", b"b", b"c", b"d", authors=authors))
    await append(store, entry(4, b"again", b"e", authors=[ALICE, BOB]))

    rows = await store.history("notes")

    assert [row.author for row in rows] == [*authors, BOB]


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
    assert infos[0][5:] == (1000, 1000, {}, None, None)


async def test_where_logs_end_is_told_of_many_rooms_at_once(store: Store) -> None:
    await append(store, entry(1, b"a", b"b"), entry(1, b"a", room="other"))
    await append(store, entry(1, b"a", room="gone"), entry(3, b"c"))
    await store.create("empty", {})
    await store.delete("gone")

    ends = await store.ends(["notes", "other", "gone", "empty", "never"])

    assert ends == {"notes": 3, "other": 1, "empty": 0}
    assert await store.ends([]) == {}


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
    # In a shared store one that is under way is no crash, and its process lives.
    assert await store.begin_load("notes") == (0 if store.is_shared else 1)

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


# What is said about a room


async def test_a_room_is_made_before_anybody_writes(store: Store, clock: Hand) -> None:
    made = await store.create("notes", {"title": "Notes"})

    stored = await store.load("notes")
    answers = await append(store, entry(1, b"a", epoch=made.epoch))

    assert (stored.epoch, stored.position) == (made.epoch, 0)
    assert made.metadata == {"title": "Notes"}
    assert made.created_milliseconds == made.changed_milliseconds == clock()
    assert [error for _, error in answers] == [None]
    assert await store.info("notes") == (await store.rooms())[0]


async def test_a_room_is_not_made_twice(store: Store) -> None:
    await append(store, entry(1, b"a"))

    with pytest.raises(Conflict):
        await store.create("notes", {})


async def test_a_room_that_is_open_already_keeps_its_epoch(store: Store) -> None:
    await store.create("notes", {}, epoch="e1")

    answers = await append(store, entry(1, b"a"))

    assert [error for _, error in answers] == [None]


async def test_a_room_is_not_made_with_an_epoch_that_is_over(store: Store) -> None:
    await append(store, entry(1, b"a"))
    await store.delete("notes")

    with pytest.raises(Conflict):
        await store.create("notes", {}, epoch="e1")


async def test_owners_from_before_a_room_is_made_are_kept(store: Store) -> None:
    await store.bind("notes", {7: "alice"})
    await store.create("notes", {})

    assert (await store.load("notes")).owners == {7: "alice"}


async def test_metadata_is_replaced_and_retention_stays(store: Store) -> None:
    await append(store, entry(1, b"a"))
    await store.retain("notes", 60)

    described = await store.describe("notes", {"tags": ["a", {"b": None}], "n": 1.5})

    assert described.metadata == {"tags": ["a", {"b": None}], "n": 1.5}
    assert described.history_seconds == 60
    assert described == await store.info("notes")
    assert (await store.retain("notes", None)).metadata == described.metadata


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ({"x": "y" * base.MAX_METADATA_BYTES}, TooLarge),
        ({"x": object()}, InvalidRequest),
        ({"x": 1 << 70}, InvalidRequest),
        ({"x": "\ud800"}, InvalidRequest),
    ],
)
async def test_metadata_that_cannot_be_kept_changes_nothing(
    store: Store, metadata: dict[str, Any], error: type[CollabError]
) -> None:
    await store.create("notes", {"title": "Notes"})

    with pytest.raises(error):
        await store.describe("notes", metadata)

    info = await store.info("notes")
    assert info is not None
    assert info.metadata == {"title": "Notes"}


async def test_nothing_is_said_about_a_room_that_is_not_there(store: Store) -> None:
    with pytest.raises(RoomNotFound):
        await store.describe("notes", {})
    with pytest.raises(RoomNotFound):
        await store.retain("notes", 1)
    assert await store.info("notes") is None


@pytest.mark.parametrize("seconds", [-1, 1 << 31])
async def test_a_retention_out_of_range_is_refused(store: Store, seconds: int) -> None:
    await append(store, entry(1, b"a"))

    with pytest.raises(InvalidRequest):
        await store.retain("notes", seconds)


# Deleted rooms


async def test_a_deleted_room_comes_back_as_it_was(store: Store, clock: Hand) -> None:
    await append(store, entry(1, b"a", b"b", b"c"))
    await store.bind("notes", {7: "alice"})
    await store.reject("notes", 2, "kills")
    await store.describe("notes", {"title": "Notes"})
    fence = (await store.load("notes")).fence
    await store.checkpoint("notes", Checkpoint(1, b"a"), fence=fence)
    before = await store.load("notes")
    clock.turn(DAY)
    await store.delete("notes")
    clock.turn(6 * DAY)
    await store.tidy()
    deleted = await store.info("notes")

    restored = await store.restore("notes")

    after = await store.load("notes")
    answers = await append(store, entry(4, b"d"))
    assert after[:5] == before[:5]
    assert deleted is not None
    assert deleted.deleted_milliseconds == 1_000_000 + DAY * 1000
    assert restored == deleted._replace(deleted_milliseconds=None)
    assert restored.metadata == {"title": "Notes"}
    assert [error for _, error in answers] == [None]


async def test_a_compactor_from_before_the_deletion_changes_nothing(
    store: Store,
) -> None:
    await append(store, entry(1, b"a"))
    old = (await store.load("notes")).fence
    await store.delete("notes")
    await append(store, entry(1, b"new", epoch="e2"))
    between = (await store.load("notes")).fence
    await store.delete("notes", purge=True)
    await append(store, entry(1, b"x", epoch="e3"))
    await store.delete("notes")
    await store.restore("notes")

    assert not await store.checkpoint("notes", Checkpoint(1, b"old"), fence=old)
    assert not await store.checkpoint("notes", Checkpoint(1, b"new"), fence=between)


async def test_deleted_rooms_are_listed_apart(store: Store) -> None:
    await append(store, entry(1, b"a"), entry(1, b"a", room="other"))
    await store.delete("notes")
    await append(store, entry(1, b"b", epoch="e2"))
    await store.delete("notes")

    assert [info.name for info in await store.rooms()] == ["other"]
    assert [info[:2] for info in await store.rooms(deleted=True)] == [("notes", "e2")]
    assert await store.rooms(deleted=True, prefix="o") == []


async def test_a_deleted_room_does_not_come_back_over_a_new_one(store: Store) -> None:
    await append(store, entry(1, b"a"))
    await store.delete("notes")
    await append(store, entry(1, b"b", epoch="e2"))

    with pytest.raises(Conflict):
        await store.restore("notes")


async def test_what_was_never_deleted_cannot_be_restored(store: Store) -> None:
    with pytest.raises(RoomNotFound):
        await store.restore("notes")


async def test_after_its_time_a_deleted_room_is_gone_for_good(
    store: Store, clock: Hand
) -> None:
    await append(store, entry(1, b"a"))
    await store.delete("notes")
    clock.turn(base.DELETED_ROOM_SECONDS)

    with pytest.raises(RoomNotFound):
        await store.restore("notes")
    assert await store.info("notes") is None
    assert await store.rooms(deleted=True) == []


@pytest.mark.parametrize("is_purged_later", [False, True])
async def test_the_epoch_of_a_purged_room_stays_over(
    store: Store, clock: Hand, is_purged_later: bool
) -> None:
    await append(store, entry(1, b"a"))
    await store.delete("notes", purge=not is_purged_later)
    clock.turn(base.DELETED_ROOM_SECONDS if is_purged_later else 0)
    await store.tidy()

    answers = await append(store, entry(1, b"late"))

    assert isinstance(answers[0][1], RoomNotFound)
    with pytest.raises(RoomNotFound):
        await store.restore("notes")


async def test_a_purge_takes_what_was_kept_of_earlier_rooms(store: Store) -> None:
    await append(store, entry(1, b"a"))
    await store.delete("notes")

    await store.delete("notes", purge=True)

    with pytest.raises(RoomNotFound):
        await store.restore("notes")


# Retention


async def checkpointed(store: Store, *positions: int) -> None:
    for position in positions:
        fence = (await store.load("notes")).fence
        checkpoint = Checkpoint(position, b"at %d" % position)
        assert await store.checkpoint("notes", checkpoint, fence=fence)


async def test_old_log_that_both_checkpoints_cover_goes(
    store: Store, clock: Hand
) -> None:
    for position in range(1, 11):
        await append(store, entry(position, b"x", milliseconds=clock()))
        clock.turn(60)
    await checkpointed(store, 6, 8)
    await store.retain("notes", 330)  # positions 6 to 10 are younger
    before = await store.load("notes")

    await store.tidy()

    assert [row.position for row in await store.history("notes")] == [6, 7, 8, 9, 10]
    assert [row.position for row in await store.history("notes", after=7, limit=2)] == [
        8,
        9,
    ]
    assert (await store.load("notes"))[:5] == before[:5]


async def test_log_that_is_not_attributed_yet_stays(store: Store, clock: Hand) -> None:
    for position in range(1, 11):
        await append(store, entry(position, b"x", milliseconds=clock()))
    fence = (await store.load("notes")).fence
    await store.attribute("notes", Attributed(3, b"to 3"), fence=fence)
    await checkpointed(store, 6, 8)
    await store.retain("notes", 0)
    clock.turn(1)

    await store.tidy()

    assert (await store.history("notes", limit=1))[0].position == 4
    fence = (await store.load("notes")).fence
    await store.attribute("notes", Attributed(8, b"to 8"), fence=fence)
    await store.tidy()
    assert (await store.history("notes", limit=1))[0].position == 7
    assert await store.attribution("notes") == Attributed(8, b"to 8")


async def test_log_that_only_the_newest_checkpoint_covers_stays(
    store: Store, clock: Hand
) -> None:
    for position in range(1, 11):
        await append(store, entry(position, b"x", milliseconds=clock()))
    await checkpointed(store, 4, 8)
    await store.retain("notes", 0)
    clock.turn(1)

    await store.tidy()

    assert [row.position for row in await store.history("notes")] == [5, 6, 7, 8, 9, 10]
    answers = await append(store, entry(11, b"y", milliseconds=clock()))
    assert [error for _, error in answers] == [None]
    assert list((await store.load("notes")).tail) == [
        (9, b"x"),
        (10, b"x"),
        (11, b"y"),
    ]


async def test_log_is_kept_where_there_are_no_two_checkpoints(
    store: Store, clock: Hand
) -> None:
    await append(store, entry(1, b"a", b"b", milliseconds=clock()))
    await store.retain("notes", 0)
    await checkpointed(store, 2)
    clock.turn(DAY)

    await store.tidy()

    assert len(await store.history("notes")) == 2


async def test_log_is_kept_where_nothing_was_said(store: Store, clock: Hand) -> None:
    for position in range(1, 4):
        await append(store, entry(position, b"x", milliseconds=clock()))
    await checkpointed(store, 2, 3)
    clock.turn(1000 * DAY)

    await store.tidy()

    assert len(await store.history("notes")) == 3


async def test_who_wrote_what_is_kept_is_known_however_much_was_trimmed(
    store: Store, clock: Hand
) -> None:
    band, written = base.LANDMARK_ROWS, {}
    for start in range(1, 3 * band, 500):
        authors = [BOB._replace(turn=f"t{start}"), *[ALICE, BOB] * 250][:500]
        await append(
            store, entry(start, *[b"x"] * 500, authors=authors, milliseconds=clock())
        )
        written |= dict(enumerate(authors, start))
        clock.turn(1)
    end = max(written)

    for share in (0.2, 0.4, 0.5, 0.9):
        await checkpointed(store, int(share * end), int(share * end) + 1)
        await store.retain("notes", 0)
        await store.tidy()
        await append(store, entry(end + 1, b"y", authors=[BOB], milliseconds=clock()))
        end += 1
        written[end] = BOB
        first = (await store.history("notes", limit=1))[0].position
        found = await store.history("notes", limit=end)

        assert first > (share - 0.1) * end
        assert {row.position: row.author for row in found} == {
            position: author
            for position, author in written.items()
            if position >= first
        }


# Landmarks


async def kept(store: Store, *positions: int) -> list[int]:
    """Which of the checkpoints at these positions are still there."""
    found = [await store.checkpoint_before("notes", at) for at in positions]
    return sorted({each.position for each in found if each is not None})


async def test_beside_the_two_newest_checkpoints_the_first_of_each_band_stays(
    store: Store,
) -> None:
    band = base.LANDMARK_ROWS
    positions = [
        *(5, 10, band - 1, band, band + 1),
        *(3 * band - 1, 3 * band, 3 * band + 2, 3 * band + 5),
    ]
    await append(store, entry(1, *[b"x"] * (4 * band)))

    await checkpointed(store, *positions)

    found = await store.checkpoint_before("notes", 3 * band - 2)
    newest = await store.checkpoint_before("notes", 1 << 70)
    assert await kept(store, *positions) == [
        *(5, band, 3 * band - 1, 3 * band),
        *(3 * band + 2, 3 * band + 5),
    ]
    assert found == Checkpoint(band, b"at %d" % band)
    assert newest == (await store.load("notes")).checkpoint
    assert await store.checkpoint_before("notes", 4) is None
    info = await store.info("notes")
    assert info is not None
    assert info.checkpoint_position == 3 * band + 5


async def test_a_landmark_that_costs_more_than_the_log_does_not_stay(
    store: Store,
) -> None:
    band = base.LANDMARK_ROWS
    await append(store, entry(1, *[b"x"] * (3 * band + 2)))
    await checkpointed(store, 1)
    large = bytes(base.LANDMARK_BYTES * (band - 1) + 1)

    for position, snapshot in (
        (band, large),
        (2 * band, large),
        (3 * band, b""),
        (3 * band + 1, b""),
        (3 * band + 2, b""),
    ):
        fence = (await store.load("notes")).fence
        checkpoint = Checkpoint(position, snapshot)
        assert await store.checkpoint("notes", checkpoint, fence=fence)

    assert await kept(store, 1, band, 2 * band, 3 * band) == [1, 2 * band, 3 * band]


async def test_a_landmark_goes_with_the_rows_behind_it(
    store: Store, clock: Hand
) -> None:
    band = base.LANDMARK_ROWS
    for part in range(4):
        updates = [b"x"] * band
        await append(store, entry(part * band + 1, *updates, milliseconds=clock()))
        clock.turn(60)
    positions = [100, band, 2 * band, 3 * band, 3 * band + 1, 3 * band + 2]
    await checkpointed(store, *positions)
    before = await kept(store, *positions)
    await store.retain("notes", 150)  # the first two quarters are older

    await store.tidy()

    assert before == positions
    assert (await store.history("notes", limit=1))[0].position == 2 * band + 1
    assert await kept(store, *positions) == positions[2:]
    await store.retain("notes", 0)
    await store.tidy()
    first = (await store.history("notes", limit=1))[0].position
    assert first > 3 * band
    assert await kept(store, *positions) == [
        position for position in positions if position >= first - 1
    ]


async def test_landmarks_and_attribution_come_back_with_a_room_and_go_with_it(
    store: Store,
) -> None:
    await append(store, entry(1, *[b"x"] * 10))
    await checkpointed(store, 2, 4, 6)
    fence = (await store.load("notes")).fence
    await store.attribute("notes", Attributed(6, b"who"), fence=fence)
    await store.delete("notes")

    with pytest.raises(RoomNotFound):
        await store.checkpoint_before("notes", 9)
    await store.restore("notes")
    restored = await kept(store, 2, 4, 6), await store.attribution("notes")
    await store.delete("notes", purge=True)
    await store.tidy()
    await append(store, entry(1, b"y", epoch="e2"))

    assert restored == ([2, 4, 6], Attributed(6, b"who"))
    assert await kept(store, 2, 4, 6) == []
    assert await store.attribution("notes") is None


# Attribution


async def test_only_an_attribution_of_a_later_position_counts(store: Store) -> None:
    await append(store, entry(1, *[b"x"] * 10))
    fence = (await store.load("notes")).fence
    large = bytes(range(256)) * 20_000

    none = await store.attribution("notes")
    assert await store.attribute("notes", Attributed(5, b"5"), fence=fence)
    assert not await store.attribute("notes", Attributed(5, b"other"), fence=fence)
    assert not await store.attribute("notes", Attributed(4, b"4"), fence=fence)
    assert not await store.attribute("notes", Attributed(11, b"11"), fence=fence)
    five = await store.attribution("notes")
    assert await store.attribute("notes", Attributed(10, large), fence=fence)

    assert none is None
    assert five == Attributed(5, b"5")
    assert await store.attribution("notes") == Attributed(10, large)
    info = await store.info("notes")
    assert info is not None
    assert info.bytes >= len(large)


async def test_an_attribution_of_an_older_fence_or_history_changes_nothing(
    store: Store,
) -> None:
    await append(store, entry(1, b"a", b"b"))
    old = (await store.load("notes")).fence
    new = (await store.load("notes")).fence
    assert await store.checkpoint("notes", Checkpoint(1, b"a"), fence=new)

    assert not await store.attribute("notes", Attributed(1, b"old"), fence=old)
    assert await store.attribute("notes", Attributed(1, b"new"), fence=new)
    await store.delete("notes")
    await append(store, entry(1, b"c", b"d", epoch="e2"))
    assert not await store.attribute("notes", Attributed(2, b"new"), fence=new)

    assert await store.attribution("notes") is None


async def test_nobody_wrote_in_a_room_that_is_not_there(store: Store) -> None:
    fence = (await store.load("notes")).fence

    assert not await store.attribute("notes", Attributed(0, b""), fence=fence)
    with pytest.raises(RoomNotFound):
        await store.attribution("notes")


# Answers


async def test_an_answer_is_recalled(store: Store) -> None:
    await store.remember("alice:k1", b"digest", b"answer")
    await store.remember("alice:k1", b"digest 2", b"answer 2")

    assert await store.recall("alice:k1") == Remembered(b"digest 2", b"answer 2")
    assert await store.recall("alice:k2") is None


async def test_an_answer_is_forgotten_after_a_day(store: Store, clock: Hand) -> None:
    await store.remember("alice:k1", b"digest", b"answer")
    clock.turn(DAY)
    await store.remember("alice:k2", b"digest", b"answer")
    clock.turn(1)

    before = await store.recall("alice:k1"), await store.recall("alice:k2")
    await store.tidy()
    after = await store.recall("alice:k1"), await store.recall("alice:k2")

    assert before == after == (None, Remembered(b"digest", b"answer"))


async def test_an_answer_that_is_too_large_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="bytes"):
        await store.remember("k", b"", bytes(base.MAX_ANSWER_BYTES + 1))
