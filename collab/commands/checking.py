"""Whether what a data directory holds can be believed and opened; and making it so again."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from collab.compaction import Child, ChildDied, compare, find_killer
from collab.names import split_key, spoken
from collab.store.aside import fill, repair_author, set_aside
from collab.store.base import Checkpoint
from collab.store.checks import Fault, Look, Lost, Place, RoomRecord, look

_MAX_KILLERS = 100  # of one room; after that the rest is not looked for
_KILLS = "native code does not survive it"


def make_child() -> Child:
    """A process for the work on whole documents, with time for the largest."""
    return Child(memory_bytes=4 << 30, cpu_seconds=600, hang_seconds=600.0)


class Finding(NamedTuple):
    """One thing that is wrong, and what follows from it or was done about it."""

    room: str  # its key; "" where it concerns all
    source: str
    reason: str
    consequence: str
    position: int | None = None
    last: int | None = None
    principals: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        tenant, name = split_key(self.room)
        return {**self._asdict(), "room": name, "tenant": tenant}

    def as_text(self) -> str:
        parts = [spoken(self.room) if self.room else "data directory", self.source]
        if self.position is not None:
            until = "" if self.last in (None, self.position) else f" to {self.last}"
            parts.append(f"position {self.position}{until}")
        if self.principals:
            parts.append(f"by {', '.join(self.principals)}")
        return f"{', '.join(parts)}: {self.reason}; {self.consequence}"


@dataclass(slots=True)
class Replay:
    """What native code made of a room."""

    killers: list[int] = field(default_factory=list)  # positions
    unusable: dict[int, str] = field(default_factory=dict)  # position → reason
    differing: dict[int, str] = field(default_factory=dict)


async def replay(found: Look, child: Child) -> Replay:
    """Load the room as the server would, and compare its checkpoints with its log, all in a child process."""
    result = Replay()
    while await _try(found, child, result):
        pass
    base: Checkpoint | None = None  # the one before that is as it should be
    for checkpoint in reversed(_usable(found, result)):
        rows = _between(found, base, checkpoint.position)
        if rows is not None:
            difference = await _difference(child, checkpoint, rows, result)
            if difference:
                result.differing[checkpoint.position] = difference
                continue
        base = checkpoint
    return result


def _usable(found: Look, result: Replay) -> list[Checkpoint]:
    return [each for each in found.checkpoints if each.position not in result.unusable]


async def _try(found: Look, child: Child, result: Replay) -> bool:
    """Load it once; whether something new was found, so that it must be tried again."""
    usable = _usable(found, result)
    base = usable[0] if usable else None
    rows = found.after(base.position if base else 0)
    killer = await find_killer(child, base, _without(rows, result.killers))
    if killer is None or len(result.killers) >= _MAX_KILLERS:
        return False
    if killer:
        result.killers.append(killer)
    elif base:
        result.unusable[base.position] = _KILLS
    return bool(killer or base)


async def _difference(
    child: Child, checkpoint: Checkpoint, rows: list[tuple[int, bytes]], result: Replay
) -> str:
    while True:
        survivors = _without(rows, result.killers)
        try:
            return await compare(child, checkpoint, survivors)
        except ChildDied as error:
            killer = await find_killer(child, None, survivors)
            if not killer or len(result.killers) >= _MAX_KILLERS:
                return str(error)
            result.killers.append(killer)


def _without(
    rows: list[tuple[int, bytes]], killers: list[int]
) -> list[tuple[int, bytes]]:
    return [row for row in rows if row[0] not in killers]


def _between(
    found: Look, base: Checkpoint | None, until: int
) -> list[tuple[int, bytes]] | None:
    """What makes the document at a position, of another checkpoint and the log; None where that is not whole."""
    start = base.position if base else 0
    if any(position <= until and end > start for position, end in found.gaps):
        return None
    rows = [row for row in found.after(start) if row[0] <= until]
    return [(start, base.snapshot), *rows] if base else rows


def findings(found: Look, result: Replay) -> list[Finding]:
    """What is wrong with a room, in words."""
    room = found.record.name
    return [
        *(_of_fault(room, fault) for fault in found.faults),
        *(_of_lost(room, lost) for lost in found.lost),
        *(
            Finding(room, "log", _KILLS, "the server leaves it out", position)
            for position in result.killers
        ),
        *(
            Finding(room, "checkpoint", reason, "the older one counts", position)
            for position, reason in result.unusable.items()
        ),
        *(
            Finding(
                room,
                "checkpoint",
                f"it is not what the log makes ({difference})",
                "a repair believes the log, where that is whole",
                position,
            )
            for position, difference in result.differing.items()
        ),
    ]


_CONSEQUENCES = {
    "room": "the room cannot be opened",
    "log": "the row cannot be believed",
    "journal": "the row cannot be believed",
    "checkpoint": "the older one counts",
    "author": "it is not known who wrote these updates",
    "owner": "anyone may use this client id",
    "about": "metadata and retention are not known",
    "attribution": "who wrote what is read from the log again, as far as that reaches back",
    "answer": "a repeated request is carried out again",
}


def _of_fault(room: str, fault: Fault) -> Finding:
    return Finding(
        room,
        fault.place.table,
        fault.reason,
        _CONSEQUENCES[fault.place.table],
        fault.position,
        fault.last,
        fault.principals,
    )


def of_common(faults: list[Fault]) -> list[Finding]:
    """Likewise for what belongs to no room."""
    return [_of_fault("", fault) for fault in faults]


def _of_lost(room: str, lost: Lost) -> Finding:
    consequence = "a checkpoint holds what they brought"
    if lost.is_needed:
        consequence = "the room cannot be opened"
    return Finding(
        room,
        "log" if lost.is_needed else "history",
        "no intact row holds these positions",
        consequence,
        lost.position,
        lost.last,
        lost.principals,
    )


async def mend(
    db: sqlite3.Connection, record: RoomRecord, child: Child, milliseconds: int
) -> list[Finding]:
    """Make a room one that can be opened, in a transaction of the caller; what was done and lost."""
    room, done = record.name, []
    found = look(db, record)
    for fault in found.faults:
        set_aside(db, record.id, fault, milliseconds)
        done.append(_of_fault(room, fault)._replace(consequence=_kept(fault)))
    found = look(db, _again(db, record))
    result = await replay(found, child)
    for position in result.killers:
        db.execute(
            "INSERT OR REPLACE INTO rejected VALUES (?, ?, ?, ?)",
            (record.id, position, _KILLS, milliseconds),
        )
        done.append(Finding(room, "log", _KILLS, "left out from now on", position))
    for position, reason in (result.unusable | result.differing).items():
        finding = Finding(room, "checkpoint", reason, "set aside", position)
        if position in result.differing and not found.has_whole_log:
            consequence = (
                "kept: the log is not whole, so it is not known which is wrong"
            )
            done.append(finding._replace(consequence=consequence))
            continue
        key = (("room", record.id), ("position", position))
        set_aside(db, record.id, Fault(Place("checkpoint", key), reason), milliseconds)
        done.append(finding)
    for lost in look(db, _again(db, record)).lost:
        fill(db, record.id, lost, repair_author(db), milliseconds)
        consequence = "lost from the history; a checkpoint holds what they brought"
        if lost.is_needed:
            consequence = (
                "lost, and what builds on them waits;"
                " a client that still has them brings them back when it returns"
            )
        done.append(_of_lost(room, lost)._replace(consequence=consequence))
    return done


def _kept(fault: Fault) -> str:
    match fault.place.table:
        case "room" if len(fault.place.key) > 1:
            return "taken from the log"
        case "room":
            return "the room has a new epoch, and its name may be wrong"
        case "author":
            return "set aside; these updates have no author now"
        case _:
            return "set aside"


def _again(db: sqlite3.Connection, record: RoomRecord) -> RoomRecord:
    """The record as it is now, which a repair has made whole."""
    name, epoch, position = db.execute(
        "SELECT name, epoch, position FROM room WHERE id = ?", (record.id,)
    ).fetchone()
    return record._replace(name=name, epoch=epoch, position=position, is_intact=True)
