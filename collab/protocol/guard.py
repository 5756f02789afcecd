"""The structure of an update or a state vector, proven before native code sees it.

Native code recurses, reserves what it is promised and panics on nonsense, so nothing unproven may reach it.
One linear pass refuses what breaks a rule and tells whether a document that knows `known` can integrate all of
the update now. No recursion, no native call: a keystroke is read by one regular expression.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from typing import NamedTuple

import orjson

from collab.errors import Refused, TooLarge
from collab.protocol.nesting import Depths, Link
from collab.protocol.pairs import Cut, Pairs, cut_through, second_halves
from collab.protocol.varint import encode_varint

# JavaScript counts exactly to here; a larger id makes the document unreadable for good.
MAX_CLIENT = 1 << 53
MAX_CLOCK = 1 << 31
MAX_NESTING = 64  # of JSON-like values; browsers give up between 1,000 and 5,000
MAX_STRUCTS = 300_000
MAX_RANGES = 300_000
MAX_ROOT_BYTES = 256
MAX_NAME_BYTES = 1024  # keys of shared maps, tags, formats

Vector = dict[int, int]  # client → its next clock


class Notes:
    """What a scan writes down on request, for the few documents where it matters."""

    __slots__ = ("cuts", "foreign", "links", "lists", "texts")

    def __init__(self) -> None:
        # Where every struct hangs.
        self.links: list[Link] = []
        # Where it pushes others apart: behind its left neighbour, before its right one.
        self.cuts: list[Cut] = []
        # Texts with surrogate pairs: client, clock, first byte and end of the characters.
        self.texts: list[tuple[int, int, int, int]] = []
        # Client and clock of texts beyond ASCII, and of shared lists.
        self.foreign: list[tuple[int, int]] = []
        self.lists: list[tuple[int, int]] = []


class Known(Vector):
    """What a document holds: its vector, how deep its shared types are nested, where surrogate pairs are."""

    __slots__ = ("_noted", "depths", "pairs")

    def __init__(self, vector: Mapping[int, int] | None = None) -> None:
        super().__init__(vector or {})
        self.depths = Depths()
        self.pairs = Pairs()
        self._noted: set[int] = set()

    def note(self, update: bytes, notes: Notes) -> None:
        """Record an update that is about to be applied; `TooLarge` when a shared type lies too deep."""
        self.settle()
        self._noted = {link[0] for link in notes.links}
        if self.depths or any(link[5] for link in notes.links):
            self.depths.grow(notes.links, self)
        for client, clock, start, stop in notes.texts:
            reached = self.get(client, 0)
            halves = second_halves(update[start:stop].decode(), clock)
            self.pairs.record(client, [half for half in halves if half >= reached])

    def has_pair_at(self, cuts: Iterable[Cut]) -> bool:
        """Does any of these cuts go through a surrogate pair?"""
        self.settle()
        pairs = self.pairs
        return any(pairs.has_half(client, clock) for client, clock in cuts)

    def settle(self) -> None:
        """Forget what was noted of an update that was not applied after all."""
        if self._noted:
            for client in self._noted:
                self.depths.truncate(client, self.get(client, 0))
                self.pairs.truncate(client, self.get(client, 0))
            self._noted.clear()

    def reset(self, vector: Mapping[int, int]) -> None:
        """Another vector for the same document: what was noted beyond it is forgotten."""
        self.clear()
        self.update(vector)
        self._noted = {*self.depths, *self.pairs}
        self.settle()


class Run(NamedTuple):
    """Consecutive structs of one client, from `clock` up to, not including, `end`."""

    client: int
    clock: int
    end: int
    start: int  # its bytes in the update
    stop: int
    first: int  # its structs, numbered within their section
    last: int  # not included


# Built by the thousand, so plain tuples:
# A struct refers to an id of another client. Its run's index, its own clock, its first byte, its number in the
# section; the client it refers to, and the clock which that client must have reached.
Need = tuple[int, int, int, int, int, int]
# Deleted ids of one client, from a clock up to, not including, an end.
Range = tuple[int, int, int]


class Scan(NamedTuple):
    """What one update brings and what it refers to outside its own client."""

    runs: list[Run]
    needs: list[Need]
    deletes: list[Range]
    is_plain: bool  # nothing inside a type that is no root, and no surrogate pairs


def _pattern(verbose: bytes) -> re.Pattern[bytes]:
    """A regular expression over bytes in which ID and CLOCK stand for a number's group, WHOSE for an id that has no
    group when it is the first id again.

    A number has one spelling, without padding. Ids have up to 8 bytes, clocks and counts up to 5; their bounds are
    checked after. Possessive, since a number cannot end in two ways: saves a quarter of the time.
    """
    for name, means in (
        (b"WHOSE", rb"(?: \1 | ID )"),
        (b"ID", rb"( [\x80-\xff]{1,7}+[\x01-\x7f] | [\x00-\x7f] )"),
        (b"CLOCK", rb"( [\x80-\xff]{1,4}+[\x01-\x7f] | [\x00-\x7f] )"),
    ):
        verbose = verbose.replace(name, means)
    return re.compile(verbose, re.VERBOSE | re.DOTALL)


# What typing makes: 1 to 4 ASCII characters behind (and before) something, at most one deleted range.
_keystroke = _pattern(rb"""
    \x01 \x01 ID CLOCK                  # 1, 2: one struct; who, from which clock
    (?: \x84 | (\xc4) ) WHOSE CLOCK     # 3: is there a right neighbour?  4, 5: the left one
    (?(3) WHOSE CLOCK )                 # 6, 7: the right one
    ( \x01 [\x00-\x7f] | \x02 [\x00-\x7f]{2} | \x03 [\x00-\x7f]{3} | \x04 [\x00-\x7f]{4} )  # 8: length, characters
    (?: \x00 | \x01 WHOSE \x01 CLOCK CLOCK )  # 9, 10, 11: whose text is deleted, from where, how much
    """).fullmatch
# One deleted range and nothing else.
_erasure = _pattern(rb"\x00 \x01 ID \x01 CLOCK CLOCK").fullmatch
# The head of a struct with one neighbour or two, up to and including the first number of its content.
_joined = _pattern(
    rb"(?: [\xc0-\xff] ID CLOCK ID CLOCK | [\x40-\xbf] ID CLOCK ) CLOCK"
).match
_section = _pattern(rb"CLOCK ID CLOCK").match
_pair = _pattern(rb"ID CLOCK").match
_span = _pattern(rb"CLOCK CLOCK").match


def _number(varint: bytes) -> int:
    """The value of a whole, well-spelt varint."""
    length = len(varint)
    if length == 1:
        return varint[0]
    if length == 2:
        return varint[0] & 127 | varint[1] << 7
    if length == 3:
        return varint[0] & 127 | (varint[1] & 127) << 7 | varint[2] << 14
    value = shift = 0
    for byte in varint:
        value |= (byte & 127) << shift
        shift += 7
    return value


class _Ids(dict[bytes, int]):
    """Varint → client id. The same few come all the time; bounded, since a hostile peer must not make it grow."""

    def __missing__(self, varint: bytes) -> int:
        value = _number(varint)
        if value >= MAX_CLIENT:
            raise Refused("client id")
        if len(self) >= 20_000:
            self.clear()
        self[varint] = value
        return value


class _Tails(dict[bytes, int]):
    """All of a varint but its first byte → what is to be added to that byte to give the value.

    A clock's tail changes once in 128 clocks, so this look-up is almost always a hit. Bounded as the ids are.
    """

    def __missing__(self, tail: bytes) -> int:
        if len(self) >= 20_000:
            self.clear()
        value = (_number(tail) << 7) - 128 if tail else 0
        self[tail] = value
        return value


_ids = _Ids()
_tails = _Tails()


def check(update: bytes, known: Known) -> list[tuple[int, int, int]] | None:
    """The (client, clock, end) runs of an update that can be integrated completely now; [] when it only deletes.

    None: it must wait, be split or be mended, which is the gate's work. When runs are returned the caller applies
    the update before anything else: how deep its structs lie and where its pairs are is recorded in `known` already.
    """
    tails = _tails
    match = _keystroke(update)
    if match is not None:
        (
            who,
            start,
            _,
            left,
            left_at,
            right,
            right_at,
            text,
            gone,
            gone_at,
            gone_length,
        ) = match.groups()
        client = _ids[who]
        clock = start[0] + tails[start[1:]]
        left_clock = left_at[0] + tails[left_at[1:]]
        end = clock + text[0]
        if end >= MAX_CLOCK:
            raise Refused("clock")
        reached = known.get(client, 0)
        if clock > reached:
            return None
        if left is None:
            if left_clock >= clock:
                raise Refused("self reference")
        elif left_clock >= known.get(_ids[left], 0):
            return None
        if right_at is not None:
            if right is None:
                if right_at[0] + tails[right_at[1:]] >= clock:
                    raise Refused("self reference")
            elif right_at[0] + tails[right_at[1:]] >= known.get(_ids[right], 0):
                return None
        if gone_at is not None:
            stop = (
                gone_at[0]
                + tails[gone_at[1:]]
                + gone_length[0]
                + tails[gone_length[1:]]
            )
            if gone_length == b"\x00" or stop >= MAX_CLOCK:
                raise Refused("deleted range")
            if stop > (max(reached, end) if gone is None else known.get(_ids[gone], 0)):
                return None
        if known.pairs:
            cuts = [(client if left is None else _ids[left], left_clock + 1)]
            if right_at is not None:
                at = right_at[0] + tails[right_at[1:]]
                cuts.append((client if right is None else _ids[right], at))
            if gone_at is not None:
                whose = client if gone is None else _ids[gone]
                cuts += ((whose, gone_at[0] + tails[gone_at[1:]]), (whose, stop))
            if known.has_pair_at(cuts):
                return None
        if known.depths and end > reached:
            whose = client if left is None else _ids[left]
            depth = known.depths.at(whose, left_clock)
            known.depths.record(client, reached, depth)
        return [(client, clock, end)]
    match = _erasure(update)
    if match is not None:
        gone, gone_at, gone_length = match.groups()
        stop = gone_at[0] + tails[gone_at[1:]] + gone_length[0] + tails[gone_length[1:]]
        if gone_length == b"\x00" or stop >= MAX_CLOCK:
            raise Refused("deleted range")
        if stop > known.get(_ids[gone], 0):
            return None
        if known.pairs:
            client, at = _ids[gone], gone_at[0] + tails[gone_at[1:]]
            if known.has_pair_at([(client, at), (client, stop)]):
                return None
        return []
    notes = Notes() if known.depths or known.pairs else None
    found = scan(update, notes)
    if not is_ready(found, known):
        return None
    if notes is None and not found.is_plain:
        notes = Notes()
        scan(update, notes)
    if notes is not None:
        known.settle()
        if any(cut_pairs(update, found, notes, known)):
            return None
        known.note(update, notes)
    return [run[:3] for run in found.runs]


def is_ready(found: Scan, known: Mapping[int, int]) -> bool:
    """Can the document integrate every struct and every deletion of this update now?"""
    runs, needs, deletes, _ = found
    get = known.get
    for run in runs:
        if run[1] > get(run[0], 0):
            return False
    inside: Vector | None = None
    for need in needs:
        client, clock = need[4], need[5]
        if clock > get(client, 0):
            if len(runs) == 1:
                return False
            if inside is None:
                inside = {run[0]: run[2] for run in runs}
            if clock > inside.get(client, 0):
                return False
    crossed = inside is not None
    for client, _, end in deletes:
        if end > get(client, 0):
            if inside is None:
                inside = {run[0]: run[2] for run in runs}
            if end > inside.get(client, 0):
                return False
    # Clients that refer to each other inside the update must not do so in a circle.
    return not crossed or all(
        at == run[2] for run, (at, _) in zip(runs, reach(found, known), strict=True)
    )


def reach(found: Scan, known: Mapping[int, int]) -> list[tuple[int, Need | None]]:
    """For each run how far it can be integrated (-1: not at all), and the reference that stops it there.

    Every run has a cursor over its references; a run that stops is woken when the client it waits for has come far
    enough. What refers to itself in a circle is never reached.
    """
    runs, needs, _, _ = found
    todo: list[list[Need]] = [[] for _ in runs]
    for need in needs:
        todo[need[0]].append(need)
    now = dict(known)
    cursors = [0] * len(runs)
    reached: list[tuple[int, Need | None]] = [(-1, None)] * len(runs)
    waiting: dict[int, list[tuple[int, int]]] = {}
    for index, run in enumerate(runs):
        if run[1] > now.get(run[0], 0):
            # There is a hole before it: woken when its own client gets there.
            heappush(waiting.setdefault(run[0], []), (run[1], index))
    active = [index for index, run in enumerate(runs) if run[1] <= known.get(run[0], 0)]
    while active:
        index = active.pop()
        mine = todo[index]
        cursor = cursors[index]
        while cursor < len(mine) and mine[cursor][5] <= now.get(mine[cursor][4], 0):
            cursor += 1
        cursors[index] = cursor
        client, _, end = runs[index][:3]
        stop = mine[cursor] if cursor < len(mine) else None
        if stop is not None:
            heappush(waiting.setdefault(stop[4], []), (stop[5], index))
            end = stop[1]
        reached[index] = (end, stop)
        if end > now.get(client, 0):
            now[client] = end
            queue = waiting.get(client, ())
            while queue and queue[0][0] <= end:
                active.append(heappop(queue)[1])
    return reached


def scan(
    update: bytes, notes: Notes | None = None, *, max_structs: int = MAX_STRUCTS
) -> Scan:
    """Read all of an update; `Refused` or `TooLarge` where it breaks a rule. Fills `notes`, if given."""
    try:
        return _scan(update, notes, max_structs)
    except IndexError:
        raise Refused("truncated") from None


def _scan(update: bytes, notes: Notes | None, max_structs: int) -> Scan:
    runs: list[Run] = []
    needs: list[Need] = []
    is_plain = True
    size = len(update)
    number, ids, tails = _number, _ids, _tails
    seen: set[int] = set()
    total = 0
    sections, p = _varint(update, 0)
    if sections > size - p:
        raise Refused("count")
    for _ in range(sections):
        match = _section(update, p)
        if match is None:
            raise Refused("section")
        own = match[2]
        count, client, clock = number(match[1]), ids[own], number(match[3])
        p = match.end()
        if count > size - p:
            raise Refused("count")
        if count == 0:
            raise Refused("empty section")  # five bytes of this make yrs 0.28 panic
        total += count
        if total > max_structs:
            raise TooLarge("structs")
        if client in seen:
            raise Refused("client twice")  # makes an endless list inside yrs
        seen.add(client)
        begin, start, first = clock, p, 0
        for index in range(count):
            info = update[p]
            kind = info & 31
            head = p
            to, to_clock, inside = -1, 0, False
            if info > 63:  # it has a neighbour, which says where it hangs
                match = _joined(update, p)
                if match is None:
                    raise Refused("struct")
                left, left_at, right, right_at, only, only_at, value_bytes = (
                    match.groups()
                )
                p = match.end()
                if only is not None:
                    left, left_at = only, only_at
                to_clock = left_at[0] + tails[left_at[1:]]
                if notes is not None:
                    # behind a left neighbour, before a right one
                    notes.cuts.append((ids[left], to_clock + (info > 127)))
                if left == own:
                    to = client
                    if to_clock >= clock:
                        raise Refused("self reference")
                else:
                    to = ids[left]
                    needs.append((len(runs), clock, head, index, to, to_clock + 1))
                if right is not None:
                    right_clock = right_at[0] + tails[right_at[1:]]
                    if notes is not None:
                        notes.cuts.append((ids[right], right_clock))
                    if right == own:
                        if right_clock >= clock:
                            raise Refused("self reference")
                    else:
                        needs.append(
                            (
                                len(runs),
                                clock,
                                head,
                                index,
                                ids[right],
                                right_clock + 1,
                            )
                        )
                value = value_bytes[0] if len(value_bytes) == 1 else number(value_bytes)
            elif kind == 0 or kind == 10:
                length, p = _varint(update, p + 1)
                if length == 0 or info & 32:
                    raise Refused("empty struct")
                if kind == 10:  # a hole: what follows is a run of its own
                    if index > first:
                        runs.append(
                            Run(client, begin, clock, start, head, first, index)
                        )
                    begin, start, first = clock + length, p, index + 1
                elif notes is not None:
                    notes.links.append((client, clock, clock + length, -1, 0, False))
                clock += length
                if clock >= MAX_CLOCK:
                    raise Refused("clock")
                continue
            else:  # no neighbour: the parent is named
                by_name, p = _varint(update, p + 1)
                if by_name == 1:
                    length, p = _varint(update, p)
                    if length > MAX_ROOT_BYTES:
                        raise TooLarge("root name")
                    p = _text(update, p, length)
                elif by_name == 0:
                    match = _pair(update, p)
                    if match is None:
                        raise Refused("parent")
                    p = match.end()
                    is_plain, inside = False, True
                    to, to_clock = ids[match[1]], number(match[2])
                    if to != client:
                        needs.append((len(runs), clock, head, index, to, to_clock + 1))
                    elif to_clock >= clock:
                        raise Refused("self reference")
                else:
                    raise Refused("parent")
                if info & 32:
                    length, p = _varint(update, p)
                    p = _name(update, p, length)
                value, p = _varint(update, p)
            length = 1
            if kind == 4:  # a string; `value` is the first number of the content
                length = value
                stop = p + value
                text = update[p:stop]
                if stop > size:
                    raise Refused("truncated")
                if not text.isascii():
                    length = _units(text)
                    if notes is not None:
                        notes.foreign.append((client, clock))
                    if max(text) > 239:
                        is_plain = False
                        if notes is not None:
                            notes.texts.append((client, clock, p, stop))
                p = stop
            elif kind == 1:  # something deleted
                length = value
            elif kind == 8:  # JSON-like values
                length = value
                if value > size - p:
                    raise Refused("count")
                p = _values(update, p, value)
            elif kind == 7:  # a shared type
                if value == 0 and notes is not None:
                    notes.lists.append((client, clock))
                if value > 6 or value == 5:
                    # 5, a hook: yrs 0.28 does not read its name and so reads on askew
                    raise Refused("type")
                if value == 3:
                    named, p = _varint(update, p)
                    p = _name(update, p, named)
            elif kind == 6:  # a format
                p = _name(update, p, value)
                length_of_value, p = _varint(update, p)
                p = _json(update, p, length_of_value)
            elif kind == 5:  # an embed
                p = _json(update, p, value)
            elif kind == 3:  # bytes
                p += value
                if p > size:
                    raise Refused("truncated")
            elif kind == 9:  # a subdocument: its id and options
                p = _name(update, p, value)
                p = _values(update, p, 1)
            else:
                # Also 2, JSON texts as before Yjs 13: yrs 0.28 reads one more than there are.
                raise Refused("kind")
            if length == 0:
                raise Refused("empty struct")
            if notes is not None:
                notes.links.append(
                    (client, clock, clock + length, to, to_clock, inside)
                )
            clock += length
            if clock >= MAX_CLOCK:
                raise Refused("clock")
        if count > first:
            runs.append(Run(client, begin, clock, start, p, first, count))
    deletes, p = _ranges(update, p)
    if p != size:
        raise Refused("trailing bytes")
    return Scan(runs, needs, deletes, is_plain)


def _ranges(update: bytes, p: int) -> tuple[list[Range], int]:
    """The delete set at `p`, and where it ends."""
    deletes: list[Range] = []
    size = len(update)
    sections, p = _varint(update, p)
    if sections > size - p:
        raise Refused("count")
    for _ in range(sections):
        match = _pair(update, p)
        if match is None:
            raise Refused("section")
        client, count = _ids[match[1]], _number(match[2])
        p = match.end()
        if count > size - p:
            raise Refused("count")
        if len(deletes) + count > MAX_RANGES:
            raise TooLarge("deleted ranges")
        for _ in range(count):
            match = _span(update, p)
            if match is None:
                raise Refused("deleted range")
            at, many = match.groups()
            clock = at[0] + _tails[at[1:]]
            length = many[0] + _tails[many[1:]]
            if length == 0 or clock + length >= MAX_CLOCK:
                raise Refused("deleted range")
            deletes.append((client, clock, clock + length))
            p = match.end()
    return deletes, p


def _varint(update: bytes, p: int) -> tuple[int, int]:
    """The number at `p`, and where it ends."""
    byte = update[p]
    p += 1
    if byte < 128:
        return byte, p
    value = byte & 127
    shift = 7
    while byte > 127:
        if shift > 28:  # no count, length or kind has more than five bytes
            raise Refused("number")
        byte = update[p]
        p += 1
        value |= (byte & 127) << shift
        shift += 7
    if byte == 0:
        raise Refused("number")
    return value, p


def _text(update: bytes, p: int, length: int) -> int:
    """Where the text of so many bytes at `p` ends."""
    end = p + length
    if end > len(update):
        raise Refused("truncated")
    text = update[p:end]
    if not text.isascii():
        _units(text)
    return end


def _name(update: bytes, p: int, length: int) -> int:
    """Where the name of so many bytes at `p` ends."""
    if length > MAX_NAME_BYTES:
        raise TooLarge("name")
    return _text(update, p, length)


def _units(encoded: bytes) -> int:
    """The UTF-16 units of a UTF-8 string, which is what a clock counts."""
    try:
        text = encoded.decode()
    except UnicodeDecodeError:
        raise Refused("utf-8") from None
    # 240 is the first byte of a character outside the basic plane; below, one character is one unit
    return (
        len(text)
        if max(encoded) < 240
        else len(text) + sum(character > "\uffff" for character in text)
    )


_brackets = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL).finditer


def _json(update: bytes, p: int, length: int) -> int:
    """Where the JSON text at `p` ends: it is parsed, and shallow."""
    end = p + length
    if end > len(update):
        raise Refused("truncated")
    text = update[p:end]
    # counting sees brackets inside strings too, so it only says "surely shallow"
    if text.count(b"[") + text.count(b"{") > MAX_NESTING:
        depth = 0
        for match in _brackets(text):
            if match[0] in b"[{":
                depth += 1
                if depth > MAX_NESTING:
                    raise Refused("nesting")
            elif match[0] in b"]}":
                depth -= 1
    try:
        orjson.loads(text)
    except ValueError:
        raise Refused("json") from None
    return end


def _values(update: bytes, p: int, count: int) -> int:
    """Where `count` values of lib0's "any" encoding end; a list stands in for recursion."""
    size = len(update)
    left = count  # values still to read at this level
    keyed = False
    outer: list[tuple[int, bool]] = []
    while True:
        while left == 0:
            if not outer:
                return p
            left, keyed = outer.pop()
        left -= 1
        if keyed:
            length, p = _varint(update, p)
            p = _text(update, p, length)
        tag = update[p]
        p += 1
        if tag == 119:  # string
            length, p = _varint(update, p)
            p = _text(update, p, length)
        elif tag == 125:  # signed number
            first = p
            while update[p] & 128:
                p += 1
            p += 1
            if p - first > 8:
                raise Refused("number")
        elif tag == 124:  # float of 32 bits
            p += 4
        elif tag == 123 or tag == 122:  # float of 64 bits, big integer
            p += 8
        elif tag == 118 or tag == 117:  # object, array
            count, p = _varint(update, p)
            if count > size - p:
                raise Refused("count")
            if len(outer) >= MAX_NESTING:
                raise Refused("nesting")
            outer.append((left, keyed))
            left, keyed = count, tag == 118
        elif tag == 116:  # bytes
            length, p = _varint(update, p)
            p += length
        elif tag not in (120, 121, 126, 127):  # true, false, null, undefined
            raise Refused("value")
        if p > size:
            raise Refused("truncated")


