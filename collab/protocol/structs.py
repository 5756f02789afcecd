"""The structs of an update, read and checked one by one: no recursion, and nothing reserved that was only promised.

Every rule is one that native code relies on without asking, or that a browser would break over.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import orjson

from collab.errors import Refused, TooLarge
from collab.protocol.nesting import Link
from collab.protocol.pairs import Cut

# JavaScript counts exactly to here; a larger id makes the document unreadable for good.
MAX_CLIENT = 1 << 53
MAX_CLOCK = 1 << 31
MAX_NESTING = 64  # of JSON-like values; browsers give up between 1,000 and 5,000
MAX_STRUCTS = 300_000
MAX_RANGES = 300_000
MAX_ROOT_BYTES = 256
MAX_NAME_BYTES = 1024  # keys of shared maps, tags, formats


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


def pattern(verbose: bytes) -> re.Pattern[bytes]:
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


# The head of a struct with one neighbour or two, up to and including the first number of its content.
match_joined = pattern(
    rb"(?: [\xc0-\xff] ID CLOCK ID CLOCK | [\x40-\xbf] ID CLOCK ) CLOCK"
).match
match_section = pattern(rb"CLOCK ID CLOCK").match
match_pair = pattern(rb"ID CLOCK").match
_span = pattern(rb"CLOCK CLOCK").match


def number_of(varint: bytes) -> int:
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
        value = number_of(varint)
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
        value = (number_of(tail) << 7) - 128 if tail else 0
        self[tail] = value
        return value


IDS = _Ids()
TAILS = _Tails()


def scan(
    update: bytes,
    notes: Notes | None = None,
    *,
    max_structs: int = MAX_STRUCTS,
    heads: list[tuple[int, int]] | None = None,
) -> Scan:
    """Read all of an update; `Refused` or `TooLarge` where it breaks a rule.

    Fills `notes`, if given, and `heads` with the first byte and the clock of each struct.
    """
    try:
        return _scan(update, notes, max_structs, heads)
    except IndexError:
        raise Refused("truncated") from None


def _scan(
    update: bytes,
    notes: Notes | None,
    max_structs: int,
    heads: list[tuple[int, int]] | None,
) -> Scan:
    runs: list[Run] = []
    needs: list[Need] = []
    is_plain = True
    size = len(update)
    number, ids, tails = number_of, IDS, TAILS
    seen: set[int] = set()
    total = 0
    sections, p = number_at(update, 0)
    if sections > size - p:
        raise Refused("count")
    for _ in range(sections):
        match = match_section(update, p)
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
            if heads is not None:
                heads.append((head, clock))
            to, to_clock, inside = -1, 0, False
            if info > 63:  # it has a neighbour, which says where it hangs
                match = match_joined(update, p)
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
                length, p = number_at(update, p + 1)
                if length == 0 or info & 32:
                    raise Refused("empty struct")
                if kind == 10:  # a hole: what follows is a run of its own
                    if heads is not None:
                        heads.pop()
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
                by_name, p = number_at(update, p + 1)
                if by_name == 1:
                    length, p = number_at(update, p)
                    if length > MAX_ROOT_BYTES:
                        raise TooLarge("root name")
                    p = _text(update, p, length)
                elif by_name == 0:
                    match = match_pair(update, p)
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
                    length, p = number_at(update, p)
                    p = _name(update, p, length)
                value, p = number_at(update, p)
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
                p = values_end(update, p, value)
            elif kind == 7:  # a shared type
                if value == 0 and notes is not None:
                    notes.lists.append((client, clock))
                if value > 6 or value == 5:
                    # 5, a hook: yrs 0.28 does not read its name and so reads on askew
                    raise Refused("type")
                if value == 3:
                    named, p = number_at(update, p)
                    p = _name(update, p, named)
            elif kind == 6:  # a format
                p = _name(update, p, value)
                length_of_value, p = number_at(update, p)
                p = _json(update, p, length_of_value)
            elif kind == 5:  # an embed
                p = _json(update, p, value)
            elif kind == 3:  # bytes
                p += value
                if p > size:
                    raise Refused("truncated")
            elif kind == 9:  # a subdocument: its id and options
                p = _name(update, p, value)
                p = values_end(update, p, 1)
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
    deletes, p = ranges_at(update, p)
    if p != size:
        raise Refused("trailing bytes")
    return Scan(runs, needs, deletes, is_plain)


def ranges_at(update: bytes, p: int) -> tuple[list[Range], int]:
    """The delete set at `p`, and where it ends."""
    deletes: list[Range] = []
    size = len(update)
    sections, p = number_at(update, p)
    if sections > size - p:
        raise Refused("count")
    for _ in range(sections):
        match = match_pair(update, p)
        if match is None:
            raise Refused("section")
        client, count = IDS[match[1]], number_of(match[2])
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
            clock = at[0] + TAILS[at[1:]]
            length = many[0] + TAILS[many[1:]]
            if length == 0 or clock + length >= MAX_CLOCK:
                raise Refused("deleted range")
            deletes.append((client, clock, clock + length))
            p = match.end()
    return deletes, p


def number_at(update: bytes, p: int) -> tuple[int, int]:
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


# The first bytes of characters outside the basic plane, which are two units; all others are one.
_ASTRAL = bytes(range(0xF0, 0xF8))


def _units(encoded: bytes) -> int:
    """The UTF-16 units of a UTF-8 string, which is what a clock counts."""
    if encoded.isascii():
        return len(encoded)
    try:
        text = encoded.decode()
    except UnicodeDecodeError:
        raise Refused("utf-8") from None
    return len(text) + len(encoded) - len(encoded.translate(None, _ASTRAL))


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


def values_end(update: bytes, p: int, count: int) -> int:
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
            length, p = number_at(update, p)
            p = _text(update, p, length)
        tag = update[p]
        p += 1
        if tag == 119:  # string
            length, p = number_at(update, p)
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
            count, p = number_at(update, p)
            if count > size - p:
                raise Refused("count")
            if len(outer) >= MAX_NESTING:
                raise Refused("nesting")
            outer.append((left, keyed))
            left, keyed = count, tag == 118
        elif tag == 116:  # bytes
            length, p = number_at(update, p)
            p += length
        elif tag not in (120, 121, 126, 127):  # true, false, null, undefined
            raise Refused("value")
        if p > size:
            raise Refused("truncated")
