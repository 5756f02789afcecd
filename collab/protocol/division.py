"""One update as several smaller ones, in an order in which each can be taken at once."""

from __future__ import annotations

from collections.abc import Iterator

from collab.errors import Refused, TooLarge
from collab.protocol.rewriting import encode
from collab.protocol.structs import (
    MAX_CLOCK,
    Notes,
    Range,
    Run,
    Scan,
    number_at,
    scan,
    values_end,
)
from collab.protocol.varint import Reader, encode_varint

# What `encode` adds at most: to an update, to the structs of one client, for a hole between them, to a further
# client's deletions; and a deleted range.
_UPDATE = 6
_SECTION = 18
_HOLE = 6
_DELETIONS = 13
_RANGE = 10
# All that there is around a struct, and the length of a text or list.
_AROUND = _UPDATE + _SECTION + _HOLE
_LENGTH = 5

_PARENT = 0xC0  # a struct with none of these bits names its parent
_LEFT, _RIGHT, _KEY = 0x80, 0x40, 0x20
_TEXT, _VALUES = 4, 8


class Indivisible(TooLarge):
    """One value, which cannot be cut, is longer than a part may be."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"one value takes more than the {max_bytes} bytes of a part")


def divide(update: bytes, *, max_bytes: int, max_structs: int = 1 << 40) -> list[bytes]:
    """The update in parts of at most so many bytes, and so many structs and deleted ranges; itself if it is one.

    Whoever can take the whole can take each part once it has those before: no struct comes before one that it refers
    to, and the deletions come last. Texts and lists that are too long are cut as Yjs does it when somebody has the
    first half already (`Item.write` with an offset): the rest has the last id before it as its left neighbour and the
    same right one. Takes linear time.

    Raises Indivisible when a single value is too long; Refused or TooLarge when this is no update, or one whose
    structs wait for each other in a circle.
    """
    notes = Notes()
    found = scan(update, notes, max_structs=len(update))
    small = len(notes.heads) + len(found.deletes) <= max_structs
    if small and len(update) <= max_bytes:
        return [update]
    if any(stop - start > max_bytes - _AROUND for start, stop in _spans(found, notes)):
        update = _cut_long(update, found, notes, max_bytes)
        notes = Notes()
        found = scan(update, notes, max_structs=len(update))
    return [
        *_parts(update, found, notes, max_bytes, max_structs),
        *_deletions(found.deletes, max_bytes, max_structs),
    ]


def _spans(found: Scan, notes: Notes) -> Iterator[tuple[int, int]]:
    """The first byte of each struct, and where it ends."""
    heads, number = notes.heads, 0
    for run in found.runs:
        last = number + run.last - run.first - 1
        while number < last:
            yield heads[number], heads[number + 1]
            number += 1
        yield heads[last], run.stop
        number += 1


def _in_order(found: Scan, notes: Notes) -> Iterator[int]:
    """The numbers of all structs, none before one that it refers to; Refused when they refer in a circle.

    Goes on with one client until a struct needs another's: that one goes first, as far as it is needed.
    """
    links, heads = notes.links, notes.heads
    needs: dict[int, list[tuple[int, int]]] = {}
    for _, _, head, _, to, reached in found.needs:
        needs.setdefault(head, []).append((to, reached))
    now: dict[int, int] = {}  # client → the next of its structs
    stop: dict[int, int] = {}
    for number, link in enumerate(links):
        now.setdefault(link[0], number)
        stop[link[0]] = number + 1
    for each in now:
        way = {each: MAX_CLOCK}  # clients, and up to which clock each is needed
        while way:
            client, end = next(reversed(way.items()))
            number = now[client]
            if number == stop[client] or links[number][1] >= end:
                del way[client]
                continue
            for to, reached in needs.get(heads[number], ()):
                if to in now and now[to] < stop[to] and links[now[to]][1] < reached:
                    if to in way:
                        raise Refused("circle")
                    way[to] = reached
                    break
            else:
                yield number
                now[client] = number + 1


def _parts(
    update: bytes, found: Scan, notes: Notes, max_bytes: int, max_structs: int
) -> Iterator[bytes]:
    """The structs, as many in each part as there is room for."""
    spans = list(_spans(found, notes))
    mine: dict[int, list[Run]] = {}
    size, structs = _UPDATE, 0
    for number in _in_order(found, notes):
        client, clock, end = notes.links[number][:3]
        start, stop = spans[number]
        runs = mine.get(client)
        more = stop - start + (_HOLE if runs else _SECTION)
        if structs and (size + more > max_bytes or structs == max_structs):
            yield _encode(update, mine)
            mine, runs, size, structs = {}, None, _UPDATE, 0
            more = stop - start + _SECTION
        if runs and runs[-1].stop == start:
            run = runs[-1]
            runs[-1] = run._replace(end=end, stop=stop, last=run.last + 1)
            more = stop - start
        else:
            run = Run(client, clock, end, start, stop, 0, 1)
            mine.setdefault(client, []).append(run)
        if size + more > max_bytes:
            raise Indivisible(max_bytes)
        size += more
        structs += 1
    if structs:
        yield _encode(update, mine)


def _encode(update: bytes, runs: dict[int, list[Run]]) -> bytes:
    return encode(update, [run for each in runs.values() for run in each], ())


def _deletions(
    deletes: list[Range], max_bytes: int, max_structs: int
) -> Iterator[bytes]:
    """Deleted ranges, as many in each part as there is room for."""
    mine: list[Range] = []
    clients: set[int] = set()
    size = _UPDATE
    for each in deletes:
        more = _RANGE if each[0] in clients else _RANGE + _DELETIONS
        if mine and (size + more > max_bytes or len(mine) == max_structs):
            yield encode(b"", (), mine)
            mine, clients, size = [], set(), _UPDATE
            more = _RANGE + _DELETIONS
        mine.append(each)
        clients.add(each[0])
        size += more
    if mine:
        yield encode(b"", (), mine)


def _cut_long(update: bytes, found: Scan, notes: Notes, max_bytes: int) -> bytes:
    """The same update, with texts and lists that are too long for a part as several structs."""
    body = bytearray()
    runs: list[Run] = []
    spans = _spans(found, notes)
    number = 0
    for run in found.runs:
        began, structs = len(body), 0
        for _ in range(run.last - run.first):
            start, stop = next(spans)
            if stop - start > max_bytes - _AROUND:
                client, clock = notes.links[number][:2]
                for piece in _pieces(update[start:stop], client, clock, max_bytes):
                    body += piece
                    structs += 1
            else:
                body += update[start:stop]
                structs += 1
            number += 1
        runs.append(run._replace(start=began, stop=len(body), first=0, last=structs))
    return encode(bytes(body), runs, found.deletes)


def _pieces(struct: bytes, client: int, clock: int, max_bytes: int) -> Iterator[bytes]:
    """One struct as several, each short enough for a part of so many bytes."""
    right, at = _head(struct)
    kind = struct[0] & 31
    if kind not in (_TEXT, _VALUES):
        raise Indivisible(max_bytes)
    head = struct[:at]
    _, at = number_at(struct, at)
    while at < len(struct):
        end = at + max_bytes - _AROUND - _LENGTH - len(head)
        if kind == _TEXT:
            end = _text_end(struct, at, end)
            units = len(struct[at:end].decode().encode("utf-16-le")) // 2
        else:
            end, units = _values_end(struct, at, end)
        if end <= at:
            raise Indivisible(max_bytes)
        length = end - at if kind == _TEXT else units
        yield head + encode_varint(length) + struct[at:end]
        clock += units
        info = kind | _LEFT | (_RIGHT if right else 0) | struct[0] & _KEY
        left = encode_varint(client) + encode_varint(clock - 1)
        head = bytes((info,)) + left + right
        at = end


def _text_end(struct: bytes, at: int, end: int) -> int:
    """The last place up to `end` between two characters: so no surrogate pair is cut."""
    if end >= len(struct):
        return len(struct)
    while end > at and struct[end] & 0xC0 == 0x80:
        end -= 1
    return end


def _values_end(struct: bytes, at: int, end: int) -> tuple[int, int]:
    """Where the last value ends that ends before `end`, and how many there are."""
    units = 0
    while at < len(struct):
        after = values_end(struct, at, 1)
        if after > end:
            break
        at, units = after, units + 1
    return at, units


def _head(struct: bytes) -> tuple[bytes, int]:
    """A struct's right neighbour, as written, and where its content begins."""
    info = struct[0]
    reader = Reader(struct, 1)
    if info & _LEFT:
        reader.read_varint()
        reader.read_varint()
    at = reader.at
    if info & _RIGHT:
        reader.read_varint()
        reader.read_varint()
    right = struct[at : reader.at]
    if not info & _PARENT:
        if reader.read_varint():
            reader.read_bytes()
        else:
            reader.read_varint()
            reader.read_varint()
        if info & _KEY:
            reader.read_bytes()
    return right, reader.at
