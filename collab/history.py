"""Who did what in a room, what it was, and how a turn is taken back: read from the log, small things at once and large
ones in a child process.

An asyncio context manager; nothing here writes: what takes a turn back is handed to the caller as an update.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Collection,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeVar

import orjson

from collab.bus.base import Bus
from collab.compaction import Child, ChildDied
from collab.document import past
from collab.document.attribution import Credit, credits_in
from collab.document.deletions import joined
from collab.document.export import decode_error
from collab.document.past import Question
from collab.document.people import Owners
from collab.document.replay import Answer, Request, encode_request
from collab.errors import (
    Busy,
    Conflict,
    HistoryGone,
    InvalidMessage,
    NothingHere,
    NotYet,
    RoomNotFound,
    RoomUnavailable,
    TooLarge,
)
from collab.exclusion import MAX_WAITING_OF_ROOM, Exclusion, place
from collab.store.base import Author, Checkpoint, Row, Store
from collab.turns import About, read_about

FIRST_PAGE, PAGE = 64, 1000  # rows that are read from the log at once
PAGE_BYTES = 8 << 20  # likewise, when they are as large as those of the page before
MAX_LOG_BYTES = 64 << 20  # that one question may have replayed
MAX_LOG_ROWS = 500_000  # likewise
MAX_READING = 4  # questions that read the log at once
MAX_WAITING_TO_READ = 256  # questions that wait for that
# Of document and log together: a few milliseconds, and tens where an update was made to take as long as it can.
INLINE_BYTES = 4096
INLINE_ROWS = 200
SLICE = 1000  # rows or turns that are looked at without a pause
MAX_WAITING = 32  # questions that wait for a child
REST_SECONDS = 30.0  # in which a question that took too long is not asked again
MAX_RESTING = 1000  # the earliest is asked again before
MAX_CHANGED_ROWS = 10_000  # of one changeset
MAX_ACTIVITY_ROWS = 5_000  # that one page looks through
MAX_KEPT_TURNS = 50_000  # of all rooms together; those asked for longest ago go first

# What a turn says that it takes back, when it is no turn but all that a principal did between two times; no turn can
# be called so.
_RANGE = "@"


T = TypeVar("T")


class Whose(NamedTuple):
    """A turn, by what names it."""

    principal: str
    id: str


@dataclass(slots=True)
class Taken:
    """A turn as the log has it."""

    whose: Whose
    author: Author  # as its last row says
    about: About
    first: int  # positions
    last: int
    began: int  # milliseconds
    ended: int

    def is_of(self, row: Row) -> bool:
        """Whether a row belongs to it."""
        return (row.author.principal, row.author.turn) == self.whose

    @property
    def undoes(self) -> Whose | None:
        """The turn that this one takes back."""
        about = self.about
        if not about.undoes or about.undoes.startswith(_RANGE):
            return None
        return Whose(about.by, about.undoes)

    @property
    def span(self) -> tuple[int, int] | None:
        """The times between which this one takes back all that somebody did."""
        if not self.about.undoes.startswith(_RANGE):
            return None
        start, _, end = self.about.undoes[1:].partition("-")
        return int(start), int(end)


class Turns:
    """All turns of a room up to a position, and which of them are taken back."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.position = 0
        self.taken: dict[Whose, Taken] = {}
        self._called: dict[str, dict[str, Taken]] = {}  # by id and principal
        self._undos: dict[Whose, list[Taken]] = {}  # by what they take back
        self._ranges: dict[str, list[Taken]] = {}  # by principal
        # What follows from these, made when it is asked for and until there is another undo.
        self._ends: dict[Whose, tuple[Taken, int]] | None = None
        self._holding: dict[str, list[tuple[int, int, Taken]]] = {}

    def note(self, credit: Credit) -> None:
        """Rows of one author."""
        author = credit.author
        if author.turn is None:
            return
        whose = Whose(author.principal, author.turn)
        known = self.taken.get(whose)
        if known is None:
            about = read_about(author.about)
            known = Taken(whose, author, about, *credit[1:])
            self.taken[whose] = known
            self._called.setdefault(author.turn, {})[author.principal] = known
            if known.undoes is not None:
                self._undos.setdefault(known.undoes, []).append(known)
            elif known.span is not None:
                self._ranges.setdefault(about.by, []).append(known)
            if about.undoes:
                self._ends, self._holding = None, {}
            return
        if credit.last > known.last:
            known.author, known.last, known.ended = author, credit.last, credit.ended
        if credit.first < known.first:
            known.first, known.began = credit.first, credit.began

    def find(self, id: str, principal: str, asker: str) -> Taken:
        """The turn of that name: of a principal, else the asker's own, else the only one.

        Raises NothingHere, and Conflict when several principals have one.
        """
        called = self._called.get(id, {})
        if principal or asker in called:
            called = {
                name: each
                for name, each in called.items()
                if name == (principal or asker)
            }
        if not called:
            raise NothingHere("there is no such turn in the log of this room")
        if len(called) > 1:
            raise Conflict("several principals have a turn of this name: say whose")
        return next(iter(called.values()))

    def undos(self) -> list[Taken]:
        """All that took something back, in order."""
        found = [each for each in self.taken.values() if each.about.undoes]
        return sorted(found, key=lambda each: each.first)

    def chain(self, taken: Taken) -> list[tuple[Taken, int]]:
        """A turn and what took it back, or that, and so on: each with how often it turns the first one round."""
        found, at = [(taken, 0)], 0
        while at < len(found):
            turn, depth = found[at]
            found += [(undo, depth + 1) for undo in self._undos.get(turn.whose, ())]
            at += 1
        return found

    def standing(self, taken: Taken) -> Taken | None:
        """What has taken a turn back and holds; None while the turn itself does, or has gone on since."""
        newest, depth = self._end(taken)
        if depth % 2 and not self.has_gone_on(taken):
            return newest
        if taken.undoes is not None:
            return None
        for start, end, undo in self._holding_of(taken.whose.principal):
            if start <= taken.began and taken.ended <= end and taken.last < undo.first:
                return undo
        return None

    def taken_back_until(self, taken: Taken) -> int:
        """The position up to which a turn is taken back, or takes back others itself."""
        if taken.about.undoes or self.standing(taken) is not None:
            return taken.last
        return self.newest(taken).first if self.has_gone_on(taken) else 0

    def has_gone_on(self, taken: Taken) -> bool:
        """Whether there is more of a turn than what was taken back of it."""
        newest, depth = self._end(taken)
        return depth % 2 == 1 and taken.last > newest.first

    def root(self, taken: Taken) -> Taken:
        """The turn that a series of undo and redo is about."""
        while taken.undoes is not None and taken.undoes in self.taken:
            taken = self.taken[taken.undoes]
        return taken

    def newest(self, taken: Taken) -> Taken:
        """The last one of such a series."""
        return self._end(self.root(taken))[0]

    def _end(self, taken: Taken) -> tuple[Taken, int]:
        """The last of what `chain` gives."""
        if self._ends is None:
            self._ends = {}
            for undo in reversed(self.undos()):  # before what it takes back
                if undo.undoes is not None:
                    newest, depth = self._ends.get(undo.whose, (undo, 0))
                    known = self._ends.get(undo.undoes)
                    if known is None or newest.first > known[0].first:
                        self._ends[undo.undoes] = newest, depth + 1
        return self._ends.get(taken.whose, (taken, 0))

    def _holding_of(self, principal: str) -> list[tuple[int, int, Taken]]:
        """What took back all that somebody did from one time to another, and holds."""
        found = self._holding.get(principal)
        if found is None:
            found = self._holding[principal] = [
                (*undo.span, undo)
                for undo in self._ranges.get(principal, ())
                if undo.span is not None and self._end(undo)[1] % 2 == 0
            ]
        return found

    def is_covered(self, row: Row) -> bool:
        """Whether a row is taken back together with all that its author did in some time."""
        return any(
            start <= row.milliseconds <= end and row.position < undo.first
            for start, end, undo in self._holding_of(row.author.principal)
        )


