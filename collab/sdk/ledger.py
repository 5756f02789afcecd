"""Ledger: which local changes the server has on disk, which it refused, and to which turn each belongs."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from collab.sdk.errors import SdkError, Unavailable

# So much is on its way without an answer; what is made meanwhile waits, and leaves as one.
WINDOW, WINDOW_BYTES = 32, 1 << 20
MAX_MARKS = 1000  # unsaved changes, turns, whose beginning is remembered; later ones count with the last


class Turn(NamedTuple):
    """From which local change on which turn was on; `id` is "" for none."""

    after: int
    id: str
    about: str


class Point(NamedTuple):
    """All that was made until then, in the document that there was then."""

    changes: int
    replacements: int


class _Sent(NamedTuple):
    """A message with an update that was not acknowledged yet."""

    sequence: int
    changes: int  # how many local changes the server has once it has this
    size: int


class Ledger:
    """What became of the local changes of one room, which are numbered from 1. Synchronous, and knows no socket.

    Messages that carry changes are numbered for each connection, as the server counts them.
    """

    def __init__(self, *, has_content: bool) -> None:
        """What a document holds already counts as one change."""
        self.changes = 1 if has_content else 0
        self.saved = 0  # the first so many are on disk
        self.position = 0  # in the room's log: of the last one acknowledged
        self.rejection: SdkError | None = None  # of a document of the program's own
        self.replaced_for: SdkError | None = None
        self.told: SdkError | None = None  # of which refusal a caller has heard
        self._replacements = 0
        self._sequence = 0
        self._sent: deque[_Sent] = deque()
        self._sent_bytes = 0
        self._marks: deque[tuple[int, float]] = deque()  # change, since when
        if has_content:
            self._marks.append((1, time.time()))
        self._turns: deque[Turn] = deque([Turn(0, "", "{}")])

    # What is made

    def change(self) -> None:
        """The program has changed the document."""
        self.changes += 1
        since = time.time() if len(self._marks) < MAX_MARKS else self._marks.pop()[1]
        self._marks.append((self.changes, since))

    def begin_turn(self, id: str, about: str) -> None:
        """Changes from here on belong to that turn."""
        turn = Turn(self.changes, id, about)
        was_empty = self.turn.after == self.changes
        if was_empty or len(self._turns) >= MAX_MARKS:
            self._turns[-1] = turn
        else:
            self._turns.append(turn)

    @property
    def turn(self) -> Turn:
        """The one that is on."""
        return self._turns[-1]

    @property
    def unsaved_turn(self) -> Turn:
        """To which turn what is not saved belongs: the last that wrote some of it, when it was several."""
        if self.is_saved:
            return self.turn
        ends = [*[turn.after for turn in self._turns][1:], self.changes]
        wrote = [
            turn
            for turn, end in zip(self._turns, ends, strict=True)
            if turn.id and end > max(turn.after, self.saved)
        ]
        return wrote[-1] if wrote else self.turn

    # What is on its way

    @property
    def is_window_full(self) -> bool:
        """Nothing more is sent before an answer comes."""
        return len(self._sent) >= WINDOW or self._sent_bytes >= WINDOW_BYTES

    def send(self, changes: int, size: int) -> None:
        """A message leaves; once the server has it, it has so many local changes."""
        self._sequence += 1
        self._sent.append(_Sent(self._sequence, changes, size))
        self._sent_bytes += size

    def acknowledge(self, sequence: int, position: int) -> bool:
        """The messages up to that one are on disk; whether that saved anything."""
        saved = self.saved
        while self._sent and self._sent[0].sequence <= sequence:
            sent = self._sent.popleft()
            saved = max(saved, sent.changes)
            self._sent_bytes -= sent.size
        if saved == self.saved:
            return False
        self.saved = saved
        self.position = max(self.position, position)
        while self._marks and self._marks[0][0] <= saved:
            self._marks.popleft()
        while len(self._turns) > 1 and self._turns[1].after <= saved:
            self._turns.popleft()
        return True

    def refuse(self, sequence: int) -> None:
        """Neither that message nor what builds on it is in the room, whatever is acknowledged later."""
        while self._sent and self._sent[-1].sequence >= sequence:
            self._sent_bytes -= self._sent.pop().size

    def forget_connection(self) -> None:
        """What was not acknowledged goes out again in the next connection's step 2."""
        self._sequence = 0
        self._sent.clear()
        self._sent_bytes = 0

    # What became of it

    @property
    def is_saved(self) -> bool:
        return self.saved == self.changes

    @property
    def unsaved_since(self) -> float | None:
        """When the first change was made that is not known to be on disk, or somewhat before; in seconds of the epoch."""
        return self._marks[0][1] if self._marks else None

    def begin_anew(self, error: SdkError) -> None:
        """Another document takes the place of one that held what the room does not."""
        self.saved = self.changes
        self._marks.clear()
        self._turns = deque([self.turn._replace(after=self.changes)])
        self._replacements += 1
        self.replaced_for = error

    @property
    def point(self) -> Point:
        """What a program may wait for: all that was made so far."""
        return Point(self.changes, self._replacements)

    def has_saved(self, point: Point) -> bool:
        """Whether it is all on disk. Raises why it never will be."""
        if self._replacements != point.replacements:
            raise self.tell_of(self.replaced_for)
        if self.saved >= point.changes:
            return True
        if self.rejection is not None:
            raise self.tell_of(self.rejection)
        return False

    def tell_of(self, error: SdkError | None) -> SdkError:
        """The error to be raised: who leaves is not told again of what it knows."""
        self.told = error
        if error is None:
            return Unavailable("it was not saved")
        # It may be raised any number of times, and would keep the frames of each.
        return error.with_traceback(None)
