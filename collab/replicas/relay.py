"""A replica among others: carries out what its links decide, and knows which replicas live."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, Protocol, Self

import orjson

import collab
from collab import logs
from collab.bus.base import EVERYBODY, PEER_SECONDS, Bus, Published
from collab.errors import (
    BusUnavailable,
    CollabError,
    ConfigurationError,
    InvalidMessage,
)
from collab.metrics import Metrics
from collab.protocol.envelope import (
    VERSION,
    Alive,
    Attending,
    Distrusted,
    Message,
    RightsChanged,
    WhoAttends,
    decode,
    encode,
)
from collab.replicas.attendance import Attendance, Clerk
from collab.replicas.link import Link
from collab.replicas.versions import is_near
from collab.room import Room
from collab.store.base import Author, Entry, Store

ATTACH_SECONDS = 1.0  # that opening a room waits for the bus; it opens without it then
BEAT_SECONDS = 3.0
RETRY_SECONDS = 1.0  # about so long
MAX_LOCATING = 16  # rooms of which it is asked at once where their streams stand
RELOAD_SECONDS = 0.1  # between two readings of one room, however often it is asked for
# Between two times that a document is logged again: a moment, and longer for a large one.
RESTATE_SECONDS, RESTATE_BYTES_PER_SECOND, MAX_RESTATE_SECONDS = 0.2, 1e6, 10.0
# Until all rooms are compared, when something has happened to all: that many seconds for each, and at most so many.
SPREAD_SECONDS, MAX_SPREAD_SECONDS = 0.002, 15.0
MAX_LIVES = 10_000  # replicas of which is known how far they have counted; beyond, those heard of first are forgotten
COMPARE_SECONDS = (15.0, 30.0)  # between two digests of a room
ROWS = 500  # read from the store at once
CANARY_SECONDS = 60.0

log = logs.logger(__name__)


class Host(Protocol):
    """What the relay must know of its replica."""

    def live(self, name: str) -> Room | None: ...

    def ended(self, room: Room) -> None:
        """The room was deleted, or another history of it has begun: its members must go."""
        ...

    def start(self, work: Coroutine[Any, Any, None]) -> None: ...

    async def rebuild(self, room: Room) -> None: ...

    def present(self, room: Room) -> None: ...


class Relay:
    """An async context manager: entering joins the other replicas, leaving says goodbye.

    Raises ConfigurationError on entering when others of this cluster keep their rooms somewhere else.
    """

    def __init__(
        self,
        bus: Bus,
        store: Store,
        host: Host,
        metrics: Metrics,
        *,
        key: bytes | None = None,
        me: str = "",
    ) -> None:
        self.me = me or secrets.token_hex(8)
        self.bus = bus
        self.peers: dict[str, dict[str, Any]] = {}  # that live, this one not among them
        self.rights_changed: Callable[[], None] = _nothing
        self.distrusted: Callable[[str, str], None] = lambda tenant, principal: None
        self.stranger = ""  # a replica whose store is not ours
        self._store, self._host, self._metrics, self._key = store, host, metrics, key
        # For jitter alone, which differs from replica to replica.
        self._random = Random(self.me)
        self._links: dict[str, Link] = {}
        self._located: dict[str, asyncio.Event] = {}
        self._due: dict[str, float] = {}  # room → when its digest is said
        self._unlocated: deque[Link] = deque()
        self._locating = 0  # how many are being asked about
        self._reloading: dict[Link, bool] = {}  # whether to read once more
        self._refused = 0  # of what was heard, as was last said in a line
        # Rises within a process and from one to the next.
        self._sequence = time.time_ns() // 1000
        self._has_canary = self._is_comparing = False
        self._started = time.time()
        self._beats = 0
        self._lives: dict[
            str, tuple[int, float]
        ] = {}  # replica → beats, and when it counted so far
        self._is_leaving = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._clerk = Clerk(self, self._host.live)
        await self.bus.__aenter__()
        try:
            await self._beat()
            if self.stranger:
                raise ConfigurationError(
                    f"replica {self.stranger} of this cluster keeps its rooms elsewhere: replicas that share a Redis must "
                    "share a store (--postgres or --store redis), or have another --cluster name"
                )
        except BusUnavailable:
            log.warning("the bus does not answer; this replica goes on alone")
        except BaseException:
            await self.bus.__aexit__(None, None, None)
            raise
        self.bus.subscribe(EVERYBODY, _Everybody(self._word))
        self._beating = self._loop.create_task(self._keep_beating())
        gauges = self._metrics.gauges
        gauges["replicas"] = lambda: len(self.peers) + 1
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._beating.cancel()
        await self.leave()
        await self.bus.__aexit__(*exc_info)

    async def leave(self) -> None:
        """Say goodbye, so that nobody has to miss this replica first."""
        if self._is_leaving:
            return
        self._is_leaving = True
        try:
            await self.bus.leave(self.me)
        except BusUnavailable:
            pass  # it is missed soon enough

    # Rooms

    async def attach(self, name: str) -> Link:
        """Hear of a room from now on; to be awaited before it is loaded, so that nothing falls between."""
        link = self._links[name] = Link(
            name,
            self,
            self._metrics,
            me=self.me,
            key=self._key,
            random=self._random,
        )
        located = self._located[name] = asyncio.Event()
        self.bus.subscribe(name, link)
        try:
            if self.bus.is_up:
                async with asyncio.timeout(ATTACH_SECONDS):
                    await located.wait()
        except TimeoutError:
            pass  # it catches up when the bus is there
        finally:
            self._located.pop(name, None)
        self._due[name] = self._loop.time() + self._random.uniform(*COMPARE_SECONDS)
        return link

    def detach(self, name: str) -> None:
        link = self._links.pop(name, None)
        if link is not None:
            link.end()
            self._due.pop(name, None)
            self.bus.unsubscribe(name)

    def logged(self, entries: Sequence[Entry]) -> None:
        """Tell the others."""
        for entry in entries:
            link = self._links.get(entry.room)
            if link is not None:
                link.publish(entry)

    def link(self, name: str) -> Link | None:
        return self._links.get(name)

    def ended(self, name: str) -> None:
        """Tell the others that a room was deleted."""
        self._link_of(name).ended()

    def cancelled(self, name: str, turn: str, principal: str) -> None:
        """Tell the others to stop a turn."""
        self._link_of(name).cancelled(turn, principal)

    def disconnected(self, name: str, connection: str) -> None:
        """Tell the others to end what a connection does in a room."""
        self._link_of(name).disconnected(connection)

    async def attendance(self, name: str) -> Attendance:
        """Who is connected to a room at the other replicas."""
        try:
            await self._beat()  # one that has just come must be asked too
        except BusUnavailable:
            return Attendance([], False)
        return await self._clerk.ask(name, self.peers)

    def _link_of(self, name: str) -> Link:
        """To say something in a room that may not be open here."""
        return self._links.get(name) or Link(
            name, self, self._metrics, me=self.me, key=self._key, random=self._random
        )

    def say_rights_changed(self) -> None:
        """Tell the others to read the registry again."""
        self.tell_all(RightsChanged(self.me))

    def say_distrusted(self, tenant: str, principal: str) -> None:
        """Tell the others to ask the backend anew; see `Rechecker.distrust`."""
        self.tell_all(Distrusted(self.me, tenant, principal))

    def tell_all(self, message: Message) -> None:
        """Say something to all replicas, whatever rooms they have open."""
        self.bus.say(EVERYBODY, encode(message, EVERYBODY, self._key))

    def tidy(self, now: float) -> None:
        """Say the digests that are due."""
        due = [name for name, at in self._due.items() if now >= at]
        if not due or self._is_comparing:
            return
        for name in due:
            self._due[name] = now + self._random.uniform(*COMPARE_SECONDS)
            if self.bus.is_up:
                self._links[name].compare()
        self._is_comparing = True
        self._host.start(self._compare(due))

    async def _compare(self, names: Sequence[str]) -> None:
        """What a replica had logged and could not tell, since it lost the bus or its life, is found in the store."""
        try:
            ends = await self._store.ends(names)
        except CollabError:
            return  # next time
        finally:
            self._is_comparing = False
        for name in names:
            link = self._links.get(name)
            if link is not None and ends.get(name, 0) != link.seen.end:
                self.reload(link)

    # As a wire

    def now(self) -> float:
        return self._loop.time()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self._loop.call_later(seconds, call)

    def sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def rank(self) -> float:
        names = sorted((*self.peers, self.me))
        return names.index(self.me) / len(names)

    def publish(self, channel: str, body: bytes) -> None:
        self.bus.publish(channel, body)

    def say(self, channel: str, body: bytes) -> None:
        self.bus.say(channel, body)

    def present(self, room: Room) -> None:
        self._host.present(room)

    def rebuild(self, room: Room) -> None:
        self._host.start(self._host.rebuild(room))

    def locate(self, link: Link) -> None:
        """After an interruption of all rooms at once, some at a time: nobody else waits for that."""
        self._unlocated.append(link)
        if self._locating < MAX_LOCATING:
            self._locating += 1
            self._host.start(self._locate_all())

    async def _locate_all(self) -> None:
        try:
            while self._unlocated:
                await self._locate(self._unlocated.popleft())
        finally:
            self._locating -= 1

    async def _locate(self, link: Link) -> None:
        while self._links.get(link.name) is link:
            try:
                found = await self.bus.position(link.name)
            except BusUnavailable:
                await self._pause()
                continue
            if self._links.get(link.name) is link:
                link.located(*found)
            located = self._located.get(link.name)
            if located is not None:
                located.set()
            return

    def read(self, link: Link, epoch: str, after: int) -> None:
        self._host.start(self._read(link, epoch, after))

    async def _read(self, link: Link, epoch: str, after: int) -> None:
        while self._links.get(link.name) is link:
            try:
                found = await self.bus.read(link.name, epoch, after)
            except BusUnavailable:
                await self._pause()
                continue
            if self._links.get(link.name) is link:
                link.found(found)
            return

    def reload(self, link: Link) -> None:
        """One reading at a time; a call during it means once more after it."""
        if link in self._reloading:
            self._reloading[link] = True
        else:
            self._reloading[link] = False
            self._host.start(self._reload(link))

    async def _reload(self, link: Link) -> None:
        try:
            while self._links.get(link.name) is link:
                self._reloading[link] = False
                try:
                    await self._catch_up(link)
                except CollabError as error:
                    log.warning(
                        "room cannot be read again",
                        room=link.name,
                        code=error.code,
                    )
                    await self._pause()
                    continue
                await asyncio.sleep(RELOAD_SECONDS)
                if not self._reloading[link]:
                    return
        finally:
            del self._reloading[link]

    async def _catch_up(self, link: Link) -> None:
        """Take in from the store what was not seen; restate what it has lost; let go of a room that has ended."""
        name, room = link.name, link.room
        if room is None:
            return
        # What is logged while the store is asked is not in its answer.
        end = link.seen.end
        info = await self._store.info(name)
        if link.room is not room:
            return
        if info is None:
            if not end:
                link.created = None
            elif self._may_restate(link):
                link.created = None
                self._restate(link, room)
            return
        if info.deleted_milliseconds is not None or info.epoch != room.epoch:
            self._host.ended(room)
            return
        created = link.created or info.created_milliseconds
        if info.position < end or info.created_milliseconds != created:
            if self._may_restate(link):
                link.created = info.created_milliseconds
                link.seen.reset(info.position)
                self._restate(link, room)
            return
        link.created = created
        while link.seen.end < info.position and link.room is room:
            rows = await self._store.history(name, after=link.seen.end, limit=ROWS)
            if link.room is not room:
                return
            if not rows or rows[0].position > link.seen.end + 1:
                await self._take_whole(link, room)
                return
            for row in rows:
                link.merge(row.update, "")
            link.seen.add(rows[0].position, rows[-1].position)
            room.extend(link.seen.end)

    async def _take_whole(self, link: Link, room: Room) -> None:
        """The log no longer reaches back as far as it is needed: take the checkpoint, and what follows it."""
        stored = await self._store.load(link.name)
        if link.room is not room or stored.epoch != room.epoch:
            return
        if stored.checkpoint is not None:
            link.merge(stored.checkpoint.snapshot, "")
        for _, update in stored.tail:
            link.merge(update, "")
        link.seen.reset(stored.position)
        room.extend(stored.position)

    async def _pause(self) -> None:
        """Before something is tried again; not all at the same moment."""
        await asyncio.sleep(RETRY_SECONDS * self._random.uniform(0.5, 1.5))

    def _may_restate(self, link: Link) -> bool:
        """Not again and again, since the document may be large; what is put off is looked at then."""
        wait = link.may_restate_at - self._loop.time()
        if wait > 0 and not link.is_restate_due:
            link.is_restate_due = True
            self.later(wait, partial(self.reload, link))
        return wait <= 0

    def _restate(self, link: Link, room: Room) -> None:
        pause = (
            RESTATE_SECONDS + len(room.document.snapshot()) / RESTATE_BYTES_PER_SECOND
        )
        link.may_restate_at = self._loop.time() + min(pause, MAX_RESTATE_SECONDS)
        link.is_restate_due = False
        self._metrics.restatements += 1
        log.error(
            "the store has lost a part of a room; all of it goes there again",
            room=link.name,
        )
        room.restate(Author("", f"replica:{self.me}"))

    # The other replicas

    def _word(self, body: bytes) -> None:
        try:
            message = decode(body, EVERYBODY, self._key)
        except InvalidMessage:
            self._metrics.bus_refused += 1
            return
        match message:
            case RightsChanged(sender) if sender != self.me:
                self.rights_changed()
            case Distrusted(sender, tenant, principal) if sender != self.me:
                self.distrusted(tenant, principal)
            case WhoAttends() | Attending() if message.sender != self.me:
                try:
                    self._clerk.hear(message)
                except (ValueError, TypeError, LookupError):
                    self._metrics.bus_refused += 1

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS * self._random.uniform(0.8, 1.2))
            try:
                await self._beat()
            except BusUnavailable:
                self._has_canary = False
            except Exception:
                log.exception("a bug met the roster")
            self._report()

    def _report(self) -> None:
        """Raise the alarm over what came from nobody of us."""
        metrics = self._metrics
        refused = metrics.bus_refused + metrics.bus_foreign
        if refused > self._refused:
            log.warning(
                "the bus carries what no replica of this cluster says, or says with another key; it was dropped",
                messages=refused - self._refused,
            )
        self._refused = refused

    async def _beat(self) -> None:
        self._beats += 1
        said = {
            "store": self._store.identity,
            "version": collab.__version__,
            "format": VERSION,  # of what replicas say to each other
            "started": self._started,
            "beats": self._beats,
        }
        alive = Alive(self.me, orjson.dumps(said))
        heard = await self.bus.beat(self.me, encode(alive, EVERYBODY, self._key))
        peers = self._read_roster(heard)
        gone = self.peers.keys() - peers.keys()
        for name in gone:
            log.info("replica gone", replica=name)
        if gone:
            self._compare_all()  # it may have logged and not told
        for name in peers.keys() - self.peers.keys():
            _look_at_version(name, peers[name])
        self.peers = peers
        for link in self._links.values():
            for name in link.peers:
                if name not in peers:
                    link.forget(name)
        strangers = [
            name
            for name, info in peers.items()
            if info.get("store", self._store.identity) != self._store.identity
        ]
        if strangers and not self.stranger:
            log.error(
                "a replica of this cluster keeps its rooms elsewhere",
                replica=strangers[0],
            )
        self.stranger = strangers[0] if strangers else ""
        await self._watch_over_memory()

    def _read_roster(self, heard: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
        """The others, and what they say of themselves; who has not signed that is none."""
        peers: dict[str, dict[str, Any]] = {}
        for name, body in heard.items():
            if name == self.me:
                continue
            try:
                message = decode(body, EVERYBODY, self._key)
            except InvalidMessage:
                self._metrics.bus_refused += 1
                continue
            if isinstance(message, Alive) and message.sender == name:
                info = _read_info(message.info)
                beats = info.get("beats")
                if isinstance(beats, int) and self._is_alive(name, beats):
                    peers[name] = info
        return peers

    def _is_alive(self, name: str, beats: int) -> bool:
        """Whether the line is news, or was a moment ago: whoever shows an old one again does not bring anybody back.

        What is asked is our own clock alone, for those of other machines may be wrong.
        """
        now = self._loop.time()
        known, at = self._lives.get(name, (-1, 0.0))
        if beats > known:
            self._lives.pop(name, None)
            self._lives[name] = beats, now
            if len(self._lives) > MAX_LIVES:
                del self._lives[next(iter(self._lives))]
            return True
        return beats == known and now - at < PEER_SECONDS

    def _compare_all(self) -> None:
        """Look after every room, soon and one after the other."""
        now, spread = self._loop.time(), SPREAD_SECONDS * len(self._due)
        for name, due in self._due.items():
            soon = now + self._random.uniform(0.0, min(spread, MAX_SPREAD_SECONDS))
            self._due[name] = min(due, soon)

    async def _watch_over_memory(self) -> None:
        """Notice that Redis was emptied, although nobody was disconnected."""
        key = f"canary:{self.me}"
        if self._has_canary and await self.bus.take(key) is None:
            log.error("the bus has lost what it kept; every room is looked after")
            self._compare_all()
        await self.bus.keep(key, b"alive", CANARY_SECONDS)
        self._has_canary = True


class _Everybody:
    """The subscriber of the channel that all replicas listen to."""

    def __init__(self, word: Callable[[bytes], None]) -> None:
        self.word = word

    def entry(self, published: Published) -> None:
        """Nothing is numbered here."""

    def interrupted(self) -> None:
        """What was said meanwhile is found out by looking now and then."""

    def dropped(self) -> None: ...


def _look_at_version(replica: str, info: dict[str, Any]) -> None:
    version = str(info.get("version", ""))[:40]
    if info.get("format") != VERSION or not is_near(collab.__version__, version):
        log.warning(
            "a replica is more than one release away: it may not be understood",
            replica=replica,
            version=version,
        )


def _read_info(info: bytes) -> dict[str, Any]:
    """What a replica says of itself; nothing when that is not readable."""
    try:
        said = orjson.loads(info)
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}


def _nothing() -> None: ...
