"""What a document was, who wrote it and how a part of it is taken back: of bytes alone, in whichever process.

A log is replayed with deleted content kept, so that what was deleted since can be said and brought back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from hashlib import sha256
from typing import Any

import orjson
from pycrdt import Doc, IdSet, StackItem, Text, TransactionEvent, UndoManager

from collab.document.attribution import MINUTE, Attribution, attribute
from collab.document.changeset import Changes
from collab.document.export import FORMS, export, roots
from collab.document.gate import Gate
from collab.document.order import Order
from collab.errors import InvalidRequest, Refused, RootNotFound
from collab.protocol.statevector import state_vector
from collab.protocol.structs import Range, Scan, scan
from collab.protocol.varint import encode_varint
from collab.store.base import Author, Row
from collab.turns import read_about

MAX_KEPT_BYTES = (
    4 << 20
)  # of documents whose order is kept; in memory it takes about fifty times as much

_UNBOUNDED = 1 << 62


def read_ids(update: bytes) -> Scan | None:
    """What an update of the log brings; None for one that has never entered a document."""
    try:
        return scan(update, max_structs=_UNBOUNDED)
    except Refused:
        return None


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
        for update in updates:
            for ready in self._gate.admit(update):
                self.doc.apply_update(ready)


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
) -> bytes | None:
    """The update that takes some of the updates back; None when nothing of them is left.

    What they inserted goes, what they deleted comes back, and what others wrote stays, within it too. `updates` are the
    log from the checkpoint on up to the last that is `chosen` (by number); `snapshot` is the document now. Nobody
    else may write under the client id.
    """
    replay = Replay(checkpoint, writer=client)
    replay.take(updates)
    doc = replay.doc
    doc.apply_update(snapshot)
    inserted: list[Range] = []
    deleted: list[Range] = []
    for number in chosen:
        found = read_ids(updates[number])
        if found is not None:
            inserted += [run[:3] for run in found.runs]
            deleted += found.deletes
    # Of whatever kind a root is: only what hangs in it is looked at.
    scopes = [doc.get(name, type=Text) for name in doc.keys()]
    if not scopes:
        return None
    step: StackItem[Any] = StackItem(
        doc,  # type: ignore[arg-type]  # pycrdt's stub names its inner type, and takes this one
        _ids(deleted),
        _ids(inserted),
    )
    changes: list[bytes] = []

    def note(event: TransactionEvent) -> None:
        changes.append(event.update)

    subscription = doc.observe(note)
    UndoManager(scopes=scopes, undo_stack=[step]).undo()
    doc.unobserve(subscription)
    return changes[0] if changes else None


def _ids(ranges: Iterable[Range]) -> IdSet:
    """Written as an update writes what it deletes."""
    clients: dict[int, list[list[int]]] = {}
    for client, clock, end in sorted(ranges):
        joined = clients.setdefault(client, [])
        if joined and clock <= joined[-1][1]:
            joined[-1][1] = max(end, joined[-1][1])
        else:
            joined.append([clock, end])
    numbers = [len(clients)]
    for client, joined in clients.items():
        numbers += (client, len(joined))
        for clock, end in joined:
            numbers += (clock, end - clock)
    return IdSet.decode(b"".join(map(encode_varint, numbers)))


# Who wrote what

Owners = Mapping[int, str]  # client id → principal


class People:
    """The authors that an answer speaks of, each once, by number."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []
        self._numbers: dict[tuple[Author, str], int] = {}

    def number(self, author: Author, owner: str | None = None) -> int:
        """Of somebody. Where the client id belongs to another principal, that one wrote it, and this one brought it."""
        is_relayed = bool(owner and author.principal and owner != author.principal)
        principal = owner if owner and is_relayed else author.principal
        key = author._replace(connection=""), principal
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.shown)
            self.shown.append(show(author, principal))
        return number


def show(author: Author, principal: str) -> dict[str, str]:
    """An author as an answer has it, who wrote under a client id of this principal."""
    about = read_about(author.about)
    # Of the owner of relayed edits nothing else is known here.
    is_known = principal == author.principal
    return {
        "principal": principal,
        "name": about.name if is_known else "",
        "kind": about.kind if is_known else "",
        "on_behalf_of": about.on_behalf_of if is_known else "",
        "role": about.role if is_known else "",
        "turn": author.turn or "",
        "task": about.task,
        "model": about.model,
        "reason": about.reason,
        "undoes": about.undoes,
        "by": about.by,
        "introduced_by": "" if is_known else author.principal,
    }


def origin(row: Row, owners: Owners) -> str | None:
    """Whose client ids an update holds, when they are all of one principal."""
    found = read_ids(row.update)
    whose = {owners.get(run.client) for run in found.runs} if found else set()
    return whose.pop() if len(whose) == 1 else None


