"""One server process: opens, feeds and evicts rooms, and carries out what they bring about.

socket → room (synchronous) → once per loop turn: broadcast + journal → once per commit: acknowledgements
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import (
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack
from typing import Any, Literal, Self

from collab import logs
from collab.audit.audit import Audit
from collab.auth.permissions import names_of
from collab.awareness import Awareness
from collab.bus.base import Bus
from collab.compaction import Compactor
from collab.document.document import Binding, Document
from collab.errors import (
    BusUnavailable,
    Busy,
    CollabError,
    DocumentBroken,
    Draining,
    Refused,
    RoomNotFound,
    RoomUnavailable,
    StoreUnavailable,
)
from collab.exclusion import Claim
from collab.history.historian import Historian
from collab.journal import Journal
from collab.metrics import Metrics
from collab.protocol import yjs
from collab.rendering import Renderer
from collab.replicas.relay import Relay
from collab.room import Member, Room, RoomState, Visitor
from collab.store.base import Entry, RoomInfo, Store

AWARENESS_SECONDS = (
    0.02  # presence leaves at most once in this time, the latest state of each client
)
PULSE_SECONDS = 1.0
REBUILD_SECONDS = 30.0
LOADING_SECONDS = (
    0.02  # that a room takes of the loop in one go while its log is replayed
)
LOGGED_SECONDS = 5.0  # that a request waits for its edit to be saved
# Loads that took the process down, although a child process tried the log before every further one.
MAX_CRASHED_LOADS = 4

log = logs.logger(__name__)

_CANNOT_WRITE = "the store cannot write"


class Replica:
    """The rooms of a process. An async context manager: leaving it logs everything and closes the store."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        *,
        durability: Literal["eager", "strict"] = "eager",
        binding: Binding = "audit",
        idle_room_seconds: float = 60.0,
        compact_rows: int = 1000,
        compact_bytes: int = 1 << 18,
        max_update_bytes: int = 1 << 19,
        max_stash_bytes: int = 1 << 20,
        max_document_bytes: int = 50 << 20,
        max_awareness_bytes: int = 4096,
        max_awareness_clients: int = 4,
        max_members_per_room: int = 1000,
        child_processes: int = 1,
        audit: Audit | None = None,
        bus: Bus | None = None,
        cluster_key: bytes | None = None,
        name: str = "",
    ) -> None:
        self.store, self.metrics = store, metrics
        # None where nobody else has the rooms.
        self.relay: Relay | None = None
        if bus is not None:
            self.relay = Relay(bus, store, self, metrics, key=cluster_key, me=name)
        self.audit = audit or Audit()
        self.is_leaving = False  # it wants no more traffic, but takes what comes
        self.is_draining = False
        self._durability, self._binding = durability, binding
        self._idle_room_seconds = idle_room_seconds
        self._max_members_per_room = max_members_per_room
        self._document_limits = {
            "max_update_bytes": max_update_bytes,
            "max_stash_bytes": max_stash_bytes,
            "max_document_bytes": max_document_bytes,
        }
        self._awareness_limits = {
            "max_state_bytes": max_awareness_bytes,
            "max_clients": max_awareness_clients,
        }
        self._rooms: dict[str, Room] = {}
        self._loading: dict[str, asyncio.Task[Room | CollabError]] = {}
        self._rebuilding: dict[str, asyncio.Task[None]] = {}
        self._quarantined: set[str] = set()
        self._deleting: set[str] = set()
        self._idle: dict[str, float] = {}  # rooms without members, since when
        self._dirty: list[Room] = []
        self._present: dict[Room, None] = {}  # rooms whose presence changed
        self._lag = 0.0
        self._stack = AsyncExitStack()
        self.journal = Journal(
            store,
            logged=self._logged,
            failed=self._failed,
            healed=self._healed,
            refused=self._refused,
            metrics=metrics,
        )
        self.renderer = Renderer()
        # Where nobody else has the rooms, nobody else takes back in them.
        self.historian = Historian(store, bus=bus if store.is_shared else None)
        self.compactor = Compactor(
            store,
            metrics=metrics,
            rows=compact_rows,
            max_bytes=compact_bytes,
            processes=child_processes,
        )

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        await self._stack.enter_async_context(self.store)
        await self._stack.enter_async_context(self.journal)
        await self._stack.enter_async_context(self.compactor)
        await self._stack.enter_async_context(self.renderer)
        await self._stack.enter_async_context(self.historian)
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        if self.relay is not None:
            await self._stack.enter_async_context(self.relay)
        self._pulse = self._tasks.create_task(self._beat())
        gauges = self.metrics.gauges
        gauges["rooms"] = lambda: len(self._rooms)
        gauges["members"] = lambda: sum(map(len, self._rooms.values()))
        gauges["unsaved_seconds"] = lambda: self.journal.oldest_unsaved_seconds
        gauges["unsaved_updates"] = lambda: self.journal.unsaved_updates
        gauges["stashed_bytes"] = lambda: sum(
            room.document.gate.stashed_bytes for room in self._rooms.values()
        )
        gauges["loop_lag_seconds"] = lambda: self._lag
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self.settle()
        self._pulse.cancel()
        for room in self.rooms:
            self._forget(room)
        await self._stack.__aexit__(*exc_info)

    @property
    def troubles(self) -> list[str]:
        """Why this replica should not get traffic; empty when it should."""
        found = []
        if self.is_leaving or self.is_draining:
            found.append("draining")
        if self.journal.is_failing and not self.store.is_shared:
            found.append(f"{_CANNOT_WRITE}: {self.journal.fault}")
        if self._lag > 5.0:
            found.append("the event loop is late")
        if self.relay is not None and self.relay.stranger:
            found.append("another replica keeps its rooms elsewhere")
        return found

    @property
    def worries(self) -> list[str]:
        """What is not as it should be, although this replica serves: others would do no better."""
        found = []
        if self.journal.is_failing and self.store.is_shared:
            found.append(f"{_CANNOT_WRITE}: {self.journal.fault}")
        if self.relay is not None and not self.relay.bus.is_up:
            reasons = ", ".join(self.relay.bus.troubles)
            found.append(f"messages between replicas do not pass redis: {reasons}")
        return found

    @property
    def has_others(self) -> bool:
        """Whether there are replicas where members of this one can go."""
        return self.relay is not None and bool(self.relay.peers)

    @property
    def rooms(self) -> Sequence[Room]:
        return list(self._rooms.values())

    def live(self, name: str) -> Room | None:
        """The room of that name when it is in memory; this opens none."""
        return self._rooms.get(name)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a piece of work that ends by itself; a bug in it is logged and costs nobody else anything."""
        self._tasks.create_task(_contained(work))

    # Opening and closing

    async def open(self, name: str) -> Room:
        """The live room of that name; loads it once, however many ask at the same time.

        Raises RoomUnavailable for a quarantined room, Busy for a full one, Draining, StoreCorrupt. Join it without an `await` between.
        """
        while True:
            if name in self._deleting:
                raise RoomNotFound("this room was deleted")
            rebuilding = self._rebuilding.get(name)
            if rebuilding is not None:
                await asyncio.shield(rebuilding)
            room = self._rooms.get(name)
            if room is not None and name not in self._rebuilding:
                if len(room) >= self._max_members_per_room:
                    raise Busy("this room is full")
                return room
            if self.is_draining:
                raise Draining("the server restarts; come back in a moment")
            if name in self._quarantined:
                raise RoomUnavailable(
                    "this room is quarantined: its log could not be opened"
                )
            task = self._loading.get(name)
            if task is None:
                task = self._loading[name] = self._tasks.create_task(self._load(name))
            opened = await asyncio.shield(task)
            if isinstance(opened, CollabError):
                raise opened
            if opened.state is not RoomState.CLOSED:
                return opened

    async def create(
        self, name: str, metadata: Mapping[str, Any], *, history_seconds: int | None
    ) -> RoomInfo:
        """Make a room before anybody has written there. Raises Conflict when there is one, and what the store raises.

        Whoever waits in the empty room may write on: it stays the same room.
        """
        room = None
        try:
            room = await self.open(name)
        except RoomNotFound:
            pass  # it was deleted, and nobody is there
        try:
            return await self.store.create(
                name,
                metadata,
                history_seconds=history_seconds,
                epoch=room.epoch if room is not None else "",
            )
        finally:
            if room is not None:
                self.release(room)

    async def delete(self, name: str) -> None:
        """Delete a room: who is there is closed with 4404, and edits are refused from the first moment on.

        What was taken in before is saved and comes back with the room. Raises RoomNotFound, StoreUnavailable.
        """
        gone = RoomNotFound("this room was deleted")
        self._deleting.add(name)
        room = None
        try:
            work: asyncio.Task[Any] | None
            while work := self._loading.get(name) or self._rebuilding.get(name):
                await asyncio.wait([work])
            room = self._rooms.get(name)
            if room is not None:
                room.unwritable = gone
            if not await self.settle():
                raise StoreUnavailable("nothing can be saved at the moment")
            info = await self.store.info(name)
            if info is None or info.deleted_milliseconds is not None:
                raise RoomNotFound("there is no such room")
            await self.store.delete(name)
            if self.relay is not None:
                self.relay.ended(name)
        except BaseException:
            if room is not None:
                room.unwritable = self._trouble
            raise
        finally:
            self._deleting.discard(name)
        self._quarantined.discard(name)
        room = self._rooms.get(name)
        if room is not None:
            self.ended(room, gone)

    def ended(self, room: Room, why: CollabError | None = None) -> None:
        """A room was deleted, or another history of it has begun: its members must go."""
        members = list(room.members)
        self._forget(room)
        for member in members:
            member.line.expel(member, why or RoomNotFound("this room was deleted"))

    async def logged(self, room: Room, position: int) -> None:
        """Wait until the log holds everything up to `position`.

        Raises StoreUnavailable when that takes more than a few seconds: the edit is in the room, but may be lost.
        """
        await self._reached(room, lambda: room.logged_position >= position)

    async def reached(self, room: Room, position: int) -> None:
        """Wait until everything that the log holds up to `position` is in the room, whoever wrote it.

        Raises StoreUnavailable like `logged`.
        """
        await self._reached(room, lambda: room.log_end >= position)

    async def logged_under(self, claim: Claim, room: Room, position: int) -> None:
        """`logged`, and the claim is not let go before: whoever has it next must find this in the log."""
        try:
            await self.logged(room, position)
        except BaseException:
            claim.is_kept = True
            self.start(self._keep(claim, room, position))
            raise

    async def _keep(self, claim: Claim, room: Room, position: int) -> None:
        """As long as the journal has it, unless the bus forgets it."""
        while room.state is not RoomState.CLOSED:
            try:
                await self.logged(room, position)
                break
            except StoreUnavailable:
                try:
                    await claim.renew()
                except BusUnavailable:
                    continue
                except Busy:
                    log.warning("a claim ended before its edit was saved", room=room.name)  # fmt: skip
                    return
        await claim.release()

    async def caught_up(self, room: Room) -> None:
        """Wait until all is in the room that the log holds by now, whoever wrote it.

        Raises StoreUnavailable like `logged`.
        """
        if room.unwritable is not None:
            raise room.unwritable
        await self.logged(room, room.position)
        link = self.relay and self.relay.link(room.name)
        if self.relay is None or not link:
            return  # nobody else writes it
        info = await self.store.info(room.name)
        if info is not None and info.epoch == room.epoch:
            if room.log_end < info.position:
                self.relay.reload(link)
            await self.reached(room, info.position)

    async def _reached(self, room: Room, is_there: Callable[[], bool]) -> None:
        arrived = asyncio.Event()
        room.watchers[arrived.set] = None
        try:
            async with asyncio.timeout(LOGGED_SECONDS):
                while not is_there():
                    arrived.clear()
                    await arrived.wait()
        except TimeoutError:
            raise StoreUnavailable("this is not saved yet, and may never be") from None
        finally:
            room.watchers.pop(arrived.set, None)

    def join(self, room: Room, member: Member) -> None:
        """Let a member in, without an `await` since `open`."""
        self._idle.pop(room.name, None)
        member.since = time.time()
        room.join(member)
        if self.audit.is_on:
            self._record("join", room, member, may=names_of(member.operations))

    def leave(self, room: Room, member: Member) -> None:
        """A member is gone; the others are told, and an empty room begins to idle."""
        if self.audit.is_on and member in room:
            self._record("leave", room, member)
        room.leave(member)
        self.present(room)
        if not len(room) and room.state is RoomState.LIVE:
            room.state = RoomState.DRAINING
            self._idle[room.name] = self._loop.time()
            self.release(room)

    def cancel_turn(self, name: str, turn: str, principal: str = "") -> bool:
        """Stop a turn of a room, here and at every replica; False when nobody can have it open. See `Room.cancel_turn`."""
        room = self._rooms.get(name)
        is_here = room is not None and room.cancel_turn(
            turn, principal, self._loop.call_later
        )
        if self.relay is not None:
            self.relay.cancelled(name, turn, principal)
        # A replica that has just come may not be known yet.
        return is_here or self.relay is not None

    def release(self, room: Room) -> None:
        """A request is done with a room. Where nobody is or ever wrote, nothing is kept: names cost a client nothing."""
        is_used = len(room) or room.watchers or room.version
        is_open = self._rooms.get(room.name) is room
        if is_open and not is_used and room.name not in self._rebuilding:
            self._forget(room)

    def _record(self, event: str, room: Room, member: Member, **details: Any) -> None:
        """Audit a member's coming or going; of requests, only what they change."""
        if not isinstance(member, Visitor):
            self.audit.record(
                event,
                principal=member.principal.id,
                room=room.name,
                connection=member.author.connection,
                address=member.line.address,
                **details,
            )

    async def _load(self, name: str) -> Room | CollabError:
        try:
            room = self._rooms[name] = await self._read(name)
            self.compactor.consider(room)
            return room
        except CollabError as error:
            log.warning(
                "room cannot be opened", room=name, code=error.code, reason=str(error)
            )
            return error
        except Exception:
            log.exception("room cannot be opened", room=name)
            return RoomUnavailable("this room cannot be opened")
        finally:
            del self._loading[name]

    async def _read(self, name: str) -> Room:
        if self.relay is None or not self.store.is_shared:
            return await self._restore(name)  # nobody else can have it
        try:
            link = await self.relay.attach(name)
            room = await self._restore(name)
        except BaseException:
            self.relay.detach(name)
            raise
        link.begin(room)
        return room

    async def _restore(self, name: str) -> Room:
        crashed = await self.store.begin_load(name)
        if crashed >= MAX_CRASHED_LOADS:
            raise self._quarantine(
                name, "opening it has taken the server down again and again"
            )
        try:
            if crashed:
                log.warning("an earlier load never ended", room=name, times=crashed)
                await self._leave_out_killer(name)
            try:
                document, epoch, position, rows, size = await self._document(name)
            except (DocumentBroken, Refused):
                if not await self._leave_out_killer(name):
                    raise self._quarantine(name, "its log cannot be replayed") from None
                document, epoch, position, rows, size = await self._document(name)
        finally:
            # The note of a room that is set apart stays: the next process tries it in a child first.
            if name not in self._quarantined:
                await self.store.end_load(name)
        room = Room(
            name,
            document,
            Awareness(**self._awareness_limits),
            epoch=epoch or secrets.token_hex(8),
            position=position,
            origin=secrets.token_hex(8) if self.store.is_shared else "",
            is_strict=self._durability == "strict",
            changed=self.changed,
        )
        room.rows_since_checkpoint, room.bytes_since_checkpoint = rows, size
        room.unwritable = self._trouble
        room.state = RoomState.DRAINING  # until somebody joins
        self._idle[name] = self._loop.time()
        return room

    async def _document(self, name: str) -> tuple[Document, str, int, int, int]:
        stored = await self.store.load(name)
        if not stored.epoch:
            info = await self.store.info(name)
            if info is not None and info.deleted_milliseconds is not None:
                # Its members come back with all that was in it; only `create` or `restore` lets them in.
                raise RoomNotFound("this room was deleted")
        loading = Document.loading(
            stored.checkpoint.snapshot if stored.checkpoint else None,
            [update for _, update in stored.tail],
            owners=stored.owners,
            binding=self._binding,
            **self._document_limits,
        )
        document = await _ended(loading)
        return (
            document,
            stored.epoch or stored.next_epoch,
            stored.position,
            len(stored.tail),
            sum(len(row) for _, row in stored.tail),
        )

    async def _leave_out_killer(self, name: str) -> bool:
        """Try the log in a child process, and mark the row that native code does not survive; False when all is well.

        Raises RoomUnavailable when it is the checkpoint that cannot be loaded.
        """
        stored = await self.store.load(name)
        position = await self.compactor.find_killer(stored.checkpoint, stored.tail)
        if position is None:
            return False
        if position == 0:
            raise self._quarantine(name, "its checkpoint cannot be loaded")
        log.error("a row of the log is left out", room=name, position=position)
        await self.store.reject(name, position, "native code does not survive it")
        return True

    def _quarantine(self, name: str, reason: str) -> RoomUnavailable:
        self.metrics.quarantines += 1
        self._quarantined.add(name)
        log.error("room quarantined", room=name, reason=reason)
        return RoomUnavailable(f"this room is quarantined: {reason}")

    async def rebuild(self, room: Room) -> None:
        """Replace a document that native code has broken by one from its log; members keep their sockets.

        The update at fault was never logged. Whoever sends meanwhile waits.
        """
        if room.name not in self._rebuilding:
            self._rebuilding[room.name] = self._tasks.create_task(self._rebuild(room))
        await asyncio.shield(self._rebuilding[room.name])

    async def _rebuild(self, room: Room) -> None:
        self.metrics.rebuilds += 1
        log.error("document broken, rebuilding it from its log", room=room.name)
        members = list(room.members)
        for member in members:
            member.line.pause()
        try:
            async with asyncio.timeout(REBUILD_SECONDS):
                await self.settle()
                document, _, position, *_ = await self._document(room.name)
                room.replace(document)
                link = self.relay and self.relay.link(room.name)
                if link:
                    link.replaced(position)
        except Exception as error:
            log.error(
                "document cannot be rebuilt",
                room=room.name,
                reason=type(error).__name__,
            )
            refusal = self._quarantine(room.name, "its document could not be rebuilt")
            self._forget(room)
            for member in members:
                member.line.close(refusal)
        finally:
            del self._rebuilding[room.name]
            for member in members:
                member.line.resume()

    def _evict(self) -> None:
        """Close rooms that nobody has used for a while and whose every change is logged."""
        now = self._loop.time()
        for name, since in list(self._idle.items()):
            room = self._rooms.get(name)
            if room is None or len(room):
                del self._idle[name]
            elif (
                now - since >= self._idle_room_seconds
                and room.is_clean
                and name not in self._rebuilding
            ):
                self._forget(room)

    def _account(self, room: Room) -> None:
        """Move what a room has counted into the metrics; said here once a second, not on the way of an update."""
        document, metrics = room.document, self.metrics
        metrics.outbox_overflows += room.take_overflows()
        if document.conflicts:
            log.warning(
                "client id of another member",
                room=room.name,
                updates=document.conflicts,
            )
            metrics.client_id_conflicts += document.conflicts
            document.conflicts = 0
        metrics.client_id_copies += document.copies
        document.copies = 0
        if document.mismatches:
            log.error(
                "state vector is not what was counted",
                room=room.name,
                times=document.mismatches,
            )
            metrics.gate_mismatches += document.mismatches
            document.mismatches = 0

    def _forget(self, room: Room) -> None:
        self._account(room)
        room.state = RoomState.CLOSED
        if self._rooms.get(room.name) is room:
            del self._rooms[room.name]
            if self.relay is not None:
                self.relay.detach(room.name)
        self._idle.pop(room.name, None)

    # Once per loop turn

    def changed(self, room: Room) -> None:
        """A room has its first change of this turn."""
        if not self._dirty:
            self._loop.call_soon(self._flush)
        self._dirty.append(room)

    def _flush(self) -> None:
        rooms, self._dirty = self._dirty, []
        milliseconds = int(time.time() * 1000)
        entries = []
        metrics = self.metrics
        for room in rooms:
            entry = room.take(milliseconds)
            if entry is None:
                continue  # what another replica has logged
            count = len(entry.updates)
            metrics.updates += count
            metrics.deliveries += count * len(room)
            entries.append(entry)
            if room.document.claimed:
                claimed, room.document.claimed = room.document.claimed, {}
                self.start(self._bind(room, claimed))
        if entries:
            self.journal.append(entries)

    async def _bind(self, room: Room, claimed: dict[int, str]) -> None:
        try:
            await self.store.bind(room.name, claimed)
        except CollabError:
            room.document.claimed |= claimed  # with the next change

    # Once per commit

    def _logged(self, entries: Sequence[Entry]) -> None:
        self.audit.edits(entries)
        for name, entry in {entry.room: entry for entry in entries}.items():
            room = self._rooms.get(name)
            if room is not None and room.epoch == entry.epoch:
                room.log(entry.last, entry.logged)
                self.compactor.consider(room)
        if self.relay is not None:
            self.relay.logged(entries)

    def _refused(self, entries: Sequence[Entry], error: CollabError) -> None:
        """The store will never take these: what is in memory is not what is on disk, so the room begins again."""
        for name in {entry.room for entry in entries}:
            room = self._rooms.get(name)
            if room is not None:
                members = list(room.members)
                self._forget(room)
                for member in members:
                    member.line.close(error)

    @property
    def _trouble(self) -> StoreUnavailable | None:
        if not self.journal.is_failing:
            return None
        return StoreUnavailable(
            "nothing can be saved at the moment; edits are refused until it can"
        )

    def _failed(self, error: StoreUnavailable) -> None:
        """Nothing can be saved: take nothing more, rather than promise it."""
        for room in self._rooms.values():
            room.unwritable = self._trouble
            for member in room.members:
                if member.may_write:
                    member.line.notify("read-only")

    def _healed(self) -> None:
        """Ask everybody for what was refused meanwhile."""
        for room in self._rooms.values():
            room.unwritable = None
            for member in room.members:
                if member.may_write:
                    member.line.notify("writable")
                    room.ask(member)

    # Presence

    def present(self, room: Room) -> None:
        """The presence in a room may have changed: tell everybody shortly."""
        if room.awareness.is_dirty and room not in self._present:
            if not self._present:
                self._loop.call_later(AWARENESS_SECONDS, self._flush_awareness)
            self._present[room] = None

    def _flush_awareness(self) -> None:
        rooms, self._present = self._present, {}
        for room in rooms:
            changed = room.awareness.take()
            if changed is None:
                continue
            states, own = changed
            room.post(yjs.awareness_message(states))
            link = self.relay and self.relay.link(room.name)
            if link:
                link.present(own)

    # Time

    async def _beat(self) -> None:
        while True:
            due = self._loop.time() + PULSE_SECONDS
            await asyncio.sleep(PULSE_SECONDS)
            self._lag = max(0.0, self._loop.time() - due)
            try:
                self._tidy(self._loop.time())
            except Exception:
                log.exception("a bug met the housekeeping")

    def _tidy(self, now: float) -> None:
        for room in self._rooms.values():
            room.awareness.expire(now)
            self.present(room)
            self._account(room)
        self._evict()
        if self.relay is not None:
            self.relay.tidy(now)

    async def drain(self) -> None:
        """Take no new rooms, and log everything that has come; members stay until their sockets are closed."""
        self.is_draining = True
        await self.settle()

    async def acknowledge(self, rooms: Iterable[Room]) -> None:
        """Wait until all that was said in these rooms so far is logged and acknowledged, or cannot be for the moment."""
        if self.journal.is_failing:
            return
        waits = [self.logged(room, room.position) for room in rooms]
        await asyncio.gather(*waits, return_exceptions=True)

    async def settle(self) -> bool:
        """Wait until everything that has come is logged and acknowledged; False when it cannot be."""
        self._flush()
        return await self.journal.flush()


async def _ended(loading: Generator[None, None, Document]) -> Document:
    """What it returns; meanwhile the loop gets its turns."""
    begun = time.thread_time()
    while True:
        try:
            next(loading)
        except StopIteration as end:
            document: Document = end.value
            return document
        if time.thread_time() - begun > LOADING_SECONDS:
            await asyncio.sleep(0)
            begun = time.thread_time()


async def _contained(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:
        log.exception("a bug met a task")
