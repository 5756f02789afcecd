"""Rooms of a process: opened once, fed, evicted, rebuilt, drained."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from costly import before_each, plain, slow
from pycrdt import Doc, Text
from rooms import Client, update_message

from collab import replica as replica_module
from collab.bus.memory import MemoryBus
from collab.errors import (
    Busy,
    ClientIdConflict,
    CollabError,
    Conflict,
    DocumentBroken,
    Draining,
    RoomNotFound,
    RoomUnavailable,
    StoreUnavailable,
    TooLarge,
)
from collab.metrics import Metrics
from collab.replica import MAX_CRASHED_LOADS, Replica
from collab.room import RoomState
from collab.store.base import Done, Entry, Stored
from collab.store.memory import MemoryStore

pytestmark = pytest.mark.anyio


class Store(MemoryStore):
    """The memory store, which counts loads, can wait, and can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.loads = 0
        self.gate: asyncio.Event | None = None
        self.load_error: CollabError | None = None
        self.append_error: CollabError | None = None

    async def load(self, room: str) -> Stored:
        self.loads += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.load_error is not None:
            raise self.load_error
        return await super().load(room)

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        if self.append_error is not None:
            asyncio.get_running_loop().call_soon(done, list(entries), self.append_error)
        else:
            super().append(entries, done)


def make(store: Store | None = None, **options: Any) -> Replica:
    return Replica(store or Store(), Metrics(), **options)


async def test_one_load_serves_all_who_ask_at_once() -> None:
    store = Store()
    async with make(store) as replica:
        rooms = await asyncio.gather(*(replica.open("r") for _ in range(50)))

        assert store.loads == 1
        assert all(room is rooms[0] for room in rooms)


async def test_whoever_gives_up_waiting_does_not_stop_the_load() -> None:
    store = Store()
    store.gate = asyncio.Event()
    async with make(store) as replica:
        impatient = asyncio.ensure_future(replica.open("r"))
        patient = asyncio.ensure_future(replica.open("r"))
        await asyncio.sleep(0)
        impatient.cancel()
        store.gate.set()

        assert (await patient).name == "r"


async def test_a_failed_load_is_told_to_everybody_and_tried_again() -> None:
    store = Store()
    store.load_error = RoomUnavailable("broken")
    async with make(store) as replica:
        found = await asyncio.gather(
            *(replica.open("r") for _ in range(3)), return_exceptions=True
        )
        store.load_error = None

        assert [type(error) for error in found] == [RoomUnavailable] * 3
        assert (await replica.open("r")).state is RoomState.DRAINING


async def test_an_edit_survives_the_eviction_of_its_room() -> None:
    ada, bob = Client("ada"), Client("bob")
    async with make(idle_room_seconds=0) as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)
        room.update(ada.member, ada.write("x"))
        replica.leave(room, ada.member)
        await replica.settle()
        replica._evict()
        again = await replica.open("r")
        replica.join(again, bob.member)
        again.answer(bob.member, b"\x00")

        assert room.state is RoomState.CLOSED
        assert again is not room
        assert again.epoch == room.epoch
        assert again.position == 1
        assert bob.read() == "x"


async def test_a_room_with_unlogged_changes_is_not_evicted() -> None:
    ada = Client()
    async with make(idle_room_seconds=0) as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)
        room.update(ada.member, ada.write("x"))
        replica.leave(room, ada.member)

        replica._evict()

        assert replica.rooms == [room]


async def test_a_room_with_members_is_not_evicted() -> None:
    ada = Client()
    async with make(idle_room_seconds=0) as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)

        replica._evict()

        assert replica.rooms == [room]


async def test_joining_while_a_room_drains_revives_it() -> None:
    ada, bob = Client("ada"), Client("bob")
    async with make(idle_room_seconds=0) as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)
        room.update(ada.member, ada.write("x"))
        replica.leave(room, ada.member)
        assert room.state is RoomState.DRAINING

        replica.join(await replica.open("r"), bob.member)
        replica._evict()

        assert replica.rooms == [room]
        assert room.state is RoomState.LIVE


async def test_a_room_that_nobody_wrote_in_is_not_kept() -> None:
    ada, bob = Client("ada"), Client("bob")
    async with make(idle_room_seconds=60) as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)
        replica.leave(room, ada.member)

        assert room.state is RoomState.CLOSED
        assert replica.rooms == []

        again = await replica.open("r")
        replica.join(again, bob.member)

        assert replica.rooms == [again]


