"""Messages on their way to members: one shared list of frames per audience, a cursor per member.

An audience is the members of one room who get the same bytes: those of one dialect and address. What the room
changed in one loop turn becomes one piece of bytes for each audience, and every member's socket gets that same
object as one write. A member who wrote is *held*: it gets nothing until its own update is logged, then its own
frame and all that followed as one write. So its echo means "saved", and nobody ever sees an update before
something it refers to.

A member whose socket does not take more falls *behind*: what it misses is dropped, and when the socket has drained
it gets one difference from the state vector it had when it fell behind. Nothing here waits for anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from collab.errors import SlowMember
from collab.protocol.frames import frame

MAX_PENDING = 10_000  # acknowledgements owed to one member
NO_STATE_VECTOR = b"\x00"  # of somebody who has nothing

Write = Callable[[bytes], None]


class Outbox:
    """One member's side of the fan-out. `write` hands bytes to its socket; it must not raise."""

    __slots__ = ("audience", "cursor", "is_full", "own", "pending", "seen", "write")

    audience: Audience

    def __init__(self, write: Write) -> None:
        self.write = write
        self.cursor = 0  # turn of the next frame it needs; only kept while it is held
        self.own = -1  # the last turn that must be logged before it gets anything more
        self.pending: list[
            tuple[int, bytes]
        ] = []  # frames to send once their turn is logged
        self.is_full = False  # its socket has more unsent bytes than the limit
        self.seen = NO_STATE_VECTOR  # what it had when it fell behind

    def owe(self, turn: int, message: bytes, *, is_cumulative: bool = False) -> None:
        """Remember a frame to be sent once that turn is logged; a cumulative one replaces the last of its turn."""
        pending = self.pending
        if is_cumulative and pending and pending[-1][0] == turn:
            pending.pop()
        elif len(pending) >= MAX_PENDING:
            raise SlowMember("too many acknowledgements are waiting to be read")
        pending.append((turn, message))

    def pay(self, logged: int) -> None:
        """Send what is owed for turns up to `logged`."""
        pending = self.pending
        if not pending or pending[0][0] > logged:
            return
        count = next(
            (i for i, (turn, _) in enumerate(pending) if turn > logged), len(pending)
        )
        self.write(b"".join([message for _, message in pending[:count]]))
        del pending[:count]

    def catch_up(self) -> bool:
        """Send what it lacks since `seen`; False when that must wait."""
        raise NotImplementedError


