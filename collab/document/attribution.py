"""Who inserted and who deleted which characters, and when: read from the log, kept as a few bytes per run.

The log rows are the truth of this; what is here can be made again from them for as long as they are kept. An id is
credited to the first row that brings it, a deletion to the first that tells of it, so that a client which repeats what
it was sent is not taken for its author.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import orjson

from collab.errors import InvalidMessage, Refused
from collab.protocol.structs import MAX_CLIENT, MAX_CLOCK, scan
from collab.protocol.varint import Reader, encode_bytes, encode_varint
from collab.store.base import Author, Row

VERSION = 1
MINUTE = 60_000  # milliseconds: a finer time would cost more than the rest
MAX_DECODED_BYTES = 256 << 20
# What is said of the turns of one principal; when it is more, the oldest are not told apart any more.
MAX_SAID_BYTES = 2 << 20
NOBODY = 0  # the author of what was there before the log began
_UNBOUNDED = 1 << 40  # what the log holds was checked when it came in

_varints = re.compile(rb"[\x80-\xff]*+[\x00-\x7f]").findall
_MANY = rb"(?:[\x80-\xff]*+[\x00-\x7f]){%d}+"

# Part of a client's ids: from, up to, number of the author, minutes since 1970.
Run = tuple[int, int, int, int]


class Credit(NamedTuple):
    """All that one author did under one turn, or without any."""

    author: Author  # without a connection
    first: int  # positions of the first and the last row
    last: int
    began: int  # when these were logged, in milliseconds
    ended: int


class Runs:
    """Runs of one client in order, none overlapping; neighbours of one author and minute are one."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: list[Run] = []

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, start: int, end: int, author: int, minute: int) -> None:
        """Credit what is not credited yet."""
        runs = self._runs
        if not runs or start >= runs[-1][1]:
            self._append(start, end, author, minute)
            return
        while start < end:
            at = self._first(start)
            if at < len(runs) and runs[at][0] <= start:
                start = runs[at][1]
                continue
            stop = min(runs[at][0], end) if at < len(runs) else end
            self._insert(at, start, stop, author, minute)
            start = stop

    def renumber(self, numbers: Sequence[int]) -> None:
        """Give each author another number."""
        self._runs = [
            (start, end, numbers[author], minute)
            for start, end, author, minute in self._runs
        ]

    def append(self, run: Run) -> None:
        """One that comes after all others; for who decodes them."""
        self._runs.append(run)

    def _append(self, start: int, end: int, author: int, minute: int) -> None:
        runs = self._runs
        if runs:
            first, last, *known = runs[-1]
            if last == start and known == [author, minute]:
                runs[-1] = (first, end, author, minute)
                return
        runs.append((start, end, author, minute))

    def _insert(self, at: int, start: int, end: int, author: int, minute: int) -> None:
        """Between two others, joined to those that it continues."""
        runs = self._runs
        first = last = at
        if at and runs[at - 1][1:] == (start, author, minute):
            first, start = at - 1, runs[at - 1][0]
        if at < len(runs) and runs[at][0] == end and runs[at][2:] == (author, minute):
            last, end = at + 1, runs[at][1]
        runs[first:last] = [(start, end, author, minute)]

    def whole(self, start: int, end: int) -> Iterator[Run]:
        """All of these ids; nobody is credited with what is not known."""
        for run in self.between(start, end):
            if start < run[0]:
                yield start, run[0], NOBODY, 0
            yield run
            start = run[1]
        if start < end:
            yield start, end, NOBODY, 0

    def finder(self) -> Callable[[int, int], Iterable[Run]]:
        """The same as `whole`, for who asks often while nothing changes."""
        runs, starts = self._runs, [run[0] for run in self._runs]

        def find(start: int, end: int) -> Iterable[Run]:
            at = bisect_right(starts, start) - 1
            if at >= 0:
                _, until, author, minute = runs[at]
                if until >= end:  # as nearly always
                    return ((start, end, author, minute),)
            return self.whole(start, end)

        return find

    def _first(self, start: int) -> int:
        """The first that ends behind an id."""
        at = bisect_right(self._runs, (start, _UNBOUNDED, 0, 0))
        return at - 1 if at and self._runs[at - 1][1] > start else at

    def between(self, start: int, end: int) -> Iterator[Run]:
        """What is credited of these ids, cut to them."""
        runs = self._runs
        at = self._first(start)
        while at < len(runs) and runs[at][0] < end:
            first, last, author, minute = runs[at]
            yield max(first, start), min(last, end), author, minute
            at += 1


