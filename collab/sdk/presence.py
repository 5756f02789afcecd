"""Who is here: what this member shows of itself, and what it sees of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from collab.errors import InvalidMessage
from collab.protocol.varint import Reader, encode_bytes, encode_varint
from collab.sdk.errors import Invalid

RENEW_SECONDS = 15.0
# Carets that move within this time leave as one.
PAUSE_SECONDS = 0.1
MAX_STATE_BYTES = 4096  # what a server takes of one member, by default
MAX_PEERS = 5000  # those beyond are not seen
MAX_HEARD_BYTES = 1 << 16  # of one member
MAX_SEEN_BYTES = 8 << 20  # of all together; who shows more than is left is not seen
MAX_CLOCK = 1 << 53

STATUSES = ("idle", "thinking", "writing", "waiting_approval", "error")

_NULL = b"null"


@dataclass(frozen=True, slots=True)
class User:
    """Who somebody is; with access control as the server says, otherwise as it says itself."""

    id: str = ""
    name: str = ""
    kind: str = ""  # human, agent or service
    role: str = ""
    on_behalf_of: str = ""
    color: str = ""


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """What an agent is doing."""

    status: str = "idle"
    task: str = ""
    turn: str = ""
    detail: str = ""
    tail: str = ""  # of a stream: written, but not in the document yet


@dataclass(frozen=True, slots=True)
class Peer:
    """One client that is here. `state` is all that it shows, as JSON; nothing in it is proven but `user`'s id."""

    client: int
    user: User
    agent: AgentStatus | None
    cursor: Mapping[str, Any] | None
    state: Mapping[str, Any] = field(repr=False)

    @property
    def is_agent(self) -> bool:
        return self.user.kind == "agent" or self.agent is not None


def checked(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state, when it can be shown. Raises Invalid."""
    try:
        size = len(orjson.dumps(state))
    except TypeError as error:  # so are its errors of encoding
        raise Invalid(f"a presence state is JSON: {error}") from None
    if size > MAX_STATE_BYTES:
        raise Invalid(f"a presence state is at most {MAX_STATE_BYTES} bytes")
    return dict(state)


class Presence:
    """The states of one room, from one member's side. `client` is its own id; None shows nothing."""

    def __init__(self, client: int, state: Mapping[str, Any] | None) -> None:
        self.client = client
        self.state: dict[str, Any] | None = None
        self.user = User()  # what the server makes of our own
        self.peers: dict[int, Peer] = {}
        self.unseen = 0  # states of others that were too many, or too much
        self._sizes: dict[int, int] = {}
        self._seen_bytes = 0
        self._clocks: dict[int, int] = {}
        self._clock = 0
        if state is not None:
            self.show(state)

    def show(self, state: Mapping[str, Any] | None) -> None:
        """Set what others see; it leaves with the next `encode`. Raises Invalid when it is no JSON, or too much."""
        self.state = checked(state) if state is not None else None

    def encode(self) -> bytes:
        """Our own state with a higher clock than ever before."""
        self._clock += 1
        shown = orjson.dumps(self.state) if self.state is not None else _NULL
        return (
            encode_varint(1)
            + encode_varint(self.client)
            + encode_varint(self._clock)
            + encode_bytes(shown)
        )

    def forget(self) -> bool:
        """The connection is gone, and with it whoever was seen over it. Whether anybody was."""
        were = bool(self.peers)
        self.peers.clear()
        self._clocks.clear()
        self._sizes.clear()
        self._seen_bytes = self.unseen = 0
        return were

    def receive(self, states: bytes) -> tuple[bool, bool]:
        """Take in what the server says: whether others have changed, and whether we must announce ourselves anew.

        Raises InvalidMessage; what came before the fault is taken in.
        """
        reader = Reader(states)
        has_changed = must_announce = False
        for _ in range(reader.read_varint()):
            client, clock = reader.read_varint(), reader.read_varint()
            shown = reader.read_bytes()
            if client == self.client:
                must_announce |= self._reflect(clock, shown)
            else:
                has_changed |= self._see(client, clock, shown)
        reader.expect_end()
        return has_changed, must_announce

    def _reflect(self, clock: int, shown: bytes) -> bool:
        if shown != _NULL:
            self.user = _user(_state(shown))
            return False
        if clock >= MAX_CLOCK - 1 or self.state is None:
            return False
        # Also when it is an older clock: an earlier connection of ours has gone, and we with it.
        self._clock = max(self._clock, clock)
        return True

    def _see(self, client: int, clock: int, shown: bytes) -> bool:
        known = self._clocks.get(client)
        if shown == _NULL:
            if known is None or clock < known:
                return False
            return self._lose(client)
        if known is not None and clock <= known:
            return False
        size = len(shown) - self._sizes.get(client, 0)
        is_one_more = known is None and len(self.peers) >= MAX_PEERS
        if is_one_more or self._seen_bytes + size > MAX_SEEN_BYTES:
            self.unseen += 1
            return self._lose(client)
        self._clocks[client] = clock
        self._sizes[client] = len(shown)
        self._seen_bytes += size
        peer = _peer(client, _state(shown))
        has_changed = self.peers.get(client) != peer
        self.peers[client] = peer
        return has_changed

    def _lose(self, client: int) -> bool:
        """Whoever it was is seen no more; whether it was."""
        self._clocks.pop(client, None)
        self._seen_bytes -= self._sizes.pop(client, 0)
        return self.peers.pop(client, None) is not None


def _state(shown: bytes) -> dict[str, Any]:
    if len(shown) > MAX_HEARD_BYTES:
        raise InvalidMessage("a presence state is too large")
    try:
        state = orjson.loads(shown)
    except orjson.JSONDecodeError:
        raise InvalidMessage("a presence state is not JSON") from None
    return state if isinstance(state, dict) else {}


def _peer(client: int, state: dict[str, Any]) -> Peer:
    agent, cursor = state.get("agent"), state.get("cursor")
    return Peer(
        client,
        _user(state),
        _agent(agent) if isinstance(agent, dict) else None,
        cursor if isinstance(cursor, dict) else None,
        state,
    )


def _user(state: dict[str, Any]) -> User:
    user = state.get("user")
    if not isinstance(user, dict):
        return User()
    names = ("id", "name", "kind", "role", "on_behalf_of", "color")
    return User(*(_text(user, name) for name in names))


def _agent(agent: dict[str, Any]) -> AgentStatus:
    status = agent.get("status")
    names = ("task", "turn", "detail", "tail")
    return AgentStatus(
        status if status in STATUSES else "idle",
        *(_text(agent, name) for name in names),
    )


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
