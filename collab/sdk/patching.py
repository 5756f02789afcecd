"""Unified diffs, as `diff -u`, git and language models write them: read strictly, and found again in a text by what
they say, not by where they say it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from collab.document.characters import Change
from collab.sdk.errors import Ambiguous, Conflict, Invalid

MAX_DIFF_CHARACTERS = 1 << 20
MAX_HUNKS = 1000
MAX_CANDIDATES = 10

_HEADER = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_BARE = re.compile(r"@@(?: \.\.\.)?(?: @@)?\s*$")
_NO_NEWLINE = "\\"


@dataclass(slots=True)
class Hunk:
    """Lines that stay (" "), go ("-") and come ("+")."""

    line: int | None  # where it says to be, counted from 0; None when it does not say
    lines: list[tuple[str, str]] = field(default_factory=list)
    old_is_cut: bool = False  # no line break at the end of the text, before
    new_is_cut: bool = False  # and afterwards

    @property
    def old(self) -> list[str]:
        """Those that are there before."""
        return [line for kind, line in self.lines if kind != "+"]


def read_diff(diff: str) -> list[Hunk]:
    """The hunks of a diff of one text. Raises Invalid."""
    if len(diff) > MAX_DIFF_CHARACTERS:
        raise Invalid(f"a diff has at most {MAX_DIFF_CHARACTERS} characters")
    lines = diff.split("\n")
    if lines[-1] == "":
        lines.pop()
    hunks: list[Hunk] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        if not line.startswith("@@"):
            if hunks and line.strip():
                raise Invalid(
                    f"line {at + 1} of the diff belongs to no hunk; a diff is of one text"
                )
            at += 1
            continue
        if len(hunks) == MAX_HUNKS:
            raise Invalid(f"a diff has at most {MAX_HUNKS} hunks")
        header = _HEADER.match(line)
        if header is None and not _BARE.match(line):
            raise Invalid(f"line {at + 1} of the diff is no header of a hunk")
        hunk, at = _counted(lines, at, header) if header else _uncounted(lines, at)
        if not any(kind != " " for kind, _ in hunk.lines):
            raise Invalid(f"hunk {len(hunks) + 1} of the diff changes nothing")
        hunks.append(hunk)
    if not hunks:
        raise Invalid("a diff has hunks, which begin with @@")
    return hunks


def _counted(lines: list[str], at: int, header: re.Match[str]) -> tuple[Hunk, int]:
    """A hunk that says how many lines it has, and where the next one begins."""
    first, old, _, new = header.groups()
    missing_old = 1 if old is None else int(old)
    missing_new = 1 if new is None else int(new)
    # Where nothing is removed and nothing stays, the number is of the line before.
    hunk = Hunk(max(int(first) - (missing_old > 0), 0))
    start = at + 1
    at = start
    while at < len(lines) and (missing_old or missing_new):
        kind = _take(hunk, lines[at], at)
        missing_old -= kind in (" ", "-")
        missing_new -= kind in (" ", "+")
        if missing_old < 0 or missing_new < 0:
            break
        at += 1
    if missing_old or missing_new:
        raise Invalid(
            f"the hunk at line {start} of the diff has other numbers of lines than it says;"
            " where they are not known, @@ alone begins a hunk"
        )
    if at < len(lines) and lines[at].startswith(_NO_NEWLINE):
        _take(hunk, lines[at], at)
        at += 1
    return hunk, at


def _uncounted(lines: list[str], at: int) -> tuple[Hunk, int]:
    hunk = Hunk(None)
    at += 1
    while at < len(lines) and not lines[at].startswith("@@"):
        _take(hunk, lines[at], at)
        at += 1
    return hunk, at


def _take(hunk: Hunk, line: str, at: int) -> str:
    """One line of a hunk: which kind it is, "" for a remark about the one before."""
    kind = line[:1] or " "  # editors cut white space at the end of lines
    if kind == _NO_NEWLINE and hunk.lines:
        before = hunk.lines[-1][0]
        hunk.old_is_cut |= before != "+"
        hunk.new_is_cut |= before != "-"
        return ""
    if kind not in (" ", "-", "+"):
        raise Invalid(f"line {at + 1} of the diff begins with neither space, - nor +")
    hunk.lines.append((kind, line[1:]))
    return kind


def locate(hunks: Sequence[Hunk], text: str) -> list[Change]:
    """What the hunks change in this text, in order. Raises Conflict when one is not there, Ambiguous (candidates are
    indices) when one is there more than once and its line number does not settle which.
    """
    framed = f"\n{text}\n"  # so a line begins after a break and ends before one
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    if text and not text.endswith("\n"):
        starts.append(len(text) + 1)
    found: list[Change] = []
    least = 0  # hunks stand in order
    drift = 0  # by how many characters the one before was not where it said
    for number, hunk in enumerate(hunks, 1):
        hint = None
        if hunk.line is not None:
            hint = starts[min(hunk.line, len(starts) - 1)]
        old = hunk.old
        if old:
            near = None if hint is None else max(hint + drift, 0)
            at = _find(framed, old, number, least, near)
            drift = 0 if hint is None else at - hint
        elif hunk.line is None or hint is None:
            if text.strip():
                raise Ambiguous(
                    f"hunk {number} says neither what is around it nor where"
                )
            at = len(text)
        elif hunk.line >= len(starts):
            raise Conflict(f"hunk {number} does not apply: the text ends before it")
        else:
            at = max(hint, least)
        found += _changes(hunk, text, at)
        least = at + sum(map(len, old)) + len(old)
    return _joined(found)


def _find(
    framed: str, old: list[str], number: int, least: int, hint: int | None
) -> int:
    """Where these lines stand, not before `least` and as close to the hint as there are such."""
    wanted = "\n{}\n".format("\n".join(old))
    if hint is None:
        at = framed.find(wanted, least)
        candidates = list(_places(framed, wanted, at))
    else:
        after = framed.find(wanted, max(hint, least))
        last = hint - 1 + len(wanted)
        before = framed.rfind(wanted, least, last) if hint > least else -1
        found = [place for place in (before, after) if place >= 0]
        closest = min((abs(place - hint) for place in found), default=0)
        candidates = [place for place in found if abs(place - hint) == closest]
        at = candidates[0] if candidates else -1
    if len(candidates) > 1:
        raise Ambiguous(
            f"what hunk {number} speaks of is there more than once", candidates
        )
    if at < 0:
        raise Conflict(f"hunk {number} does not apply: the text does not say that")
    return at


def _places(framed: str, wanted: str, at: int) -> Iterator[int]:
    for _ in range(MAX_CANDIDATES):
        if at < 0:
            return
        yield at
        at = framed.find(wanted, at + 1)


def _changes(hunk: Hunk, text: str, at: int) -> Iterator[Change]:
    """What a hunk changes that begins at a place: only the lines that go or come, with their breaks."""
    index = 0
    while index < len(hunk.lines):
        kind, line = hunk.lines[index]
        if kind == " ":
            at += len(line) + 1
            index += 1
            continue
        gone: list[str] = []
        come: list[str] = []
        while index < len(hunk.lines) and hunk.lines[index][0] != " ":
            kind, line = hunk.lines[index]
            (gone if kind == "-" else come).append(f"{line}\n")
            index += 1
        stop = at + sum(map(len, gone))
        insert = "".join(come)
        is_last = index == len(hunk.lines) and stop >= len(text)
        if is_last and hunk.new_is_cut and (not text or text.endswith("\n")):
            insert = insert.removesuffix("\n")
        is_gone = is_last and hunk.old_is_cut and not hunk.new_is_cut and not come
        if is_gone and stop > len(text):
            yield Change(at, len(text), "")  # the break before it stays
            return
        yield _fitted(Change(at, stop, insert), text)
        at = stop
    stays = hunk.lines[-1][0] == " "
    if hunk.old_is_cut and not hunk.new_is_cut and at > len(text):
        yield Change(len(text), len(text), "\n")
    if stays and hunk.new_is_cut and at >= len(text) and text.endswith("\n"):
        yield Change(len(text) - 1, len(text), "")


def _fitted(change: Change, text: str) -> Change:
    """The last line of a text may end without a break."""
    start, stop, insert = change
    end = len(text)
    if start > end:  # behind the break that is not there
        return Change(end, end, f"\n{insert.removesuffix(chr(10))}")
    if stop <= end:
        return change
    if not insert and start:
        return Change(start - 1, end, "")
    return Change(start, end, insert.removesuffix("\n"))


def _joined(changes: list[Change]) -> list[Change]:
    """Those that overlap, over the break at the end of a text, become one."""
    joined: list[Change] = []
    for change in changes:
        if joined and change.start < joined[-1].stop:
            before = joined.pop()
            insert = before.insert.removesuffix("\n") + change.insert
            change = Change(before.start, max(before.stop, change.stop), insert)
        joined.append(change)
    return joined