class Attribution:
    """The credits of one document."""

    def __init__(self) -> None:
        nobody = Author("", "")
        self.credits: list[Credit] = [Credit(nobody, 0, 0, 0, 0)]
        self.inserted: dict[int, Runs] = {}
        self.deleted: dict[int, Runs] = {}
        self._numbers: dict[Author, int] = {nobody: NOBODY}

    def take(self, row: Row) -> None:
        """Credit what a row of the log brings; one that cannot be read brings nothing."""
        try:
            found = scan(row.update, max_structs=_UNBOUNDED)
        except Refused:
            return
        number, minute = self._number(row), row.milliseconds // MINUTE
        for client, clock, end, *_ in found.runs:
            self._of(self.inserted, client).add(clock, end, number, minute)
        for client, clock, end in found.deletes:
            self._of(self.deleted, client).add(clock, end, number, minute)

    def take_unknown(self, snapshot: bytes) -> None:
        """What is in a document although the log does not reach back to who brought it."""
        found = scan(snapshot, max_structs=_UNBOUNDED)
        for client, clock, end, *_ in found.runs:
            self._of(self.inserted, client).add(clock, end, NOBODY, 0)
        for client, clock, end in found.deletes:
            self._of(self.deleted, client).add(clock, end, NOBODY, 0)

    @staticmethod
    def _of(clients: dict[int, Runs], client: int) -> Runs:
        runs = clients.get(client)
        if runs is None:
            runs = clients[client] = Runs()
        return runs

    def _number(self, row: Row) -> int:
        at, position = row.milliseconds, row.position
        author = row.author._replace(connection="")
        number = self._numbers.get(author)
        if number is None:
            number = self._numbers[author] = len(self.credits)
            self.credits.append(Credit(author, position, position, at, at))
        elif position > self.credits[number].last:
            self.credits[number] = self.credits[number]._replace(
                last=position, ended=at
            )
        return number

    def encode(self) -> bytes:
        """Own bytes, compressed; `decode` reads them. Of whoever has too many turns, the oldest are forgotten."""
        self._forget()
        authors = [
            [*credit.author[:1], *credit.author[2:], *credit[1:]]
            for credit in self.credits[1:]
        ]
        head = orjson.dumps(authors)
        numbers: list[int] = []
        for clients in (self.inserted, self.deleted):
            numbers.append(len(clients))
            for client in sorted(clients):
                numbers += (client, len(clients[client]))
        columns: list[list[int]] = [[], [], [], []]
        for clients in (self.inserted, self.deleted):
            for client in sorted(clients):
                _encode_runs(clients[client], columns)
        for column in columns:
            numbers += column
        body = encode_bytes(head) + b"".join(map(encode_varint, numbers))
        return bytes((VERSION,)) + zlib.compress(body, 9)

    def _forget(self) -> None:
        """Credit the oldest turns of whoever has too many to that principal alone."""
        sizes: Counter[str] = Counter()
        for author, *_ in self.credits:
            sizes[author.principal] += _said_bytes(author)
        # Down to half of it, so that it is not done again at once.
        over = {
            principal: size - MAX_SAID_BYTES // 2
            for principal, size in sizes.items()
            if size > MAX_SAID_BYTES
        }
        if not over:
            return
        known, self.credits = self.credits, self.credits[:1]
        self._numbers = {known[NOBODY].author: NOBODY}
        numbers = [NOBODY] * len(known)
        for number in sorted(range(1, len(known)), key=lambda one: known[one].last):
            author, first, last, began, ended = known[number]
            if over.get(author.principal, 0) > 0:
                over[author.principal] -= _said_bytes(author)
                author = Author(author.principal, "")
            numbers[number] = at = self._numbers.setdefault(author, len(self.credits))
            if at == len(self.credits):
                self.credits.append(Credit(author, first, last, began, ended))
            else:
                there = self.credits[at]
                self.credits[at] = Credit(
                    author,
                    min(first, there.first),
                    max(last, there.last),
                    min(began, there.began),
                    max(ended, there.ended),
                )
        for clients in (self.inserted, self.deleted):
            for runs in clients.values():
                runs.renumber(numbers)

    @classmethod
    def decode(cls, encoded: bytes, *, is_whole: bool = True) -> Attribution:
        """What `encode` wrote. Raises InvalidMessage for anything else. If it need not be whole, only who inserted what is
        read: mostly that is the smaller part.
        """
        found, reader = cls(), _inflated(encoded)
        for credit in _decode_credits(reader):
            found._numbers[credit.author] = len(found.credits)
            found.credits.append(credit)
        _decode_runs(found, reader, is_whole=is_whole)
        return found


