"""One update as several smaller ones, in an order in which each can be taken at once."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from collab.errors import Refused, TooLarge
from collab.protocol.rewriting import encode
from collab.protocol.structs import (
    MAX_CLOCK,
    MAX_STRUCTS,
    Range,
    Run,
    Scan,
    number_at,
    scan,
    values_end,
)
from collab.protocol.varint import Reader, encode_varint

# Longer than a few keystrokes: native code gets it by parts, of at most so many structs or deleted ranges.
LONG_BYTES = 256
PART_STRUCTS = 64
PART_RANGES = 1024

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


class Reading(NamedTuple):
    """An update as `scan` has read it, and of each struct the first byte and the clock."""

    found: Scan
    heads: Sequence[tuple[int, int]]

    @property
    def size(self) -> int:
        """How many structs and deleted ranges there are."""
        return len(self.heads) + len(self.found.deletes)


class Indivisible(TooLarge):
    """One value, which cannot be cut, is longer than a part may be."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"one value takes more than the {max_bytes} bytes of a part")


def divide(
    update: bytes,
    *,
    max_bytes: int,
    max_structs: int = 1 << 40,
    max_ranges: int = 1 << 40,
    reading: Reading | None = None,
) -> list[bytes]:
    """The update in parts of at most so many bytes, structs and deleted ranges; itself if it is one.

    Whoever can take the whole can take each part once it has those before: no struct comes before one that it refers
    to, and the deletions come last. Texts and lists that are too long are cut as Yjs does it when somebody has the
    first half already (`Item.write` with an offset): the rest has the last id before it as its left neighbour and the
    same right one. Takes linear time, and little of it where nothing is cut; `reading` spares reading it once more.

    Raises Indivisible when a single value is too long; Refused or TooLarge when this is no update, or one whose
    structs wait for each other in a circle.
    """
    if reading is None:
        reading = read(update, max_structs=len(update))
    found, heads = reading
    is_small = len(heads) <= max_structs and len(found.deletes) <= max_ranges
    if is_small and len(update) <= max_bytes:
        return [update]
    if len(update) > max_bytes - _AROUND and _longest(reading) > max_bytes - _AROUND:
        update = _cut_long(update, reading, max_bytes)
        reading = read(update, max_structs=len(update))
    return [
        *_parts(update, reading, max_bytes, max_structs),
        *_deletions(reading.found.deletes, max_bytes, max_ranges),
    ]


def steps(update: bytes) -> list[bytes]:
    """What native code gets of an update that was let in before. In one transaction it would choose an order of its own,
    in which the same structs can take a thousand times as long.
    """
    if len(update) <= LONG_BYTES:
        return [update]
    return divide(
        update, max_bytes=1 << 40, max_structs=PART_STRUCTS, max_ranges=PART_RANGES
    )


def read(update: bytes, *, max_structs: int = MAX_STRUCTS) -> Reading:
    """What `divide` must know of an update. Raises Refused or TooLarge."""
    heads: list[tuple[int, int]] = []
    return Reading(scan(update, max_structs=max_structs, heads=heads), heads)


def _spans(reading: Reading) -> Iterator[tuple[int, int]]:
    """The first byte of each struct, and where it ends."""
    heads, number = reading.heads, 0
    for run in reading.found.runs:
        last = number + run.last - run.first - 1
        for each in range(number, last):
            yield heads[each][0], heads[each + 1][0]
        yield heads[last][0], run.stop
        number = last + 1


def _longest(reading: Reading) -> int:
    return max((stop - start for start, stop in _spans(reading)), default=0)


class _Stretch(NamedTuple):
    """Structs of one run in a row, by their numbers in the update."""

    run: Run
    first: int
    last: int  # not included
    clock: int
    end: int
    start: int
    stop: int


def _in_order(reading: Reading) -> Iterator[_Stretch]:
    """All structs, none before one that it refers to; Refused when they refer in a circle.

    Goes on with one client until a struct needs another's: that one goes first, as far as it is needed.
    """
    found, heads = reading
    queues: dict[int, list[_Stretch]] = {}  # of each client, the last first
    needs: dict[int, list[tuple[int, int, int]]] = {}  # likewise: number, to, clock
    firsts: list[int] = []
    number = 0
    for run in found.runs:
        firsts.append(number)
        last = number + run.last - run.first
        queues.setdefault(run.client, []).append(
            _Stretch(run, number, last, run.clock, run.end, run.start, run.stop)
        )
        number = last
    ends = {client: queue[-1].end for client, queue in queues.items()}
    for index, _, _, at, to, reached in found.needs:
        if to in ends:
            run = found.runs[index]
            needs.setdefault(run.client, []).append(
                (firsts[index] + at - run.first, to, reached)
            )
    for queue in queues.values():
        queue.reverse()
    for waits in needs.values():
        waits.reverse()
    for each in queues:
        way = {each: MAX_CLOCK}  # clients, and up to which clock each is needed
        while way:
            client, end = next(reversed(way.items()))
            queue, mine = queues[client], needs.get(client)
            if not queue or queue[-1].clock >= end:
                del way[client]
                continue
            stretch = queue[-1]
            stop = stretch.last
            if stretch.end > end:  # no more than is needed
                stop = bisect_left(heads, end, stretch.first, stop, key=_clock)
            while mine and mine[-1][0] <= stretch.first:
                _, to, reached = mine[-1]
                theirs = queues[to]
                if theirs and theirs[-1].clock < reached:
                    if to in way:
                        raise Refused("circle")
                    way[to] = reached
                    break
                mine.pop()
            else:
                if mine and mine[-1][0] < stop:
                    stop = mine[-1][0]
                queue.pop()
                if stop < stretch.last:
                    stretch, rest = _split(stretch, stop, heads)
                    queue.append(rest)
                yield stretch


