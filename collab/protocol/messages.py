"""What a client can say to a room, whatever dialect it says it in."""

from __future__ import annotations

from typing import NamedTuple

from collab.turns import About


class SyncStep1(NamedTuple):
    """Tell me what I lack; this is what I have."""

    state_vector: bytes


class SyncStep2(NamedTuple):
    """The answer to a step 1: what you lack."""

    update: bytes


class Update(NamedTuple):
    """A change that has just been made."""

    update: bytes


class AwarenessUpdate(NamedTuple):
    """Who is here: (client id, clock, state) triples, still encoded."""

    states: bytes


class QueryAwareness(NamedTuple):
    """Who is here?"""


class Barrier(NamedTuple):
    """Send this back once everything I said before is saved (Y-Sweet)."""

    token: bytes


class Auth(NamedTuple):
    """Who I am; sent again when the server asks for it (Hocuspocus)."""

    token: str
    version: str | None  # of the provider; only version 4 and later says it


class Stateless(NamedTuple):
    """A text for the other members; it is not kept."""

    text: str


class Detach(NamedTuple):
    """I leave this document; the socket stays (Hocuspocus)."""


class Pong(NamedTuple):
    """I am alive (Hocuspocus, version 4 and later)."""


class Renewal(NamedTuple):
    """My next token (collab.v1)."""

    token: str


class BeginTurn(NamedTuple):
    """What I write from now on belongs to this turn; "" ends the one before (collab.v1)."""

    turn: str
    said: About


class CancelTurn(NamedTuple):
    """Stop this turn of a principal, "" being whoever has it open (collab.v1)."""

    turn: str
    principal: str


class Unknown(NamedTuple):
    """A type nobody has told us about; skipped, and counted."""

    type: int


Message = (
    SyncStep1
    | SyncStep2
    | Update
    | AwarenessUpdate
    | QueryAwareness
    | Barrier
    | Auth
    | Stateless
    | Detach
    | Pong
    | Renewal
    | BeginTurn
    | CancelTurn
    | Unknown
)
