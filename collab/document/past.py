"""What a document was, who wrote it and how a part of it is taken back: of bytes alone, in whichever process.

A log is replayed with deleted content kept, so that what was deleted since can be said and brought back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import islice
from typing import Any

import orjson
from pycrdt import (
    Doc,
    IdSet,
    StackItem,
    Text,
    TransactionEvent,
    UndoManager,
    merge_updates,
)

from collab.document.attribution import MINUTE, Attribution, Runs, attribute
from collab.document.blame import Orders, blame
from collab.document.changeset import Brought, Comparison
from collab.document.deletions import deletions
from collab.document.export import FORMS, export
from collab.document.gate import Gate
from collab.document.mending import mended
from collab.document.order import Order
from collab.document.people import Owners, People
from collab.document.pieces import read
from collab.document.shared import chosen_root, find, kinds_of
from collab.errors import Refused
from collab.protocol.statevector import state_vector
from collab.protocol.structs import Range, Run, Scan, scan
from collab.protocol.varint import encode_varint
from collab.store.base import Author, Row

# Updates taken in at once: what native code keeps until the end of a transaction grows with the square of them.
MAX_TRANSACTION = 4096
MAX_ROUNDS = 50  # of one undo; what more there is in maps stays as it is

_UNBOUNDED = 1 << 62


def read_ids(update: bytes) -> Scan:
    """What an update of the log brings; nothing where it has never entered a document."""
    try:
        return scan(update, max_structs=_UNBOUNDED)
    except Refused:
        return Scan([], [], [], True)


class Replay:
    """A document while its log is taken in. What waits for what has not come is not in it.

    With a client id for who is to write on, what is deleted after the checkpoint is kept.
    """

    def __init__(self, checkpoint: bytes | None, *, writer: int | None = None) -> None:
        self.doc: Doc[Any] = (
            Doc() if writer is None else Doc(client_id=writer, skip_gc=True)
        )
        self._gate = Gate(max_bytes=_UNBOUNDED, max_updates=_UNBOUNDED)
        if checkpoint is not None:
            self.doc.apply_update(checkpoint)
            self._gate.load(checkpoint, state_vector(self.doc.get_state()))

    def take(self, updates: Iterable[bytes]) -> None:
        """In few transactions: native code looks through much of the document at the end of each."""
        left = iter(updates)
        while some := list(islice(left, MAX_TRANSACTION)):
            self._take(some)

    def _take(self, updates: Iterable[bytes]) -> None:
        native, admit = self.doc._doc, self._gate.admit
        with self.doc.transaction() as transaction:
            inner = transaction._txn
            if inner is None:
                raise RuntimeError("a transaction is open, and is none")
            for update in updates:
                try:
                    parts = admit(update)
                except Refused:
                    continue  # it has never entered a document
                for ready in parts:
                    # pycrdt's own layer of Python around this costs as much as an update does.
                    native.apply_update(inner, ready)


def document_at(checkpoint: bytes | None, updates: Iterable[bytes]) -> bytes:
    """The document of a checkpoint and the log after it, as one update."""
    replay = Replay(checkpoint)
    replay.take(updates)
    return replay.doc.get_update()


# Taking back


def take_back(
    checkpoint: bytes | None,
    updates: Sequence[bytes],
    chosen: Sequence[int],
    snapshot: bytes,
    client: int,
    *,
    undos: Sequence[bytes] = (),
    gone: Sequence[bytes] = (),
    again: Sequence[int] = (),
    firm: Sequence[int] = (),
) -> bytes | None:
    """The update that takes some of the updates back; None when nothing of them is left.

    What they inserted goes, what they deleted comes back, and what others wrote stays, within it too. `updates` are the
    log from the checkpoint on up to the last that is `chosen` (by number); `snapshot` is the document now. Nobody
    else may write under the client id.

    What is brought back is a copy, under new ids. `undos` are the updates since then that brought something back, in
    order: their copies go with what they are copies of, and what is there as a copy is not brought back again. `gone`
    are those that are taken back already: what they inserted is not brought back.

    When that is to bring a turn again, its updates are `again`: what they inserted is there again, unless it was deleted
    by one of the `firm`, and what they deleted is gone again, whoever brought it back meanwhile.
    """
    replay = Replay(checkpoint, writer=client)
    replay.take(updates)
    doc = replay.doc
    doc.apply_update(snapshot)
    asked = _Asked()
    asked.take(updates, chosen, again=again, firm=firm, gone=gone)
    dead = Ids()
    for client_, ranges in deletions(doc.get_update(doc.get_state())).items():
        for clock, end in ranges:
            dead.add(client_, clock, end)
    for update in undos:
        for copy, original in _copies(update):
            asked.follow(copy, original, dead)
    mixed = Ids()  # what was inserted and is no text
    for number in chosen:
        mixed.take_mixed(updates[number])
    known = state_vector(doc.get_state())
    gone_now = asked.inserted.without(dead).within(known)
    return _turned(doc, gone_now, asked.back, asked.inserted.rounds(mixed))


class _Asked:
    """What taking back comes to, by id."""

    def __init__(self) -> None:
        self.inserted = Ids()  # to go
        self.deleted = Ids()  # to come back, less what is in the other two
        self._over = Ids()  # not again: it is there, or taken back already
        self._off = Ids()  # not at all

    def take(
        self,
        updates: Sequence[bytes],
        chosen: Sequence[int],
        *,
        again: Sequence[int],
        firm: Sequence[int],
        gone: Sequence[bytes],
    ) -> None:
        """As `take_back` is given them."""
        for number in chosen:
            found = read_ids(updates[number])
            self.inserted.take(found.runs)
            self.deleted.take(found.deletes)
        for number in again:
            found = read_ids(updates[number])
            self.inserted.take(found.deletes)
            self.deleted.take(found.runs)
            self._off.take(found.deletes)
        for number in firm:
            self._off.take(read_ids(updates[number]).deletes)
        for update in gone:
            self._over.take(read_ids(update).runs)

    def follow(self, copy: Range, original: Range, dead: Ids) -> None:
        """What was brought back under other ids is the same: it goes with what it is a copy of, and one is enough."""
        for ids in (self.inserted, self._over):
            ids.carry(original, copy)
        for start, end in self.deleted.held(*original):
            shift = copy[1] - original[1]
            self._over.add(copy[0], start + shift, end + shift)
        self._off.carry(copy, original)
        for start, end in dead.missing(*copy):
            shift = original[1] - copy[1]
            self._over.add(original[0], start + shift, end + shift)

    @property
    def back(self) -> Ids:
        """What is to be brought back."""
        left = self.deleted.without(self._over).without(self._off)
        return left.without(self.inserted)


def _turned(doc: Doc[Any], gone: Ids, back: Ids, rounds: list[Ids]) -> bytes | None:
    """Delete some ids of a document and bring others back, and say what that changed.

    Of a map's key an earlier value only comes back when native code is told that the later one is taken back too. It
    miscounts, though, when it is told several ranges of one client, so that it is told one after the other.
    """
    changes: list[bytes] = []

    def note(event: TransactionEvent) -> None:
        changes.append(event.update)

    subscription = doc.observe(note)
    try:
        if gone:
            doc.apply_update(b"\x00" + gone.encode())
        # Of whatever kind a root is: only what hangs in it is looked at.
        scopes = [doc.get(name, type=Text) for name in doc.keys()]
        for told in rounds if scopes and back else ():
            step: StackItem[Any] = StackItem(
                doc,  # type: ignore[arg-type]  # pycrdt's stub names its inner type, and takes this one
                IdSet.decode(back.encode()),
                IdSet.decode(told.encode()),
            )
            UndoManager(scopes=scopes, undo_stack=[step]).undo()
    finally:
        doc.unobserve(subscription)
    if changes and back and rounds[0]:
        more = mended(doc, doc.client_id)
        changes += [more] if more else []
    return merge_updates(*changes) if changes else None


def _copies(update: bytes) -> Iterator[tuple[Range, Range]]:
    """What an update of ours brought back into texts and lists, and what of: a copy is put just before that."""
    try:
        sections, _ = read(update)
    except Refused:
        return
    for client, pieces, _ in sections:
        for piece in pieces:
            if piece.right_origin is not None:
                whose, clock = piece.right_origin
                yield (
                    (client, piece.clock, piece.clock + piece.units),
                    (whose, clock, clock + piece.units),
                )


class Ids:
    """Ranges of ids by client."""

    def __init__(self) -> None:
        self._clients: dict[int, Runs] = {}

    def add(self, client: int, start: int, end: int) -> None:
        self._clients.setdefault(client, Runs()).add(start, end, 0, 0)

    def take(self, ranges: Iterable[Run | Range]) -> None:
        for client, start, end, *_ in ranges:
            self.add(client, start, end)

    def take_mixed(self, update: bytes) -> None:
        """What an update inserts that is no text."""
        try:
            sections, _ = read(update)
        except Refused:
            return
        for client, pieces, _ in sections:
            for piece in pieces:
                if piece.text is None:
                    self.add(client, piece.clock, piece.clock + piece.units)

    def __bool__(self) -> bool:
        return bool(self._clients)

    def carry(self, source: Range, target: Range) -> None:
        """For what is in here of one range, add as much of another, which is as long."""
        shift = target[1] - source[1]
        for start, end in self.held(*source):
            self.add(target[0], start + shift, end + shift)

    def held(self, client: int, start: int, end: int) -> list[tuple[int, int]]:
        """What of a range is in here."""
        runs = self._clients.get(client)
        return [run[:2] for run in runs.between(start, end)] if runs else []

    def missing(self, client: int, start: int, end: int) -> list[tuple[int, int]]:
        """What of a range is not in here."""
        found = []
        for first, last, *_ in self._clients.get(client, Runs()).between(start, end):
            if start < first:
                found.append((start, first))
            start = last
        return [*found, (start, end)] if start < end else found

    def without(self, others: Ids) -> Ids:
        left = Ids()
        for client, runs in self._clients.items():
            for first, last, *_ in runs:
                for start, end in others.missing(client, first, last):
                    left.add(client, start, end)
        return left

    def within(self, vector: Mapping[int, int]) -> Ids:
        """What of them a document with this state vector holds."""
        left = Ids()
        for client, runs in self._clients.items():
            for start, end, *_ in runs.between(0, vector.get(client, 0)):
                left.add(client, start, end)
        return left

    def rounds(self, others: Ids) -> list[Ids]:
        """The ranges that hold some of others, one of each client at a time; at least one, which may be empty."""
        found = [Ids()]
        for client, runs in self._clients.items():
            chosen = [run for run in runs if others.held(client, *run[:2])]
            for number, run in enumerate(chosen[:MAX_ROUNDS]):
                if number == len(found):
                    found.append(Ids())
                found[number].add(client, *run[:2])
        return found

    def encode(self) -> bytes:
        """As an update writes what it deletes."""
        numbers = [len(self._clients)]
        for client, runs in self._clients.items():
            numbers += (client, len(runs))
            for start, end, *_ in runs:
                numbers += (start, end - start)
        return b"".join(map(encode_varint, numbers))


# Who wrote what


def origin(row: Row, owners: Owners) -> str | None:
    """Whose client ids an update holds, when they are all of one principal."""
    whose = {owners.get(run.client) for run in read_ids(row.update).runs}
    return whose.pop() if len(whose) == 1 else None


def changeset(
    checkpoint: bytes | None,
    before: Sequence[Row],
    rows: Sequence[Row],
    owners: Owners,
    root: str,
    path: str = "",
) -> dict[str, Any]:
    """What the rows changed on top of a checkpoint and the rows before; of a root only, or of what is at a path in it.

    Raises RootNotFound, NothingHere, InvalidRequest.
    """
    replay = Replay(checkpoint)
    replay.take(row.update for row in before)
    earlier = Order.of(replay.doc.get_update())
    replay.take(row.update for row in rows)
    order = Order.of(replay.doc.get_update())
    was, kinds = kinds_of(earlier), dict(kinds_of(order))
    for name, kind in was.items():
        if kinds.get(name, "empty") == "empty":
            kinds[name] = kind  # all of it is gone
    chosen = [chosen_root(kinds, root)] if root or path else sorted(kinds)
    people = People()
    authors: dict[int, int] = {}
    every = (*before, *rows)

    def whose(number: int) -> int:
        if number not in authors:
            row = every[number]
            authors[number] = people.number(row.author, origin(row, owners))
        return authors[number]

    brought = Brought([row.update for row in every], len(before))
    comparison = Comparison(order, earlier, brought, whose)
    changes = [
        change
        for name in chosen
        for change in comparison.found(name, kinds.get(name, "empty"))
        if change.is_in(path)
    ]
    if path and not changes:
        find(order, chosen[0], kinds.get(chosen[0], "empty"), path)
    return {
        "authors": people.shown,
        "changes": [
            {
                "kind": each.kind,
                "root": each.root,
                "path": each.path,
                "start": each.start,
                **({} if each.key is None else {"key": each.key}),
                "old": each.old,
                "new": each.new,
                "author": whose(each.row),
                "time": every[each.row].milliseconds,
                "position": every[each.row].position,
            }
            for each in changes
        ],
    }


# What was done, in the large


SITTING = 5 * MINUTE  # a pause as long as this ends a sitting


class Group:
    """Rows of one author that belong together: a turn, or a sitting of edits without one."""

    __slots__ = ("author", "began", "deleted", "ended", "first", "inserted", "last")

    def __init__(self, row: Row) -> None:
        self.author = row.author._replace(connection="")
        self.first = self.last = row.position
        self.began = self.ended = row.milliseconds
        self.inserted = self.deleted = 0

    def takes(self, row: Row) -> bool:
        """Whether an earlier row belongs to it."""
        return self.author.turn is not None or self.began - row.milliseconds < SITTING

    def take(self, row: Row) -> None:
        self.first, self.began = row.position, row.milliseconds
        found = read_ids(row.update)
        self.inserted += sum(run.end - run.clock for run in found.runs)
        self.deleted += sum(end - clock for _, clock, end in found.deletes)


def grouped(rows: Sequence[Row], limit: int) -> tuple[list[Group], int]:
    """Rows in groups, the newest first, `limit` of them at most, and the position of the earliest that is in one.

    A group of which rows lie further back goes on there.
    """
    groups: list[Group] = []
    open_: dict[Author, Group] = {}
    reached = rows[-1].position + 1 if rows else 0
    for row in reversed(rows):
        author = row.author._replace(connection="")
        group = open_.get(author)
        if group is None or not group.takes(row):
            if len(groups) == limit:
                break
            group = open_[author] = Group(row)
            groups.append(group)
        group.take(row)
        reached = row.position
    return groups, reached


def activity(rows: Sequence[Row], owners: Owners, limit: int) -> dict[str, Any]:
    """Turns and sittings, the newest first; `reached` is the position of the earliest row in one."""
    groups, reached = grouped(rows, limit)
    people = People()
    entries = [
        {
            "author": people.number(group.author),
            "first": group.first,
            "last": group.last,
            "began": group.began,
            "ended": group.ended,
            "inserted": group.inserted,
            "deleted": group.deleted,
        }
        for group in groups
    ]
    return {"authors": people.shown, "entries": entries, "reached": reached}


# What may be asked of another process


class Question(Enum):
    """Its first part says which, as JSON together with what else there is to say."""

    DOCUMENT = 0
    TAKE_BACK = 1
    BLAME = 2
    CHANGESET = 3
    ACTIVITY = 4
    ATTRIBUTE = 5


_ORDERS = Orders()


def answer(
    question: Question,
    options: Mapping[str, Any],
    checkpoint: bytes | None,
    parts: Sequence[bytes],
    rows: Sequence[Row],
) -> bytes:
    """Raises what the functions above raise."""
    owners = dict(options.get("owners", ()))
    match question:
        case Question.DOCUMENT:
            snapshot = document_at(checkpoint, [row.update for row in rows])
            form = options["form"]
            return (
                export(snapshot, form, options["root"]) if form in FORMS else snapshot
            )
        case Question.TAKE_BACK:
            updates = [row.update for row in rows]
            numbers = {row.position: number for number, row in enumerate(rows)}
            chosen, again, firm = (
                [numbers[position] for position in options[each]]
                for each in ("chosen", "again", "firm")
            )
            snapshot, *others = parts
            undos = others[: options["undos"]]
            update = take_back(
                checkpoint,
                updates,
                chosen,
                snapshot,
                options["client"],
                undos=undos,
                gone=others[len(undos) :],
                again=again,
                firm=firm,
            )
            return update or b""
        case Question.BLAME:
            attributed = parts[0]
            found = (
                Attribution.decode(attributed, is_whole=False)
                if attributed
                else Attribution()
            )
            if not attributed and checkpoint is not None:
                found.take_unknown(checkpoint)
            for row in rows:
                found.take(row)
            order = _ORDERS.of(options["document"], parts[1])
            place = options["root"], options["path"], options["start"], options["end"]
            return orjson.dumps(blame(order, found, owners, *place))
        case Question.CHANGESET:
            after = options["after"]
            before = [row for row in rows if row.position <= after]
            later = rows[len(before) :]
            return orjson.dumps(
                changeset(
                    checkpoint, before, later, owners, options["root"], options["path"]
                )
            )
        case Question.ACTIVITY:
            return orjson.dumps(activity(rows, owners, options["limit"]))
        case Question.ATTRIBUTE:
            return attribute(parts[0] if parts else None, rows, base=checkpoint)


def encode_question(
    question: Question,
    options: Mapping[str, Any],
    parts: Sequence[bytes],
    rows: Sequence[Row],
) -> list[tuple[int, bytes]]:
    """As rows of a request to a child."""
    numbers: dict[Author, int] = {}
    by = [
        numbers.setdefault(row.author._replace(connection=""), len(numbers))
        for row in rows
    ]
    head = {
        "question": question.value,
        "options": options,
        "parts": len(parts),
        "authors": [[each.principal, each.turn, each.about] for each in numbers],
        "by": by,
        "times": [row.milliseconds for row in rows],
    }
    return [
        (0, orjson.dumps(head)),
        *((0, part) for part in parts),
        *((row.position, row.update) for row in rows),
    ]


def answer_encoded(
    checkpoint: bytes | None, request: Sequence[tuple[int, bytes]]
) -> bytes:
    """What `answer` says to what `encode_question` was given."""
    head = orjson.loads(request[0][1])
    parts = [part for _, part in request[1 : 1 + head["parts"]]]
    authors = [
        Author(principal, "", turn, about) for principal, turn, about in head["authors"]
    ]
    rows = [
        Row(position, time, authors[number], update)
        for (position, update), time, number in zip(
            request[1 + head["parts"] :], head["times"], head["by"], strict=True
        )
    ]
    return answer(Question(head["question"]), head["options"], checkpoint, parts, rows)