def _clock(head: tuple[int, int]) -> int:
    return head[1]


def _split(
    stretch: _Stretch, number: int, heads: Sequence[tuple[int, int]]
) -> tuple[_Stretch, _Stretch]:
    """The structs before this one, and from it on."""
    run, first, last, clock, end, start, stop = stretch
    at, middle = heads[number]
    return (
        _Stretch(run, first, number, clock, middle, start, at),
        _Stretch(run, number, last, middle, end, at, stop),
    )


def _parts(
    update: bytes, reading: Reading, max_bytes: int, max_structs: int
) -> Iterator[bytes]:
    """The structs, as many in each part as there is room for."""
    heads = reading.heads
    mine: dict[int, list[Run]] = {}
    size, structs = _UPDATE, 0
    for stretch in _in_order(reading):
        rest: _Stretch | None = stretch
        while rest is not None:
            stretch, rest = rest, None
            runs = mine.get(stretch.run.client)
            size += _HOLE if runs else _SECTION
            most = min(stretch.last, stretch.first + max_structs - structs)
            if size + stretch.stop - stretch.start > max_bytes:
                # the first that ends too late
                most = min(
                    most,
                    bisect_right(
                        heads,
                        stretch.start + max_bytes - size,
                        stretch.first + 1,
                        stretch.last,
                        key=_byte,
                    )
                    - 1,
                )
            if most <= stretch.first:
                if not structs:
                    raise Indivisible(max_bytes)
                yield _encode(update, mine)
                mine, size, structs = {}, _UPDATE, 0
                rest = stretch
                continue
            if most < stretch.last:
                stretch, rest = _split(stretch, most, heads)
            _, first, last, clock, end, start, stop = stretch
            run = Run(stretch.run.client, clock, end, start, stop, 0, last - first)
            if runs and runs[-1].stop == start:
                before = runs[-1]
                runs[-1] = before._replace(end=end, stop=stop, last=before.last + run.last)  # fmt: skip
            else:
                mine.setdefault(run.client, []).append(run)
            size += stop - start
            structs += run.last
    if structs:
        yield _encode(update, mine)


def _byte(head: tuple[int, int]) -> int:
    return head[0]


def _encode(update: bytes, runs: dict[int, list[Run]]) -> bytes:
    return encode(update, [run for each in runs.values() for run in each], ())


def _deletions(
    deletes: list[Range], max_bytes: int, max_ranges: int
) -> Iterator[bytes]:
    """Deleted ranges, as many in each part as there is room for."""
    mine: list[Range] = []
    clients: set[int] = set()
    size = _UPDATE
    for each in deletes:
        more = _RANGE if each[0] in clients else _RANGE + _DELETIONS
        if mine and (size + more > max_bytes or len(mine) == max_ranges):
            yield encode(b"", (), mine)
            mine, clients, size = [], set(), _UPDATE
            more = _RANGE + _DELETIONS
        mine.append(each)
        clients.add(each[0])
        size += more
    if mine:
        yield encode(b"", (), mine)


def _cut_long(update: bytes, reading: Reading, max_bytes: int) -> bytes:
    """The same update, with texts and lists that are too long for a part as several structs."""
    body = bytearray()
    runs: list[Run] = []
    spans = _spans(reading)
    number = 0
    for run in reading.found.runs:
        began, structs = len(body), 0
        for _ in range(run.last - run.first):
            start, stop = next(spans)
            if stop - start > max_bytes - _AROUND:
                clock = reading.heads[number][1]
                for piece in _pieces(update[start:stop], run.client, clock, max_bytes):
                    body += piece
                    structs += 1
            else:
                body += update[start:stop]
                structs += 1
            number += 1
        runs.append(run._replace(start=began, stop=len(body), first=0, last=structs))
    return encode(bytes(body), runs, reading.found.deletes)


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