async def test_a_full_room_is_busy() -> None:
    async with make(max_members_per_room=1) as replica:
        replica.join(await replica.open("r"), Client().member)

        with pytest.raises(Busy):
            await replica.open("r")


async def test_the_echo_comes_after_the_commit() -> None:
    ada = Client()
    async with make() as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)
        update = ada.write("x")
        room.update(ada.member, update)
        before = list(ada.messages)
        await replica.settle()

        assert before == []
        assert ada.messages == [update_message(update)]


async def test_presence_leaves_in_one_message_for_all_that_changed() -> None:
    ada, bob = Client("ada"), Client("bob")
    async with make() as replica:
        room = await replica.open("r")
        for client in (ada, bob):
            replica.join(room, client.member)
        room.awareness.apply(b"\x01\x01\x01\x02{}", ada.member, 0)
        replica.present(room)
        room.awareness.apply(b"\x01\x02\x01\x02{}", bob.member, 0)
        replica.present(room)

        replica._flush_awareness()

        assert (
            ada.messages
            == bob.messages
            == [b"\x01\x0b\x02\x01\x01\x02{}\x02\x01\x02{}"]
        )


async def test_a_store_that_cannot_write_makes_rooms_read_only_until_it_can() -> None:
    store, ada = Store(), Client()
    async with make(store) as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)
        store.append_error = StoreUnavailable("disk full")
        room.update(ada.member, ada.write("x"))
        await replica.settle()
        with pytest.raises(StoreUnavailable):
            room.update(ada.member, ada.write("y"))
        unsaved = list(ada.messages)
        store.append_error = None
        await asyncio.wait_for(ada.line.healed.wait(), 30)

        assert replica.troubles == []
        assert unsaved == []
        assert ada.line.notices == ["read-only", "writable"]
        assert ada.messages[-1][:2] == b"\x00\x00"
        assert room.update(ada.member, ada.doc.get_update(), precise=True)


@pytest.mark.parametrize("is_shared", [True, False])
async def test_a_store_that_cannot_write_sends_traffic_away_unless_all_have_it(
    is_shared: bool,
) -> None:
    store, ada = Store(), Client()
    store.is_shared = is_shared
    reasons = ["the store cannot write: disk full"]
    async with make(store) as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)
        store.append_error = StoreUnavailable("disk full")
        room.update(ada.member, ada.write("x"))
        await replica.settle()

        troubles, worries = replica.troubles, replica.worries

        store.append_error = None
        await asyncio.wait_for(ada.line.healed.wait(), 30)
        assert (troubles, worries) == (([], reasons) if is_shared else (reasons, []))
        assert replica.troubles == replica.worries == []


async def test_a_broken_document_is_rebuilt_and_its_members_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ada, bob = Client("ada"), Client("bob")
    async with make() as replica:
        room = await replica.open("r")
        for client in (ada, bob):
            replica.join(room, client.member)
        room.update(ada.member, ada.write("x"))
        monkeypatch.setattr(room.document, "_native", _Broken())
        with pytest.raises(DocumentBroken):
            room.update(ada.member, ada.write("y"))

        await replica.rebuild(room)
        room.update(ada.member, ada.made[-1])
        await replica.settle()

        assert replica.metrics.rebuilds == 1
        assert bob.read() == "xy"
        assert (ada.line.holds, ada.line.closed) == (0, None)


@pytest.mark.parametrize("precise", [False, True])
async def test_what_lets_in_what_takes_too_long_costs_a_room_one_rebuild(
    *, precise: bool
) -> None:
    ada, bob, eve = Client("ada"), Client("bob"), Client("eve")
    async with make() as replica:
        room = await replica.open("r")
        for client in (ada, bob, eve):
            replica.join(room, client.member)
        room.update(ada.member, plain(1000))
        late = bob.write("late")
        room.document._clock = slow()
        room.update(eve.member, before_each(1000, after=bob.doc.client_id))
        with pytest.raises(DocumentBroken, match="too long"):
            room.update(bob.member, late)
        await replica.rebuild(room)

        with pytest.raises(TooLarge, match="waiting"):
            room.update(bob.member, late, precise=precise)
        is_new = room.update(ada.member, ada.write("goes on"), precise=precise)

        assert is_new
        assert replica.metrics.rebuilds == 1


