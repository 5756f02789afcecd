"""The oracle: what clients sent and were told is saved, kept outside the system, and what every reader must find.

Tokens `w<writer>-<number>` go into a text, a map and an array, and some of them out again. Each check below is a function
that returns what it found wrong; nothing means that all is well.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

ADD, REMOVE = "+", "-"


class Operation(NamedTuple):
    """One change: it adds a token, or removes one that is there."""

    kind: str
    token: str


class Violation(NamedTuple):
    """What a check found, and in how many cases."""

    check: str
    sentence: str
    count: int = 1


class Ledger:
    """What was sent, and what was acknowledged; written to a file as it happens, so that a run can be looked into."""

    def __init__(self, path: Path | None = None) -> None:
        self.sent: dict[Operation, float] = {}
        self.saved: dict[Operation, float] = {}
        self._file: TextIO | None = path.open("w") if path else None

    def send(self, operation: Operation) -> None:
        self.sent.setdefault(operation, time.monotonic())
        self._write("sent", operation)

    def save(self, operation: Operation) -> None:
        if operation not in self.saved:
            self.saved[operation] = time.monotonic()
            self._write("saved", operation)

    def note(self, what: str) -> None:
        """A fault, between the edits."""
        self._write(what, None)

    def _write(self, what: str, operation: Operation | None) -> None:
        if self._file is not None:
            line = [round(time.monotonic(), 4), what, *(operation or ())]
            self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def tokens(self, kind: str, *, is_saved: bool = False) -> set[str]:
        return {
            operation.token
            for operation in (self.saved if is_saved else self.sent)
            if operation.kind == kind
        }

    @property
    def worst_seconds_to_saved(self) -> float:
        """From the edit to its acknowledgement, whatever was broken in between."""
        return max(
            (at - self.sent[operation] for operation, at in self.saved.items()),
            default=0.0,
        )


@dataclass(frozen=True, slots=True)
class View:
    """All that one reader sees of a room."""

    source: str
    text: str
    array: Sequence[Any]
    map: Mapping[str, Any]
    vector: Mapping[int, int]
    deleted: Mapping[int, Sequence[tuple[int, int]]]  # client → ranges
    is_waiting: bool = False  # something waits for what has not come
    present: frozenset[int] | None = (
        None  # whose presence it sees; None: it does not look
    )

    @property
    def tokens(self) -> list[str]:
        return [*re.findall("<(.*?)>", self.text), *map_str(self.array), *self.map]

    @property
    def torn(self) -> str:
        """What stands in the text that is no whole token."""
        return re.sub("<[^<>]*>", "", self.text)


def map_str(values: Iterable[Any]) -> list[str]:
    return [str(value) for value in values]


@dataclass(slots=True)
class Footprint:
    """What a server process holds on to."""

    resident_bytes: int
    files: int
    threads: int
    keys: int = 0  # in Redis, of all replicas together


@dataclass(slots=True)
class Latencies:
    """Seconds of many small operations of a healthy room."""

    seconds: list[float] = field(default_factory=list)

    @property
    def p99(self) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def unequal(views: Sequence[View]) -> list[Violation]:
    """C1: all see the same content, state vectors and deletions; vectors alone do not move with a deletion."""
    found = []
    for view in views[1:]:
        first = views[0]
        differs = [
            name
            for name in ("text", "array", "map", "vector", "deleted")
            if getattr(view, name) != getattr(first, name)
        ]
        if differs:
            found.append(
                Violation(
                    "C1", f"{view.source} and {first.source}: {', '.join(differs)}"
                )
            )
    return found


def lost(ledger: Ledger, views: Sequence[View]) -> list[Violation]:
    """C2: what was called saved is there, unless somebody removed it."""
    due = ledger.tokens(ADD, is_saved=True) - ledger.tokens(REMOVE)
    return _each("C2", "lost", ((view, due - {*view.tokens}) for view in views))


def risen(ledger: Ledger, views: Sequence[View]) -> list[Violation]:
    """C3: what was removed, and its removal called saved, stays away."""
    gone = ledger.tokens(REMOVE, is_saved=True)
    return _each("C3", "back again", ((view, gone & {*view.tokens}) for view in views))


def doubled(ledger: Ledger, views: Sequence[View]) -> list[Violation]:
    """C4: nothing is there twice, nothing that nobody wrote, and nothing in part."""
    sent = ledger.tokens(ADD)
    twice = (
        (view, {token for token, times in Counter(view.tokens).items() if times > 1})
        for view in views
    )
    return [
        *_each("C4", "twice", twice),
        *_each("C4", "invented", ((view, {*view.tokens} - sent) for view in views)),
        *(Violation("C4", f"{v.source}: torn: {v.torn[:80]}") for v in views if v.torn),
    ]


def waiting(views: Sequence[View]) -> list[Violation]:
    """C5: nothing waits anywhere for what has not come."""
    return [
        Violation("C5", f"{view.source}: something waits for its predecessors")
        for view in views
        if view.is_waiting
    ]


def disordered(entries: Iterable[tuple[str, int]]) -> list[Violation]:
    """C5: what one replica has published of a room, as (replica, its number), comes in its order and once."""
    last: dict[str, int] = {}
    wrong = 0
    for sender, number in entries:
        wrong += number <= last.get(sender, -1)
        last[sender] = number
    return (
        [Violation("C5", f"the stream: {wrong} out of order", wrong)] if wrong else []
    )


def misplaced(live: Iterable[int], views: Sequence[View]) -> list[Violation]:
    """C6: exactly those who are there are seen."""
    live = frozenset(live)
    return [
        Violation(
            "C6",
            f"{view.source}: {len(view.present - live)} ghosts, {len(live - view.present)} unseen",
            len(view.present ^ live),
        )
        for view in views
        if view.present is not None and view.present != live
    ]


SLACK = 0.1
SLACK_BYTES = 16_000_000  # of the allocator, whatever the size
SLACK_COUNT = 3
SLACK_KEYS = (
    6  # of a room once it is compacted: checkpoints, a landmark, who wrote what
)


def grown(
    source: str,
    before: Footprint,
    now: Footprint,
    *,
    slack_bytes: int = SLACK_BYTES,
    slack_files: int = SLACK_COUNT,
) -> list[Violation]:
    """C7: when everybody has gone, memory, files, threads and keys are what they were."""
    bounds = {
        "resident_bytes": before.resident_bytes * (1 + SLACK) + slack_bytes,
        "files": before.files * (1 + SLACK) + slack_files,
        "threads": before.threads * (1 + SLACK) + SLACK_COUNT,
        "keys": before.keys * (1 + SLACK) + SLACK_KEYS,
    }
    return [
        Violation(
            "C7", f"{source}: {name} {getattr(before, name)} → {getattr(now, name)}"
        )
        for name, bound in bounds.items()
        if getattr(now, name) > bound
    ]


LEAST_SECONDS = 0.5  # below which a shared machine says nothing


def slowed(
    source: str, before: Latencies, during: Latencies, *, own_lag: float = 0.0
) -> list[Violation]:
    """C8: rooms that have nothing to do with the fault stay within twice what they were.

    `own_lag` is how late this process itself came to run meanwhile, on a machine that has too much to do.
    """
    if not during.seconds:
        return [Violation("C8", f"{source}: nothing was measured")]
    bound = max(2 * before.p99, LEAST_SECONDS) + 4 * own_lag
    if during.p99 <= bound:
        return []
    return [
        Violation(
            "C8",
            f"{source}: p99 {before.p99 * 1000:.0f} → {during.p99 * 1000:.0f} ms",
        )
    ]


def complaints(source: str, log: str) -> list[Violation]:
    """C9: no exception that nobody expected."""
    found = [
        line[:300]
        for line in log.splitlines()
        if "Traceback (most recent call last)" in line or "panicked at" in line
    ]
    return [Violation("C9", f"{source}: {line}") for line in found[:3]]


def _each(
    check: str, what: str, found: Iterable[tuple[View, set[str]]]
) -> list[Violation]:
    return [
        Violation(
            check,
            f"{view.source}: {what}: {', '.join(sorted(tokens)[:5])}{' …' if len(tokens) > 5 else ''} ({len(tokens)})",
            len(tokens),
        )
        for view, tokens in found
        if tokens
    ]


def judge(
    ledger: Ledger, views: Sequence[View], live: Iterable[int]
) -> list[Violation]:
    """C1 to C6 over everybody's views."""
    return [
        *unequal(views),
        *lost(ledger, views),
        *risen(ledger, views),
        *doubled(ledger, views),
        *waiting(views),
        *misplaced(live, views),
    ]
