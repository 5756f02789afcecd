"""Whether an audit log is whole, and where and how it was tampered with when it is not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from collab.audit.chain import Head, seal, unseal
from collab.errors import ConfigurationError

MAX_AHEAD = 100_000  # lines after a break that are looked at, to say what kind it is


class Damage(StrEnum):
    """What was done to the first line that does not fit. What comes after it is not judged."""

    EDITED = "edited"  # this line, or the hash of the one before it
    REMOVED = "removed"  # lines before this one
    INSERTED = "inserted"  # this line
    REORDERED = "reordered"  # this line stood elsewhere
    TRUNCATED = "truncated"  # lines after this one
    REWRITTEN = "rewritten"  # the chain holds, but a hash that was noted is not in it


class Broken(NamedTuple):
    """The first place where the chain does not hold."""

    kind: Damage
    file: str
    line: int
    seq: int  # that was expected there


class Verdict(NamedTuple):
    """What was found in the files, taken as one chain."""

    files: list[str]
    lines: int  # that hold
    first: int  # sequence number of the first line
    previous: (
        str  # hash that the first file goes on from; zeros for a log from its beginning
    )
    head: Head  # of the last line that holds: compare its hash with one noted elsewhere
    torn: int  # lines that a crash cut off and the next one vouches for
    unfinished: int  # bytes of a last line without its end
    broken: Broken | None


class Line(NamedTuple):
    """One line of one file, and what it says about itself; `seq` is 0 when it cannot be read."""

    file: str
    number: int
    raw: bytes
    is_ended: bool
    seq: int
    fields: dict[str, Any]

    def fits(self, head: Head) -> bool:
        """Whether this is the line that comes next."""
        body, _ = unseal(self.raw)
        return self.seq == head.seq + 1 and seal(body, head.hash)[0] == self.raw


def judge(
    files: Sequence[Path], head: Head | None = None, *, noted: str = ""
) -> Verdict:
    """Walk the chain through files, oldest first by their first lines.

    `head` is where it should have got to, `noted` the hash of a line that was whole once.
    """
    ordered = sorted(files, key=_first)
    lines = (line for file in ordered for line in _lines(file))
    line = next(lines, None)
    start = at = Head() if line is None else _start(line)
    torn = unfinished = 0
    is_noted = noted in ("", start.hash)
    broken, last = None, (str(ordered[-1]) if ordered else "", 0)
    while line is not None:
        following = next(lines, None)
        if line.fits(at):
            at = Head(line.seq, unseal(line.raw)[1])
            is_noted = is_noted or at.hash == noted
            last = line.file, line.number
        elif following is None and not line.is_ended and not line.seq:
            unfinished = len(line.raw)
        elif following is not None and _vouches(following, at, line):
            torn += 1
        else:
            rest = [] if following is None else [following, *islice(lines, MAX_AHEAD)]
            kind = _kind(line, rest, at)
            broken = Broken(kind, line.file, line.number, at.seq + 1)
            break
        line = following
    if broken is None and head is not None and head.seq > at.seq:
        broken = Broken(Damage.TRUNCATED, *last, at.seq + 1)
    if broken is None and not is_noted:
        broken = Broken(Damage.REWRITTEN, *last, at.seq + 1)
    return Verdict(
        files=[str(file) for file in ordered],
        lines=at.seq - start.seq,
        first=start.seq + 1,
        previous=start.hash,
        head=at,
        torn=torn,
        unfinished=unfinished,
        broken=broken,
    )


def events(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """What the lines tell, in order, without a judgement."""
    for file in sorted(files, key=_first):
        for line in _lines(file):
            if line.seq:
                yield line.fields


def _lines(file: Path) -> Iterator[Line]:
    try:
        with file.open("rb") as opened:
            for number, raw in enumerate(opened, 1):
                yield _line(file, number, raw)
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None


def _line(file: Path, number: int, raw: bytes) -> Line:
    is_ended = raw.endswith(b"\n")
    raw = raw.removesuffix(b"\n")
    try:
        fields = orjson.loads(raw)
        return Line(str(file), number, raw, is_ended, int(fields["seq"]), fields)
    except (ValueError, KeyError, TypeError, OverflowError):
        return Line(str(file), number, raw, is_ended, 0, {})


def _first(file: Path) -> int:
    return next((line.seq for line in _lines(file)), 0)


def _start(line: Line) -> Head:
    """Where the first file says that it goes on from; a log from its beginning goes on from nothing."""
    details = line.fields.get("details")
    if line.seq > 1 and line.fields.get("event") == "begin" and type(details) is dict:
        return Head(line.seq - 1, str(details.get("previous")))
    return Head()


def _vouches(following: Line, at: Head, line: Line) -> bool:
    """Whether the next line says that a crash tore this one."""
    told = following.fields.get("details")
    return (
        following.fits(at)
        and following.fields.get("event") == "torn"
        and type(told) is dict
        and told.get("sha256") == hashlib.sha256(line.raw).hexdigest()
    )


def _kind(line: Line, rest: Sequence[Line], at: Head) -> Damage:
    """What was done at the first line that does not fit."""
    wanted = at.seq + 1
    is_moved = line.seq > wanted and all(each.seq != line.seq for each in rest)
    if any(each.fits(at) for each in rest):
        # What should stand here stands further down: something was put before it.
        return Damage.REORDERED if is_moved else Damage.INSERTED
    if line.seq > wanted:
        return Damage.REMOVED
    if line.seq == wanted or not line.seq:
        return Damage.EDITED
    return Damage.INSERTED
