"""The Python client: agents and plain programs as members of rooms. Knows nothing of the server's side."""

from collab.sdk.agent import Agent, connect
from collab.sdk.doc import Doc
from collab.sdk.errors import (
    Ambiguous,
    AnotherHistory,
    Cancelled,
    Conflict,
    Forbidden,
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
from collab.sdk.sync import SyncAgent, connect_sync

__all__ = [
    "Agent",
    "AgentStatus",
    "Ambiguous",
    "AnotherHistory",
    "Cancelled",
    "Conflict",
    "Doc",
    "Forbidden",
    "LeaseLost",
    "NotAcknowledged",
    "NotFound",
    "Peer",
    "PeersChanged",
    "Phase",
    "Provider",
    "RateLimited",
    "Refused",
    "Replaced",
    "SdkError",
    "StaleVersion",
    "State",
    "SyncAgent",
    "TurnEnded",
    "Unavailable",
    "User",
    "connect",
    "connect_sync",
]
