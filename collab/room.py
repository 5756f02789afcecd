"""A room: one document, its awareness and its members. Plain synchronous code: no socket, no clock, no `await`.

What a loop turn brings is gathered and leaves once: `take` broadcasts it to every audience and returns the entry for
the log. Between two awaits of its replica a room is consistent and needs no lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from enum import Enum
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol

from collab.auth.permissions import (
    ANONYMOUS,
    EVERYTHING,
    REWRITE,
    WRITE,
    Principal,
)
from collab.awareness import Awareness
from collab.document.bundle import bundled
from collab.document.document import Change, Document, TooCostly, WaitTooCostly
from collab.document.erasure import Erasure
from collab.errors import (
    CollabError,
    LeaseLost,
    OthersPresent,
    PermissionDenied,
    RateLimited,
    TurnCancelled,
)
from collab.outbox import Audience, Outbox, Write
from collab.protocol import yjs
from collab.protocol.frames import frame
from collab.protocol.structs import Range
from collab.store.base import Author, Entry
from collab.turns import GRACE_SECONDS, UNDO, About, Turn

# Insertions of one client that are repeated to it when it reconnects.
MAX_REMINDER = 20_000
# Of what was in a document when a turn began to delete, that it may delete while others are there; as little as that
# always.
REWRITE_SHARE, LEAST_REWRITE = 0.5, 20
RANGES_OF_AN_OPERATION = (
    1000  # deleted ones, that are counted with as much work as an operation may cost
)
MAX_CANCELLED = 1000  # turns of one room that are remembered; the oldest may go on then


# Calls back once that many seconds are over.
Later = Callable[[float, Callable[[], None]], object]


class RoomState(Enum):
    """What a room is doing. A room that is loading has no members yet; see `Replica.open`."""

    LIVE = "live"
    DRAINING = "draining"  # nobody is here; a member who joins now revives it
    CLOSED = "closed"


class Line(Protocol):
    """The socket behind a member, as far as a room and its replica need it."""

    dialect: str  # how it speaks, in a word

    address: str  # of the peer

    def is_alive(self) -> bool:
        """Whether the peer has shown life since this was first asked; asking makes it."""
        ...

    def pause(self) -> None:
        """Take nothing more from the peer until `resume`; may be called several times."""
        ...

    def resume(self) -> None: ...

    def close(self, error: CollabError) -> None:
        """Close the socket with the error's code and reason."""
        ...

    def notify(self, kind: str, retry_after_milliseconds: int = 0) -> None:
        """Tell a client that understands it what is going on: `drain`, `read-only`, `writable`."""
        ...

    def rights_changed(self, member: Member) -> None:
        """Tell a client that understands it that this member has won or lost the right to write."""
        ...

    def expel(self, member: Member, error: CollabError) -> None:
        """End this member's stay, and leave the socket's other documents alone if it has several."""
        ...


class Budget(Protocol):
    """What an agent may still write in a room."""

    share: float  # of the largest document there may be, up to which it may fill one

    def spend(self, characters: int, *, is_full: bool) -> None:
        """One update that inserts so many. Raises RateLimited, which says when there is more."""
        ...

    def charge(self, operations: int) -> None:
        """Something took as much work as so many updates."""
        ...


