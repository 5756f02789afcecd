"""The Redis store: rooms in one Redis, behind Sentinel or in a Cluster, open in many replicas at once."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import Any, NamedTuple, Self, TypeVar
from zlib import crc32

from collab import logs
from collab.connection import Call, Client, Endpoint, ForeignContent
from collab.errors import (
    CollabError,
    ConfigurationError,
    Conflict,
    RoomNotFound,
    RoomUnavailable,
    StoreCorrupt,
    StoreUnavailable,
)
from collab.names import key_in_tag, key_of, spoken
from collab.store.base import (
    ANSWER_SECONDS,
    DELETED_ROOM_SECONDS,
    MAX_ANSWERS,
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
from collab.store.records import (
    Damaged,
    check_answer,
    checked_history,
    encode_metadata,
)
from collab.store.redis import scripts
from collab.store.redis.appender import Appender
from collab.store.redis.entries import (
    FORMAT,
    Piece,
    checkpoint_checksum,
    pack_answer,
    seal,
    unpack_answer,
    unpack_entry,
    unseal,
)
from collab.store.redis.processes import ALIVE_SECONDS, is_surely_dead, new_name
from collab.store.redis.promise import Promise, look
from collab.store.redis.state import Kept, State, foreign

log = logs.logger(__name__)

T = TypeVar("T")

WAITING_SECONDS = 24 * 3600  # that the owners of a room wait for its first entry
LOADING_SECONDS = 7 * 24 * 3600  # that a load which never ended is remembered
UPLOAD_SECONDS = 600  # to put the pieces of a checkpoint there
PIECE_BYTES = 4 << 20  # of a checkpoint, so that each goes in time
PAGE = 500  # entries or rooms asked for at once
PAGE_BYTES = 4 << 20
MAX_LOADS = (
    10_000  # whose fences are known; a compactor of an older one changes nothing
)
ATTEMPTS = 8  # where another replica changed the room in between
BUCKETS = 16  # of answers, which a Cluster keeps in different places
MAX_ANSWERS_BYTES = 256 << 20  # of all answers together, since they stand in memory
BEAT_SECONDS = ALIVE_SECONDS / 4
CHECK_SECONDS = 60.0
TIDY_SECONDS = 300
EVICTS = (
    "redis: its maxmemory-policy is {policy}, which throws rooms away when memory is full:"
    " set it to noeviction, or to volatile-lru if others share it"
)


class _Seen(NamedTuple):
    """What a load saw, for the checkpoint that comes of it."""

    epoch: str  # "" where there was no room
    last: int
    mark: bytes  # of the last entry; b"" when there was none


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
        self.damaged_records = 0  # met and left aside, since a checkpoint covers them
        self.identity = ""
        self.promise: Promise | None = None
        self._endpoint, self._cluster = endpoint, cluster
        self._clock, self._deleted_room_seconds = clock, deleted_room_seconds
        self._reader = Client(endpoint, unavailable=StoreUnavailable)
        self._writer = Client(endpoint, unavailable=StoreUnavailable)
        self._appender = Appender(
            self._writer,
            cluster,
            window_seconds=window_seconds,
            created=self._list,
            trouble=self._trouble,
        )
        self._name = new_name()
        self._seen: dict[tuple[str, int], _Seen] = {}  # by room and fence, in order
        self._crashed: dict[str, list[str]] = {}  # loads counted, until they end
        self._stack = AsyncExitStack()

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
        alive, identity = self._key("alive", self._name), f"{self._cluster}:identity"
        await self._reader.run("SET", alive, 1, "EX", ALIVE_SECONDS)
        # Where all was lost, whoever knows the name puts it back.
        fresh = self.identity.rpartition(":")[2] or secrets.token_hex(8)
        await self._reader.run("SET", identity, fresh, "NX")
        kept = await self._reader.run("GET", identity)
        self.identity = f"redis:{self._cluster}:{(kept or b'').decode()}"

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

    # Keys

    def _key(self, kind: str, name: str) -> str:
        """Of something that is no room's."""
        return f"{self._cluster}:{kind}:{name}"

    def _keys(self, room: str, *names: str) -> list[str]:
        return [key_of(self._cluster, room, name) for name in names]

    @property
    def _live_index(self) -> str:
        return f"{self._cluster}:rooms"

    @property
    def _deleted_index(self) -> str:
        return f"{self._cluster}:deleted"

    async def _call(
        self, room: str, script: Any, keys: Sequence[str], *arguments: Any
    ) -> Any:
        """A script of one room; what its keys hold is believed only as far as they are ours."""
        try:
            answer = await self._reader.call(script, keys, *arguments)
        except ForeignContent:
            raise foreign(room) from None
        match answer:
            case b"newer":
                raise RoomUnavailable(
                    f"room {spoken(room)} was written by a newer version of the server"
                )
            case b"foreign":
                raise foreign(room)
            case b"none":
                raise RoomNotFound(f"there is no room {spoken(room)}")
            case b"there":
                raise Conflict("there is a room of this name")
            case b"over":
                raise Conflict("this history of the room is over")
        return answer

    async def _state(self, room: str) -> State:
        return State(
            room, await self._call(room, scripts.READ, self._keys(room, "room"))
        )

    async def _living(self, room: str) -> State:
        state = await self._state(room)
        if not state.live:
            raise RoomNotFound(f"there is no room {spoken(room)}")
        return state

    # Appending

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        self._appender.append(entries, done)

    async def _list(self, rooms: Iterable[str]) -> None:
        """That these live. Where it fails, `tidy` finds them by their own keys."""
        try:
            members = [word for room in sorted(rooms) for word in (0, room)]
            await self._reader.run("ZADD", self._live_index, *members)
        except StoreUnavailable as error:
            log.warning("new rooms are listed later", reason=str(error))

    async def bind(self, room: str, owners: dict[int, str]) -> None:
        """Of a room that has never been written to, they are stored with its first entry, if that comes in a day."""
        words = [
            word
            for client, principal in owners.items()
            for word in (client, seal(room, str(client), principal))
        ]
        for _ in range(ATTEMPTS):
            live = await self._reader.run("HGET", *self._keys(room, "room"), "live")
            epoch = (live or b"").decode()
            keys = self._keys(room, "room", f"{epoch}:owners", "waiting")
            answer = await self._call(
                room, scripts.BIND, keys, epoch, WAITING_SECONDS, *words
            )
            if answer != b"again":
                return
        raise StoreUnavailable("the room changes all the time")

    # Loading

    async def load(self, room: str) -> Stored:
        before: Mapping[bytes, bytes] = {}
        for _ in range(ATTEMPTS):
            fence, flat = await self._call(room, scripts.OPEN, self._keys(room, "room"))
            state = State(room, flat)
            if not state.live:
                self._note(room, fence, _Seen("", 0, b""))
                return Stored("", 0, None, (), {}, fence, self._next_epoch(state))
            try:
                return await self._load(state, fence)
            except StoreCorrupt:
                # Another replica may have put a checkpoint there, or trimmed the log, while we read: look again.
                if _same(state.fields, before, state.live):
                    raise
                before = state.fields
        raise StoreUnavailable("the room changes all the time")

    def _next_epoch(self, state: State) -> str:
        """The same for every replica that asks until then, and another one after each deletion; nothing is written."""
        seed = f"{self.identity}\0{state.room}\0{state.deletions}"
        return hashlib.sha256(seed.encode()).hexdigest()[:16]

    async def _load(self, state: State, fence: int) -> Stored:
        room, epoch = state.room, state.live
        checkpoint = await self._checkpoint(state)
        last = start = checkpoint.position if checkpoint else 0
        rejected = state.rejected(epoch)
        tail: list[tuple[int, bytes]] = []
        mark, is_whole = b"", True
        async with aclosing(self._pieces(room, epoch, start)) as pieces:
            async for piece in pieces:
                if piece is None or piece.position > last + 1:
                    is_whole = False
                    break
                for at, update in enumerate(piece.updates, piece.position):
                    if at > last and at not in rejected:
                        tail.append((at, update))
                last, mark = piece.last, piece.mark
        if not is_whole or last < state.number("position", epoch):
            raise StoreCorrupt(
                f"room {spoken(room)}: position {last + 1} is damaged or missing"
            )
        owners = await self._owners(room, epoch)
        self._note(room, fence, _Seen(epoch, last, mark))
        return Stored(epoch, last, checkpoint, tail, owners, fence)

    def _note(self, room: str, fence: int, seen: _Seen) -> None:
        self._seen[room, fence] = seen
        if len(self._seen) > MAX_LOADS:
            del self._seen[next(iter(self._seen))]

    async def _checkpoint(self, state: State) -> Checkpoint | None:
        """The newest that is intact."""
        for kept in state.checkpoints(state.live):
            snapshot = await self._snapshot(state.room, state.live, kept)
            if snapshot is not None:
                return Checkpoint(kept.position, snapshot)
            self.damaged_records += 1
            log.error("damaged checkpoint", room=state.room, position=kept.position)
        return None

    async def _snapshot(self, room: str, epoch: str, kept: Kept) -> bytes | None:
        (key,) = self._keys(room, f"{epoch}:{kept.place}")
        parts = []
        for number in range(kept.pieces):
            parts.append(await self._reader.run("LINDEX", key, number) or b"")
        snapshot = b"".join(parts)
        checksum = checkpoint_checksum(room, epoch, kept.position, snapshot)
        return snapshot if checksum == kept.checksum else None

    async def _pieces(
        self, room: str, epoch: str, after: int
    ) -> AsyncGenerator[Piece | None, None]:
        """Entries with positions greater than `after`, in order; None for one that is damaged."""
        keys = self._keys(room, f"{epoch}:log")
        start, is_more = f"{after + 1}-0", 1
        while is_more:
            is_more, page = await self._call(
                room, scripts.PAGE, keys, start, PAGE, PAGE_BYTES
            )
            for place, words in page:
                fields = dict(zip(words[::2], words[1::2], strict=True))
                try:
                    yield unpack_entry(room, epoch, place, fields)
                except Damaged:
                    yield None
            if page:
                start = f"({page[-1][0].decode()}"

    async def _owners(self, room: str, epoch: str) -> dict[int, str]:
        (key,) = self._keys(room, f"{epoch}:owners")
        owners = {}
        for client, record in (await self._reader.run("HGETALL", key)).items():
            try:
                owners[int(client)] = unseal(room, client.decode(), record)
            except (Damaged, ValueError):
                log.error("damaged owner", room=room)
        return owners

    async def history(
        self, room: str, *, after: int = 0, limit: int = 1000
    ) -> list[Row]:
        epoch = (await self._living(room)).live
        rows: list[Row] = []
        async with aclosing(self._pieces(room, epoch, after)) as pieces:
            async for piece in pieces:
                if piece is None:
                    self.damaged_records += 1
                    log.error("damaged records left aside", room=room, records=1)
                    continue
                rows += (
                    Row(at, piece.milliseconds, author, update)
                    for at, (author, update) in enumerate(
                        zip(piece.authors, piece.updates, strict=True), piece.position
                    )
                    if at > after
                )
                if len(rows) >= limit:
                    break
        return rows[:limit]

    # Checkpoints

    async def checkpoint(
        self, room: str, checkpoint: Checkpoint, *, fence: int
    ) -> bool:
        seen = self._seen.get((room, fence))
        if seen is None:
            return False
        epoch = seen.epoch or (await self._state(room)).live
        if not epoch:
            return False
        position, snapshot = checkpoint
        names = [f"{epoch}:{name}" for name in ("log", f"upload:{fence}", "a", "b")]
        keys = self._keys(room, "room", *names)
        count = await self._upload(keys[2], snapshot)
        checksum = checkpoint_checksum(room, epoch, position, snapshot)
        about = f"{self._clock()} {checksum} {count} {len(snapshot)}"
        arguments = position, fence, about, count, seen.last, seen.mark
        is_stored = await self._call(
            room, scripts.CHECKPOINT, keys, FORMAT, epoch, *arguments
        )
        if not is_stored:
            await self._reader.run("UNLINK", keys[2])
            return False
        await self._trim(room, epoch)
        return True

    async def _upload(self, key: str, snapshot: bytes) -> int:
        """In pieces, which go by themselves when we never come to the end."""
        count = 0
        await self._reader.run("UNLINK", key)
        for at in range(0, max(1, len(snapshot)), PIECE_BYTES):
            await self._reader.run("RPUSH", key, snapshot[at : at + PIECE_BYTES])
            await self._reader.run("EXPIRE", key, UPLOAD_SECONDS)
            count += 1
        return count

    async def _trim(self, room: str, epoch: str) -> None:
        keys = self._keys(room, "room", f"{epoch}:log")
        while await self._call(room, scripts.TRIM, keys, FORMAT, epoch, self._clock()):
            pass

    async def reject(self, room: str, position: int, reason: str) -> None:
        keys = self._keys(room, "room")
        line = f"{position} {' '.join(reason.split())}"
        await self._call(room, scripts.REJECT, keys, FORMAT, line)

    # What is said about rooms

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
            state = await self._state(room)
            chosen = epoch or self._next_epoch(state)
            names = f"{chosen}:log", f"{chosen}:owners"
            answer = await self._call(
                room,
                scripts.CREATE,
                self._keys(room, "room", *names, "waiting"),
                FORMAT,
                chosen,
                "" if epoch else state.deletions,
                self._clock(),
                seal(room, "metadata", encoded),
                "" if kept is None else kept,
            )
            if answer != b"again":
                await self._list([room])
                return (await self._living(room)).info(chosen)
        raise StoreUnavailable("the room changes all the time")

    async def describe(self, room: str, metadata: Mapping[str, Any]) -> RoomInfo:
        encoded = encode_metadata(metadata)
        return await self._tell(room, "metadata", seal(room, "metadata", encoded))

    async def retain(self, room: str, history_seconds: int | None) -> RoomInfo:
        kept = checked_history(history_seconds)
        return await self._tell(room, "history", "" if kept is None else str(kept))

    async def _tell(self, room: str, field: str, value: str) -> RoomInfo:
        keys = self._keys(room, "room")
        state = State(
            room, await self._call(room, scripts.TELL, keys, FORMAT, field, value)
        )
        return state.info(state.live)

    async def info(self, room: str) -> RoomInfo | None:
        state = await self._state(room)
        epoch = state.live or state.restorable(self._clock())
        return state.info(epoch) if epoch else None

    async def ends(self, rooms: Sequence[str]) -> dict[str, int]:
        calls = [Call(scripts.END, self._keys(room, "room"), ()) for room in rooms]
        answers = await self._reader.call_all(calls) if calls else []
        found = {}
        for room, answer in zip(rooms, answers, strict=True):
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
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
        """The index says which may be there, the keys of each room whether it is."""
        index = self._deleted_index if deleted else self._live_index
        start = _lexical(b"(", after) if after >= prefix else _lexical(b"[", prefix)
        end = b"(" + prefix.encode() + b"\xff" if prefix else b"+"
        found: list[RoomInfo] = []
        while len(found) < limit:
            count = min(PAGE, limit - len(found) + 10)
            names = await self._reader.run(
                "ZRANGEBYLEX", index, start, end, "LIMIT", 0, count
            )
            found += await self._infos([name.decode() for name in names], deleted)
            if len(names) < count:
                break
            start = b"(" + names[-1]
        return found[:limit]

    async def _infos(self, rooms: Sequence[str], deleted: bool) -> list[RoomInfo]:
        now, found = self._clock(), []
        for state in await self._states(rooms):
            epoch = state.restorable(now) if deleted else state.live
            if epoch:
                found.append(state.info(epoch))
        return found

    async def _states(self, rooms: Sequence[str]) -> list[State]:
        """As far as they can be read: one of a newer version is not shown, nor one that others have written to."""
        calls = [Call(scripts.READ, self._keys(room, "room"), ()) for room in rooms]
        states = []
        answers = await self._reader.call_all(calls) if calls else []
        for room, answer in zip(rooms, answers, strict=True):
            if isinstance(answer, StoreUnavailable):
                raise answer
            try:
                if not isinstance(answer, Exception):
                    states.append(State(room, answer))
            except (RoomUnavailable, StoreCorrupt) as error:
                log.debug("room passed over", room=room, reason=str(error))
        return states

    # Deleting

    async def delete(self, room: str, *, purge: bool = False) -> None:
        now = self._clock()
        until = now + int(self._deleted_room_seconds * 1000)
        keys = self._keys(room, "room", "waiting")
        await self._call(room, scripts.DELETE, keys, FORMAT, now, until, int(purge))
        await self._settle(await self._state(room))

    async def restore(self, room: str) -> RoomInfo:
        now = self._clock()
        state = await self._state(room)
        if state.live:
            raise Conflict("there is a room of this name")
        epoch = state.restorable(now)
        if not epoch:
            raise RoomNotFound(f"there is no deleted room {spoken(room)}, or no longer")
        keys = self._keys(room, "room")
        flat = await self._call(room, scripts.RESTORE, keys, FORMAT, epoch, now)
        state = State(room, flat)
        await self._settle(state)
        return state.info(epoch)

    async def _settle(self, *states: State) -> None:
        """Purge what is over its time, and put the rooms where they belong in the listings."""
        now = self._clock()
        for state in states:
            for epoch in state.deleted():
                if state.number("purge", epoch) <= now:
                    await self._purge(state.room, epoch, now)
        belonging: tuple[tuple[str, Callable[[State], str]], ...] = (
            (self._live_index, lambda state: state.live),
            (self._deleted_index, lambda state: state.restorable(now)),
        )
        for index, belongs in belonging:
            rooms = [state.room for state in states]
            scores = await self._reader.run("ZMSCORE", index, *rooms)
            listed = {
                room
                for room, score in zip(rooms, scores, strict=True)
                if score is not None
            }
            right = {state.room for state in states if belongs(state)}
            for command, wrong in (("ZADD", right - listed), ("ZREM", listed - right)):
                for room in wrong:
                    words = (0, room) if command == "ZADD" else (room,)
                    await self._reader.run(command, index, *words)

    async def _purge(self, room: str, epoch: str, now: int) -> None:
        names = ("log", "origins", "owners", "a", "b")
        keys = self._keys(room, "room", *(f"{epoch}:{name}" for name in names))
        await self._call(room, scripts.PURGE, keys, FORMAT, epoch, now)

    async def _tidy_in_turn(self) -> None:
        """One replica is enough."""
        turn = f"{self._cluster}:tidy"
        if await self._reader.run("SET", turn, 1, "NX", "EX", TIDY_SECONDS - 1):
            await self.tidy()

    async def tidy(self) -> None:
        """Goes over the keys of all rooms, so that a room which an index has missed is listed again."""
        async for keys in self._reader.scan(f"{self._cluster}:{{*}}:room"):
            tags = (key[len(self._cluster) + 1 :].rpartition(":")[0] for key in keys)
            rooms = [room for tag in tags if (room := key_in_tag(tag)) is not None]
            states = await self._states(rooms)
            if states:
                await self._settle(*states)
            for state in states:
                if state.may_trim:
                    with suppress(StoreCorrupt):
                        await self._trim(state.room, state.live)
        for bucket in range(BUCKETS):
            await self._remember(bucket, "", b"")

    # Answers

    def _bucket(self, key: str) -> int:
        return crc32(key.encode()) % BUCKETS

    def _answer_keys(self, bucket: int) -> list[str]:
        return [
            f"{self._cluster}:{{answers-{bucket}}}:{name}"
            for name in ("kept", "order", "bytes")
        ]

    async def remember(self, key: str, digest: bytes, answer: bytes) -> None:
        """They stand in memory, so at 256 MB of all together the oldest give way earlier."""
        check_answer(key, answer)
        record = pack_answer(key, self._clock(), Remembered(digest, answer))
        await self._appender.behind(
            lambda: self._remember(self._bucket(key), key, record)
        )

    async def _remember(self, bucket: int, key: str, record: bytes) -> None:
        now = self._clock()
        try:
            await self._reader.call(
                scripts.REMEMBER,
                self._answer_keys(bucket),
                key,
                now,
                record,
                now - ANSWER_SECONDS * 1000,
                MAX_ANSWERS // BUCKETS,
                MAX_ANSWERS_BYTES // BUCKETS,
            )
        except ForeignContent:
            raise StoreCorrupt("the keys of answers hold what others wrote") from None

    async def recall(self, key: str) -> Remembered | None:
        kept = self._answer_keys(self._bucket(key))[0]
        record = await self._reader.run("HGET", kept, key)
        if record is None:
            return None
        try:
            milliseconds, remembered = unpack_answer(key, record)
        except Damaged:
            raise StoreCorrupt("the record of an earlier answer is damaged") from None
        is_over = milliseconds < self._clock() - ANSWER_SECONDS * 1000
        return None if is_over else remembered

    # Notes of loads

    async def begin_load(self, room: str) -> int:
        """A load that another living process has under way counts for nothing."""
        flat = await self._call(
            room,
            scripts.BEGIN_LOAD,
            self._keys(room, "loading"),
            self._name,
            LOADING_SECONDS,
        )
        noted = dict(zip(flat[::2], flat[1::2], strict=True))
        dead = [name for name in noted if await self._has_ended(name.decode())]
        self._crashed[room] = [self._name, *(name.decode() for name in dead)]
        return sum(int(noted[name]) for name in dead)

    async def _has_ended(self, name: str) -> bool:
        if name == self._name:
            return False
        if is_surely_dead(name):
            return True
        return not await self._reader.run("EXISTS", self._key("alive", name))

    async def end_load(self, room: str) -> None:
        names = self._crashed.pop(room, [self._name])
        await self._reader.run("HDEL", *self._keys(room, "loading"), *names)


def _same(one: Mapping[bytes, bytes], other: Mapping[bytes, bytes], epoch: str) -> bool:
    """Whether nobody has put a checkpoint there or begun the room anew in between."""
    names = [b"live", *(f"{name}:{epoch}".encode() for name in ("new", "old"))]
    return bool(other) and all(one.get(name) == other.get(name) for name in names)


def _lexical(sign: bytes, name: str) -> bytes:
    return sign + name.encode() if name else b"-"