class Audience:
    """The members of a room who share one encoding; `prefix` is what it puts before each message.

    Every member is in exactly one of three sets. Turns are numbered by the room; every turn that changed
    something is broadcast to every audience.
    """

    __slots__ = (
        "_behind",
        "_bytes",
        "_first",
        "_frames",
        "_held",
        "_max_bytes",
        "_ready",
        "overflows",
        "prefix",
    )

    def __init__(self, prefix: bytes, turn: int, *, max_bytes: int) -> None:
        self.prefix = prefix
        self.overflows = 0
        self._max_bytes = max_bytes  # of frames kept for those who are held
        self._ready: set[Outbox] = set()
        self._held: set[Outbox] = set()
        self._behind: set[Outbox] = set()
        self._frames: list[
            bytes
        ] = []  # one per turn, from `_first` on; only while somebody is held
        self._first = turn
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._ready) + len(self._held) + len(self._behind)

    def __iter__(self) -> Iterator[Outbox]:
        return iter([*self._ready, *self._held, *self._behind])

    def join(self, outbox: Outbox) -> None:
        outbox.audience = self
        self._ready.add(outbox)

    def leave(self, outbox: Outbox) -> None:
        self._ready.discard(outbox)
        self._held.discard(outbox)
        self._behind.discard(outbox)

    def is_behind(self, outbox: Outbox) -> bool:
        return outbox in self._behind

    def hold(self, outbox: Outbox, turn: int, next_turn: int) -> None:
        """Send it nothing more until `turn` is logged; `next_turn` is the next one to be broadcast."""
        if turn > outbox.own:
            outbox.own = turn
        if outbox in self._ready:
            self._ready.remove(outbox)
            self._held.add(outbox)
            outbox.cursor = next_turn

    def hold_all(self, turn: int) -> None:
        """Strict durability: nobody gets a turn before it is logged."""
        for outbox in list(self._ready):
            self.hold(outbox, turn, turn)

    def broadcast(
        self, messages: Sequence[bytes], turn: int, state_vector: Callable[[], bytes]
    ) -> None:
        """One turn's messages to everybody; `state_vector` is what the room has with them."""
        prefix = self.prefix
        if len(messages) == 1:
            piece = frame(prefix + messages[0])
        else:  # none at all when everything that came must wait for something else
            piece = b"".join([frame(prefix + message) for message in messages])
        full = []
        if piece:
            for outbox in self._ready:
                outbox.write(piece)
                if outbox.is_full:
                    full.append(outbox)
        if full:
            self._fall_behind(full, state_vector())
        if not self._held:
            if self._frames:
                self._forget(turn)  # whoever they were kept for has left
            self._first = turn + 1
            return
        self._frames.append(piece)
        self._bytes += len(piece)
        if self._bytes > self._max_bytes:
            # The store is slow, or down. Whoever is held gets the whole document when it is back.
            self._fall_behind(list(self._held), NO_STATE_VECTOR)
            self._forget(turn + 1)

    def post(self, message: bytes, *, but: Outbox | None = None) -> None:
        """A message that is not kept: whoever cannot take it now does without."""
        piece = frame(self.prefix + message)
        for outboxes in (self._ready, self._held, self._behind):
            for outbox in outboxes:
                if not outbox.is_full and outbox is not but:
                    outbox.write(piece)

    def release(self, logged: int) -> None:
        """After a commit: each held member gets what it waits for, up to what is certain."""
        frames, first = self._frames, self._first
        end = lowest = first + len(frames)
        pieces: dict[
            tuple[int, int], bytes
        ] = {}  # members who stand at the same place share one object
        released = []
        for outbox in self._held:
            if (
                outbox.own > logged
            ):  # wrote again meanwhile: up to the commit, then it waits on
                to = min(logged + 1, end)
                if outbox.cursor > to:
                    to = outbox.cursor
                lowest = min(lowest, to)
            else:
                to = end
                released.append(outbox)
            cursor = outbox.cursor
            if cursor < to:
                piece = pieces.get((cursor, to))
                if piece is None:
                    piece = pieces[cursor, to] = b"".join(
                        frames[cursor - first : to - first]
                    )
                outbox.write(piece)
                outbox.cursor = to
            if outbox.pending:
                outbox.pay(logged)
        self._held.difference_update(released)
        self._ready.update(released)
        if lowest > first:
            self._forget(lowest)
        if self._behind:
            for outbox in list(self._behind):
                self.catch_up(outbox, logged)

    def catch_up(self, outbox: Outbox, logged: int) -> None:
        """A member that was full can take bytes again: bring it up to date, unless it must wait for its own update."""
        if outbox not in self._behind:
            return
        if not outbox.is_full and outbox.own <= logged and outbox.catch_up():
            self._behind.remove(outbox)
            self._ready.add(outbox)
            outbox.pay(logged)

    def _fall_behind(self, outboxes: Iterable[Outbox], state_vector: bytes) -> None:
        for outbox in outboxes:
            self._ready.discard(outbox)
            self._held.discard(outbox)
            self._behind.add(outbox)
            outbox.seen = state_vector
            self.overflows += 1

    def _forget(self, turn: int) -> None:
        """Nobody needs the frames before this turn any more."""
        gone = self._frames[: turn - self._first]
        del self._frames[: turn - self._first]
        self._bytes -= sum(map(len, gone))
        self._first = turn
