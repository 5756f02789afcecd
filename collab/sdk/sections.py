"""A Markdown text as sections under its ATX headings (CommonMark 4.2); what stands in fenced code is no heading."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from collab.sdk.errors import Ambiguous, NotFound

MAX_CANDIDATES = 10

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*\r?$")
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})(.*)$")
# Lines that go on with what the one before began: a list or a table.
_ITEM = re.compile(r"\s*(?:[-*+]\s|\d{1,9}[.)]\s|\|)")


@dataclass(frozen=True, slots=True)
class Span:
    """A section by character: its heading's line, then its body, up to the next heading that is no deeper."""

    level: int
    title: str
    start: int
    body: int
    end: int


def sections(text: str) -> list[Span]:
    """All of them, in order; those inside others too."""
    found: list[tuple[int, str, int, int]] = []
    fence = ""
    at = 0
    for line in text.split("\n"):
        following = min(at + len(line) + 1, len(text))
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = ""
        elif mark:
            fence = mark[1]
        elif heading := _HEADING.match(line):
            title = (heading[2] or "").strip()
            # A heading of nothing may be closed too.
            title = "" if not title.strip("#") else title
            found.append((len(heading[1]), title, at, following))
        at += len(line) + 1
    spans: list[Span] = []
    for number, (level, title, start, body) in enumerate(found):
        deeper = number + 1
        while deeper < len(found) and found[deeper][0] > level:
            deeper += 1
        end = found[deeper][2] if deeper < len(found) else len(text)
        spans.append(Span(level, title, start, body, end))
    return spans


class Titled(Protocol):
    """What bears a title."""

    @property
    def title(self) -> str:
        """Without the marks of the heading."""


T = TypeVar("T", bound=Titled)


def titled(found: Sequence[T], title: str) -> T:
    """The one section of this title. Raises NotFound, or Ambiguous with those that bear it."""
    bearing = [each for each in found if each.title == title]
    if not bearing:
        raise NotFound("there is no section of that title")
    if len(bearing) > 1:
        raise Ambiguous(
            f"{len(bearing)} sections bear that title", bearing[:MAX_CANDIDATES]
        )
    return bearing[0]


def content(text: str, span: Span) -> tuple[int, int]:
    """Where the body begins and ends without the empty lines around it."""
    body = text[span.body : span.end]
    if not body.strip():
        return span.body, span.body
    start = span.body + len(body) - len(body.lstrip("\r\n"))
    return start, span.body + len(body.rstrip())


def replaced(text: str, span: Span, new: str) -> tuple[int, int, str]:
    """From where to where to put what, so that the body says this; the empty lines around it stay."""
    start, stop = content(text, span)
    if start == stop:
        return _first(text, span, new)
    return start, stop, new.strip("\r\n")


def appended(text: str, span: Span, new: str) -> tuple[int, int, str]:
    """At the end of the section as a block of its own, or as one more item of the list or table that ends it."""
    start, stop = content(text, span)
    if start == stop:
        return _first(text, span, new)
    if new.startswith("\n"):
        return stop, stop, new.rstrip("\r\n")
    last = text.rfind("\n", start, stop) + 1 or start
    goes_on = _ITEM.match(text[last:stop]) and _ITEM.match(new)
    return stop, stop, ("\n" if goes_on else "\n\n") + new.strip("\r\n")


def before(text: str, span: Span, new: str) -> tuple[int, int, str]:
    """Before the heading, an empty line between."""
    return span.start, span.start, new.strip("\r\n") + "\n\n"


def removed(text: str, span: Span) -> tuple[int, int, str]:
    """The heading and all below it."""
    return span.start, span.end, ""


def renamed(text: str, span: Span, title: str) -> tuple[int, int, str]:
    """The heading's line says something else."""
    line = text[span.start : span.body].rstrip("\r\n")
    return (
        span.start,
        span.start + len(line),
        f"{'#' * span.level} {' '.join(title.split())}".rstrip(),
    )


def _first(text: str, span: Span, new: str) -> tuple[int, int, str]:
    """What stands first under a heading that has nothing yet."""
    lead = "\n" if text[span.start : span.body].endswith("\n") else "\n\n"
    breaks = text[span.body : span.end].count("\n")
    missing = 0 if span.end == len(text) else max(2 - breaks, 0)
    return span.body, span.body, lead + new.strip("\r\n") + "\n" * missing