class _Broken:
    def create_transaction(self) -> None:
        raise BaseException("as a Rust panic")


async def test_a_room_that_cannot_be_rebuilt_is_quarantined_alone() -> None:
    store, ada = Store(), Client()
    async with make(store) as replica:
        room, other = await replica.open("r"), await replica.open("other")
        replica.join(room, ada.member)
        store.load_error = RoomUnavailable("gone")

        await replica.rebuild(room)
        store.load_error = None

        assert isinstance(ada.line.closed, RoomUnavailable)
        with pytest.raises(RoomUnavailable):
            await replica.open("r")
        assert await replica.open("other") is other


async def test_a_room_that_kills_the_process_again_and_again_is_quarantined() -> None:
    store = Store()
    async with store:
        for _ in range(MAX_CRASHED_LOADS):
            await store.begin_load("r")
    async with make(store) as replica:
        with pytest.raises(RoomUnavailable):
            await replica.open("r")

        assert replica.metrics.quarantines == 1
        assert (await replica.open("other")).name == "other"


async def test_a_room_that_is_set_apart_is_tried_with_care_by_the_next_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, ada = Store(), Client()
    async with make(store) as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)
        room.update(ada.member, ada.write("x"))
    async with make(store) as replica:

        async def blame_the_checkpoint(*log: object) -> int:
            return 0

        monkeypatch.setattr(replica.compactor, "find_killer", blame_the_checkpoint)
        await store.begin_load("r")
        with pytest.raises(RoomUnavailable, match="checkpoint"):
            await replica.open("r")

        assert await store.begin_load("r") == 2


async def test_a_process_that_was_killed_while_it_opened_a_room_condemns_nobody() -> (
    None
):
    store, ada = Store(), Client()
    async with make(store) as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)
        room.update(ada.member, ada.write("x"))
        await replica.settle()
        await store.begin_load("r")
    async with make(store) as replica:
        assert (await replica.open("r")).position == 1
        assert await store.begin_load("r") == 0


async def test_a_room_whose_log_is_not_what_it_holds_begins_again() -> None:
    store, ada = Store(), Client()
    async with make(store) as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)
        room.update(ada.member, ada.write("x"))
        await replica.settle()
        await store.delete("r", purge=True)
        room.update(ada.member, ada.write("y"))
        await replica.settle()

        assert isinstance(ada.line.closed, RoomNotFound)
        assert (await replica.open("r")).position == 0


async def test_a_deleted_room_closes_to_everybody_and_comes_back_whole() -> None:
    ada = Client()
    async with make() as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)
        room.update(ada.member, ada.write("x"))

        await replica.delete("r")

        assert isinstance(ada.line.closed, RoomNotFound)
        with pytest.raises(RoomNotFound):
            await replica.open("r")
        await replica.store.restore("r")
        assert (await replica.open("r")).position == 1


async def test_an_edit_that_races_with_the_deletion_of_its_room_is_refused() -> None:
    ada = Client()
    async with make() as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)
        room.update(ada.member, ada.write("x"))

        deleting = asyncio.ensure_future(replica.delete("r"))
        await asyncio.sleep(0)

        with pytest.raises(RoomNotFound):
            room.update(ada.member, ada.write("y"))
        with pytest.raises(RoomNotFound):
            await replica.open("r")
        await deleting
        await replica.store.restore("r")
        assert (await replica.open("r")).position == 1


async def test_a_room_that_cannot_be_deleted_goes_on() -> None:
    ada, store = Client(), Store()
    async with make(store) as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)

        with pytest.raises(RoomNotFound):
            await replica.delete("r")

        assert ada.line.closed is None
        assert room.update(ada.member, ada.write("x"))


async def test_who_waits_in_a_room_stays_when_it_is_created() -> None:
    ada = Client()
    async with make() as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)

        info = await replica.create("r", {"title": "Plan"}, history_seconds=None)
        room.update(ada.member, ada.write("x"))
        await replica.settle()

        assert info.epoch == room.epoch
        assert ada.line.closed is None
        assert (await replica.store.load("r")).position == 1


async def test_a_room_that_is_only_created_is_not_kept_in_memory() -> None:
    async with make() as replica:
        first = await replica.create("r", {}, history_seconds=None)
        with pytest.raises(Conflict):
            await replica.create("r", {}, history_seconds=None)

        assert replica.live("r") is None
        assert (await replica.open("r")).epoch == first.epoch