class Member(Outbox):
    """One connection in one room, with its permissions."""

    __slots__ = (
        "about",
        "author",
        "budget",
        "clients",
        "erasure",
        "introduced",
        "is_watched",
        "line",
        "operations",
        "owner",
        "prefix",
        "principal",
        "room",
        "sequence",
        "since",
        "strikes",
        "turn",
        "user",
    )

    room: Room

    def __init__(
        self,
        write: Write,
        line: Line,
        author: Author,
        *,
        owner: str,
        prefix: bytes = b"",
        principal: Principal = ANONYMOUS,
        operations: int = EVERYTHING,
        user: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(write)
        self.author = author
        self.about = About()  # who it is, as others are to read it
        self.turn: Turn | None = None  # that its updates belong to
        self.erasure: Erasure | None = None  # what that turn has deleted
        self.budget: Budget | None = None  # of an agent, or whoever takes a turn
        self.is_watched = (
            False  # there is more to ask about its updates than its rights
        )
        self.introduce(principal.about)
        self.principal = principal
        self.operations = operations  # what it may do now; asked on every message
        self.owner = owner  # whose client ids it writes under: the principal, or an anonymous connection
        self.line = line
        self.prefix = prefix
        self.user = user
        self.clients: set[int] = set()  # whose presence it announced
        self.strikes = 0
        self.sequence = 0  # messages with updates it has sent
        self.since = 0.0  # seconds since 1970, when it joined
        self.introduced = 0.0  # until when what it calls itself is not looked at

    @property
    def may_write(self) -> bool:
        return bool(self.operations & WRITE)

    def speak_for(self, principal: Principal) -> None:
        """Go on with another credential of the same principal."""
        self.principal, self.user = principal, principal.stamp
        self.introduce(principal.about)

    def introduce(self, about: About) -> None:
        """Who stands beside its updates from now on."""
        if about != self.about:
            self.about = about
            self._sign()

    def take(self, turn: Turn | None) -> None:
        """Its updates belong to this turn from now on."""
        if turn is not self.turn:
            self.turn, self.erasure = turn, None
        self.is_watched = turn is not None or self.budget is not None
        self._sign()

    def bound(self, budget: Budget | None) -> None:
        """It may write no more than this from now on."""
        if budget is not None:
            self.budget, self.is_watched = budget, True

    def _sign(self) -> None:
        """One object for all that it writes until something changes: nothing is made for an update."""
        turn, about = self.turn, self.about
        if turn is not None:
            said = turn.said
            about = replace(about, task=said.task, model=said.model, reason=said.reason)
        self.author = self.author._replace(
            turn=turn.id if turn else None, about=about.encode()
        )

    def answers(self) -> bool:
        return self.line.is_alive()

    def send(self, message: bytes) -> None:
        """One message to this member alone."""
        self.write(frame(self.prefix + message))

    def catch_up(self) -> bool:
        return self.room.catch_up(self)


class Visitor(Member):
    """A member without a socket: a request that edits, an import."""

    __slots__ = ()

    def __init__(
        self,
        principal: Principal,
        operations: int,
        *,
        connection: str,
    ) -> None:
        super().__init__(
            _drop,
            _NOBODY,
            Author(principal.id, connection),
            owner=principal.id,
            principal=principal,
            operations=operations,
        )


def _drop(frame: bytes) -> None:
    """Nobody reads what a visitor is sent."""


class _Nobody:
    """The line of a visitor."""

    dialect = "rest"

    address = ""

    def is_alive(self) -> bool:
        return True

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self, error: CollabError) -> None: ...

    def notify(self, kind: str, retry_after_milliseconds: int = 0) -> None: ...

    def rights_changed(self, member: Member) -> None: ...

    def expel(self, member: Member, error: CollabError) -> None: ...


_NOBODY = _Nobody()


