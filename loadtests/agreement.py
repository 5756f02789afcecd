"""Whether all documents of a room are the same: text, decoded state vector and delete set."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from provider import Provider

from collab.document.deletions import deletions
from collab.protocol.statevector import state_vector

PARTS = ("text", "state vector", "delete set")
MAX_NAMED = 3

# Of one member: a digest of each part of its document, or one sentence on why it cannot be compared.
Standing = Sequence[str]
Rooms = dict[str, dict[str, Standing]]  # room → member → how it stands


def content(provider: Provider) -> tuple[str, str, str]:
    """Digests of the parts; equal for equal documents, in whatever order their bytes come."""
    document = provider.document
    vector = document.get_state()
    deleted = deletions(document.get_update(vector))
    return (
        _digest(str(provider.text)),
        _digest(repr(sorted(state_vector(vector).items()))),
        _digest(repr(sorted(deleted.items()))),
    )


def problems(rooms: Mapping[str, Mapping[str, Standing]]) -> list[str]:
    """One sentence for each room whose members do not all hold the same."""
    return [
        f"room {room}: {problem}"
        for room, members in sorted(rooms.items())
        if (problem := _problem(members))
    ]


def merged(answers: Sequence[Mapping[str, Mapping[str, Standing]]]) -> Rooms:
    """The members of several processes, room by room."""
    rooms: Rooms = {}
    for answer in answers:
        for room, members in answer.items():
            rooms.setdefault(room, {}).update(members)
    return rooms


def _problem(members: Mapping[str, Standing]) -> str:
    absent = {name: how[0] for name, how in members.items() if len(how) == 1}
    if absent:
        return _named(f"{name} {why}" for name, why in sorted(absent.items()))
    held = {name: tuple(how) for name, how in members.items()}
    ranked = Counter(held.values()).most_common()
    if len(ranked) < 2:
        return ""
    usual = ranked[0][0]
    others = sorted(name for name, how in held.items() if how != usual)
    parts = [
        part
        for i, part in enumerate(PARTS)
        if any(held[name][i] != usual[i] for name in others)
    ]
    return (
        f"{len(others)} of {len(held)} documents differ from the others"
        f" in {', '.join(parts)} ({_named(others)})"
    )


def _named(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - MAX_NAMED
    return ", ".join(listed[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:16]