def cut(run: Run, need: Need) -> tuple[Run, Run]:
    """The run before the struct that has this need, and from it on."""
    _, clock, at, index, _, _ = need
    before = run._replace(end=clock, stop=at, last=index)
    return before, run._replace(clock=clock, start=at, first=index)


def cut_pairs(
    update: bytes, found: Scan, notes: Notes, known: Known
) -> tuple[list[Cut], list[Cut]]:
    """The surrogate pairs that an update cuts: those in the document, and those in its own new texts."""
    own = {
        (client, half)
        for client, clock, start, stop in notes.texts
        for half in second_halves(update[start:stop].decode(), clock)
        if half >= known.get(client, 0)
    }
    if not own and not known.pairs:
        return [], []
    cuts = set(notes.cuts)
    for client, clock, end in found.deletes:
        cuts |= {(client, clock), (client, end)}
    for run in found.runs:
        # native code cuts off what it knows already
        cuts.add((run.client, known.get(run.client, 0)))
    return sorted(cut for cut in cuts if known.pairs.has_half(*cut)), sorted(cuts & own)


def cut_texts(update: bytes, notes: Notes, cuts: Iterable[Cut]) -> bytes:
    """The update with these pairs in its own texts written as Yjs shows them when they are cut."""
    halves: dict[int, list[int]] = {}
    for client, half in cuts:
        halves.setdefault(client, []).append(half)
    parts: list[bytes] = []
    done = 0
    for client, clock, start, stop in notes.texts:
        text = update[start:stop].decode()
        shown = cut_through(text, clock, halves.get(client, ()))
        if shown != text:
            before = start - len(encode_varint(stop - start))
            encoded = shown.encode()
            parts += (update[done:before], encode_varint(len(encoded)), encoded)
            done = stop
    return b"".join((*parts, update[done:]))


