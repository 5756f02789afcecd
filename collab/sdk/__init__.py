"""The Python client: agents and plain programs as members of rooms. Knows nothing of the server's side."""

from collab.document.anchor import Anchor, Orphaned, Place
from collab.sdk.agent import Agent, connect
from collab.sdk.changes import Change, Changes, Edit
from collab.sdk.doc import Doc
from collab.sdk.edits import ChangedValue, EditResult
from collab.sdk.errors import (
    Ambiguous,
    AnotherHistory,
    Cancelled,
    Conflict,
    Forbidden,
    Invalid,
    LeaseLost,
    NotAcknowledged,
    NotFound,
    RateLimited,
    Refused,
    SdkError,
    StaleVersion,
    Unavailable,
)
from collab.sdk.history import (
    Activity,
    Author,
    Blame,
    Changeset,
    Entry,
    History,
    LoggedTurn,
    Past,
    Span,
    TextChange,
    Undone,
)
from collab.sdk.presence import AgentStatus, Peer, User
from collab.sdk.provider import (
    PeersChanged,
    Phase,
    Provider,
    Replaced,
    State,
    TurnEnded,
)
from collab.sdk.reading import Changed, Match, Reading, Section
from collab.sdk.sync import SyncAgent, connect_sync
from collab.sdk.turn import Turn, TurnRecord

__all__ = [
    "Activity",
    "Agent",
    "AgentStatus",
    "Ambiguous",
    "Anchor",
    "AnotherHistory",
    "Author",
    "Blame",
    "Cancelled",
    "Change",
    "Changed",
    "ChangedValue",
    "Changes",
    "Changeset",
    "Conflict",
    "Doc",
    "Edit",
    "EditResult",
    "Entry",
    "Forbidden",
    "History",
    "Invalid",
    "LeaseLost",
    "LoggedTurn",
    "Match",
    "NotAcknowledged",
    "NotFound",
    "Orphaned",
    "Past",
    "Peer",
    "PeersChanged",
    "Phase",
    "Place",
    "Provider",
    "RateLimited",
    "Reading",
    "Refused",
    "Replaced",
    "SdkError",
    "Section",
    "Span",
    "StaleVersion",
    "State",
    "SyncAgent",
    "TextChange",
    "Turn",
    "TurnEnded",
    "TurnRecord",
    "Unavailable",
    "Undone",
    "User",
    "connect",
    "connect_sync",
]
