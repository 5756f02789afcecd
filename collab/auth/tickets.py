"""Tickets: what a browser shows in an address in place of its token. Good once, and for a minute.

They live in the memory of the process that made them, by their hash.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from secrets import token_urlsafe
from typing import NamedTuple

from collab.auth.base import Credential
from collab.auth.permissions import Principal
from collab.errors import PermissionDenied, RateLimited, Unauthenticated

TICKET_PREFIX = "tk_"
TICKET_SECONDS = 60.0
MAX_TICKETS = 10_000  # unused ones; the oldest goes
MAX_TICKETS_PER_PRINCIPAL = 200  # so that nobody can crowd out the others' tickets


class _Ticket(NamedTuple):
    principal: Principal
    expires: float


class Tickets:
    """Makes them, and is their verifier."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tickets: dict[bytes, _Ticket] = {}  # in the order they were made
        self._held: Counter[tuple[str, str]] = Counter()  # by principal

    def __len__(self) -> int:
        return len(self._tickets)

    def issue(self, principal: Principal, room: str = "") -> tuple[str, float]:
        """A ticket for this principal, in one room only if it is said, and until when it can be used.

        It ends with the credential that it was made for, and is revoked with it. Raises RateLimited when the
        principal has too many that are unused, PermissionDenied for another room than its own credential is for.
        """
        if principal.room and room not in ("", principal.room):
            raise PermissionDenied("a ticket is for no more than what it is made with")
        now = self._clock()
        self._forget(now)
        who = (principal.tenant, principal.id)
        if self._held[who] >= MAX_TICKETS_PER_PRINCIPAL:
            raise RateLimited("too many unused tickets", TICKET_SECONDS)
        if len(self._tickets) >= MAX_TICKETS:
            self._take(next(iter(self._tickets)))
        expires = min(now + TICKET_SECONDS, principal.expires)
        token = TICKET_PREFIX + token_urlsafe(32)
        if room:
            principal = replace(principal, room=room)
        self._tickets[_hash(token)] = _Ticket(principal, expires)
        self._held[who] += 1
        return token, expires

    async def verify(self, credential: Credential, room: str) -> Principal | None:
        if not credential.token.startswith(TICKET_PREFIX):
            return None
        hash = _hash(credential.token)
        ticket = self._take(hash) if hash in self._tickets else None
        if ticket is None or ticket.expires <= self._clock():
            raise Unauthenticated("this ticket is not valid, or was used before")
        return ticket.principal

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
        self._held[who] -= 1
        if not self._held[who]:
            del self._held[who]
        return ticket


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
