"""What a store promises. One contract suite (`tests/store/test_contract.py`) runs on every implementation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

from collab.errors import CollabError

DELETED_ROOM_SECONDS = 7 * 24 * 3600  # that a deleted room can be restored
MAX_METADATA_BYTES = 16 * 1024
ANSWER_SECONDS = 24 * 3600  # that an answer is remembered
MAX_ANSWERS = 100_000  # the oldest gives way to the next
MAX_ANSWER_BYTES = 32 * 1024
LANDMARK_ROWS = 4096  # of the log; in each such band of positions one checkpoint stays
LANDMARK_BYTES = 256  # of a landmark, at most, for each row since the one before

Clock = Callable[[], int]  # Unix time in milliseconds


def wall_clock() -> int:
    """The time of this machine."""
    return time.time_ns() // 1_000_000


class Author(NamedTuple):
    """Who brought an update in; taken from the connection, never from what the client claims.

    A turn is named by its principal and its id: the same id used by another principal is another turn. `about` is a
    JSON object with what is known of both, in the fields of `collab.turns.About`; "" when that is nothing.
    """

    principal: str
    connection: str
    turn: str | None = None
    about: str = ""


class Entry(NamedTuple):
    """What one room takes into its log in one loop turn: updates at consecutive positions.

    A shared store gives positions itself, since several replicas append. There `origin` names the room as one process
    holds it, and `position` counts what that process has appended; both together make a repeat known.
    """

    room: str
    epoch: str  # the room's history; a store refuses an entry of another one
    position: int  # of the first update; a room's first update has position 1
    milliseconds: int  # Unix time of acceptance
    updates: Sequence[bytes]
    authors: Sequence[Author]  # one per update
    origin: str = ""  # only for shared stores
    # Set by a shared store in what it hands to `done`: the position of the last update. 0 when it is not known since
    # some of the entry was there already.
    logged: int = 0

    @property
    def last(self) -> int:
        """The position of the last update."""
        return self.position + len(self.updates) - 1


class Row(NamedTuple):
    """One update as the log holds it. The client ids it brings are in the update itself."""

    position: int
    milliseconds: int
    author: Author
    update: bytes


class Checkpoint(NamedTuple):
    """The whole document as one update, with everything up to and including `position` in it."""

    position: int
    snapshot: bytes


def is_landmark(position: int, size: int, before: int | None) -> bool:
    """Whether a checkpoint stays when two newer ones are there; `before` is the position of the next older one.

    It does as the first of its band, since no position is then far from a checkpoint below it; and it must not cost
    more than the log, which of a large document with small edits it would.
    """
    if before is None:
        return True
    is_first = position // LANDMARK_ROWS > before // LANDMARK_ROWS
    return is_first and size <= LANDMARK_BYTES * (position - before)


class Attributed(NamedTuple):
    """Who wrote what up to and including `position`; `collab.document.attribution` knows what the bytes say."""

    position: int
    encoded: bytes


class Stored(NamedTuple):
    """What opening a room needs."""

    epoch: str  # "" for a room that has never been written to
    position: int  # of the last update; 0 when there is none
    checkpoint: Checkpoint | None  # the newest that is intact
    tail: Sequence[
        tuple[int, bytes]
    ]  # (position, update) after the checkpoint, in order, without rejected ones
    owners: dict[int, str]  # client id → principal, first writer wins
    fence: int  # hand back to `checkpoint`: a slower compactor with an older fence changes nothing
    # Of the history that a first entry begins, where `epoch` is empty: in a shared store the same for everybody who
    # asks until then. "" where there is only one to ask.
    next_epoch: str = ""


class RoomInfo(NamedTuple):
    """One room in a listing."""

    name: str
    epoch: str
    position: int
    checkpoint_position: int
    bytes: int  # of log, checkpoints and attribution
    created_milliseconds: int
    changed_milliseconds: int
    metadata: dict[str, Any]
    history_seconds: int | None  # None: the log is kept for ever
    deleted_milliseconds: int | None  # set in a room that can be restored


class Remembered(NamedTuple):
    """How a request was answered that may come again."""

    digest: bytes  # of the request
    answer: bytes


Done = Callable[[Sequence[Entry], CollabError | None], None]


class Store(Protocol):
    """Keeps updates; loses nothing it has acknowledged.

    Used as an async context manager: entering opens and locks it, leaving commits what is queued and
    closes it. All calls come from one event loop. Reads see everything that was acknowledged before.

    A *shared* store may be open in several processes at once. It gives positions in the order of its commits, and knows
    no holes: a room that it has lost begins again with whatever is appended next (see `Entry`).
    """

    is_shared: bool
    # Names what is kept here, once entered: replicas whose stores differ in it must not work together.
    identity: str

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        """Queue entries for the next group commit; never blocks.

        `done(entries, None)` is called on the event loop once they survive a crash at the configured
        durability, in the order of the calls; `done(entries, error)` when they could not be written: then
        nothing of this commit is in the log, and the caller may append the same entries again. Appending an
        entry twice is harmless: a position that is already there is left as it is.

        StoreUnavailable means "not now". What was queued behind a failed commit fails with it, so nothing overtakes.
        An entry that can never be taken is answered alone, with another error, and should be dropped: RoomNotFound
        when its epoch is over, StoreCorrupt when it would leave a hole or its room is damaged.

        Several queued calls are one commit and may be answered by one call with all their entries.
        """
        ...

    async def bind(self, room: str, owners: dict[int, str]) -> None:
        """Remember which principal owns which client ids; the first one to be stored wins.

        Before a room's first entry they are only remembered, and stored with that. Raises StoreUnavailable.
        """
        ...

    async def load(self, room: str) -> Stored:
        """Checkpoint and tail. Falls back to the older checkpoint when the newest is damaged.

        Raises StoreCorrupt when a damaged record leaves a hole that no checkpoint covers.
        """
        ...

    async def create(
        self,
        room: str,
        metadata: Mapping[str, Any],
        *,
        history_seconds: int | None = None,
        epoch: str = "",
    ) -> RoomInfo:
        """Make a room that nobody has written to, at position 0. Conflict when there is one of that name.

        `epoch` is that of the room where it is already open and empty: updates of another one would be refused.
        Raises InvalidRequest and TooLarge for metadata, like `describe`.
        """
        ...

    async def describe(self, room: str, metadata: Mapping[str, Any]) -> RoomInfo:
        """Replace the metadata, a JSON object of at most 16 KB. Raises RoomNotFound, InvalidRequest, TooLarge."""
        ...

    async def retain(self, room: str, history_seconds: int | None) -> RoomInfo:
        """How long the log is kept; None for ever.

        What is older goes when the older of the two newest checkpoints covers it, and the attribution where there is
        one: the document is never affected. A landmark goes with the rows behind it. Raises RoomNotFound.
        """
        ...

    async def info(self, room: str) -> RoomInfo | None:
        """The room of that name; when there is none, the one that was deleted last and can be restored."""
        ...

    async def ends(self, rooms: Sequence[str]) -> dict[str, int]:
        """The position of the last update of each of these rooms that lives; cheap for a thousand."""
        ...

    async def checkpoint(
        self, room: str, checkpoint: Checkpoint, *, fence: int
    ) -> bool:
        """Store a verified checkpoint and forget older ones, all but the newest of them and the landmarks; False when
        the fence is stale or a newer checkpoint is there. The rows it covers stay as history.
        """
        ...

    async def checkpoint_before(self, room: str, position: int) -> Checkpoint | None:
        """The newest intact checkpoint with nothing after `position` in it. Raises RoomNotFound."""
        ...

    async def attribute(self, room: str, attributed: Attributed, *, fence: int) -> bool:
        """Keep who wrote what, in place of what was kept for an earlier position.

        False when the fence is stale, or a later position was attributed or is not in the log yet. It stays when the
        log is trimmed, and goes with the room.
        """
        ...

    async def attribution(self, room: str) -> Attributed | None:
        """What `attribute` was told; None too where that is damaged, and may be told anew. Raises RoomNotFound."""
        ...

    async def history(
        self, room: str, *, after: int = 0, limit: int = 1000
    ) -> list[Row]:
        """Rows with a position greater than `after`, in order, covered by a checkpoint or not."""
        ...

    async def rooms(
        self,
        *,
        prefix: str = "",
        after: str = "",
        limit: int = 100,
        deleted: bool = False,
    ) -> list[RoomInfo]:
        """Rooms whose name begins with `prefix` and sorts (by code point) after `after`, in that order.

        With `deleted` those that can be restored, instead of those that live.
        """
        ...

    async def reject(self, room: str, position: int, reason: str) -> None:
        """Leave this row out of every later load: it kills the process that applies it."""
        ...

    async def delete(self, room: str, *, purge: bool = False) -> None:
        """Delete a room and leave a tombstone: entries of its epoch are refused, for ever once it is purged.

        Its content is purged after the time that the store was told, or with `purge` now, together with what was
        kept of earlier rooms of that name.
        """
        ...

    async def restore(self, room: str) -> RoomInfo:
        """Bring back the room that was deleted last, at the same epoch and position.

        Conflict when a room of that name lives, RoomNotFound when there is none to restore or it was purged.
        """
        ...

    async def tidy(self) -> None:
        """Remove now what its time has come for: purged rooms, old log, old answers.

        Happens by itself every few minutes; this is for who wants to see it done.
        """
        ...

    async def remember(self, key: str, digest: bytes, answer: bytes) -> None:
        """Keep an answer for 24 hours, the newest 100,000 of them.

        Written behind all appends that were queued before, usually with their commit. Raises StoreUnavailable, and
        ValueError for more than 32 KB.
        """
        ...

    async def recall(self, key: str) -> Remembered | None:
        """What `remember` was told."""
        ...

    async def begin_load(self, room: str) -> int:
        """Note that this room's log is about to enter native code; returns how many earlier loads never ended.

        Survives a crash of the process (not of the machine), which is what it is there to count.
        """
        ...

    async def end_load(self, room: str) -> None:
        """The load has ended, well or with an exception: forget its note."""
        ...
