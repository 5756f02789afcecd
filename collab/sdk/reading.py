"""What an agent has read, held against what is there now: what others have changed since, and what of it an edit meets."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Literal, NamedTuple

from collab.document.anchor import Anchor, Id, Place, Root, Side
from collab.document.characters import Change, places
from collab.document.order import Span
from collab.document.prose import Prose
from collab.errors import AnchorNotFound
from collab.sdk import sections as markdown
from collab.sdk.errors import Invalid
from collab.sdk.places import Places
from collab.sdk.words import is_inside_word, widened

MAX_MATCHES = 100
SNIPPET_CHARACTERS = 40  # on either side

Runs = Sequence[tuple[int, int]]  # clocks from, up to


@dataclass(frozen=True, slots=True)
class Version:
    """Which document was read: its history, and what it held of each client."""

    epoch: str
    state_vector: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Match:
    """Characters of a text, by anchors: it stays on them, whatever is written around."""

    start: Anchor
    end: Anchor
    snippet: str = field(repr=False)  # with something of what is around
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a Markdown text: its heading's line and what follows, up to the next heading that is no deeper.

    `body` is where the first line after the heading begins, `end` where the last thing said in it ends.
    """

    level: int
    title: str
    text: str = field(repr=False)
    start: Anchor
    body: Anchor
    end: Anchor


@dataclass(frozen=True, slots=True)
class Changed:
    """What somebody else has done where we read: `inserted` stands from start to end, `deleted` was there."""

    kind: Literal["inserted", "deleted"]
    start: Anchor
    end: Anchor
    text: str = field(repr=False)


@dataclass(frozen=True)
class Reading:
    """A text as it was when it was read. Indices are characters of `text`.

    `text` is Markdown made of a rich text when that was asked for; then there are neither indices nor sections.
    """

    text: str = field(repr=False)
    root: str
    version: Version
    known: Known | None = field(repr=False)
    outline: tuple[markdown.Span, ...] | None = field(
        default=None, repr=False
    )  # of XML, all of it

    def at(self, index: int, side: Side = Side.RIGHT) -> Anchor:
        """The place before a character, held by that character or by the one before it. Raises Invalid."""
        if self.known is None or not 0 <= index <= len(self.text):
            raise Invalid("there is no such place in what was read")
        return self.known.anchor(self.known.start + index, side)

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """All sections, in order; those inside others too."""
        if self.known is None:
            return ()
        if self.outline is None:
            return tuple(self._section(span) for span in markdown.sections(self.text))
        first, last = self.known.start, self.known.end
        return tuple(
            self._section(
                markdown.Span(
                    span.level,
                    span.title,
                    span.start - first,
                    span.body - first,
                    min(span.end, last) - first,
                )
            )
            for span in self.outline
            if first <= span.start and span.body <= last
        )

    def section(self, title: str) -> Section:
        """The one of this title. Raises NotFound, or Ambiguous with the sections that bear it."""
        return markdown.titled(self.sections, title)

    def find(self, text: str) -> list[Match]:
        """The places where it says this, the first hundred of them."""
        found = list(islice(places(self.text, text), MAX_MATCHES)) if text else []
        return [self.match(at, len(text)) for at in found]

    def match(self, at: int, length: int) -> Match:
        """Some of its characters. Raises Invalid."""
        return Match(
            self.at(at),
            self.at(at + length, Side.LEFT),
            snippet(self.text, at, at + length),
            self.text[at : at + length],
        )

    def _section(self, span: markdown.Span) -> Section:
        _, end = markdown.content(self.text, span)
        return Section(
            span.level,
            span.title,
            self.text[span.start : span.end],
            self.at(span.start),
            self.at(span.body, Side.LEFT),
            self.at(end, Side.LEFT),
        )


def snippet(text: str, start: int, stop: int) -> str:
    """Some characters and what is around them."""
    return text[max(start - SNIPPET_CHARACTERS, 0) : stop + SNIPPET_CHARACTERS]


