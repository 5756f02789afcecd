"""The Redis store: rooms in one Redis, behind Sentinel or in a Cluster, open in many replicas at once."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

from collab import logs
from collab.connection import Call, Client, Endpoint
from collab.errors import (
    CollabError,
    ConfigurationError,
    Conflict,
    RoomNotFound,
    StoreUnavailable,
)
from collab.names import spoken
from collab.store.base import (
    DELETED_ROOM_SECONDS,
    Attributed,
    Checkpoint,
    Clock,
    Done,
    Entry,
    Remembered,
    RoomInfo,
    Row,
    Stored,
    wall_clock,
)
from collab.store.records import check_answer, checked_history, encode_metadata
from collab.store.redis import scripts
from collab.store.redis.answers import Answers
from collab.store.redis.appender import Appender
from collab.store.redis.compacting import (
    put_attribution,
    put_checkpoint,
    read_attribution,
)
from collab.store.redis.entries import FORMAT, seal
from collab.store.redis.ground import ATTEMPTS, Ground
from collab.store.redis.listing import Listing
from collab.store.redis.loading import Loader
from collab.store.redis.processes import ALIVE_SECONDS, Processes
from collab.store.redis.promise import Promise, look
from collab.store.redis.state import State

log = logs.logger(__name__)

WAITING_SECONDS = 24 * 3600  # that the owners of a room wait for its first entry
BEAT_SECONDS = ALIVE_SECONDS / 4
CHECK_SECONDS = 20.0
TIDY_SECONDS = 300
EVICTS = (
    "redis: its maxmemory-policy is {policy}, which throws rooms away when memory is full:"
    " set it to noeviction, or to volatile-lru if others share it"
)


class RedisStore:
    """Keeps rooms under `<cluster>:…`; what "saved" means there is `promise`.

    Appends go over a connection of their own, one pipeline after the other. Every command ends within two seconds.
    """

    is_shared = True

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        cluster: str = "collab",
        window_seconds: float = 0.006,
        deleted_room_seconds: float = DELETED_ROOM_SECONDS,
        clock: Clock = wall_clock,
    ) -> None:
        self.identity = ""
        self.promise: Promise | None = None
        self._clock, self._deleted_room_seconds = clock, deleted_room_seconds
        self._reader = Client(endpoint, unavailable=StoreUnavailable)
        self._writer = Client(endpoint, unavailable=StoreUnavailable)
        self._ground = ground = Ground(self._reader, cluster, clock)
        self._loader, self._listing = Loader(ground), Listing(ground)
        self._answers, self._processes = Answers(ground), Processes(ground)
        self._appender = Appender(
            self._writer,
            cluster,
            window_seconds=window_seconds,
            created=self._listing.add,
            trouble=self._trouble,
        )
        self._stack = AsyncExitStack()

    @property
    def damaged_records(self) -> int:
        """Met and left aside, since a checkpoint covers them."""
        return self._loader.damaged_records

    # Opening and closing

    async def __aenter__(self) -> Self:
        """Raises ConfigurationError for a Redis that cannot be relied on, StoreUnavailable for one that is not there."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._reader)
            await stack.enter_async_context(self._writer)
            await self._reader.check()
            await self._check()
            if self.promise is not None and self.promise.evicts:
                raise ConfigurationError(EVICTS.format(policy=self.promise.policy))
            await self._beat()
            await stack.enter_async_context(self._working())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        """What goes on beside the calls; at the end what is queued is committed."""
        async with asyncio.TaskGroup() as tasks:
            appending = tasks.create_task(self._appender.run())
            others = [
                tasks.create_task(self._again(seconds, run))
                for seconds, run in (
                    (BEAT_SECONDS, self._beat),
                    (CHECK_SECONDS, self._check),
                    (TIDY_SECONDS, self._tidy_in_turn),
                )
            ]
            try:
                yield
            finally:
                self._appender.close()
                await asyncio.wait([appending])
                for each in others:
                    each.cancel()

    async def _again(self, seconds: float, run: Callable[[], Awaitable[None]]) -> None:
        """Each trouble is said once, not each time."""
        said = ""
        while True:
            await asyncio.sleep(seconds)
            try:
                await run()
                said = ""
            except CollabError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("redis is not as it should be", reason=said)

    async def _beat(self) -> None:
        """Say that this process lives, and that the keys are still the same ones."""
        await self._processes.beat()
        # Where all was lost, whoever knows the name puts it back.
        known = self.identity.rpartition(":")[2] or secrets.token_hex(8)
        key, run = self._ground.key("identity"), self._ground.run
        await run("SET", key, known, "NX")
        kept = await run("GET", key) or b""
        self.identity = f"redis:{self._ground.cluster}:{kept.decode(errors='replace')}"

    async def _check(self) -> None:
        """Its settings may be changed while it runs."""
        promise = await look(self._reader)
        if promise != self.promise:
            tell = log.info if promise.is_kept else log.warning
            tell(
                "what redis promises of what is saved",
                promise=str(promise),
                eviction=promise.policy,
            )
        if promise.evicts:
            log.error("redis evicts rooms", policy=promise.policy)
        self.promise = promise

    def _trouble(self) -> StoreUnavailable | None:
        """Why nothing may be called saved now, though Redis would take it."""
        if self.promise is not None and self.promise.evicts:
            return StoreUnavailable(EVICTS.format(policy=self.promise.policy))
        return None

    # Updates

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        self._appender.append(entries, done)

    async def bind(self, room: str, owners: dict[int, str]) -> None:
        """Of a room that has never been written to, they are stored with its first entry, if that comes in a day."""
        words = [
            word
            for client, principal in owners.items()
            for word in (client, seal(room, str(client), principal))
        ]
        for _ in range(ATTEMPTS):
            live = (await self._ground.state(room)).live
            keys = self._ground.keys(room, "room", f"{live}:owners", "waiting")
            answer = await self._ground.call(
                room, scripts.BIND, keys, live, WAITING_SECONDS, *words
            )
            if answer != b"again":
                return
        raise StoreUnavailable("the room changes all the time")

    async def load(self, room: str) -> Stored:
        return await self._loader.load(room, self.identity)

    async def history(
        self, room: str, *, after: int = 0, limit: int = 1000
    ) -> list[Row]:
        return await self._loader.history(room, after, limit)

    async def checkpoint(
        self, room: str, checkpoint: Checkpoint, *, fence: int
    ) -> bool:
        """In pieces of 4 MB. False too where the log is not any more the one that this fence was given for."""
        seen = self._loader.seen(room, fence)
        return seen is not None and await put_checkpoint(
            self._ground, room, checkpoint, fence=fence, seen=seen
        )

    async def checkpoint_before(self, room: str, position: int) -> Checkpoint | None:
        return await self._loader.checkpoint_before(room, position)

    async def attribute(self, room: str, attributed: Attributed, *, fence: int) -> bool:
        """In pieces too, and False for the same reasons."""
        seen = self._loader.seen(room, fence)
        return seen is not None and await put_attribution(
            self._ground, room, attributed, fence=fence, seen=seen
        )

    async def attribution(self, room: str) -> Attributed | None:
        state = await self._ground.living(room)
        known, _ = await read_attribution(self._ground, room, state.live)
        return known

    async def reject(self, room: str, position: int, reason: str) -> None:
        line = f"{position} {' '.join(reason.split())}"
        await self._change(room, scripts.REJECT, line)

    # Rooms

    async def create(
        self,
        room: str,
        metadata: Mapping[str, Any],
        *,
        history_seconds: int | None = None,
        epoch: str = "",
    ) -> RoomInfo:
        """Without `epoch` it takes the one under which another replica may have the room open and empty."""
        encoded, kept = encode_metadata(metadata), checked_history(history_seconds)
        for _ in range(ATTEMPTS):
            state = await self._ground.state(room)
            chosen = epoch or state.next_epoch(self.identity)
            names = f"{chosen}:log", f"{chosen}:owners"
            answer = await self._ground.call(
                room,
                scripts.CREATE,
                self._ground.keys(room, "room", *names, "waiting"),
                FORMAT,
                chosen,
                "" if epoch else state.deletions,
                self._clock(),
                seal(room, "metadata", encoded),
                "" if kept is None else kept,
            )
            if answer != b"again":
                await self._listing.add([room])
                return (await self._ground.living(room)).info(chosen)
        raise StoreUnavailable("the room changes all the time")

    async def describe(self, room: str, metadata: Mapping[str, Any]) -> RoomInfo:
        encoded = encode_metadata(metadata)
        return await self._tell(room, "metadata", seal(room, "metadata", encoded))

    async def retain(self, room: str, history_seconds: int | None) -> RoomInfo:
        kept = checked_history(history_seconds)
        return await self._tell(room, "history", "" if kept is None else str(kept))

    async def _tell(self, room: str, field: str, value: str) -> RoomInfo:
        state = State(room, await self._change(room, scripts.TELL, field, value))
        return state.info(state.live)

    async def _change(self, room: str, script: Any, *arguments: str | int) -> Any:
        """By a script that needs the room's hash alone."""
        keys = self._ground.keys(room, "room")
        return await self._ground.call(room, script, keys, FORMAT, *arguments)

    async def info(self, room: str) -> RoomInfo | None:
        state = await self._ground.state(room)
        epoch = state.live or state.restorable(self._clock())
        return state.info(epoch) if epoch else None

    async def ends(self, rooms: Sequence[str]) -> dict[str, int]:
        calls = [
            Call(scripts.END, self._ground.keys(room, "room"), ()) for room in rooms
        ]
        answers = await self._reader.call_all(calls) if calls else []
        found = {}
        for room, answer in zip(rooms, answers, strict=True):
            if isinstance(answer, StoreUnavailable):
                raise answer
            if isinstance(answer, bytes) and answer.isdigit():
                found[room] = int(answer)
        return found

    async def rooms(
        self,
        *,
        prefix: str = "",
        after: str = "",
        limit: int = 100,
        deleted: bool = False,
    ) -> list[RoomInfo]:
        return await self._listing.rooms(prefix, after, limit, deleted=deleted)

    async def delete(self, room: str, *, purge: bool = False) -> None:
        now = self._clock()
        until = now + int(self._deleted_room_seconds * 1000)
        keys = self._ground.keys(room, "room", "waiting")
        arguments = FORMAT, now, until, int(purge)
        await self._ground.call(room, scripts.DELETE, keys, *arguments)
        await self._listing.settle(await self._ground.state(room))

    async def restore(self, room: str) -> RoomInfo:
        now = self._clock()
        state = await self._ground.state(room)
        if state.live:
            raise Conflict("there is a room of this name")
        epoch = state.restorable(now)
        if not epoch:
            raise RoomNotFound(f"there is no deleted room {spoken(room)}, or no longer")
        state = State(room, await self._change(room, scripts.RESTORE, epoch, now))
        await self._listing.settle(state)
        return state.info(epoch)

    async def _tidy_in_turn(self) -> None:
        """One replica is enough."""
        turn = self._ground.key("tidy")
        if await self._ground.run("SET", turn, 1, "NX", "EX", TIDY_SECONDS - 1):
            await self.tidy()

    async def tidy(self) -> None:
        await self._listing.sweep()
        await self._answers.tidy()

    # Answers, and notes of loads

    async def remember(self, key: str, digest: bytes, answer: bytes) -> None:
        """They stand in memory, so at 256 MB of all together the oldest give way earlier."""
        check_answer(key, answer)
        remembered = Remembered(digest, answer)
        await self._appender.behind(lambda: self._answers.remember(key, remembered))

    async def recall(self, key: str) -> Remembered | None:
        return await self._answers.recall(key)

    async def begin_load(self, room: str) -> int:
        """A load that another living process has under way counts for nothing."""
        return await self._processes.begin_load(room)

    async def end_load(self, room: str) -> None:
        await self._processes.end_load(room)
