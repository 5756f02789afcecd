"""Tickets: what a browser shows in an address in place of its token. Good once, and for a minute, at any replica.

They live in the memory of the process that made them, by their hash. Among replicas they are kept on the bus as well,
sealed with a key that is made of the ticket: whoever reads there learns nothing, and whoever writes there without the
cluster's key makes none.
"""

from __future__ import annotations

import hmac
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from math import inf
from secrets import token_urlsafe
from typing import Any, NamedTuple, Protocol

import orjson

from collab.auth.base import Credential
from collab.auth.permissions import EVERYTHING, REWRITE, Grant, Principal
from collab.errors import (
    BusUnavailable,
    CollabError,
    PermissionDenied,
    RateLimited,
    Unauthenticated,
)
from collab.names import principal_id, room_name, shown_name, tenant_name

TICKET_PREFIX = "tk_"
TICKET_SECONDS = 60.0
MAX_TICKETS = 10_000  # unused ones in memory; the oldest goes
MAX_TICKETS_PER_PRINCIPAL = 200  # so that nobody can crowd out the others' tickets

_CHARACTERS = len(TICKET_PREFIX) + 43  # 256 bits
_NONCE = bytes(12)  # each key seals once
_INVALID = (
    "this ticket is not valid, or was used before: get another (POST /v1/tickets)"
)


class Cloakroom(Protocol):
    """What any replica may take, once: see `collab.bus.base.Bus`."""

    @property
    def is_up(self) -> bool: ...

    async def keep(self, key: str, value: bytes, seconds: float) -> None: ...

    async def take(self, key: str) -> bytes | None: ...


class Lender(Protocol):
    """A verifier that must be asked about its principals again and again, with what they have shown."""

    async def verify(self, credential: Credential, room: str) -> Principal | None: ...

    def credential(self, principal: Principal, room: str) -> Credential | None:
        """What the principal has shown for this room, as far as that is known."""
        ...


class _Ticket(NamedTuple):
    principal: Principal
    expires: float
    is_kept: bool = False  # on the bus, too


