"""Whether structs at ids that a document has already are the same once more, or a copied client's own.

Yjs takes all that comes at known ids for repeats. That is nearly always right: clients repeat what they have sent, and
what they have heard. But of two documents with one client id each uses the same ids for something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isnan
from struct import unpack_from
from typing import Any

import orjson

from collab.errors import InvalidMessage, Refused
from collab.protocol.structs import (
    Run,
    match_joined,
    match_pair,
    match_section,
    number_at,
    number_of,
    values_end,
)
from collab.protocol.varint import Reader, encode_varint

_GONE, _DELETED, _BYTES, _TEXT, _EMBED, _FORMAT, _TYPE, _VALUES, _SUBDOCUMENT, _HOLE = (
    0, 1, 3, 4, 5, 6, 7, 8, 9, 10,
)  # fmt: skip
_ELEMENT = 3  # the shared type that has a name
_LEFT, _KEY = 0x80, 0x20
# Structs of a document that are looked through for an update, and more for each of its own; some 2 µs each.
MOST_WALKED, WALKED_FOR_EACH = 4000, 4
_NOWHERE = b"", b"", b""


class Struct:
    """One struct: what it is, where it was put, and its content."""

    __slots__ = (
        "_content",
        "clock",
        "end",
        "kind",
        "left",
        "parent",
        "right",
        "start",
        "stop",
        "update",
    )

    def __init__(
        self,
        update: bytes,
        kind: int,
        clock: int,
        end: int,
        place: tuple[bytes, bytes, bytes],
        start: int,
        stop: int,
    ) -> None:
        self.update, self.kind, self.clock, self.end = update, kind, clock, end
        # Ids as written: a number has one spelling. b"" for none; the parent where no neighbour says it, with the key.
        self.left, self.right, self.parent = place
        self.start, self.stop = start, stop  # of its content
        self._content: Any = None

    def place(self, own: bytes, at: int) -> tuple[bytes, bytes, bytes]:
        """Neighbours and parent of what begins at this clock, as Yjs has them when it cuts there."""
        if at == self.clock:
            return self.left, self.right, self.parent
        return own + encode_varint(at - 1), self.right, b""

    def content(self, at: int, end: int) -> Any:
        """What these ids hold. Text is in UTF-16, which is what clocks count. Raises InvalidMessage."""
        if self._content is None:
            self._content = _decoded(self)
        first, last = at - self.clock, end - self.clock
        if self.kind == _TEXT:
            return self._content[2 * first : 2 * last]
        return self._content[first:last]


def copied(
    update: bytes, runs: Iterable[Run], stored: bytes, known: Mapping[int, int]
) -> int | None:
    """The client whose structs in these runs are surely others than those that a document has at their ids.

    `stored` is what the document has of these clients, from a clock on that is not above the first of each; `known` how
    far it knows each. None when all that can be compared is the same: what has been deleted here or there cannot, but
    for where it was; nor is more looked through than is in proportion to the update.
    """
    mine: dict[int, list[Run]] = {}
    for run in runs:
        if run.clock < known.get(run.client, 0):
            mine.setdefault(run.client, []).append(run)
    structs = sum(run.last - run.first for each in mine.values() for run in each)
    left = MOST_WALKED + WALKED_FOR_EACH * structs
    sections, p = number_at(stored, 0)
    for _ in range(sections):
        match = match_section(stored, p)
        if match is None:
            raise Refused("section")
        count, client = number_of(match[1]), number_of(match[2])
        clock, p = number_of(match[3]), match.end()
        theirs = mine.pop(client, [])
        if len(theirs) == 1 and theirs[0].clock == clock:
            run = theirs[0]
            size = run.stop - run.start
            if update[run.start : run.stop] == stored[p : p + size]:
                if not mine:
                    return None
                theirs = []
        there = _Structs(stored, p, clock, min(count, left))
        if theirs and _differ(update, theirs, there, known.get(client, 0)):
            return client
        left -= count
        if not mine or left < 0:
            return None
        for _ in there:
            pass
        p = there.at
    return None


def _differ(update: bytes, runs: list[Run], structs: _Structs, reached: int) -> bool:
    """Whether these runs of one client differ from what stands at their ids, up to where it is known."""
    there = next(structs, None)
    for run in runs:
        own = encode_varint(run.client)
        count = run.last - run.first
        for struct in _Structs(update, run.start, run.clock, count):
            at = struct.clock
            while at < min(struct.end, reached):
                while there is not None and there.end <= at:
                    there = next(structs, None)
                if there is None:
                    return False
                if at < there.clock:
                    at = there.clock
                    continue
                end = min(struct.end, there.end)
                if not _may_be_one(struct, there, own, at, end):
                    return True
                at = end
    return False


def _may_be_one(one: Struct, other: Struct, own: bytes, at: int, end: int) -> bool:
    """Whether two structs of one client may be the same from one clock up to another."""
    if _GONE in (one.kind, other.kind):
        return True
    if one.place(own, at) != other.place(own, at):
        return False
    if _DELETED in (one.kind, other.kind):
        return True
    if one.kind != other.kind:
        return False
    try:
        mine, theirs = one.content(at, end), other.content(at, end)
    except (InvalidMessage, ValueError):  # a number beyond what is exact
        return True
    if one.kind == _TEXT:
        return _may_be_one_text(mine, theirs)
    return bool(mine == theirs)


def _may_be_one_text(one: bytes, other: bytes) -> bool:
    """A surrogate pair that was cut shows as U+FFFD to some, and whole to others."""
    return one == other or all(
        one[at : at + 2] == other[at : at + 2]
        or _may_be_cut(one[at : at + 2])
        or _may_be_cut(other[at : at + 2])
        for at in range(0, len(one), 2)
    )


def _may_be_cut(unit: bytes) -> bool:
    return 0xD8 <= unit[1] < 0xE0 or unit == b"\xfd\xff"


def _decoded(struct: Struct) -> Sequence[Any]:
    """A struct's content for each id that it takes. Native code writes JSON and values in its own way."""
    update, kind, start = struct.update, struct.kind, struct.start
    reader = Reader(update, start)
    if kind == _TEXT:
        return reader.read_bytes().decode().encode("utf-16-le")
    if kind == _VALUES:
        return [_value(reader) for _ in range(reader.read_varint())]
    if kind in (_EMBED, _FORMAT):
        name = reader.read_bytes() if kind == _FORMAT else b""
        return [(name, _even(orjson.loads(reader.read_bytes())))]
    if kind == _SUBDOCUMENT:  # its options are nobody's but native code's
        return [reader.read_bytes()]
    return [update[start : struct.stop]]