class Plan(NamedTuple):
    """What is to be taken back, all of it from the log."""

    checkpoint: Checkpoint | None
    rows: list[Row]  # after the checkpoint
    chosen: list[int]  # positions; none when there is nothing to be done
    about: About  # what the new turn says of it
    again: Sequence[int] = ()  # positions of a turn that is to hold again
    firm: Sequence[int] = ()  # positions of what holds
    undos: Sequence[bytes] = ()  # updates that took something back since
    gone: Sequence[bytes] = ()  # of turns that are taken back


class Historian:
    """Answers questions about the past of rooms."""

    def __init__(
        self,
        store: Store,
        *,
        bus: Bus | None = None,
        memory_bytes: int = 2 << 30,
        cpu_seconds: int = 10,
        hang_seconds: float = 15.0,
    ) -> None:
        self._store = store
        # One for who reads and one for who takes back, so that the one does not keep the other waiting.
        self._reading, self._writing = (
            _Worker(
                Child(
                    memory_bytes=memory_bytes,
                    cpu_seconds=cpu_seconds,
                    hang_seconds=hang_seconds,
                )
            )
            for _ in range(2)
        )
        self._turns: OrderedDict[str, Turns] = OrderedDict()
        self._places, self._to_read = asyncio.Semaphore(MAX_READING), 0
        # Around taking something back, so that nothing is taken back twice: not by another replica either.
        self.exclusion = Exclusion(bus)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._reading.end()
        await self._writing.end()

    # The past as it was

    async def document(self, room: str, position: int, form: str, root: str) -> bytes:
        """The document at a position, in one of `export.FORMS` or as an update.

        Raises NotYet, HistoryGone, RoomUnavailable, Busy, and what `export` raises.
        """
        await self._reach(room, position)
        checkpoint, rows = await self._since_checkpoint(room, position, position)
        options = {"form": form, "root": root}
        return await self._reading.ask(
            room, Question.DOCUMENT, options, checkpoint, (), rows
        )

    async def position_at(self, room: str, milliseconds: int) -> int:
        """The last position that was logged until then. Raises HistoryGone when the log begins later."""
        low, high = 0, await self._end(room)
        first = await self._store.history(room, limit=1)
        if first and first[0].milliseconds > milliseconds:
            if first[0].position > 1:
                raise HistoryGone("the log of this room begins later")
            return 0
        # Rows have consecutive positions and come in the order of time, by and large.
        while low < high:
            middle = (low + high + 1) // 2
            rows = await self._store.history(room, after=middle - 1, limit=1)
            if not rows or rows[0].milliseconds <= milliseconds:
                low = middle
            else:
                high = middle - 1
        return low

    async def blame(
        self,
        room: str,
        epoch: str,
        owners: Owners,
        root: str,
        start: int,
        end: int | None,
        *,
        path: str = "",
        snapshot: bytes | None = None,
        position: int | None = None,
    ) -> bytes:
        """Who wrote what is at a path in a root, or a part of it, in this document or in that at a position: JSON.

        Raises NothingHere, and what `document` raises.
        """
        document = f"{room} {epoch}"
        if snapshot is None:
            if position is None:
                raise ValueError("either the document or its position is needed")
            document += f" {position}"
            snapshot = await self.document(room, position, "update", "")
        attributed = await self._store.attribution(room)
        after = attributed.position if attributed else 0
        checkpoint: Checkpoint | None = None
        upto = await self._end(room)
        rows = await self._log(room, after, upto, is_whole=False)
        if attributed is None and rows and rows[0].position > 1:
            before = rows[0].position - 1
            checkpoint = await self._store.checkpoint_before(room, before)
        return await self._reading.ask(
            room,
            Question.BLAME,
            {
                "document": document,
                "root": root,
                "path": path,
                "start": start,
                "end": end,
                "owners": _listed(owners),
            },
            checkpoint,
            (attributed.encoded if attributed else b"", snapshot),
            rows,
        )

    async def changeset(
        self,
        room: str,
        owners: Owners,
        after: int,
        upto: int,
        root: str,
        *,
        path: str = "",
    ) -> bytes:
        """What changed in a document, a root or what is at a path after a position, up to and with another: JSON.

        Raises TooLarge for more than MAX_CHANGED_ROWS, NothingHere, and what `document` raises.
        """
        await self._reach(room, upto)
        if upto - after > MAX_CHANGED_ROWS:
            raise TooLarge("rows of one changeset")
        checkpoint, rows = await self._since_checkpoint(room, after, upto)
        options = {
            "after": after,
            "root": root,
            "path": path,
            "owners": _listed(owners),
        }
        return await self._reading.ask(
            room, Question.CHANGESET, options, checkpoint, (), rows
        )

    async def activity(
        self, room: str, after: int, before: int | None, limit: int
    ) -> dict[str, Any]:
        """Turns and sittings, the newest first, of rows after one position and before another.

        `next` is where the next page ends: the position before which it is to look, None at the end.
        """
        end = await self._end(room)
        upto = end if before is None else min(end, before - 1)
        start = max(after, upto - MAX_ACTIVITY_ROWS)
        rows = await self._log(room, start, upto, is_whole=False)
        answer = await self._reading.ask(
            room, Question.ACTIVITY, {"limit": limit}, None, (), rows
        )
        found: dict[str, Any] = orjson.loads(answer)
        turns = await self.turns(room)
        for entry in found["entries"]:
            author = found["authors"][entry["author"]]
            taken = turns.taken.get(Whose(author["principal"], author["turn"]))
            standing = turns.standing(taken) if taken else None
            entry["undone_by"] = standing.whose.id if standing else ""
        reached = found.pop("reached")
        is_more = bool(rows) and reached > after + 1 and reached > 1
        # What is no longer in the log ends the pages too.
        if is_more and reached == rows[0].position and start < rows[0].position - 1:
            is_more = False
        return found | {"next": reached if is_more else None}

    # Taking back

    async def undo(
        self, room: str, id: str, principal: str, asker: str, *, is_redo: bool = False
    ) -> Plan:
        """What takes a turn back, or for a redo what took it back; nothing when it is taken back, or holds, already.

        Raises NothingHere, Conflict, HistoryGone, RoomUnavailable.
        """
        turns = await self.turns(room)
        taken = turns.find(id, principal, asker)
        newest, since = turns.newest(taken), 0
        again: Taken | None = None
        if is_redo:
            standing = turns.standing(taken)
            chosen = [standing] if standing is newest and standing else []
            undoes = newest
            if standing is not None and standing.span is not None:
                chosen = []  # only all of it comes back, by its own name
            if chosen and turns.root(taken) is taken:
                again = taken
        else:
            undoes = taken
            is_root = turns.root(taken) is taken
            if turns.standing(taken) is not None:
                chosen = []
            elif is_root and turns.has_gone_on(taken):
                chosen, since = [taken], newest.first
            elif is_root:
                chosen = [each for each, _ in turns.chain(taken)]
            else:
                chosen = [taken] if taken is newest else []
        about = About(undoes=undoes.whose.id, by=undoes.whose.principal)
        return await self._plan(room, turns, chosen, about, again=again, since=since)

    async def undo_range(
        self, room: str, principal: str, from_time: int, to_time: int
    ) -> Plan:
        """What takes back all that a principal did from one time to another, in milliseconds, without what is taken
        back already and without what it took back itself.

        Raises HistoryGone, RoomUnavailable.
        """
        turns = await self.turns(room)
        first = await self.position_at(room, from_time - 1) + 1
        last = await self.position_at(room, to_time)
        rows = await self._log(room, first - 1, last)
        chosen: set[int] = set()
        whole: dict[Whose, Taken] = {}
        done: dict[str | None, int] = {None: 0}  # up to where turns are taken back
        async for some in _slices(rows):
            for row in some:
                turn = row.author.turn
                if row.author.principal != principal or turns.is_covered(row):
                    continue
                if turn not in done:
                    taken = turns.taken.get(Whose(principal, turn or ""))
                    done[turn] = turns.taken_back_until(taken) if taken else 0
                    if (
                        taken and not done[turn]
                    ):  # what came and went and came is written there
                        whole |= {
                            each.whose: each for each, _ in turns.chain(taken)[1:]
                        }
                if row.position > done[turn]:
                    chosen.add(row.position)
        about = About(undoes=f"{_RANGE}{from_time}-{to_time}", by=principal)
        return await self._plan(room, turns, [*whole.values()], about, chosen)

    async def take_back(
        self, room: str, plan: Plan, snapshot: bytes, client: int
    ) -> bytes | None:
        """The update that does it, on the document as it is now, written under a client id that nobody else has.

        None when nothing of it is left. Raises RoomUnavailable, Busy.
        """
        options = {
            "chosen": plan.chosen,
            "again": plan.again,
            "firm": plan.firm,
            "undos": len(plan.undos),
            "client": client,
        }
        parts = (snapshot, *plan.undos, *plan.gone)
        update = await self._writing.ask(
            room, Question.TAKE_BACK, options, plan.checkpoint, parts, plan.rows
        )
        return update or None

    async def turns(self, room: str) -> Turns:
        """All turns that the log knows, up to its end now."""
        info = await self._store.info(room)
        if info is None or info.deleted_milliseconds is not None:
            raise RoomNotFound("there is no such room")
        known = self._turns.pop(room, None)
        is_known = known is not None and known.epoch == info.epoch
        # A store that lost its last rows is behind what was known.
        if known is None or not is_known or known.position > info.position:
            known = Turns(info.epoch)
            attributed = await self._store.attribution(room)
            if attributed is not None and attributed.position <= info.position:
                try:
                    for credit in await asyncio.to_thread(
                        credits_in, attributed.encoded
                    ):
                        known.note(credit)
                    known.position = attributed.position
                except InvalidMessage:
                    known = Turns(info.epoch)
        if known.position < info.position:
            after, upto = known.position, info.position
            async with aclosing(self._pages(room, after, upto)) as pages:
                async for rows in pages:
                    for position, at, author, _ in rows:
                        if author.turn is not None:
                            known.note(Credit(author, position, position, at, at))
                    known.position = rows[-1].position
        self._turns[room] = known
        kept = sum(len(each.taken) + 1 for each in self._turns.values())
        while kept > MAX_KEPT_TURNS:
            kept -= len(self._turns.popitem(last=False)[1].taken) + 1
        return known

    async def _plan(
        self,
        room: str,
        turns: Turns,
        chosen: Sequence[Taken],
        about: About,
        positions: Collection[int] = (),
        *,
        again: Taken | None = None,
        since: int = 0,
    ) -> Plan:
        if not chosen and not positions:
            return Plan(None, [], [], about)
        first = max(since + 1, min((*(each.first for each in chosen), *positions)))
        if again is not None:
            first = again.first
        last = max((*(each.last for each in chosen), *positions))
        checkpoint, rows = await self._since_checkpoint(room, first - 1, last)
        whose = {each.whose for each in chosen}
        found = [
            row.position
            async for some in _slices(rows)
            for row in some
            if row.position in positions
            or (
                (row.author.principal, row.author.turn) in whose
                and row.position > since
                and not turns.is_covered(row)
            )
        ]
        undos = [each for each in turns.undos() if each.last > first]
        gone = [
            each
            async for part in _slices([*turns.taken.values()])
            for each in part
            if each.first < last
            and not each.about.undoes
            and (standing := turns.standing(each)) is not None
            and standing.whose not in whose
        ]
        gone += chosen if since else ()
        idle = {each.whose for each in (*turns.undos(), *gone)}
        return Plan(
            checkpoint,
            rows,
            found,
            about,
            again=[
                row.position
                async for some in _slices(rows if again else ())
                for row in some
                if again and again.is_of(row)
            ],
            firm=[
                row.position
                async for some in _slices(rows if again else ())
                for row in some
                if (row.author.principal, row.author.turn) not in idle
            ],
            undos=await self._updates(room, undos),
            gone=await self._updates(room, gone),
        )

    async def _updates(self, room: str, chosen: Sequence[Taken]) -> list[bytes]:
        """All updates of some turns, in order, as far as they are in the log. Raises RoomUnavailable when too much lies
        between them.
        """
        whose = {each.whose for each in chosen}
        spans = joined(sorted((each.first - 1, each.last) for each in chosen))
        found: list[bytes] = []
        count = size = 0
        for after, upto in spans:
            rows = await self._log(room, after, upto, is_whole=False)
            count += len(rows)
            size += sum(len(row.update) for row in rows)
            if size > MAX_LOG_BYTES or count > MAX_LOG_ROWS:
                raise RoomUnavailable("too much of the log would have to be replayed")
            async for some in _slices(rows):
                for row in some:
                    if (row.author.principal, row.author.turn) in whose:
                        found.append(row.update)
        return found

    # What the store has

    async def _end(self, room: str) -> int:
        return (await self._store.ends([room])).get(room, 0)

    async def _reach(self, room: str, position: int) -> None:
        end = await self._end(room)
        if position > end:
            raise NotYet(f"the log has not reached {position}")

    async def _since_checkpoint(
        self, room: str, position: int, upto: int
    ) -> tuple[Checkpoint | None, list[Row]]:
        """The newest checkpoint with nothing after a position in it, and the log from there up to another."""
        checkpoint = await self._store.checkpoint_before(room, position)
        after = checkpoint.position if checkpoint else 0
        return checkpoint, await self._log(room, after, upto)

    async def _log(
        self, room: str, after: int, upto: int, *, is_whole: bool = True
    ) -> list[Row]:
        """Rows after a position, up to and with another. Raises HistoryGone when the first of them are no longer there,
        unless what is left will do, and RoomUnavailable when they are too many.
        """
        found: list[Row] = []
        size = 0
        if after < upto:
            async with aclosing(self._pages(room, after, upto)) as pages:
                async for rows in pages:
                    found += [row for row in rows if row.position <= upto]
                    size += sum(len(row.update) for row in rows)
                    if size > MAX_LOG_BYTES or len(found) > MAX_LOG_ROWS:
                        raise RoomUnavailable(
                            "too much of the log would have to be replayed"
                        )
        if is_whole and after < upto and (not found or found[0].position > after + 1):
            raise HistoryGone("the log of this room does not reach back so far")
        return found

    async def _pages(
        self, room: str, after: int, upto: int
    ) -> AsyncGenerator[list[Row], None]:
        """Rows after a position, up to another or somewhat beyond. Raises Busy when too many wait to read."""
        if self._to_read >= MAX_WAITING_TO_READ:
            raise Busy("too much is asked about the past; come back in a moment")
        self._to_read += 1
        try:
            async with self._places:
                limit = FIRST_PAGE
                while after < upto:
                    count = min(limit, upto - after)
                    rows = await self._store.history(room, after=after, limit=count)
                    if not rows:
                        break
                    yield rows
                    after = rows[-1].position
                    size = sum(len(row.update) for row in rows) // len(rows) + 1
                    limit = max(1, min(2 * limit, PAGE, PAGE_BYTES // size))
        finally:
            self._to_read -= 1


async def _slices(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """What may be long in parts, between which others have the loop."""
    for at in range(0, len(items), SLICE):
        yield items[at : at + SLICE]
        await asyncio.sleep(0)


class _Worker:
    """Answers questions one after the other: small ones at once, large ones in a child process."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._lock = asyncio.Lock()
        self._waiting: Counter[str] = Counter()  # by room
        self._resting: dict[tuple[str, Question], float] = {}  # until when

    async def end(self) -> None:
        await self._child.end()

    async def ask(
        self,
        room: str,
        question: Question,
        options: Mapping[str, Any],
        checkpoint: Checkpoint | None,
        parts: Sequence[bytes],
        rows: Sequence[Row],
    ) -> bytes:
        """Raises what `past.answer` raises, Busy, and RoomUnavailable when the child does not survive it."""
        snapshot = checkpoint.snapshot if checkpoint else None
        size = sum(map(len, parts)) + sum(len(row.update) for row in rows)
        if size + len(snapshot or b"") <= INLINE_BYTES and len(rows) <= INLINE_ROWS:
            return _at_once(question, options, snapshot, parts, rows)
        if self._waiting.total() >= MAX_WAITING:
            raise Busy("too much is asked about the past; come back in a moment")
        with place(self._waiting, room, MAX_WAITING_OF_ROOM):
            # In a thread: of a long log, this would hold the loop for many milliseconds.
            request = await asyncio.to_thread(
                lambda: encode_request(
                    Request.PAST,
                    snapshot,
                    0,
                    past.encode_question(question, options, parts, rows),
                )
            )
            async with self._lock:
                return await self._in_child(room, question, request)

    async def _in_child(self, room: str, question: Question, request: bytes) -> bytes:
        now = asyncio.get_running_loop().time()
        if self._resting.get((room, question), now) > now:
            raise RoomUnavailable("this took too long to find out a moment ago")
        try:
            await self._child.ask(request)
            answer, _, rest = await self._child.answer()
        except ChildDied:
            if len(self._resting) >= MAX_RESTING:
                del self._resting[next(iter(self._resting))]
            self._resting.pop((room, question), None)
            self._resting[room, question] = now + REST_SECONDS
            raise RoomUnavailable("this takes too long to find out") from None
        except BaseException:
            await self._child.end()  # its answer would be taken for the next one's
            raise
        if answer is Answer.RENDERED:
            return rest
        if answer is Answer.REFUSED:
            raise decode_error(rest)
        raise RoomUnavailable("this part of the log cannot be replayed")


def _at_once(
    question: Question,
    options: Mapping[str, Any],
    snapshot: bytes | None,
    parts: Sequence[bytes],
    rows: Sequence[Row],
) -> bytes:
    try:
        return past.answer(question, options, snapshot, parts, rows)
    except Exception:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a Rust panic is not an Exception
        raise RoomUnavailable("this part of the log cannot be replayed") from None


def _listed(owners: Owners) -> list[tuple[int, str]]:
    """As JSON can hold them."""
    return list(owners.items())
