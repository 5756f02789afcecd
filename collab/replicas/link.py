"""One room's side of the bus: plain synchronous code, no clock, no `await`; the simulation runs it as it is.

Only what a store has logged is published, so whatever is missed here is still there. The rest is order and repair:

- Entries are numbered. The next one is taken in; one that is known is passed over; at a gap the stream is read.
- When the stream does not have it any more, or its numbering has begun anew, the room *exchanges*: it reads from the store
  what it has not seen, and says its digest.
- A digest is a state vector and a hash of the deletions. Each replica says it when its subscription stands (again) and
  every 15 to 30 s; whoever has more answers with the difference, one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Protocol

from collab.auth.permissions import ANONYMOUS
from collab.awareness import Peer
from collab.bus.base import MAX_BODY_BYTES, Published
from collab.errors import CollabError, DocumentBroken, InvalidMessage, TooLarge
from collab.metrics import Metrics
from collab.protocol.envelope import (
    Alive,
    Attending,
    Cancelled,
    Difference,
    Digest,
    Disconnected,
    Distrusted,
    Ended,
    Message,
    Presence,
    RightsChanged,
    Updates,
    WhoAttends,
    WhoIsHere,
    decode,
    encode,
)
from collab.protocol.statevector import state_vector
from collab.replicas.allowance import Allowance
from collab.replicas.seen import Seen
from collab.room import Room
from collab.store.base import Author, Entry

MAX_EARLY = (
    2000  # entries that wait for those before them; what comes then is read again
)
MAX_EARLY_BYTES = 2 * MAX_BODY_BYTES
MAX_PEERS = 256
MAX_UPDATES = 1000  # of one published entry
MAX_UPDATES_BYTES = MAX_BODY_BYTES // 2
MAX_STATES = 1000  # of presence, of one word
MAX_STATES_BYTES = MAX_BODY_BYTES // 2
MAX_VECTOR_BYTES = 1 << 17  # that is looked into; who differs by more asks the store
MAX_DIFFERENCE_BYTES = 1 << 20  # what is larger is read from the store
ANSWER_SECONDS = 0.1  # between two who would answer the same question
UNCLEAN_SECONDS = 0.5  # until an answer is tried again that must wait for a commit
PAUSE_SECONDS = 0.25  # between two answers of one room
SELDOM_SECONDS = (
    1.0  # between two digests of one room, or two times that all say who is there
)
# Words of one room that are heard, presence aside: each makes work. More are dropped, and found out by comparing.
WORDS_AT_ONCE, WORDS_PER_SECOND = 100.0, 20.0
PUZZLED = 3  # times the same two digests differ, until it counts as a divergence


class Wire(Protocol):
    """What a link brings about. Each returns at once."""

    def now(self) -> float:
        """Seconds, of any clock that does not go back."""
        ...

    def later(self, seconds: float, call: Callable[[], None]) -> None: ...

    def sequence(self) -> int:
        """A number that rises with every entry of this replica, in all rooms."""
        ...

    def rank(self) -> float:
        """Between 0 and 1: when this replica answers what all are asked, beside the others."""
        ...

    def publish(self, channel: str, body: bytes) -> None: ...

    def say(self, channel: str, body: bytes) -> None: ...

    def locate(self, link: Link) -> None:
        """Find out where the stream stands; the answer goes to `located`."""
        ...

    def read(self, link: Link, epoch: str, after: int) -> None:
        """Read the stream; the answer goes to `found`."""
        ...

    def reload(self, link: Link) -> None:
        """Read from the store what was not seen, and look whether it still has it all."""
        ...

    def rebuild(self, room: Room) -> None:
        """Native code has broken the document."""
        ...

    def present(self, room: Room) -> None:
        """Presence has changed."""
        ...


class _Seldom:
    """Is done at once when it was not for a while, or else when that is over: however often it is asked for."""

    def __init__(self, wire: Wire, act: Callable[[], None]) -> None:
        self._wire, self._act = wire, act
        self._due = 0.0
        self._is_waiting = False

    def __call__(self) -> None:
        now = self._wire.now()
        if now >= self._due:
            self._due = now + SELDOM_SECONDS
            self._act()
        elif not self._is_waiting:
            self._is_waiting = True
            self._wire.later(self._due - now, self._late)

    def _late(self) -> None:
        self._is_waiting = False
        self()


class Link:
    """A room and the other replicas that have it open. The subscriber of the room's channel."""

    def __init__(
        self,
        name: str,
        wire: Wire,
        metrics: Metrics,
        *,
        me: str,
        key: bytes | None,
        random: Random,
    ) -> None:
        self.name, self.me = name, me
        self.room: Room | None = None  # until it is loaded
        self.seen = Seen(0)
        # When the log was begun, milliseconds since 1970; None until the store was asked.
        self.created: int | None = None
        self.is_located = False  # it is known where the stream stands
        self.may_restate_at = 0.0
        self.is_restate_due = False
        self._wire, self._metrics, self._key, self._random = wire, metrics, key, random
        self._epoch, self._last = "", 0  # of the last entry taken in
        self._is_sure = False  # nothing can have been missed without a gap
        self._is_lost = False  # the stream cannot say what was missed
        self._is_reading = False
        self._early: dict[int, Published] = {}
        self._early_bytes = 0
        # The numbering and its last number that was known when the stream was read.
        self._asked: tuple[str, int] = "", 0
        self._heard: dict[str, int] = {}  # replica → sequence of its last entry
        self._peers: dict[str, Peer] = {}
        self._owed: dict[str, bytes] = {}  # replica → state vector it said
        self._puzzles: dict[str, tuple[int, int]] = {}
        self._digest: tuple[int, bytes, bytes] | None = None  # of which version
        self._answer_due = 0.0
        self._words = Allowance(WORDS_AT_ONCE, WORDS_PER_SECOND, wire.now())
        self._say_digest = _Seldom(wire, self._say_digest_now)
        self._say_who_is_here = _Seldom(wire, self._say_who_is_here_now)
        self._ask_who_is_here = _Seldom(wire, self._ask_who_is_here_now)

    def begin(self, room: Room) -> None:
        """The room was loaded after the subscription stood: take in what has come since."""
        self.room = room
        self.seen = Seen(room.log_end)
        self._wire.reload(self)
        if self._is_sure:
            self._drain()
            self._introduce()

    def replaced(self, position: int) -> None:
        """The document was read from the log anew: what came after that went into the one before."""
        self.seen.reset(position)
        self._wire.reload(self)

    def end(self) -> None:
        """The room is closed here; the last who left may not have been told of yet."""
        if self.room is not None:  # which is false when nobody is there
            changed = self.room.awareness.take()
            if changed is not None:
                self.present(changed[1])
        self.room = None

    # From this replica

    def publish(self, entry: Entry) -> None:
        """Tell the others what was logged."""
        if entry.logged and entry.logged - len(entry.updates) < self.seen.end:
            self.exchange()  # the log has gone back behind what it held
        self._see(entry.logged, len(entry.updates))
        start, size = 0, 0
        for at, update in enumerate(entry.updates):
            if at - start == MAX_UPDATES or (
                size and size + len(update) > MAX_UPDATES_BYTES
            ):
                self._publish(entry, start, at)
                start, size = at, 0
            size += len(update)
        self._publish(entry, start, len(entry.updates))

    def _publish(self, entry: Entry, start: int, end: int) -> None:
        last = entry.logged and entry.logged - len(entry.updates) + end
        updates = entry.updates[start:end]
        owners = [_owner(author) for author in entry.authors[start:end]]
        sequence = self._wire.sequence()
        body = self._encode(
            Updates(self.me, sequence, entry.epoch, last, owners, updates)
        )
        if len(body) > MAX_BODY_BYTES:
            self._say_digest()  # whoever lacks it finds it in the store
        else:
            self._wire.publish(self.name, body)

    def present(self, states: Sequence[tuple[int, int, bytes, str]]) -> None:
        """Tell the others who is here."""
        start, size = 0, 0
        for at, state in enumerate(states):
            if at - start == MAX_STATES or size + len(state[2]) > MAX_STATES_BYTES:
                self._say(Presence(self.me, states[start:at]))
                start, size = at, 0
            size += len(state[2])
        if states:
            self._say(Presence(self.me, states[start:]))

    def ended(self) -> None:
        """Tell the others that the room was deleted."""
        self._say(Ended(self.me))

    def cancelled(self, turn: str, principal: str) -> None:
        """Tell the others to stop a turn."""
        self._say(Cancelled(self.me, turn, principal))

    def disconnected(self, connection: str) -> None:
        """Tell the others to end what a connection does here."""
        self._say(Disconnected(self.me, connection))

    def compare(self) -> None:
        """Time to hear whether all have the same."""
        self._say_digest()

    def exchange(self) -> None:
        """Something may be missing that the stream cannot say."""
        self._metrics.bus_exchanges += 1
        self._wire.reload(self)
        self._introduce()

    def forget(self, replica: str) -> None:
        """Another replica is gone, and who was there with it."""
        peer = self._peers.pop(replica, None)
        self._heard.pop(replica, None)
        self._owed.pop(replica, None)
        self._puzzles.pop(replica, None)
        if peer is not None and self.room is not None:
            self.room.awareness.leave(peer)
            self._wire.present(self.room)

    @property
    def peers(self) -> list[str]:
        """Replicas that were heard of in this room."""
        return list(self._peers)

    # As a subscriber

    def interrupted(self) -> None:
        self._is_sure = False
        self._wire.locate(self)

    def dropped(self) -> None:
        self._say_digest()

    def located(self, epoch: str, number: int) -> None:
        """Where the stream stands, asked after the subscription."""
        is_first, self.is_located = not self.is_located, True
        is_lost, self._is_lost = self._is_lost, False
        self._is_sure = True
        if is_first and self.room is None:
            self._epoch, self._last = epoch, number
            return
        if is_first or is_lost or epoch != self._epoch or number < self._last:
            self._move(epoch, number)
            self._drain()
            self.exchange()
            return
        if number > self._last:
            self._read()
        self._drain()
        self._introduce()

    def entry(self, published: Published) -> None:
        if self.room is None or not self._is_sure:
            self._keep(published)
        else:
            self._order(published)

    def found(self, entries: Sequence[Published] | None) -> None:
        """What the stream holds after the last entry; None when not all of that is there."""
        self._is_reading = False
        epoch, most = self._asked
        if entries is None:
            self._is_lost, self._is_sure = True, False
            self._wire.locate(self)
            return
        for published in entries:
            if published.epoch == self._epoch and published.number == self._last + 1:
                self._take(published)
        self._take_waiting()
        end = entries[-1].number if entries else self._last
        if epoch == self._epoch and self._last >= end and self._discard(most):
            # What was heard and is not in the stream came from nobody of us, or Redis has lost it.
            self.exchange()
        self._drain()

    def word(self, body: bytes) -> None:
        room, message = self.room, self._decode(body)
        if room is None or message is None or message.sender == self.me:
            return
        is_presence = isinstance(message, Presence)
        if not is_presence and not self._words.take(self._wire.now()):
            self._metrics.bus_refused += 1
            return
        match message:
            case Presence(sender, states):
                self._meet(room, sender, states)
            case WhoIsHere():
                self._say_who_is_here()
            case Digest(sender, epoch, vector, deletes):
                self._compare(room, sender, epoch, vector, deletes)
            case Difference(_, to, epoch, update):
                self._owed.pop(to, None)
                if to == self.me:
                    self._receive(room, epoch, update)
            case Ended():
                self._wire.reload(self)
            case Cancelled(_, turn, principal):
                room.cancel_turn(turn, principal, self._wire.later)
            case Disconnected(_, connection):
                room.disconnect(connection)
            case (
                RightsChanged()
                | Distrusted()
                | Alive()
                | Updates()
                | WhoAttends()
                | Attending()
            ):
                pass  # not said in a room, or not in this way

    # Order

    def _keep(self, published: Published) -> None:
        size = self._early_bytes + len(published.body)
        if len(self._early) < MAX_EARLY and size <= MAX_EARLY_BYTES:
            self._drop(published.number)
            self._early[published.number] = published
            self._early_bytes += len(published.body)

    def _drop(self, number: int) -> Published | None:
        published = self._early.pop(number, None)
        if published is not None:
            self._early_bytes -= len(published.body)
        return published

    def _order(self, published: Published) -> None:
        number = published.number
        try:
            message = decode(published.body, self.name, self._key)
        except InvalidMessage:
            # It has no say in the order. When it is in the stream, it is passed over there.
            self._metrics.bus_refused += 1
            return
        if published.epoch != self._epoch:
            is_first = not self._epoch and number == 1
            self._move(published.epoch, number)
            self._receive_updates(message)
            if not is_first:
                self.exchange()
        elif number == self._last + 1:
            self._last = number
            self._receive_updates(message)
            if self._early:
                self._drain()
        elif number > self._last:
            self._keep(published)
            self._read()
        elif self._is_news(message):
            # The numbering went back with an older state of Redis, under the same name.
            self._move(published.epoch, number)
            self._receive_updates(message)
            self.exchange()

    def _move(self, epoch: str, number: int) -> None:
        self._epoch, self._last = epoch, number

    def _is_news(self, message: Message | None) -> bool:
        return (
            isinstance(message, Updates)
            and message.sender != self.me
            and message.sequence > self._heard.get(message.sender, message.sequence)
        )

    def _read(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self._metrics.bus_gaps += 1
            waiting = self._early.values()
            numbers = (each.number for each in waiting if each.epoch == self._epoch)
            self._asked = self._epoch, max(numbers, default=0)
            self._wire.read(self, self._epoch, self._last)

    def _drain(self) -> None:
        """Take in what has waited, as far as it follows."""
        self._take_waiting()
        for number, published in list(self._early.items()):
            if number <= self._last or published.epoch != self._epoch:
                self._drop(number)
        if self._early:
            self._read()

    def _take_waiting(self) -> None:
        while published := self._drop(self._last + 1):
            if published.epoch != self._epoch:
                break
            self._take(published)

    def _discard(self, most: int) -> int:
        """Give up what waits up to that number and did not follow; how many that were."""
        found = [
            number
            for number, published in self._early.items()
            if self._last < number <= most and published.epoch == self._epoch
        ]
        for number in found:
            self._drop(number)
        self._metrics.bus_refused += len(found)
        return len(found)

    def _take(self, published: Published) -> None:
        self._last = published.number
        self._receive_updates(self._decode(published.body))

    def _receive_updates(self, message: Message | None) -> None:
        room = self.room
        if room is None or not isinstance(message, Updates):
            return
        _, sequence, epoch, last, owners, updates = message
        if message.sender == self.me:
            return
        if len(self._heard) < MAX_PEERS or message.sender in self._heard:
            self._heard[message.sender] = sequence
        if epoch != room.epoch:
            self._wire.reload(self)
            return
        self._see(last, len(updates))
        for owner, update in zip(owners, updates, strict=True):
            self.merge(update, owner)

    def merge(self, update: bytes, owner: str) -> None:
        """Take in what another replica has logged; what cannot be taken in is counted, and costs nobody else."""
        room = self.room
        if room is None:
            return
        try:
            room.merge(update, owner)
        except TooLarge:
            self._say_digest()  # too much waits for what is missing
        except DocumentBroken:
            self._wire.rebuild(room)
        except CollabError:
            self._metrics.bus_refused += 1

    def _see(self, last: int, count: int) -> None:
        if last:
            self.seen.add(last - count + 1, last)
            if self.room is not None:
                self.room.extend(self.seen.end)
        if not last or self.created is None:
            self._wire.reload(self)

    # Repair

    def digest(self) -> tuple[bytes, bytes]:
        """State vector and hash of the deletions."""
        room = self.room
        assert room is not None
        known = self._digest
        if known is None or known[0] != room.version:
            document = room.document
            known = room.version, document.state_vector(), document.deletes()
            self._digest = known
        return known[1:]

    def _introduce(self) -> None:
        self._ask_who_is_here()
        self._say_who_is_here()
        self._say_digest()

    def _ask_who_is_here_now(self) -> None:
        self._say(WhoIsHere(self.me))

    def _say_who_is_here_now(self) -> None:
        if self.room is not None:
            self.present(self.room.awareness.own())

    def _say_digest_now(self) -> None:
        if self.room is not None:
            vector, deletes = self.digest()
            self._say(Digest(self.me, self.room.epoch, vector, deletes))

    def _compare(
        self, room: Room, sender: str, epoch: str, vector: bytes, deletes: bytes
    ) -> None:
        if epoch != room.epoch:
            self._wire.reload(self)
            return
        mine = self.digest()
        if mine == (vector, deletes):
            self._puzzles.pop(sender, None)
            self._owed.pop(sender, None)
            return
        puzzle = hash((*mine, vector, deletes))
        if len(vector) > MAX_VECTOR_BYTES:
            self._puzzle(sender, puzzle)
            self._wire.reload(self)
            return
        try:
            theirs = state_vector(vector)
        except CollabError:
            self._metrics.bus_refused += 1
            return
        self._puzzle(sender, puzzle)
        known = room.document.gate.known
        is_less = any(clock > known.get(client, 0) for client, clock in theirs.items())
        is_more = any(clock > theirs.get(client, 0) for client, clock in known.items())
        if is_more or not is_less:  # or deletions alone differ: both answer
            self._owe(sender, vector)
        if is_less:
            self._say_digest()

    def _puzzle(self, sender: str, digests: int) -> None:
        """Count how often nothing has helped."""
        before, times = self._puzzles.get(sender, (0, 0))
        times = times + 1 if before == digests else 1
        if sender in self._puzzles or len(self._puzzles) < MAX_PEERS:
            self._puzzles[sender] = digests, times
        if times == PUZZLED:
            self._metrics.divergences += 1

    def _owe(self, sender: str, vector: bytes) -> None:
        if sender not in self._owed:
            if len(self._owed) >= MAX_PEERS:
                return
            delay = ANSWER_SECONDS * (self._wire.rank() + self._random.random() / 2)
            self._wire.later(delay, partial(self._answer, sender))
        self._owed[sender] = vector

    def _answer(self, sender: str) -> None:
        vector, room = self._owed.get(sender), self.room
        if vector is None or room is None:
            return  # another one was faster
        if not room.is_clean:
            # A difference may hold only what is logged.
            self._wire.later(UNCLEAN_SECONDS, partial(self._answer, sender))
            return
        now = self._wire.now()
        if now < self._answer_due:
            self._wire.later(self._answer_due - now, partial(self._answer, sender))
            return
        self._answer_due = now + PAUSE_SECONDS
        del self._owed[sender]
        update = room.document.diff(vector)
        found = update if len(update) <= MAX_DIFFERENCE_BYTES else None
        self._say(Difference(self.me, sender, room.epoch, found))

    def _receive(self, room: Room, epoch: str, update: bytes | None) -> None:
        if epoch != room.epoch or update is None:
            self._wire.reload(self)
        else:
            self.merge(update, "")

    # Presence

    def _meet(
        self, room: Room, sender: str, states: Sequence[tuple[int, int, bytes, str]]
    ) -> None:
        peer = self._peers.get(sender)
        if peer is None:
            if len(self._peers) >= MAX_PEERS:
                return
            peer = self._peers[sender] = Peer()
        try:
            room.awareness.merge(states, peer, self._wire.now())
        except CollabError:
            self._metrics.bus_refused += 1
        self._wire.present(room)

    # Bytes

    def _say(self, message: Message) -> None:
        self._wire.say(self.name, self._encode(message))

    def _encode(self, message: Message) -> bytes:
        return encode(message, self.name, self._key)

    def _decode(self, body: bytes) -> Message | None:
        try:
            return decode(body, self.name, self._key)
        except InvalidMessage:
            self._metrics.bus_refused += 1
            return None


def _owner(author: Author) -> str:
    """Whose account it is; "" for none."""
    return "" if author.principal == ANONYMOUS.id else author.principal