def _even(value: Any) -> Any:
    """A value of JSON with its numbers as JavaScript has them."""
    match value:
        case dict():
            return {key: _even(each) for key, each in value.items()}
        case list():
            return [_even(each) for each in value]
        case int():
            return float(value)
    return value


def _value(reader: Reader) -> Any:
    """One value in lib0's "any" encoding; the guard has seen that it is shallow."""
    tag = reader.frame[reader.at]
    reader.at += 1
    match tag:
        case 119 | 116:
            return tag, reader.read_bytes()
        case 125:
            return float(reader.read_signed())
        case 124:
            return _number(reader, ">f", 4)
        case 123:
            return _number(reader, ">d", 8)
        case 122:
            return _number(reader, ">q", 8)
        case 120 | 121:
            return tag == 120
        case 118:
            return {
                reader.read_bytes(): _value(reader) for _ in range(reader.read_varint())
            }
        case 117:
            return [_value(reader) for _ in range(reader.read_varint())]
    return None


def _number(reader: Reader, form: str, size: int) -> Any:
    (value,) = unpack_from(form, reader.frame, reader.at)
    reader.at += size
    return "NaN" if isnan(value) else float(value)


class _Structs(Iterator[Struct]):
    """So many structs of one client, of an update that the guard has let pass or that a document has made."""

    __slots__ = ("_clock", "_left", "_update", "at")

    def __init__(self, update: bytes, at: int, clock: int, count: int) -> None:
        self._update, self._clock, self._left = update, clock, count
        self.at = at

    def __next__(self) -> Struct:
        update, p = self._update, self.at
        while self._left:
            self._left -= 1
            clock, kind, place = self._clock, update[p] & 31, _NOWHERE
            if kind in (_GONE, _HOLE):
                length, p = number_at(update, p + 1)
                start = p
            else:
                place, start = _placed(update, p)
                length, p = _content(update, kind, start)
            self._clock, self.at = clock + length, p
            if kind != _HOLE:
                return Struct(update, kind, clock, clock + length, place, start, p)
        raise StopIteration


def _placed(update: bytes, p: int) -> tuple[tuple[bytes, bytes, bytes], int]:
    """Neighbours and parent of the struct at `p`, and where its content begins."""
    info = update[p]
    if info < 64:
        start = _parent_end(update, p)
        return (b"", b"", update[p + 1 : start]), start
    match = match_joined(update, p)
    if match is None:
        raise Refused("struct")
    left, left_at, right, right_at, only, only_at, _ = match.groups()
    start = match.start(7)
    if only is None:
        return (left + left_at, right + right_at, b""), start
    if info & _LEFT:
        return (only + only_at, b"", b""), start
    return (b"", only + only_at, b""), start


def _parent_end(update: bytes, p: int) -> int:
    info = update[p]
    by_name, p = number_at(update, p + 1)
    if by_name:
        length, p = number_at(update, p)
        p += length
    else:
        match = match_pair(update, p)
        if match is None:
            raise Refused("parent")
        p = match.end()
    if info & _KEY:
        length, p = number_at(update, p)
        p += length
    return p


def _content(update: bytes, kind: int, p: int) -> tuple[int, int]:
    """How many ids the content at `p` takes, and where it ends."""
    value, p = number_at(update, p)
    if kind == _TEXT:
        text = update[p : p + value]
        ascii_ = text.isascii()
        units = value if ascii_ else len(text.decode().encode("utf-16-le")) // 2
        return units, p + value
    if kind == _DELETED:
        return value, p
    if kind == _VALUES:
        return value, values_end(update, p, value)
    if kind == _TYPE:
        if value == _ELEMENT:
            length, p = number_at(update, p)
            p += length
    elif kind == _FORMAT:
        length, p = number_at(update, p + value)
        p += length
    elif kind == _SUBDOCUMENT:
        p = values_end(update, p + value, 1)
    elif kind in (_EMBED, _BYTES):
        p += value
    else:
        raise Refused("kind")
    return 1, p
