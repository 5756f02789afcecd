"""Updates cut up and put together anew, by the bytes of their structs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from collab.protocol.pairs import Cut, cut_through, second_halves
from collab.protocol.structs import Need, Notes, Range, Run, Scan
from collab.protocol.varint import encode_varint

if TYPE_CHECKING:
    from collab.protocol.guard import Known


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