def encode(update: bytes, runs: Iterable[Run], deletes: Iterable[Range]) -> bytes:
    """An update of some runs of another and some deletions; b"" when there are none.

    Structs carry no clock of their own, so a part of a run is its bytes under a section head of its own. Runs of one
    client come in clock order.
    """
    sections: dict[int, list[Run]] = {}
    for run in runs:
        sections.setdefault(run.client, []).append(run)
    spans: dict[int, list[bytes]] = {}
    for client, clock, end in deletes:
        span = encode_varint(clock) + encode_varint(end - clock)
        spans.setdefault(client, []).append(span)
    if not sections and not spans:
        return b""
    parts = [encode_varint(len(sections))]
    for client, mine in sections.items():
        structs, clock, body = 0, mine[0].clock, []
        for run in mine:
            if run.clock > clock:
                body.append(b"\x0a" + encode_varint(run.clock - clock))
                structs += 1
            body.append(update[run.start : run.stop])
            structs += run.last - run.first
            clock = run.end
        parts += map(encode_varint, (structs, client, mine[0].clock))
        parts += body
    parts.append(encode_varint(len(spans)))
    for client, theirs in spans.items():
        parts += (encode_varint(client), encode_varint(len(theirs)), *theirs)
    return b"".join(parts)


def state_vector(encoded: bytes) -> Vector:
    """A peer's state vector, read as strictly as an update."""
    try:
        count, p = _varint(encoded, 0)
    except IndexError:
        raise Refused("truncated") from None
    if count > len(encoded) - p:
        raise Refused("count")
    vector: Vector = {}
    for _ in range(count):
        match = _pair(encoded, p)
        if match is None:
            raise Refused("state vector")
        client, clock = _ids[match[1]], _number(match[2])
        if clock >= MAX_CLOCK:
            raise Refused("clock")
        vector[client] = clock
        p = match.end()
    if p != len(encoded):
        raise Refused("trailing bytes")
    if len(vector) != count:
        raise Refused("client twice")
    return vector


def encode_state_vector(vector: Mapping[int, int]) -> bytes:
    """The same bytes for equal vectors: clients in order, those never heard of left out."""
    entries = sorted((client, clock) for client, clock in vector.items() if clock > 0)
    parts = [encode_varint(len(entries))]
    for client, clock in entries:
        parts += (encode_varint(client), encode_varint(clock))
    return b"".join(parts)
