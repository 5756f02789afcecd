"""Questions about the past of rooms: what has to be read from the log for them.

An asyncio context manager; nothing here writes: what takes a turn back is handed to the caller as an update.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Collection,
    Sequence,
)
from contextlib import aclosing
from typing import Any, NamedTuple, Self, TypeVar

import orjson

from collab.bus.base import Bus
from collab.compaction import Child
from collab.document.attribution import Credit, credits_in
from collab.document.deletions import joined
from collab.document.past import Question
from collab.document.people import Owners
from collab.errors import (
    Busy,
    HistoryGone,
    InvalidMessage,
    NotYet,
    RoomNotFound,
    RoomUnavailable,
    TooLarge,
)
from collab.exclusion import Exclusion
from collab.history.replayer import Replayer
from collab.history.turns import RANGE, Taken, Turns, Whose
from collab.store.base import Checkpoint, Row, Store
from collab.turns import About

FIRST_PAGE, PAGE = 64, 1000  # rows that are read from the log at once
PAGE_BYTES = 8 << 20  # likewise, when they are as large as those of the page before
MAX_LOG_BYTES = 64 << 20  # that one question may have replayed
MAX_LOG_ROWS = 500_000  # likewise
MAX_READING = 4  # questions that read the log at once
MAX_WAITING_TO_READ = 256  # questions that wait for that
SLICE = 1000  # rows or turns that are looked at without a pause
MAX_CHANGED_ROWS = 10_000  # of one changeset
MAX_ACTIVITY_ROWS = 5_000  # that one page looks through
MAX_KEPT_TURNS = 50_000  # of all rooms together; those asked for longest ago go first

T = TypeVar("T")


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
            Replayer(
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
        about = About(undoes=f"{RANGE}{from_time}-{to_time}", by=principal)
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


def _listed(owners: Owners) -> list[tuple[int, str]]:
    """As JSON can hold them."""
    return list(owners.items())
