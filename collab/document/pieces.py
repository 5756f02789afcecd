"""The pieces that updates are made of, for an order of them: read quickly, since the guard has proven each update."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from collab.document.units import bytes_of, cut_at_unit, units_of
from collab.errors import Refused
from collab.protocol.structs import (
    IDS,
    MAX_CLOCK,
    TAILS,
    Range,
    match_joined,
    match_pair,
    match_section,
    number_at,
    number_of,
    ranges_at,
    values_end,
)

if TYPE_CHECKING:
    from collab.document.order import Block, Line

ROOT = -1  # the kind of a shared type that does not say it
MANY = 500  # structs of one client for which it is worth while to look for its own id
MAX_PIECE = 4096  # units of text: what is looked through for one character

Ref = tuple[int, int]  # a client and a clock
# What is no text as the update has it: its kind, its bytes, and how many values in them come before.
Content = tuple[int, bytes, int]
# A piece refers to an id of another client: its number in the section, that client, and the clock.
Need = tuple[int, int, int]
Section = tuple[int, "list[Piece]", list[Need]]  # of one client


class Lines(dict[str | None, "Line"]):
    """What hangs in a shared type, by key; the list under None."""

    __slots__ = ("kind", "tag")

    def __init__(self, kind: int, tag: str = "") -> None:
        self.kind = kind  # as updates number them; a root does not say it
        self.tag = tag


class Piece:
    """Ids of one client in a row, beside each other in the order as far as anybody knows."""

    __slots__ = (
        "block",
        "client",
        "clock",
        "content",
        "is_countable",
        "is_deleted",
        "key",
        "left",
        "line",
        "lines",
        "octets",
        "origin",
        "parent",
        "right",
        "right_origin",
        "size",
        "text",
        "units",
    )

    def __init__(
        self,
        client: int,
        clock: int,
        units: int,
        origin: Ref | None,
        right_origin: Ref | None,
        text: str | None,
        is_countable: bool,
    ) -> None:
        self.client = client
        self.clock = clock
        self.units = units
        self.origin = origin  # what stood before it when it was inserted
        self.right_origin = right_origin
        self.text = text
        self.is_countable = is_countable
        self.is_deleted = False
        # What it counts for now: characters, and bytes as native code counts.
        if text is not None:
            self.size = self.octets = len(text)
            if not text.isascii():
                self.octets = bytes_of(text)
        else:
            self.size = self.octets = units if is_countable else 0
        self.line: Line | None = None  # None once it is gone with its parent
        self.left: Piece | None = None
        self.right: Piece | None = None
        self.block: Block | None = None
        # Where it hangs, if no neighbour says so.
        self.parent: str | Ref | None = None
        self.key: str | None = None
        self.lines: Lines | None = None  # if it is a shared type
        self.content: Content | None = None  # if it is a value

    @property
    def end(self) -> int:
        """The clock behind it."""
        return self.clock + self.units

    @property
    def is_gone(self) -> bool:
        """It went with its parent: nobody knows any more where it was."""
        return self.line is None and not (
            self.origin or self.right_origin or self.parent is not None
        )

    def cut(self, units: int) -> Piece:
        """Keep so many units; the rest as a piece of its own, in no line yet."""
        head, tail = (
            (None, None) if self.text is None else cut_at_unit(self.text, units)
        )
        rest = Piece(
            self.client,
            self.clock + units,
            self.units - units,
            (self.client, self.clock + units - 1),
            self.right_origin,
            tail,
            self.is_countable,
        )
        self.units = units
        if head is not None:
            self.text, self.size, self.octets = head, len(head), bytes_of(head)
        elif self.size:
            self.size = self.octets = units
        if self.content is not None:
            kind, values, skipped = self.content
            rest.content = kind, values, skipped + units
        if self.is_deleted:
            rest.delete()
        return rest

    def delete(self) -> None:
        """It counts for nothing any more."""
        self.is_deleted = True
        self.text = self.content = None
        self.size = self.octets = 0


def read(update: bytes) -> tuple[list[Section], list[Range]]:
    """The pieces of an update by client, and what it deletes. Raises Refused."""
    try:
        return _read(update)
    except IndexError:
        raise Refused("truncated") from None
    except UnicodeDecodeError:
        raise Refused("utf-8") from None


def _read(update: bytes) -> tuple[list[Section], list[Range]]:
    sections: list[Section] = []
    seen: set[int] = set()
    ids, tails = IDS, TAILS
    size = len(update)
    count, p = number_at(update, 0)
    for _ in range(count):
        match = match_section(update, p)
        if match is None:
            raise Refused("section")
        own = match[2]
        structs, client, clock = number_of(match[1]), ids[own], number_of(match[3])
        p = match.end()
        if client in seen:
            raise Refused("client twice")
        seen.add(client)
        pieces: list[Piece] = []
        needs: list[Need] = []
        match_own = _between_own(own) if structs >= MANY else None
        known_at, known, behind = b"", (client, 0), 0  # of the last right neighbour
        for _ in range(structs):
            info = update[p]
            kind = info & 31
            origin: Ref | None = None
            right_origin: Ref | None = None
            parent: str | Ref | None = None
            key: str | None = None
            match = match_own(update, p) if match_own is not None else None
            if match is not None:
                left_at, right_at, value_bytes = match.groups()
                p = match.end()
                before = left_at[0] + tails[left_at[1:]]
                if right_at != known_at:  # who types on has the same one behind it
                    known_at, behind = right_at, right_at[0] + tails[right_at[1:]]
                    known = client, behind
                if before >= clock or behind >= clock:
                    raise Refused("self reference")
                origin, right_origin = (client, before), known
                value = value_bytes[0] if len(value_bytes) == 1 else number_of(value_bytes)  # fmt: skip
            elif info > 63:
                match = match_joined(update, p)
                if match is None:
                    raise Refused("struct")
                left, left_at, right, right_at, only, only_at, value_bytes = (
                    match.groups()
                )
                p = match.end()
                if only is not None:
                    left, left_at = only, only_at
                clock_of = left_at[0] + tails[left_at[1:]]
                if left == own:
                    if clock_of >= clock:
                        raise Refused("self reference")
                    origin = client, clock_of
                else:
                    origin = ids[left], clock_of
                    needs.append((len(pieces), *origin))
                if right is not None:
                    clock_of = right_at[0] + tails[right_at[1:]]
                    if right == own:
                        if clock_of >= clock:
                            raise Refused("self reference")
                        right_origin = client, clock_of
                    else:
                        right_origin = ids[right], clock_of
                        needs.append((len(pieces), *right_origin))
                elif info < 128:
                    origin, right_origin = None, origin
                value = value_bytes[0] if len(value_bytes) == 1 else number_of(value_bytes)  # fmt: skip
            elif kind == 0 or kind == 10:
                value, p = number_at(update, p + 1)
                if kind == 0:
                    pieces.append(_gone(client, clock, value))
                clock += value
                if not value or clock >= MAX_CLOCK:
                    raise Refused("clock")
                continue
            else:
                by_name, p = number_at(update, p + 1)
                if by_name:
                    parent, p = _string(update, p)
                else:
                    match = match_pair(update, p)
                    if match is None:
                        raise Refused("parent")
                    parent = ids[match[1]], number_of(match[2])
                    p = match.end()
                    if parent[0] != client:
                        needs.append((len(pieces), *parent))
                    elif parent[1] >= clock:
                        raise Refused("self reference")
                if info & 32:
                    key, p = _string(update, p)
                value, p = number_at(update, p)
            length = 1
            text: str | None = None
            if kind == 4:
                if p + value > size:
                    raise Refused("truncated")
                text = update[p : p + value].decode()
                length = value if len(text) == value else units_of(text)
                p += value
            elif kind == 1:
                length = value
            elif kind == 8:
                length = value
                stop = values_end(update, p, value)
                held, p = update[p:stop], stop
            elif kind == 7:
                tag = ""
                if value == 3:
                    tag, p = _string(update, p)
            elif kind == 6:
                value, p = number_at(update, p + value)
                p += value
            elif kind == 5 or kind == 3:
                held = update[p : p + value]
                p += value
            elif kind == 9:
                held = update[p : p + value]
                p = values_end(update, p + value, 1)
            else:
                raise Refused("kind")
            if not length or clock + length >= MAX_CLOCK:
                raise Refused("clock")
            if text is not None and length > MAX_PIECE:
                parts = _parts(client, clock, text, origin, right_origin)
                parts[0].parent, parts[0].key = parent, key
                pieces += parts
                clock += length
                continue
            piece = Piece(
                client,
                clock,
                length,
                origin,
                right_origin,
                text,
                kind != 1 and kind != 6,
            )
            if parent is not None:
                piece.parent = parent
                piece.key = key
            if kind == 1:
                piece.is_deleted = True
            elif kind == 7:
                piece.lines = Lines(value, tag)
            elif text is None and kind != 6:
                piece.content = kind, held, 0
            pieces.append(piece)
            clock += length
        sections.append((client, pieces, needs))
    deletes, p = ranges_at(update, p)
    if p != size:
        raise Refused("trailing bytes")
    return sections, deletes


def _between_own(own: bytes) -> Callable[[bytes, int], re.Match[bytes] | None]:
    """Matches what `match_joined` does, in half of the time, where both neighbours are of this client."""
    clock = rb"([\x80-\xff]{1,4}+[\x01-\x7f]|[\x00-\x7f])"
    id_ = re.escape(own)
    return re.compile(
        rb"[\xc0-\xff]" + id_ + clock + id_ + clock + clock, re.DOTALL
    ).match


def _parts(
    client: int, clock: int, text: str, origin: Ref | None, right_origin: Ref | None
) -> list[Piece]:
    """A long text as several pieces."""
    pieces = []
    for start in range(0, len(text), MAX_PIECE // 2):
        part = text[start : start + MAX_PIECE // 2]
        units = units_of(part)
        pieces.append(Piece(client, clock, units, origin, right_origin, part, True))
        clock += units
        origin = client, clock - 1
    return pieces


def _gone(client: int, clock: int, units: int) -> Piece:
    piece = Piece(client, clock, units, None, None, None, False)
    piece.is_deleted = True
    return piece


def _string(update: bytes, p: int) -> tuple[str, int]:
    length, p = number_at(update, p)
    end = p + length
    if end > len(update):
        raise Refused("truncated")
    return update[p:end].decode(), end