class Room:
    """Where members meet over one document; its name is in the URL."""

    def __init__(
        self,
        name: str,
        document: Document,
        awareness: Awareness,
        *,
        epoch: str,
        position: int = 0,
        origin: str = "",
        is_strict: bool = False,
        max_held_bytes: int = 4 << 20,
        changed: Callable[[Room], None] = lambda room: None,
    ) -> None:
        self.name, self.document, self.awareness = name, document, awareness
        self.epoch = epoch
        # Named in its entries where several processes write one log; what they count is then told apart by it.
        self.origin = origin
        # Of the last update in the log, those on their way included. Where several processes write it, this one's count.
        self.position = position
        # Of the last update of this process that the log holds.
        self.logged_position = position
        # Up to there all of the log has been taken in, whoever wrote it; whoever watches is called after it has moved.
        self.log_end = position
        self.place = position  # in the log, of what this process has logged last
        self.version = position  # moves with every change, whoever made it
        self.watchers: dict[Callable[[], None], None] = {}
        self.state = RoomState.LIVE
        self.unwritable: CollabError | None = None  # why updates are refused now
        self.rows_since_checkpoint = 0
        self.bytes_since_checkpoint = 0
        self._is_strict, self._max_held_bytes = is_strict, max_held_bytes
        self._changed = changed  # called once, with the first change of a turn
        self._is_changed = False
        self._audiences: dict[bytes, Audience] = {}
        self._members: dict[Member, None] = {}
        self._turns: dict[str, Member] = {}  # by id, who has it open: one a member
        self._cancelled: dict[str, str] = {}  # turn → whose, "" being anybody's
        self._turn = 0  # the next to be broadcast
        self._logged = -1  # the last whose changes are all in the log
        # (Last position, turn) of entries that are not logged yet.
        self._in_flight: deque[tuple[int, int]] = deque()
        self._messages: list[bytes] = []  # of this turn
        self._updates: list[bytes] = []
        self._authors: list[Author] = []
        self._writers: dict[Member, None] = {}
        # Whether an agent, or somebody in a turn, has brought some of it.
        self._is_streamed = False
        # The frame that answers an empty state vector, until the next change.
        self._answer: bytes | None = None

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member: Member) -> bool:
        return member in self._members

    @property
    def members(self) -> Iterator[Member]:
        return iter(list(self._members))

    @property
    def is_clean(self) -> bool:
        """Whether everything that happened here is in the log."""
        return not self._is_changed and not self._in_flight

    def take_overflows(self) -> int:
        """How often a member has fallen behind since this was last asked."""
        count = 0
        for audience in self._audiences.values():
            count += audience.overflows
            audience.overflows = 0
        return count

    def join(self, member: Member) -> None:
        """Let a member in; what happens from now on reaches it."""
        member.room = self
        audience = self._audiences.get(member.prefix)
        if audience is None:
            audience = self._audiences[member.prefix] = Audience(
                member.prefix, self._turn, max_bytes=self._max_held_bytes
            )
        audience.join(member)
        self._members[member] = None
        self.state = RoomState.LIVE

    def replace(self, document: Document) -> None:
        """Go on with a document rebuilt from the log. Nothing may be unlogged, since it would not be in it."""
        document.succeed(self.document)
        self.document = document
        self._answer = None

    def leave(self, member: Member) -> None:
        """Forget a member and the presence it announced."""
        if member not in self._members:
            return
        del self._members[member]
        audience = member.audience
        audience.leave(member)
        if not len(audience):
            del self._audiences[member.prefix]
        self._writers.pop(member, None)
        self._let_go(member)
        self.awareness.leave(member)
        if member.owner != member.author.principal:
            self.document.release(member.owner)

    def update(
        self,
        member: Member,
        update: bytes,
        *,
        precise: bool = False,
        is_ours: bool = False,
    ) -> bool:
        """Take in an update; False when it brought nothing. It reaches the others with the next `take`.

        Raises what `Document.apply` raises (TooCostly when all else is done), PermissionDenied, or the reason why
        nothing can be saved now.
        """
        if not member.operations & WRITE:
            raise PermissionDenied("this member may only read")
        if self.unwritable is not None:
            raise self.unwritable
        if member.is_watched:
            self._watch(member, update, is_ours=is_ours)
            self._is_streamed = True
        costly: TooCostly | None = None
        change: Change | bytes | None
        try:
            change = self.document.apply(
                update, member.owner, precise=precise, is_ours=is_ours
            )
        except TooCostly as error:
            costly, change = error, error.kept
        except WaitTooCostly:
            self.document.suspect(update)
            raise
        if change is None:
            return False
        if not self._is_changed:
            self._begin()
        if isinstance(change, Change):
            self._messages += [yjs.update_message(part) for part in change.forward]
            self._updates.append(change.log)
        else:
            self._messages.append(yjs.update_message(update))
            self._updates.append(update)
        self._authors.append(member.author)
        self._writers[member] = None
        self._answer = None
        self.version += 1
        self.position += 1
        if costly is not None:
            raise costly
        return True

    # Turns

    def begin_turn(self, member: Member, id: str, said: About) -> None:
        """What a member writes from now on belongs to this turn; "" is none.

        It is told when that cannot be; whoever had the turn open with the same principal is told that it has not any more.
        """
        before, holder = member.turn, self._turns.get(id)
        if before is not None and holder is member:
            before.said = said  # it goes on
            member.take(before)
            return
        self._let_go(member)
        if not id:
            member.take(None)
            return
        member.take(Turn(id, said))
        if id.startswith(UNDO):
            self.end_turn(
                member, PermissionDenied(f"turns called {UNDO}… are the server's own")
            )
        elif self._cancelled.get(id) in ("", member.author.principal):
            self.end_turn(member, TurnCancelled("this turn was stopped"))
        elif holder is None:
            self._turns[id] = member
        elif holder.author.principal != member.author.principal:
            self.end_turn(
                member, PermissionDenied("another member has a turn of this name open")
            )
        elif not isinstance(member, Visitor):  # whose one edit is over at once
            self.end_turn(
                holder, LeaseLost("another connection has taken this turn over")
            )
            self._turns[id] = member

    def end_turn(self, member: Member, why: CollabError) -> None:
        """Refuse what a member still brings for its turn, and tell it."""
        turn = member.turn
        if turn is not None and turn.ended is None:
            turn.end(why)
            self._let_go(member)
            member.send(yjs.turn_ended(turn.id, why.code, str(why)))

    def cancel_turn(self, id: str, principal: str, later: Later) -> bool:
        """Stop a turn of a principal, "" being whoever has it open; False when nobody has it here.

        Who has it is told, and what it still brings is taken for `GRACE_SECONDS`. It is not begun again.
        """
        member = self._turns.get(id)
        is_here = member is not None and principal in ("", member.author.principal)
        if member is not None and is_here:
            principal = member.author.principal
        if len(self._cancelled) >= MAX_CANCELLED:
            del self._cancelled[next(iter(self._cancelled))]
        self._cancelled[id] = principal
        if member is None or member.turn is None or not is_here:
            return False
        why = TurnCancelled("this turn was stopped")
        self._let_go(member)
        member.send(yjs.turn_ended(id, why.code, str(why)))
        later(GRACE_SECONDS, partial(member.turn.end, why))
        return True

    def disconnect(self, connection: str) -> bool:
        """End what a connection does here; False when it does nothing here. It may join anew."""
        found = [each for each in self.members if each.author.connection == connection]
        for member in found:
            why = PermissionDenied("disconnected by an administrator")
            member.line.expel(member, why)
        return bool(found)

    def _let_go(self, member: Member) -> None:
        turn = member.turn
        if turn is not None and self._turns.get(turn.id) is member:
            del self._turns[turn.id]

    def _watch(self, member: Member, update: bytes, *, is_ours: bool) -> None:
        """Raises what has ended the member's turn, or ends it: RateLimited or OthersPresent."""
        turn, budget = member.turn, member.budget
        if turn is not None and turn.ended is not None:
            raise turn.ended.with_traceback(None)
        characters, deletes = self.document.measure(update, is_ours=is_ours)
        try:
            if budget is not None and (characters or deletes):
                is_full = characters > 0 and self.document.is_fuller(budget.share)
                budget.spend(characters, is_full=is_full)
            if turn is not None and deletes:
                self._spare(member, turn, deletes)
        except (RateLimited, OthersPresent) as error:
            self.end_turn(member, error)
            raise

    def _spare(self, member: Member, turn: Turn, deletes: Sequence[Range]) -> None:
        """Raises OthersPresent where a turn deletes too much of what others are in."""
        turn.deleted += sum(end - clock for _, clock, end in deletes)
        if turn.deleted <= LEAST_REWRITE or member.operations & REWRITE:
            return
        if member.erasure is None:
            member.erasure = self.document.erasure()
            if member.budget is not None:
                member.budget.charge(member.erasure.work // RANGES_OF_AN_OPERATION)
        erasure = member.erasure
        erasure.add(deletes)
        if erasure.gone > max(
            LEAST_REWRITE, erasure.live * REWRITE_SHARE
        ) and self._others(member):
            raise OthersPresent(
                "this turn deletes more than half of a document that others are in"
            )

    def _others(self, member: Member) -> bool:
        """Whether anybody else is here, or at another replica."""
        return any(
            each.owner != member.owner for each in self._members
        ) or self.awareness.has_others(member.owner)

    def merge(self, update: bytes, owner: str) -> None:
        """Take in what another replica has logged; it reaches the members with the next `take`.

        Raises what `Document.merge` raises.
        """
        changes = self.document.merge(update, owner)
        if changes:
            if not self._is_changed:
                self._begin()
            self._messages += map(yjs.update_message, changes)
            self._answer = None
            self.version += 1

    def restate(self, author: Author) -> None:
        """Have the log take in the whole document once more: it has lost a part."""
        if not self._is_changed:
            self._begin()
        # What waits for what it refers to was logged and acknowledged like all else.
        whole = [self.document.snapshot(), *self.document.gate.waiting()]
        self._updates += whole
        self._authors += [author] * len(whole)
        self.position += len(whole)

    def _begin(self) -> None:
        """The first change of a turn."""
        self._is_changed = True
        self._changed(self)

    def owe(
        self, member: Member, message: bytes, *, is_cumulative: bool = False
    ) -> None:
        """Send this member a message once everything the room has taken in so far is logged.

        At once when it is; in order with everything else that it waits for.
        """
        turn = self._turn if self._is_changed else self._turn - 1
        if turn <= self._logged and not member.pending:
            member.send(message)
            return
        member.owe(turn, frame(member.prefix + message), is_cumulative=is_cumulative)
        member.audience.hold(member, turn, self._turn)

    def answer(self, member: Member, state_vector: bytes) -> None:
        """Send what a member lacks. Raises Refused when that is not a state vector."""
        if state_vector == b"\x00" and not member.prefix:
            if self._answer is None:
                self._answer = frame(yjs.sync_step_2(self.document.snapshot()))
            member.write(self._answer)
        else:
            member.send(yjs.sync_step_2(self.document.diff(state_vector)))

    def remind(self, member: Member, client: int) -> None:
        """Send a member once more what it wrote under this id, when that is logged.

        The first echo may have been lost with an earlier connection, and it is what y-websocket 4 waits for.
        """
        update = self.document.tail(client, MAX_REMINDER)
        if update is not None:
            self.owe(member, yjs.update_message(update))

    def ask(self, member: Member) -> None:
        """Ask a member for what the room lacks."""
        member.send(yjs.sync_step_1(self.document.state_vector()))

    def introduce(self, member: Member) -> None:
        """Tell a member who is here."""
        states = self.awareness.snapshot()
        if states is not None:
            member.send(yjs.awareness_message(states))

    def catch_up(self, member: Member) -> bool:
        """One difference in place of everything a member missed while its socket was full."""
        if member in self._writers:
            return False  # its own update would be in it before it is logged
        member.send(yjs.update_message(self.document.diff(member.seen)))
        self.introduce(member)
        return True

    def resume(self, member: Member) -> bool:
        """The member's socket has drained; returns whether it needed a difference."""
        member.is_full = False
        if not member.audience.is_behind(member):
            self.introduce(member)
            return False
        member.audience.catch_up(member, self._logged)
        return True

    def relay(self, member: Member, message: bytes) -> None:
        """A message to the other members who speak the same dialect; not kept."""
        for audience in self._audiences.values():
            if bool(audience.prefix) == bool(member.prefix):
                audience.post(message, but=member)

    def post(self, message: bytes) -> None:
        """A message to everybody; not kept."""
        for audience in self._audiences.values():
            audience.post(message)

    def take(self, milliseconds: int) -> Entry | None:
        """End a turn in which something changed: broadcast it, and return what the log must take in, if anything."""
        turn = self._turn
        self._turn = turn + 1
        self._is_changed = False
        messages, self._messages = self._messages, []
        updates, self._updates = self._updates, []
        authors, self._authors = self._authors, []
        writers, self._writers = self._writers, {}
        for member in writers:
            member.audience.hold(member, turn, turn)
        if self._is_streamed:
            self._is_streamed = False
            messages = _bundled(messages, updates, authors)
        state_vector = self.document.state_vector
        for audience in self._audiences.values():
            if self._is_strict and updates:
                audience.hold_all(turn)
            audience.broadcast(messages, turn, state_vector)
        if not updates:
            self._skip(turn)
            return None
        self._in_flight.append((self.position, turn))
        self.rows_since_checkpoint += len(updates)
        self.bytes_since_checkpoint += sum(map(len, updates))
        return Entry(
            self.name,
            self.epoch,
            self.position - len(updates) + 1,
            milliseconds,
            updates,
            authors,
            self.origin,
        )

    def _skip(self, turn: int) -> None:
        """A turn of which there is nothing to log counts as logged once those before it are."""
        if self._in_flight:
            self._in_flight.append((self._in_flight[-1][0], turn))
            return
        self._logged = turn
        for audience in self._audiences.values():
            audience.release(turn)

    def log(self, position: int, place: int = 0) -> None:
        """The log holds everything of this process up to `position`: pay what was waiting for it.

        `place` is where it stands in a log that others write too.
        """
        self.place = place or position
        in_flight = self._in_flight
        while in_flight and in_flight[0][0] <= position:
            self.logged_position, self._logged = in_flight.popleft()
        # First those who watch: who hears what a room's history is called hears it before what is in it.
        self.extend(0 if self.origin else position)
        for audience in self._audiences.values():
            audience.release(self._logged)

    def extend(self, end: int) -> None:
        """Everything that the log holds up to there has been taken in here."""
        if end > self.log_end:
            self.log_end = end
        for watcher in list(self.watchers):
            watcher()


def _bundled(
    messages: list[bytes], updates: Sequence[bytes], authors: Sequence[Author]
) -> list[bytes]:
    """What the members are told of these updates: what somebody brings at a stretch for a turn is one message."""
    if len(messages) < 2 or messages != [*map(yjs.update_message, updates)]:
        return messages  # some of it waits, or has come from elsewhere
    found: list[bytes] = []
    for author, stretch in groupby(zip(authors, updates, strict=True), itemgetter(0)):
        some = [update for _, update in stretch]
        whole = bundled(some) if author.turn and len(some) > 1 else None
        found += map(yjs.update_message, some if whole is None else [whole])
    return found
