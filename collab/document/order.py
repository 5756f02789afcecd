"""The order of a document's characters by their ids, deleted ones included: where anchors lead, and whose a range is.

Native code shows a document's text, not the ids of its characters. So the updates that it has taken are read here once
more, and put in order by the same rules (YATA): for each shared type a line of pieces, cut where somebody inserted.
"""

from __future__ import annotations

import gc
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from collab.document.anchor import Anchor, Id, Orphaned, Place, Root, Side
from collab.document.pieces import (
    MAX_PIECE,
    ROOT,
    Lines,
    Need,
    Piece,
    Ref,
    Section,
    read,
)
from collab.document.units import (
    EMBED,
    bytes_of,
    character_of_unit,
    even,
    unit_at,
    units_of,
)
from collab.errors import AnchorNotFound, InvalidRequest, Refused
from collab.protocol.statevector import Vector
from collab.protocol.structs import MAX_CLOCK

BLOCK = 256  # pieces that are counted together, at most


class Ahead(Refused):
    """The update builds on one that has not come."""

    def __init__(self) -> None:
        super().__init__("ahead")


class Span(NamedTuple):
    """Visible characters with ids in a row, each of as many units as the others: `units` is `size`, or twice that."""

    client: int
    clock: int
    units: int
    start: int  # which character of the shared type the first one is
    size: int  # characters


# The same, for who looks through thousands of them.
Stretch = tuple[int, int, int, int, int]


class Block:
    """Pieces beside each other in a line, and what they count for together."""

    __slots__ = ("count", "first", "octets", "size")

    def __init__(self, first: Piece) -> None:
        self.first = first
        self.count = self.size = self.octets = 0

    def add(self, piece: Piece) -> None:
        piece.block = self
        self.count += 1
        self.size += piece.size
        self.octets += piece.octets