def _said_bytes(author: Author) -> int:
    return len(author.turn or "") + len(author.about)


def credits_in(encoded: bytes) -> list[Credit]:
    """Only who and when, which is quickly read. Raises InvalidMessage."""
    return _decode_credits(_inflated(encoded))


def _inflated(encoded: bytes) -> Reader:
    if encoded[:1] != bytes((VERSION,)):
        raise InvalidMessage("an attribution of another version")
    inflate = zlib.decompressobj()
    try:
        body = inflate.decompress(encoded[1:], MAX_DECODED_BYTES)
    except zlib.error:
        raise InvalidMessage("an attribution that cannot be read") from None
    if not inflate.eof or inflate.unused_data:
        raise InvalidMessage("an attribution that cannot be read")
    return Reader(body)


def _decode_credits(reader: Reader) -> list[Credit]:
    try:
        return [
            Credit(Author(principal, "", turn, about), *rest)
            for principal, turn, about, *rest in orjson.loads(reader.read_bytes())
        ]
    except (ValueError, TypeError):
        raise InvalidMessage("an attribution that cannot be read") from None


def _encode_runs(runs: Runs, columns: list[list[int]]) -> None:
    """Column by column, as differences: alike stands beside alike, and shrinks."""
    gaps, lengths, authors, minutes = columns
    at, then = 0, 0
    for start, end, author, minute in runs:
        gaps.append(start - at)
        lengths.append(end - start)
        authors.append(author)
        minutes.append(_zigzag(minute - then))
        at, then = end, minute


class _Numbers(dict[bytes, int]):
    """Varint → number: most of them come many times."""

    def __missing__(self, varint: bytes) -> int:
        number = self[varint] = Reader(varint).read_varint()
        return number


def _decode_runs(found: Attribution, reader: Reader, *, is_whole: bool) -> None:
    sizes = []
    for clients in (found.inserted, found.deleted):
        for _ in range(reader.read_varint()):
            client, count = reader.read_varint(), reader.read_varint()
            if client >= MAX_CLIENT or client in clients:
                raise InvalidMessage("an attribution that cannot be read")
            clients[client] = Runs()
            sizes.append((clients[client], count))
    total = sum(count for _, count in sizes)
    if not is_whole:
        del sizes[len(found.inserted) :]
    some = sum(count for _, count in sizes)
    columns = zip(*_columns(reader, some, total - some), strict=True)
    for runs, count in sizes:
        end = minute = 0
        for gap, length, author, more in islice(columns, count):
            start = end + gap
            end = start + length
            minute += _unzigzag(more)
            if end >= MAX_CLOCK or not length or author >= len(found.credits):
                raise InvalidMessage("an attribution that cannot be read")
            runs.append((start, end, author, minute))


def _columns(reader: Reader, some: int, more: int) -> list[Iterator[int]]:
    """The first numbers of each of four columns, which end the frame. Nothing is made of those that are passed over."""
    frame, at = reader.frame, reader.at
    if 4 * (some + more) > len(frame) - at:
        raise InvalidMessage("an attribution that cannot be read")
    wanted, others = (re.compile(_MANY % count).match for count in (some, more))
    number_of = _Numbers().__getitem__
    columns: list[Iterator[int]] = []
    for _ in range(4):
        match = wanted(frame, at)
        rest = match and others(frame, match.end())
        if match is None or rest is None:
            raise InvalidMessage("an attribution that cannot be read")
        columns.append(map(number_of, _varints(match[0])))
        at = rest.end()
    if at != len(frame):
        raise InvalidMessage("an attribution that cannot be read")
    return columns


def _zigzag(number: int) -> int:
    return number << 1 if number >= 0 else (-number << 1) - 1


def _unzigzag(number: int) -> int:
    return number >> 1 if not number & 1 else -((number + 1) >> 1)


def attribute(
    previous: bytes | None, rows: Iterable[Row], *, base: bytes | None = None
) -> bytes:
    """An encoded attribution with further rows of the log taken in, in their order.

    Without a previous one it begins at the first row; `base` is then the checkpoint before it, when the log no longer
    reaches back to the beginning: nobody is credited with that. Raises InvalidMessage for a previous one that cannot
    be read, which should then be made anew.
    """
    found = Attribution() if previous is None else Attribution.decode(previous)
    if previous is None and base is not None:
        found.take_unknown(base)
    for row in rows:
        found.take(row)
    return found.encode()