class Tickets:
    """Makes them, and is their verifier."""

    def __init__(
        self,
        cloakroom: Cloakroom | None = None,
        *,
        key: bytes | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.lender: Lender | None = None
        self._cloakroom, self._key, self._clock = cloakroom, key or b"", clock
        self._tickets: dict[bytes, _Ticket] = {}  # in the order they were made
        # By principal. What is on the bus does not count: who has used it there is not known here.
        self._held: Counter[tuple[str, str]] = Counter()
        # Used here while the bus was down, and when each is over: still to be taken from there.
        self._owed: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    async def issue(self, principal: Principal, room: str = "") -> tuple[str, float]:
        """A ticket for this principal, in one room only if it is said, and until when it can be used.

        It ends with the credential that it was made for, and is revoked with it. Raises RateLimited when the
        principal has too many that are unused, PermissionDenied for another room than its own credential is for.
        """
        if principal.room and room not in ("", principal.room):
            raise PermissionDenied("a ticket is for no more than what it is made with")
        if room:
            principal = replace(principal, room=room)
        expires = min(self._clock() + TICKET_SECONDS, principal.expires)
        token = _new()
        is_kept = await self._keep(token, principal, expires)
        if not is_kept:
            token = _new()  # nobody knows whether the other one arrived in the end
        self._add(_hash(token), _Ticket(principal, expires, is_kept))
        return token, expires

    async def verify(self, credential: Credential, room: str) -> Principal | None:
        if not credential.token.startswith(TICKET_PREFIX):
            return None
        hash = _hash(credential.token)
        ticket = self._take(hash) if hash in self._tickets else None
        if ticket is None:
            return await self._fetch(credential, hash)
        if ticket.expires <= self._clock():
            raise Unauthenticated(_INVALID)
        if ticket.is_kept and not await self._spend(hash, ticket.expires):
            raise Unauthenticated(_INVALID)
        return ticket.principal

    async def settle(self) -> None:
        """To be called about once a second: what was used while the bus was down is good nowhere else."""
        for hash, expires in list(self._owed.items()):
            if expires > self._clock() and self._cloakroom is not None:
                try:
                    await self._cloakroom.take(_place(hash))
                except BusUnavailable:
                    return
            self._owed.pop(hash, None)

    # In memory

    def _add(self, hash: bytes, ticket: _Ticket) -> None:
        self._forget(self._clock())
        who = (ticket.principal.tenant, ticket.principal.id)
        if not ticket.is_kept:
            if self._held[who] >= MAX_TICKETS_PER_PRINCIPAL:
                raise RateLimited("too many unused tickets", TICKET_SECONDS)
            self._held[who] += 1
        if len(self._tickets) >= MAX_TICKETS:
            self._take(next(iter(self._tickets)))
        self._tickets[hash] = ticket

    def _forget(self, now: float) -> None:
        """All have a minute at most, so those that are over stand in front, or are used up soon."""
        while self._tickets:
            first = next(iter(self._tickets))
            if self._tickets[first].expires > now:
                return
            self._take(first)

    def _take(self, hash: bytes) -> _Ticket:
        ticket = self._tickets.pop(hash)
        who = (ticket.principal.tenant, ticket.principal.id)
        if not ticket.is_kept:
            self._held[who] -= 1
        if not self._held[who]:
            del self._held[who]
        return ticket

    # On the bus

    async def _keep(self, token: str, principal: Principal, expires: float) -> bool:
        """Have the other replicas know a ticket; whether they do."""
        seconds = expires - self._clock()
        if self._cloakroom is None or not self._cloakroom.is_up or seconds <= 0:
            return False
        shown = Credential()
        if principal.is_lent:
            lender = self.lender
            known = lender and lender.credential(principal, principal.room)
            if not known:
                return False
            shown = known
        try:
            sealed = _seal(token, self._key, _encode(principal, shown))
            await self._cloakroom.keep(_place(_hash(token)), sealed, seconds)
        except (BusUnavailable, TypeError):  # or its token holds what no text does
            return False
        return True

    async def _spend(self, hash: bytes, expires: float) -> bool:
        """Use up the copy on the bus; false when somebody has done that before. While the bus is down, it is owed."""
        assert self._cloakroom is not None
        try:
            if self._cloakroom.is_up:
                return await self._cloakroom.take(_place(hash)) is not None
        except BusUnavailable:
            pass
        self._owed[hash] = expires
        return True

    async def _fetch(self, credential: Credential, hash: bytes) -> Principal:
        """The principal of a ticket that another replica has made. Raises BusUnavailable."""
        cloakroom, sealed = self._cloakroom, None
        if cloakroom is not None and len(credential.token) == _CHARACTERS:
            if not cloakroom.is_up:
                raise BusUnavailable("another replica may know this ticket, later")
            sealed = await cloakroom.take(_place(hash))
        said = sealed and _open(credential.token, self._key, sealed)
        if not said:
            raise Unauthenticated(_INVALID)
        try:
            principal, shown = _decode(said)
        except (ValueError, TypeError, LookupError, CollabError):
            raise Unauthenticated(_INVALID) from None
        return await self._borrow(principal, shown) if principal.is_lent else principal

    async def _borrow(self, principal: Principal, shown: Credential) -> Principal:
        """Somebody else decides about this one, and has to be asked here too."""
        found = self.lender and await self.lender.verify(shown, principal.room)
        if not found or (found.id, found.tenant) != (principal.id, principal.tenant):
            raise Unauthenticated(_INVALID)
        return replace(found, room=principal.room, at_most=principal.at_most)


def _new() -> str:
    return TICKET_PREFIX + token_urlsafe(32)


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _place(hash: bytes) -> str:
    return f"ticket:{hash.hex()}"


def _cipher(token: str, key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    secret = b"ticket:" + token.encode("utf-8", "surrogatepass")
    return AESGCM(hmac.digest(key, secret, "sha256"))


def _seal(token: str, key: bytes, said: bytes) -> bytes:
    sealed: bytes = _cipher(token, key).encrypt(_NONCE, said, None)
    return sealed


def _open(token: str, key: bytes, sealed: bytes) -> bytes | None:
    """None for what was not sealed by one of us for this ticket."""
    from cryptography.exceptions import InvalidTag

    try:
        said: bytes = _cipher(token, key).decrypt(_NONCE, sealed, None)
        return said
    except (InvalidTag, ValueError):
        return None


def _encode(principal: Principal, shown: Credential) -> bytes:
    """Without end is null, as JSON has it."""
    return orjson.dumps(
        {
            "id": principal.id,
            "tenant": principal.tenant,
            "kind": principal.kind,
            "name": principal.name,
            "grants": [list(grant) for grant in principal.grants],
            "expires": principal.expires,
            "token": principal.token,
            "issued": principal.issued,
            "room": principal.room,
            # Apart: a replica of before this right takes no ticket that names it.
            "at_most": principal.at_most & ~REWRITE,
            "may_rewrite": bool(principal.at_most & REWRITE),
            "is_lent": principal.is_lent,
            "role": principal.role,
            "on_behalf_of": principal.on_behalf_of,
            "shown": [shown.token, shown.address],
        }
    )


def _decode(said: bytes) -> tuple[Principal, Credential]:
    """Raises ValueError, TypeError, LookupError or a CollabError for what no replica has written."""
    found = orjson.loads(said)
    if found["kind"] not in ("human", "agent", "service"):
        raise ValueError
    token, address = found["shown"]
    at_most, is_lent = found["at_most"], found["is_lent"]
    names = ("id", "tenant", "name", "token", "room")
    # Those that an older replica does not say.
    role, behalf = found.get("role", ""), found.get("on_behalf_of", "")
    texts = (token, address, role, behalf, *(found[name] for name in names))
    if not all(isinstance(each, str) for each in texts) or type(is_lent) is not bool:
        raise TypeError
    if type(at_most) is not int or at_most & ~EVERYTHING:
        raise ValueError
    if found.get("may_rewrite", True) is True:
        at_most |= REWRITE
    principal = Principal(
        principal_id(found["id"]),
        found["tenant"] and tenant_name(found["tenant"]),
        found["kind"],
        found["name"] and shown_name(found["name"]),
        tuple(_grant(*grant) for grant in found["grants"]),
        expires=inf if found["expires"] is None else float(found["expires"]),
        token=found["token"],
        issued=float(found["issued"]),
        room=found["room"] and room_name(found["room"]),
        at_most=at_most,
        is_lent=is_lent,
        role=role,
        on_behalf_of=behalf and principal_id(behalf),
    )
    return principal, Credential(token, address=address)


def _grant(room: Any, operations: Any, is_prefix: Any) -> Grant:
    if not (isinstance(room, str) and type(operations) is int):
        raise TypeError
    if operations & ~EVERYTHING or (is_prefix and room and not room.endswith("/")):
        raise ValueError
    return Grant(room, operations, bool(is_prefix))
