"""Who is here: the latest state of each client of a room, never stored.

The encoding is y-protocols' `awareness.js`: `varUint n`, then n times client id, clock and a JSON text, `null` for
gone. A state counts when its clock is greater than the known one, or equal and `null` while a state is held.

A client id belongs to the connection that announced it. Stock clients send back what they hear about others, so a
state of somebody else's id that is not newer than ours is normal and ignored; a newer one is a forgery, unless the
owner's connection is dead and this is the same client on its next connection, or the owner says the same a moment
later: the tabs of one browser hear each other first, and pass on what they hear.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import orjson

from collab.errors import PermissionDenied, Refused
from collab.names import ANONYMOUS
from collab.protocol.varint import Reader, encode_bytes, encode_varint

MAX_CLIENT = 1 << 53
MAX_CLOCK_STEP = 1 << 20
MAX_NAME_CHARACTERS = 256
MAX_GONE = (
    1000  # clocks of clients that left, so that a late state does not bring one back
)
EXPIRES_AFTER_SECONDS = 35.0  # clients renew every 15 s and give others 30 s
STRIKES = 3
MAX_PRESENT = 5000  # in one room; those of other replicas beyond it are not shown
MAX_CLAIMS = 8  # remembered per client

_NULL = b"null"
# Of `user`, where the server knows who it is: what it does not know of them, nobody else says.
_STAMPED = {"id", "name", "kind", "role", "on_behalf_of"}
_POISON = {"__proto__", "constructor", "prototype"}


class Owner(Protocol):
    """The connection behind a presence state."""

    clients: set[int]
    strikes: int
    owner: str  # whose client ids it announces: a principal, or an anonymous connection
    user: (
        dict[str, Any] | None
    )  # who the token says it is; stamped over what the client claims

    def answers(self) -> bool:
        """Whether the connection has shown life since it was first asked; asking makes it show some."""
        ...


class Peer:
    """Another replica, as the owner of the clients on its connections."""

    def __init__(self) -> None:
        self.user: dict[str, Any] | None = None
        self.clients: set[int] = set()
        self.strikes = 0
        self.owner = ""

    def answers(self) -> bool:
        """Whether a connection of its is alive cannot be asked here."""
        return False


class State:
    """The latest state of one client."""

    __slots__ = ("clock", "json", "owner", "principal", "renewed")

    def __init__(
        self, clock: int, json: bytes, owner: Owner, principal: str, renewed: float
    ) -> None:
        self.clock, self.json, self.renewed = clock, json, renewed
        self.owner = owner  # the connection
        self.principal = principal  # behind it; "" for nobody's account


class Awareness:
    """The presence states of one room. Plain synchronous code; `now` is any monotonic clock in seconds."""

    def __init__(self, *, max_state_bytes: int = 4096, max_clients: int = 4) -> None:
        self._max_state_bytes, self._max_clients = max_state_bytes, max_clients
        self._states: dict[int, State] = {}
        self._gone: dict[int, int] = {}  # client → the clock it left with
        # Client → whether it is one of our own connections' that other replicas must hear of.
        self._changed: dict[int, bool] = {}
        # Client → states that others claimed for it: (clock, JSON, who).
        self._claims: dict[int, list[tuple[int, bytes, Owner]]] = {}

    def __len__(self) -> int:
        return len(self._states)

    @property
    def is_dirty(self) -> bool:
        """Whether `take` has something to give."""
        return bool(self._changed)

    def apply(self, states: bytes, owner: Owner, now: float) -> bytes | None:
        """Take in what a connection says; returns what it must be told: to announce itself with a higher clock.

        Raises InvalidMessage before anything is applied, PermissionDenied for repeated forgery.
        """
        stale: list[tuple[int, int, bytes]] = []
        for client, clock, json in self._decode(states, owner.user):
            held = self._states.get(client)
            if held is None:
                if json == _NULL:
                    continue
                left = self._gone.get(client)
                if left is not None and clock <= left:
                    stale.append((client, left, _NULL))
                    continue
            elif clock < held.clock or (clock == held.clock and json != _NULL):
                if held.owner is owner:
                    held.renewed = now
                continue
            elif held.owner is not owner and not self._comes_over(client, clock, owner):
                if clock > held.clock and held.owner.answers():
                    owner.strikes += 1
                    if owner.strikes >= STRIKES:
                        raise PermissionDenied("presence of another client")
                    claims = self._claims.setdefault(client, [])
                    claims.append((clock, json, owner))
                    del claims[:-MAX_CLAIMS]
                continue
            if (
                clock
                > (held.clock if held else self._gone.get(client, clock))
                + MAX_CLOCK_STEP
            ):
                raise Refused("awareness clock")
            if json == _NULL:
                self._remove(client)
            elif held is not None and held.owner is owner:
                held.clock, held.json, held.renewed = clock, json, now
                if client in self._claims:
                    self._confirm(client, clock, json)
                self._changed[client] = True
            else:
                if len(owner.clients) >= self._max_clients:
                    raise Refused("awareness clients")
                owner.clients.add(client)
                if held is not None:
                    held.owner.clients.discard(client)
                self._gone.pop(client, None)
                self._states[client] = State(clock, json, owner, _principal(owner), now)
                self._changed[client] = True
        return _encode(stale) if stale else None

    def merge(
        self, states: Iterable[tuple[int, int, bytes, str]], peer: Peer, now: float
    ) -> None:
        """Take in what another replica says of its own connections. Raises Refused, having taken in what it could."""
        is_full = False
        for client, clock, json, principal in states:
            if client >= MAX_CLIENT or clock >= MAX_CLIENT:
                raise Refused("awareness clock")
            held = self._states.get(client)
            if json == _NULL:
                if held is not None and held.owner is peer and clock >= held.clock:
                    self._remove(client)
                continue
            if held is None:
                if clock <= self._gone.get(client, -1):
                    continue
                if len(self._states) >= MAX_PRESENT:
                    is_full = True
                    continue
            elif clock < held.clock or (clock == held.clock and held.owner is peer):
                continue
            elif (
                held.owner is not peer
                and not isinstance(held.owner, Peer)
                and (clock == held.clock or held.owner.answers())
            ):
                continue  # it is here, and alive
            json = self._check(json, None)
            if held is not None and held.owner is not peer:
                held.owner.clients.discard(client)
            peer.clients.add(client)
            self._gone.pop(client, None)
            self._states[client] = State(clock, json, peer, principal, now)
            self._changed[client] = False
        if is_full:
            raise Refused("awareness clients")

    def leave(self, owner: Owner) -> None:
        """The connection is gone, and with it the clients it owned."""
        for client in list(owner.clients):
            self._remove(client)

    def expire(self, now: float) -> None:
        """Remove clients that have not renewed their state."""
        for client in [
            c
            for c, state in self._states.items()
            if now - state.renewed > EXPIRES_AFTER_SECONDS
        ]:
            self._remove(client)

    def take(self) -> tuple[bytes, list[tuple[int, int, bytes, str]]] | None:
        """What changed since the last call, the latest state of each client only; None when nothing did.

        Once encoded, and once what of it other replicas must hear: client, clock, JSON and owner.
        """
        if not self._changed:
            return None
        entries, own = [], []
        for client, is_own in self._changed.items():
            state = self._states.get(client)
            if state is not None:
                entry = client, state.clock, state.json
            elif client in self._gone:
                entry = client, self._gone[client], _NULL
            else:
                continue
            entries.append(entry)
            if is_own:
                own.append((*entry, state.principal if state else ""))
        self._changed.clear()
        return _encode(entries), own

    def own(self) -> list[tuple[int, int, bytes, str]]:
        """Everybody on our own connections: client, clock, JSON and owner."""
        return [
            (client, state.clock, state.json, state.principal)
            for client, state in self._states.items()
            if not isinstance(state.owner, Peer)
        ]

    def snapshot(self) -> bytes | None:
        """Everybody who is here; None when nobody is."""
        if not self._states:
            return None
        return _encode(
            (client, state.clock, state.json) for client, state in self._states.items()
        )

    def shown(self, owner: Owner) -> bytes:
        """What the others see of a connection."""
        return _encode(
            (client, self._states[client].clock, self._states[client].json)
            for client in owner.clients
        )

    def states(self) -> list[tuple[int, bytes, Owner, str]]:
        """Client, JSON, connection and principal of everybody who is here."""
        return [
            (client, state.json, state.owner, state.principal)
            for client, state in self._states.items()
        ]

    def has_others(self, owner: str) -> bool:
        """Whether somebody else is present by what other replicas say."""
        return any(
            isinstance(state.owner, Peer) and state.principal != owner
            for state in self._states.values()
        )

    def introduction(self, owner: Owner) -> tuple[str, str]:
        """Name and kind that a connection claims for itself, "" for what it does not say."""
        for client in owner.clients:
            state = orjson.loads(self._states[client].json)
            claimed = state.get("user")
            name = claimed.get("name") if isinstance(claimed, dict) else None
            if isinstance(name, str) and name:
                return name, "agent" if "agent" in state else "human"
        return "", ""

    def _comes_over(self, client: int, clock: int, owner: Owner) -> bool:
        """Whether a client that was on another replica's connection is now on this one."""
        held = self._states[client]
        return (
            clock > held.clock
            and isinstance(held.owner, Peer)
            and held.principal in ("", owner.owner)
        )

    def _confirm(self, client: int, clock: int, json: bytes) -> None:
        """The owner says what others claimed for it: those had only heard it sooner."""
        waiting = []
        for claim in self._claims.pop(client):
            if claim[:2] == (clock, json):
                claim[2].strikes -= 1
            elif claim[0] > clock:
                waiting.append(claim)
        if waiting:
            self._claims[client] = waiting

    def _remove(self, client: int) -> None:
        state = self._states.pop(client)
        self._claims.pop(client, None)
        state.owner.clients.discard(client)
        if len(self._gone) >= MAX_GONE:
            forgotten = next(iter(self._gone))
            del self._gone[forgotten]
            self._changed.pop(forgotten, None)
        self._gone[client] = state.clock
        self._changed[client] = not isinstance(state.owner, Peer)

    def _decode(
        self, states: bytes, user: dict[str, Any] | None
    ) -> list[tuple[int, int, bytes]]:
        reader = Reader(states)
        count = reader.read_varint()
        if count > self._max_entries():
            raise Refused("awareness clients")
        entries = []
        for _ in range(count):
            client = reader.read_varint()
            clock = reader.read_varint()
            json = reader.read_bytes()
            if client >= MAX_CLIENT:
                raise Refused("client id")
            if clock >= MAX_CLIENT:
                raise Refused("awareness clock")
            entries.append(
                (client, clock, json if json == _NULL else self._check(json, user))
            )
        reader.expect_end()
        return entries

    def _max_entries(self) -> int:
        """Own clients, and all the others that stock clients echo."""
        return self._max_clients + len(self._states) + len(self._gone)

    def _check(self, json: bytes, stamp: dict[str, Any] | None) -> bytes:
        """The state as it is passed on. `user` is what the server knows, where it knows something."""
        if len(json) > self._max_state_bytes:
            raise Refused("awareness bytes")
        try:
            state = orjson.loads(json)
        except orjson.JSONDecodeError:
            raise Refused("awareness JSON") from None
        if not isinstance(state, dict):
            raise Refused("awareness state")
        claimed = state.get("user")
        user: dict[str, Any] = claimed if isinstance(claimed, dict) else {}
        name = user.get("name")
        is_long = len(name) > MAX_NAME_CHARACTERS if isinstance(name, str) else False
        is_suspect = b"proto" in json or b"constructor" in json or b"\\u" in json
        if not (is_long or is_suspect or stamp):
            return json
        if is_long:
            user["name"] = str(name)[:MAX_NAME_CHARACTERS]
        if stamp:
            own = {key: value for key, value in user.items() if key not in _STAMPED}
            state["user"] = {**own, **stamp}
        return orjson.dumps(_scrub(state))


def _principal(owner: Owner) -> str:
    return "" if owner.owner.startswith(f"{ANONYMOUS}:") else owner.owner


def _scrub(value: Any) -> Any:
    """Without the keys that pollute JavaScript objects of careless readers."""
    if isinstance(value, dict):
        return {key: _scrub(item) for key, item in value.items() if key not in _POISON}
    if isinstance(value, list):
        return [_scrub(item) for item in value]
    return value


def _encode(entries: Iterable[tuple[int, int, bytes]]) -> bytes:
    parts = [
        encode_varint(client) + encode_varint(clock) + encode_bytes(json)
        for client, clock, json in entries
    ]
    return encode_varint(len(parts)) + b"".join(parts)