class Line:
    """What hangs in one shared type, or in one of its keys, in order; its blocks are made when it is first asked."""

    __slots__ = ("blocks", "first", "key", "last", "owner", "root")

    def __init__(self, root: str, owner: Piece | None, key: str | None) -> None:
        self.root = root  # its name, if it is one
        self.owner = owner  # else what inserted the shared type
        self.key = key
        self.first: Piece | None = None
        self.last: Piece | None = None
        self.blocks: list[Block] | None = None

    @property
    def name(self) -> Root:
        """How this shared type is called."""
        owner = self.owner
        return self.root if owner is None else Id(owner.client, owner.clock)

    def counted(self) -> list[Block]:
        """Its blocks."""
        if self.blocks is None:
            self.blocks = []
            block = None
            for piece in self.pieces():
                if block is None or block.count == BLOCK // 2:
                    block = Block(piece)
                    self.blocks.append(block)
                block.add(piece)
        return self.blocks

    def size(self) -> int:
        """How many characters it shows. Its blocks are not made for that."""
        if self.blocks is None:
            return sum([piece.size for piece in self.pieces()])
        return sum([block.size for block in self.blocks])

    def text(self) -> str:
        """What it shows, with U+FFFC for what is no character."""
        return "".join(
            [
                EMBED * piece.size if piece.text is None else piece.text
                for piece in self.pieces()
                if piece.size
            ]
        )

    def pieces(self) -> Iterator[Piece]:
        """All of them, also those deleted."""
        piece = self.first
        while piece is not None:
            yield piece
            piece = piece.right

    def link(self, piece: Piece, left: Piece | None) -> None:
        """Put a piece behind another, or first."""
        right = self.first if left is None else left.right
        piece.line, piece.left, piece.right = self, left, right
        if left is None:
            self.first = piece
        else:
            left.right = piece
        if right is None:
            self.last = piece
        else:
            right.left = piece
        if self.blocks is None:
            return
        beside = left or right
        block = None if beside is None else beside.block
        if block is None:
            block = Block(piece)
            self.blocks.append(block)
        elif left is None:
            block.first = piece
        block.add(piece)
        if block.count > BLOCK:
            self._divide(block)

    def _divide(self, block: Block) -> None:
        piece = block.first
        for _ in range(block.count // 2):
            piece = _right(piece)
        rest = Block(piece)
        for _ in range(block.count - block.count // 2):
            rest.add(piece)
            if piece.right is None:
                break
            piece = piece.right
        block.count -= rest.count
        block.size -= rest.size
        block.octets -= rest.octets
        blocks = self.counted()
        blocks.insert(blocks.index(block) + 1, rest)

    def before(self, piece: Piece) -> int:
        """How many characters stand before a piece."""
        index = 0
        for block in self.counted():
            if block is piece.block:
                break
            index += block.size
        at = block.first
        while at is not piece:
            index += at.size
            at = _right(at)
        return index

    def spans(self, start: int, end: int) -> Iterator[Stretch]:
        """Whose characters stand from one place up to another, both of which there are: each as `Span` has it."""
        piece, at = self.first, 0
        if start:  # its blocks need not be made for all of it
            piece, at, _ = self.find(start)
        while piece is not None and start < end:
            size = piece.size
            if size:
                text = piece.text
                if text is None or size == piece.units:
                    size = min(size - at, end - start)
                    yield piece.client, piece.clock + at, size, start, size
                    start += size
                else:
                    size = min(size - at, end - start)
                    clock = piece.clock + unit_at(text, at)
                    for stretch in even(text[at : at + size]):
                        units = units_of(stretch)
                        yield piece.client, clock, units, start, len(stretch)
                        clock += units
                        start += len(stretch)
            at = 0
            piece = piece.right

    def find(self, index: int) -> tuple[Piece | None, int, int]:
        """The piece that a character is in, which of its characters it is, and the bytes before the piece.

        None at the end.
        """
        octets = 0
        for block in self.counted():
            if index < block.size:
                break
            index -= block.size
            octets += block.octets
        else:
            return None, index, octets
        piece = block.first
        while index >= piece.size:
            index -= piece.size
            octets += piece.octets
            piece = _right(piece)
        return piece, index, octets


def _right(piece: Piece) -> Piece:
    """Its right neighbour, which is there."""
    right = piece.right
    if right is None:
        raise AssertionError("a line ends before its count does")
    return right


class _Client:
    """All pieces of one client by clock."""

    __slots__ = ("next", "pieces", "starts")

    def __init__(self) -> None:
        self.next = 0
        self.starts: list[int] = []
        self.pieces: list[Piece] = []

    def add(self, piece: Piece) -> None:
        self.starts.append(piece.clock)
        self.pieces.append(piece)
        self.next = piece.clock + piece.units

    def index(self, clock: int) -> int:
        return bisect_right(self.starts, clock) - 1


class Order:
    """All shared types of a document; offsets are characters, and an embed or an item of a list is one too."""

    def __init__(self) -> None:
        self._clients: dict[int, _Client] = {}
        self._roots: dict[str, Lines] = {}

    @classmethod
    def of(cls, snapshot: bytes) -> Order:
        """Of a document that the guard has let in. Raises Refused when it is none."""
        order = cls()
        # All that is made here is kept. To look through it again and again for garbage costs a quarter of the time,
        # and a sweep of the whole process as much as all the rest.
        sweeps = gc.isenabled()
        gc.disable()
        try:
            order.apply(snapshot)
        finally:
            if sweeps:
                gc.enable()
        return order

    def end(self) -> None:
        """It is of no further use: its pieces, which hold each other, go at once instead of when somebody looks for garbage."""
        for mine in self._clients.values():
            for piece in mine.pieces:
                piece.left = piece.right = piece.line = piece.block = piece.lines = None
        self._clients, self._roots = {}, {}

    # What changes it

    def apply(self, update: bytes) -> None:
        """Take an update that the document has taken; what is known already is passed over.

        Raises Ahead when it builds on something unknown, Refused when it is none; then nothing has changed.
        """
        sections, deletes = read(update)
        pieces = self._arranged(sections)
        reached = {client: mine[-1].end for client, mine, _ in sections if mine}
        for client, _, end in deletes:
            if end > max(self._next(client), reached.get(client, 0)):
                raise Ahead
        for piece in pieces:
            self._integrate(piece)
        for client, clock, end in deletes:
            self._delete_range(client, clock, end)

    def _next(self, client: int) -> int:
        mine = self._clients.get(client)
        return 0 if mine is None else mine.next

    def _arranged(self, sections: list[Section]) -> list[Piece]:
        """The pieces of all clients, each behind what it refers to. Raises Ahead."""
        known: Vector = {client: self._next(client) for client, _, _ in sections}
        todo = {client: (pieces, needs) for client, pieces, needs in sections}
        at = dict.fromkeys(todo, (0, 0))
        arranged: list[Piece] = []
        for first in todo:
            waiting = {first: MAX_CLOCK}  # clients, and how far each must come first
            while waiting:
                client, wanted = next(reversed(waiting.items()))
                pieces, needs = todo[client]
                index, need = at[client]
                need, missing = self._ready(needs, need, known)
                end = len(pieces) if missing is None else missing[0]
                reached = known[client]
                while index < end and reached <= wanted:
                    piece = pieces[index]
                    clock = piece.clock
                    if clock > reached:
                        raise Ahead
                    if clock + piece.units > reached:
                        reached = clock + piece.units
                        arranged.append(piece)
                    index += 1
                known[client] = reached
                at[client] = index, need
                if known[client] > wanted or index == len(pieces):
                    del waiting[client]
                    if known[client] <= wanted < MAX_CLOCK:
                        raise Ahead
                elif missing is not None:
                    _, other, needed = missing
                    if other in waiting or other not in todo:
                        raise Ahead
                    waiting[other] = needed
        return arranged

    def _ready(
        self, needs: list[Need], need: int, known: Vector
    ) -> tuple[int, Need | None]:
        """The first reference that is not known yet, and its number."""
        while need < len(needs):
            _, client, clock = needs[need]
            if clock >= (known[client] if client in known else self._next(client)):
                return need, needs[need]
            need += 1
        return need, None

    def _integrate(self, piece: Piece) -> None:
        client, clock = piece.client, piece.clock
        mine = self._clients.get(client)
        if mine is None:
            mine = self._clients[client] = _Client()
        if clock < mine.next:
            piece = self._unknown(piece, mine.next)
            clock = piece.clock
        origin = piece.origin
        if origin is None:
            left = None
        else:
            whose, end = origin
            theirs = mine if whose == client else self._clients[whose]
            if end == clock - 1 and theirs is mine:
                left = mine.pieces[-1]  # typed on, which is most of all
            else:
                index = bisect_right(theirs.starts, end) - 1
                left = theirs.pieces[index]
                if left.clock + left.units != end + 1 and left.line is not None:
                    self._cut(theirs, index, end + 1)
        right = None if left is None else left.right
        behind = piece.right_origin
        if behind is None:
            right = None
        elif right is None or right.clock != behind[1] or right.client != behind[0]:
            right = self._starting(*behind)
        beside = right if left is None else left
        if beside is None:
            line = self._home(piece.parent, piece.key)
        else:
            line = beside.line
            if right is not None and right.line is None:
                line = None
        if line is None:
            piece.delete()
            piece.lines = piece.content = None
            mine.add(piece)
            return
        if left is None:
            if right is None or right.left is not None:
                if line.first is not right:
                    left = self._settled(piece, None, line.first, right)
        elif left.right is not right:
            left = self._settled(piece, left, left.right, right)
        text = piece.text
        if (
            text is not None
            and left is not None
            and left.clock + left.units == clock
            and left.client == client
            and left.text is not None
            and line.key is None
            and left.right_origin == piece.right_origin
            and origin == (client, clock - 1)
            and left.units + piece.units <= MAX_PIECE
        ):
            left.text += text
            left.units += piece.units
            _grow(left, piece.size, piece.octets)
            mine.next = left.clock + left.units
            return
        line.link(piece, left)
        mine.starts.append(clock)
        mine.pieces.append(piece)
        mine.next = clock + piece.units
        if line.key is not None:  # only the newest value of a key is there
            if piece.right is not None:
                self._delete(piece)
            elif piece.left is not None:
                self._delete(piece.left)
        if line.owner is not None and line.owner.is_deleted:
            self._delete(piece)

    def _unknown(self, piece: Piece, known: int) -> Piece:
        """The part of a piece that is not known yet."""
        is_gone = piece.is_gone
        rest = piece.cut(known - piece.clock)
        if is_gone:
            rest.origin = None
        return rest

    def _home(self, parent: str | Ref | None, key: str | None) -> Line | None:
        """The line that an update names; None when the shared type is gone."""
        owner = None
        if isinstance(parent, str):
            lines: Lines | None = self._roots.get(parent)
            if lines is None:
                lines = self._roots[parent] = Lines(ROOT)
        elif parent is not None:
            owner = self._find(*parent)
            lines = owner.lines
        else:
            lines = None
        if lines is None:
            return None
        line = lines.get(key)
        if line is None:
            name = parent if isinstance(parent, str) else ""
            line = lines[key] = Line(name, owner, key)
        return line

    def _settled(
        self,
        piece: Piece,
        left: Piece | None,
        other: Piece | None,
        right: Piece | None,
    ) -> Piece | None:
        """The left neighbour of a piece among those that others put at the same place at the same time."""
        conflicting: set[Piece] = set()
        before: set[Piece] = set()
        origin, right_origin, client = piece.origin, piece.right_origin, piece.client
        while other is not None and other is not right:
            before.add(other)
            conflicting.add(other)
            theirs = other.origin
            if theirs == origin:
                if other.client < client:
                    left = other
                    conflicting.clear()
                elif other.right_origin == right_origin:
                    break
            elif theirs is not None and (found := self._find(*theirs)) in before:
                if found not in conflicting:
                    left = other
                    conflicting.clear()
            else:
                break
            other = other.right
        return left

    # Pieces by id

    def _find(self, client: int, clock: int) -> Piece:
        mine = self._clients[client]
        return mine.pieces[bisect_right(mine.starts, clock) - 1]

    def _starting(self, client: int, clock: int) -> Piece:
        """The piece that begins with this id, cut there if need be."""
        mine = self._clients[client]
        index = bisect_right(mine.starts, clock) - 1
        piece = mine.pieces[index]
        if piece.clock != clock and piece.line is not None:
            return self._cut(mine, index, clock)
        return piece

    def _cut(self, mine: _Client, index: int, clock: int) -> Piece:
        piece = mine.pieces[index]
        block, size, octets = piece.block, piece.size, piece.octets
        rest = piece.cut(clock - piece.clock)
        if block is not None:
            block.size += piece.size - size
            block.octets += piece.octets - octets
        if piece.line is not None:
            piece.line.link(rest, piece)
        mine.starts.insert(index + 1, clock)
        mine.pieces.insert(index + 1, rest)
        return rest

    def _delete_range(self, client: int, clock: int, end: int) -> None:
        mine = self._clients[client]
        index = mine.index(clock)
        if mine.pieces[index].clock < clock:
            piece = mine.pieces[index]
            if not piece.is_deleted:
                self._cut(mine, index, clock)
            index += 1
        while index < len(mine.pieces):
            piece = mine.pieces[index]
            if piece.clock >= end:
                break
            if not piece.is_deleted:
                if piece.end > end:
                    self._cut(mine, index, end)
                self._delete(piece)
            index += 1

    def _delete(self, piece: Piece) -> None:
        """This piece, and all that hangs in it."""
        pieces = [piece]
        while pieces:
            piece = pieces.pop()
            if piece.is_deleted:
                continue
            _grow(piece, -piece.size, -piece.octets)
            piece.delete()
            for line in (piece.lines or {}).values():
                pieces += line.pieces()

    # What is asked of it

    def vector(self) -> Vector:
        """What is known of each client."""
        return {client: mine.next for client, mine in self._clients.items()}

    def roots(self) -> list[str]:
        """The names of the roots that have ever held something."""
        return list(self._roots)

    def lines(self, root: Root) -> Lines:
        """What hangs in a shared type. Raises AnchorNotFound when there is none."""
        if isinstance(root, str):
            return self._roots.get(root) or Lines(ROOT)
        lines = self._known(root).lines
        if lines is None:
            raise AnchorNotFound("there is no such shared type")
        return lines

    def pieces(self, client: int, start: int, end: int) -> Iterator[Piece]:
        """All that have some of these ids, also those deleted."""
        mine = self._clients.get(client)
        at = 0 if mine is None else max(0, mine.index(start))
        while mine is not None and at < len(mine.pieces):
            piece = mine.pieces[at]
            if piece.clock >= end:
                break
            if piece.end > start:
                yield piece
            at += 1

    def touched(self, update: bytes) -> Iterator[Piece]:
        """What an update that it has taken has inserted or deleted. Raises Refused."""
        sections, deletes = read(update)
        for client, pieces, _ in sections:
            for piece in pieces:
                yield from self.pieces(client, piece.clock, piece.end)
        for deleted in deletes:
            yield from self.pieces(*deleted)

    def shown(
        self, client: int, start: int, end: int
    ) -> Iterator[tuple[Piece, int, int]]:
        """The pieces that show some of these ids, and which ids of each."""
        for piece in self.pieces(client, start, end):
            if piece.size:
                yield piece, max(start, piece.clock), min(end, piece.end)

    def root_of(self, root: Root) -> str | None:
        """The name of the root that a shared type lies in, however deep; None when that is gone."""
        while not isinstance(root, str):
            line = self._known(root).line
            if line is None:
                return None
            root = line.name
        return root

    def first(self, root: Root) -> Piece | None:
        """What is there first in the list of a shared type."""
        line = self.line(root)
        return None if line is None else line.find(0)[0]

    def children(self, root: Root) -> Iterator[Piece]:
        """What is there in the list of a shared type, piece by piece."""
        line = self.line(root)
        if line is not None:
            yield from (piece for piece in line.pieces() if piece.size)

    def home(self, root: Id) -> Place | None:
        """Where a shared type stands, or stood; None when it is in no list, or nobody knows that any more."""
        piece = self._known(root)
        line = piece.line
        if line is None or line.key is not None:
            return None
        return Place(line.name, line.before(piece))

    def step(self, root: Id) -> tuple[Root, str | int] | None:
        """What a shared type is in, and under which key or number; None when it is gone."""
        piece = self._known(root)
        line = piece.line
        if line is None or piece.is_deleted:
            return None
        return line.name, line.before(piece) if line.key is None else line.key

    def length(self, root: Root) -> int:
        """How many characters a shared type shows; 0 for a root that holds nothing."""
        line = self.line(root)
        return 0 if line is None else line.size()

    def bytes_of(self, root: Root) -> int:
        """The same as native code counts."""
        line = self.line(root)
        return 0 if line is None else sum(block.octets for block in line.counted())

    def text(self, root: Root) -> str:
        """What a shared type shows, with U+FFFC for what is no character."""
        line = self.line(root)
        return "" if line is None else line.text()

    def bytes_at(self, root: Root, index: int) -> int:
        """Where a character begins as native code counts: in bytes of UTF-8, and 1 for what is no character."""
        piece, at, octets = self._at(root, index)
        if piece is None or not at:
            return octets
        return octets + (at if piece.text is None else bytes_of(piece.text[:at]))

    def anchor(self, root: Root, index: int, side: Side = Side.RIGHT) -> Anchor:
        """The place before a character, held by that character or by the one before it.

        Raises InvalidRequest beyond the end, AnchorNotFound when there is no such shared type.
        """
        if side < 0:
            if not index:
                self._at(root, index)
                return Anchor(None, root, side)
            piece, at, _ = self._at(root, index - 1)
            if piece is None:
                raise InvalidRequest("there is no such place here")
            clock = piece.clock + _unit(piece, at + 1) - 1
            return Anchor(Id(piece.client, clock), root, side)
        piece, at, _ = self._at(root, index)
        if piece is None:
            return Anchor(None, root, side)
        return Anchor(Id(piece.client, piece.clock + _unit(piece, at)), root, side)

    def resolve(self, anchor: Anchor) -> Place | Orphaned:
        """Where an anchor leads now; an anchor to half a character leads where the whole one would.

        Raises AnchorNotFound when the document has never had what it names, or does not know any more where that was.
        """
        side = anchor.side
        if anchor.item is None:
            return self._edge(anchor, side)
        piece = self._known(anchor.item)
        line = piece.line
        if line is None or line.key is not None:
            raise AnchorNotFound("what the anchor held on to is in no text or list")
        if line.owner is not None and line.owner.is_deleted:
            return Orphaned(line.name, 0)
        index = line.before(piece)
        if piece.is_deleted:
            return Orphaned(line.name, index)
        if not piece.is_countable:
            return Place(line.name, index)
        offset = anchor.item.clock - piece.clock
        if piece.text is not None and piece.size < piece.units:
            offset, _ = character_of_unit(piece.text, offset)
        return Place(line.name, index + offset + (side is Side.LEFT))

    def _edge(self, anchor: Anchor, side: Side) -> Place | Orphaned:
        root = anchor.root
        if root is None:
            raise AnchorNotFound("the anchor names no place")
        if not isinstance(root, str):
            piece = self._known(root)
            if piece.lines is None:
                raise AnchorNotFound("the anchor's shared type is gone, or none")
            root = Id(piece.client, piece.clock)
            if piece.is_deleted:
                return Orphaned(root, 0)
        return Place(root, self.length(root) if side is Side.RIGHT else 0)

    def spans(self, root: Root, start: int = 0, end: int | None = None) -> list[Span]:
        """Whose characters stand from one place up to another, in order. Raises InvalidRequest beyond the end."""
        end = self.length(root) if end is None else end
        for place in (start, end):
            self._at(root, place)
        line = self.line(root)
        return [] if line is None else [*map(Span._make, line.spans(start, end))]

    def _at(self, root: Root, index: int) -> tuple[Piece | None, int, int]:
        """The piece at a place. Raises InvalidRequest beyond the end."""
        line = self.line(root)
        if line is None:
            found: tuple[Piece | None, int, int] = None, index, 0
        elif index >= 0:
            found = line.find(index)
        if index < 0 or (found[0] is None and found[1]):
            raise InvalidRequest("there is no such place here")
        return found

    def line(self, root: Root) -> Line | None:
        """The line of a shared type's list; None while it holds nothing."""
        if isinstance(root, str):
            lines = self._roots.get(root)
            return None if lines is None else lines.get(None)
        return self.lines(root).get(None)

    def _known(self, id_: Ref) -> Piece:
        """The piece with this id. Raises AnchorNotFound."""
        client, clock = id_
        if not 0 <= clock < self._next(client):
            raise AnchorNotFound("the anchor names what this document has never had")
        return self._find(client, clock)


def _unit(piece: Piece, at: int) -> int:
    """Where a character of a piece begins, in units."""
    if piece.text is None or piece.size == piece.units:
        return at
    return unit_at(piece.text, at)


def _grow(piece: Piece, size: int, octets: int) -> None:
    piece.size += size
    piece.octets += octets
    if piece.block is not None:
        piece.block.size += size
        piece.block.octets += octets