async def test_a_deleted_room_can_be_created_anew() -> None:
    async with make() as replica:
        first = await replica.create("r", {}, history_seconds=None)
        await replica.delete("r")

        second = await replica.create("r", {}, history_seconds=None)

        assert second.epoch != first.epoch
        assert (await replica.open("r")).epoch == second.epoch


async def test_a_draining_replica_opens_nothing_new() -> None:
    async with make() as replica:
        room = await replica.open("r")
        await replica.drain()

        with pytest.raises(Draining):
            await replica.open("new")
        assert await replica.open("r") is room
        assert replica.troubles == ["draining"]


async def test_leaving_the_replica_logs_what_was_just_said() -> None:
    store, ada = Store(), Client()
    async with make(store) as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)
        room.update(ada.member, ada.write("x"))

    async with store:
        assert (await store.load("r")).position == 1


async def test_conflicts_over_client_ids_are_counted() -> None:
    ada, eve = Client("ada"), Client("eve")
    async with make(binding="audit") as replica:
        room = await replica.open("r")
        for client in (ada, eve):
            replica.join(room, client.member)
        room.update(ada.member, ada.write("x"))

        room.update(eve.member, ada.write("y"))
        replica._account(room)

        assert replica.metrics.client_id_conflicts == 1


async def test_what_copied_clients_write_is_counted() -> None:
    ada, copy = Client("ada"), Client("copy")
    copy.doc = Doc(client_id=ada.doc.client_id)
    copy.doc.get("text", type=Text).insert(0, "its own")
    async with make() as replica:
        room = await replica.open("r")
        for client in (ada, copy):
            replica.join(room, client.member)
        room.update(ada.member, ada.write("x"))

        with pytest.raises(ClientIdConflict):
            room.update(copy.member, copy.doc.get_update())
        replica._account(room)

        assert replica.metrics.client_id_copies == 1
        assert room.take(0).authors == [ada.member.author]


async def test_owners_are_stored_with_the_room() -> None:
    store, ada = Store(), Client()
    async with make(store) as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)
        room.update(ada.member, ada.write("x"))
        await replica.settle()

        assert (await store.load("r")).owners == {ada.doc.client_id: "ada"}


class Slow(MemoryStore):
    """A store that replicas share, and that commits when it is told to."""

    def __init__(self) -> None:
        super().__init__(is_shared=True)
        self.held: list[Callable[[], None]] | None = None

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        commit = partial(super().append, entries, done)
        if self.held is None:
            commit()
        else:
            self.held.append(commit)

    def commit(self) -> None:
        held, self.held = self.held or [], None
        for commit in held:
            commit()


async def test_a_claim_is_kept_until_what_was_written_under_it_is_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replica_module, "LOGGED_SECONDS", 0.01)
    store, bus, ada = Slow(), MemoryBus(), Client("ada")
    async with make(store, bus=bus) as replica:
        room = await replica.open("r")
        replica.join(room, ada.member)
        store.held = []
        async with replica.historian.exclusion.of("r") as claim:
            room.update(ada.member, ada.write("hello"))
            with pytest.raises(StoreUnavailable):
                await replica.logged_under(claim, room, room.position)
        was_free = await bus.claim("r", "another", 1)

        store.commit()

        async with asyncio.timeout(30):
            async with replica.historian.exclusion.of("r"):
                pass
    assert not was_free


async def test_what_another_replica_has_logged_is_taken_in_when_it_is_asked_for() -> (
    None
):
    store, ada = Slow(), Client("ada")
    # Two buses on which they do not hear each other.
    async with (
        make(store, bus=MemoryBus()) as one,
        make(store, bus=MemoryBus()) as other,
    ):
        here, there = await one.open("r"), await other.open("r")
        one.join(here, ada.member)
        there.watchers[lambda: None] = None
        here.update(ada.member, ada.write("hello"))
        await one.logged(here, here.position)
        before = there.document.snapshot()

        await other.caught_up(there)

    assert before != here.document.snapshot() == there.document.snapshot()


async def test_a_room_that_cannot_be_written_catches_up_with_nothing() -> None:
    async with make() as replica:
        room = await replica.open("r")
        room.unwritable = StoreUnavailable("the disk is full")

        with pytest.raises(StoreUnavailable):
            await replica.caught_up(room)
