"""The Python client: agents and plain programs as members of rooms. Knows nothing of the server's side."""

from collab.document.anchor import Anchor, Orphaned, Place
from collab.sdk.agent import Agent, connect
from collab.sdk.doc import Doc
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
from collab.sdk.turn import ChangedValue, EditResult, Turn, TurnRecord

__all__ = [
    "Agent",
    "AgentStatus",
    "Ambiguous",
    "Anchor",
    "AnotherHistory",
    "Cancelled",
    "Changed",
    "ChangedValue",
    "Conflict",
    "Doc",
    "EditResult",
    "Forbidden",
    "Invalid",
    "LeaseLost",
    "Match",
    "NotAcknowledged",
    "NotFound",
    "Orphaned",
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
    "StaleVersion",
    "State",
    "SyncAgent",
    "Turn",
    "TurnEnded",
    "TurnRecord",
    "Unavailable",
    "User",
    "connect",
    "connect_sync",
]