class Part(NamedTuple):
    """Some characters, known or not, in the order of both: where they are now, and where they were when read."""

    kind: Literal["same", "own", "foreign", "missing"]
    at: int  # now; of the missing, where they would be
    size: int
    was: int  # when read; of the others, nothing


class Known:
    """The characters from one place of a root up to another, by their ids, as they were when read."""

    def __init__(
        self,
        root: Root,
        start: int,
        text: str,
        spans: Sequence[Span],
        *,
        is_whole: bool,
        prose: Prose | None = None,
    ) -> None:
        self.root, self.start, self.text = root, start, text
        self.prose = prose  # as it was, of what are not the characters of one text
        self.is_whole = is_whole  # all there was: also what comes before and behind
        self.spans = spans

    @cached_property
    def _by_client(self) -> dict[int, list[Span]]:
        """In the order of their clocks."""
        found: dict[int, list[Span]] = {}
        for span in sorted(self.spans, key=_clock):
            found.setdefault(span.client, []).append(span)
        return found

    @property
    def end(self) -> int:
        """Behind the last of them."""
        return self.start + len(self.text)

    def anchor(self, index: int, side: Side) -> Anchor:
        """A place in it, by its index in the root when it was read."""
        if self.prose is not None:
            return self.prose.anchor(index, side)
        at = index - (side is Side.LEFT)
        if side is Side.LEFT and index == self.start:
            # Before it stands what was not read.
            return (
                Anchor(None, self.root, side)
                if not index
                else self.anchor(index, Side.RIGHT)
            )
        if at >= self.end:
            last = self.end and self.spans
            return self.anchor(index, Side.LEFT) if last else Anchor(None, self.root)
        span = self.spans[bisect_right(self.spans, at, key=_start) - 1]
        width = span.units // span.size
        clock = span.clock + (at - span.start) * width
        return Anchor(
            Id(span.client, clock + (width - 1 if side is Side.LEFT else 0)),
            self.root,
            side,
        )

    def covers(self, order: Places, start: int, stop: int) -> bool:
        """Whether what stands there now stands where this was read."""
        first, last = self.bounds(order)
        return first <= start and stop <= last

    def bounds(self, order: Places) -> tuple[int, int]:
        """From where to where it is now, with what has come in between."""
        if self.is_whole:
            return 0, order.length(self.root)
        if not self.spans:
            return 0, -1
        try:
            start = order.resolve(self.anchor(self.start, Side.RIGHT)).index
            return start, order.resolve(self.anchor(self.end, Side.LEFT)).index
        except AnchorNotFound:  # nobody knows any more where that was
            return 0, -1

    def was(self, client: int, clock: int) -> tuple[int, int] | None:
        """Where a character was, and how many with ids in a row follow it."""
        spans = self._by_client.get(client, ())
        number = bisect_right(spans, clock, key=_clock) - 1
        if number < 0 or clock >= spans[number].clock + spans[number].units:
            return None
        span = spans[number]
        skipped = (clock - span.clock) * span.size // span.units
        return span.start + skipped, span.size - skipped

    def between(self, start: object, end: object) -> tuple[int, int] | None:
        """From where to where two anchors were that hold characters of what was read, from outside or from inside."""
        places = []
        for anchor in (start, end):
            found = (
                isinstance(anchor, Anchor) and anchor.item and self.was(*anchor.item)
            )
            if not found or not isinstance(anchor, Anchor):
                return None
            places.append(found[0] + (anchor.side is Side.LEFT))
        return places[0], places[1]

    def compare(
        self,
        order: Places,
        start: int,
        stop: int,
        *,
        own: int,
        dropped: Callable[[int, int, int], Iterable[tuple[int, int]]],
        text: str,
        was: tuple[int, int] | None = None,
    ) -> View:
        """What is known of the characters from `start` to `stop`, and what was there.

        `was` says which of what was read is meant, where that is known; otherwise what was between those that still
        are. `own` is the client that we write as, `dropped` tells what of a run of ids we did not delete ourselves.
        """
        parts: list[Part] = []
        seen: dict[int, list[tuple[int, int]]] = {}
        for span in order.spans(self.root, start, stop):
            width = span.units // span.size
            at = 0
            while at < span.size:
                clock = span.clock + at * width
                found = self.was(span.client, clock)
                if found is None:
                    size = self._unknown(span.client, clock, span.size - at, width)
                    is_own = span.client == own
                    if self._had(span.client, clock):  # whoever put it behind a break
                        is_own = bool(parts) and parts[-1].kind == "own"
                    kind: Literal["own", "foreign"] = "own" if is_own else "foreign"
                    parts.append(Part(kind, span.start + at, size, -1))
                else:
                    size = min(found[1], span.size - at)
                    parts.append(Part("same", span.start + at, size, found[0]))
                    seen.setdefault(span.client, []).append(
                        (clock, clock + size * width)
                    )
                at += size
        known = [part for part in parts if part.kind == "same"]
        if was is None and known:
            was = known[0].was, known[-1].was + known[-1].size
            was = self._to_words(was, text, start, stop)
        if was is not None:
            parts += self._missing(order, was, seen, dropped)
        # What is gone stood before what is there now.
        parts.sort(key=lambda part: (part.at, part.kind != "missing", part.was))
        return View(self, parts, text, start)

    def _had(self, client: int, clock: int) -> bool:
        """Whether it is an element that was there, at the beginning of the one that it is in."""
        return self.prose is not None and Id(client, clock) in self.prose.nodes

    def _to_words(
        self, was: tuple[int, int], text: str, start: int, stop: int
    ) -> tuple[int, int]:
        """A word of which others have cut off the beginning or the end was a whole one."""
        first, last, said = was[0] - self.start, was[1] - self.start, self.text
        if not is_inside_word(text, start):
            while is_inside_word(said, first):
                first -= 1
        if not is_inside_word(text, stop):
            while is_inside_word(said, last):
                last += 1
        return first + self.start, last + self.start

    def _unknown(self, client: int, clock: int, most: int, width: int) -> int:
        """How many characters follow before the next that was read."""
        spans = self._by_client.get(client, ())
        number = bisect_right(spans, clock, key=_clock)
        if number == len(spans):
            return most
        return min(most, (spans[number].clock - clock) // width)

    def _missing(
        self,
        order: Places,
        was: tuple[int, int],
        seen: dict[int, list[tuple[int, int]]],
        dropped: Callable[[int, int, int], Iterable[tuple[int, int]]],
    ) -> list[Part]:
        """What others have deleted of a part of what was read."""
        for runs in seen.values():
            runs.sort()
        found: list[Part] = []
        first = max(bisect_right(self.spans, was[0], key=_start) - 1, 0)
        for span in islice(self.spans, first, None):
            if span.start >= was[1]:
                break
            width = span.units // span.size
            start = max(span.start, was[0]) - span.start
            stop = min(span.start + span.size, was[1]) - span.start
            clock, end = span.clock + start * width, span.clock + stop * width
            for gone, up_to in _without(clock, end, seen.get(span.client, ())):
                for begin, finish in dropped(span.client, gone, up_to):
                    place = order.resolve(Anchor(Id(span.client, begin), self.root))
                    if isinstance(place, Place):  # at a beginning now, without a break
                        continue
                    index = span.start + (begin - span.clock) // width
                    found.append(
                        Part("missing", place.index, (finish - begin) // width, index)
                    )
        return found


@dataclass(frozen=True, slots=True)
class View:
    """What was known of some characters and what is there now, side by side."""

    known: Known
    parts: Sequence[Part]
    now: str = field(repr=False)  # the whole root
    start: int  # of it, where this begins

    @property
    def is_stale(self) -> bool:
        """Others have changed it."""
        return any(part.kind in ("foreign", "missing") for part in self.parts)

    @property
    def base(self) -> str:
        """What we take it to be: as it was read, with what we ourselves have done since."""
        return "".join(
            self._said(part) for part in self.parts if part.kind != "foreign"
        )

    def changed(
        self, order: Places, parts: Iterable[Part] | None = None
    ) -> tuple[Changed, ...]:
        """What others have done, or these parts of it."""
        root = self.known.root
        found: list[Changed] = []
        for part in self.parts if parts is None else parts:
            if part.kind == "foreign":
                start = order.anchor(root, part.at)
                end = order.anchor(root, part.at + part.size, Side.LEFT)
                found.append(Changed("inserted", start, end, self._said(part)))
            elif part.kind == "missing":
                place = order.anchor(root, part.at)
                found.append(Changed("deleted", place, place, self._said(part)))
        return tuple(found)

    def touched(self, start: int, stop: int) -> list[Part]:
        """What others have done in these characters of `base`, or in the words that they begin and end in."""
        first, last = widened(self.base, start, stop)
        still = list(self._ranges(start, stop))
        now = widened(self.now, still[0][0], still[-1][1]) if still else (0, 0)
        found: list[Part] = []
        at = 0
        for part in self.parts:
            if part.kind == "foreign":
                is_in_word = part.at < now[1] and now[0] < part.at + part.size
                if first < at < last or is_in_word:
                    found.append(part)
                continue
            if part.kind == "missing" and first < at + part.size and at < last:
                found.append(part)
            at += part.size
        return found

    def rebased(self, changes: Iterable[Change]) -> list[Change]:
        """Changes of `base` as changes of what is there now: what we did not know stays."""
        found: list[Change] = []
        for start, stop, insert in changes:
            place = self._place(start, is_before=stop > start)
            gone = list(self._ranges(start, stop))
            if insert:
                found.append(Change(place, place, insert))
            for first, last in gone:
                if found and found[-1].stop == first:
                    before = found.pop()
                    found.append(Change(before.start, last, before.insert))
                else:
                    found.append(Change(first, last, ""))
        return found

    def _said(self, part: Part) -> str:
        if part.kind == "missing":
            at = part.was - self.known.start
            return self.known.text[at : at + part.size]
        return self.now[part.at : part.at + part.size]

    def _place(self, index: int, *, is_before: bool) -> int:
        """Where a place in `base` is now: before the character behind it, or after the one in front."""
        at, last = 0, self.start
        for part in self.parts:
            if part.kind == "foreign":
                continue
            size = 0 if part.kind == "missing" else part.size
            reaches = index < at + part.size if is_before else index <= at + part.size
            if reaches and (index > at or is_before or not at):
                return part.at + min(index - at, size)
            at += part.size
            last = part.at + size
        return last

    def _ranges(self, start: int, stop: int) -> Iterable[tuple[int, int]]:
        """Where the characters of a part of `base` are now, those that still are."""
        at = 0
        for part in self.parts:
            if part.kind == "foreign":
                continue
            first, last = max(start, at), min(stop, at + part.size)
            if first < last and part.kind != "missing":
                yield part.at + first - at, part.at + last - at
            at += part.size


def _without(
    clock: int, end: int, seen: Sequence[tuple[int, int]]
) -> Iterable[tuple[int, int]]:
    """A run of ids without some others, which are in order."""
    number = max(bisect_right(seen, clock, key=lambda run: run[0]) - 1, 0)
    for start, stop in islice(seen, number, None):
        if start >= end:
            break
        if stop <= clock:
            continue
        if clock < start:
            yield clock, start
        clock = stop
    if clock < end:
        yield clock, end


def _start(span: Span) -> int:
    return span.start


def _clock(span: Span) -> int:
    return span.clock