def blame(
    order: Order,
    found: Attribution,
    owners: Owners,
    root: str,
    start: int,
    end: int | None,
) -> dict[str, Any]:
    """Whose characters stand in a part of a text, as far as it reaches."""
    people = People()
    length = order.length(root)
    start, end = min(start, length), length if end is None else min(end, length)
    spans: list[dict[str, int]] = []
    numbers: dict[tuple[int, str | None], int] = {}
    last: tuple[int, int] | None = None
    for client, clock, units, at, size in order.spans(root, start, end):
        owner = owners.get(client)
        wide = units // size  # units of each character
        runs = found.inserted.get(client)
        for first, until, credit, minute in (
            runs.whole(clock, clock + units)
            if runs
            else ((clock, clock + units, 0, 0),)
        ):
            number = numbers.get((credit, owner))
            if number is None:
                author = found.credits[credit].author
                number = numbers[credit, owner] = people.number(author, owner)
            stop = at + (until - clock) // wide
            if last == (number, minute):
                spans[-1]["end"] = stop
            else:
                spans.append(
                    {
                        "start": at + (first - clock) // wide,
                        "end": stop,
                        "author": number,
                        "time": minute * MINUTE,
                    }
                )
                last = number, minute
    return {"authors": people.shown, "spans": spans}


class Orders:
    """The orders of documents that were asked about last, each with the kinds of its roots: to make one takes long."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, tuple[Order, dict[str, str], int]] = (
            OrderedDict()
        )
        self._bytes = 0

    def of(self, snapshot: bytes) -> tuple[Order, dict[str, str]]:
        key = sha256(snapshot).digest()
        kept = self._kept.pop(key, None)
        if kept is None:
            kept = Order.of(snapshot), roots(snapshot), len(snapshot)
            self._bytes += len(snapshot)
        self._kept[key] = kept
        while self._bytes > MAX_KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1][2]
        return kept[:2]


def chosen_root(kinds: Mapping[str, str], root: str) -> str:
    """The text that is meant: the only one, where none is named. Raises RootNotFound, InvalidRequest."""
    if root and root not in kinds:
        raise RootNotFound(
            f"the document has no root {root}; it has {', '.join(kinds) or 'none'}"
        )
    if root:
        return root
    texts = [name for name, kind in kinds.items() if kind == "text"]
    if len(texts) > 1:
        raise InvalidRequest(
            f"the document has several texts: {', '.join(texts)}; name one"
        )
    return texts[0] if texts else ""


def changeset(
    checkpoint: bytes | None,
    before: Sequence[Row],
    rows: Sequence[Row],
    owners: Owners,
    root: str,
) -> dict[str, Any]:
    """What the rows changed in the texts, on top of a checkpoint and the rows before."""
    replay = Replay(checkpoint)
    replay.take(row.update for row in before)
    doc = replay.doc
    whole = [row.update for row in (*before, *rows)]
    kinds = roots(doc.get_update()) | roots(document_at(checkpoint, whole))
    texts = [name for name, kind in kinds.items() if kind == "text"]
    if root:
        texts = [chosen_root(kinds, root)]
    people = People()
    authors = [people.number(row.author, origin(row, owners)) for row in rows]
    changes = Changes(doc, texts)
    try:
        for number, row in enumerate(rows):
            changes.begin(number)
            replay.take((row.update,))
    finally:
        changes.close()
    found = [
        {
            "root": each.root,
            "start": each.start,
            "old": each.old,
            "new": each.new,
            "author": authors[each.row],
            "time": rows[each.row].milliseconds,
            "position": rows[each.row].position,
        }
        for each in changes.found(lambda row: authors[row])
    ]
    return {"authors": people.shown, "changes": found}


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
        if found is not None:
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
            chosen = {*options["chosen"]}
            numbers = [
                number for number, row in enumerate(rows) if row.position in chosen
            ]
            return (
                take_back(checkpoint, updates, numbers, parts[0], options["client"])
                or b""
            )
        case Question.BLAME:
            attributed = parts[0]
            found = Attribution.decode(attributed) if attributed else Attribution()
            if not attributed and checkpoint is not None:
                found.take_unknown(checkpoint)
            for row in rows:
                found.take(row)
            order, kinds = _ORDERS.of(parts[1])
            root = chosen_root(kinds, options["root"])
            end = options["end"]
            return orjson.dumps(
                blame(order, found, owners, root, options["start"], end)
            )
        case Question.CHANGESET:
            after = options["after"]
            before = [row for row in rows if row.position <= after]
            later = rows[len(before) :]
            return orjson.dumps(
                changeset(checkpoint, before, later, owners, options["root"])
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
