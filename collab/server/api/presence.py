"""Who is present in a room, and being present without a socket."""

from __future__ import annotations

import asyncio
import secrets
import time

import orjson

from collab.auth.permissions import PRESENCE, READ
from collab.errors import CollabError, RateLimited
from collab.protocol.varint import encode_bytes, encode_varint
from collab.room import Member, Visitor
from collab.server.api import models
from collab.server.api.dispatch import Call

RENEWAL_SECONDS = 15.0  # as stock clients do; others are forgotten after 30
MAX_GUESTS = 10_000
MAX_GUESTS_PER_PRINCIPAL = 100


async def read(call: Call) -> models.Presence:
    """On every replica, as far as this one has heard; a room that nobody is in here is not opened for it."""
    room = call.api.replica.live(call.key)
    found = []
    for client, json, owner, principal in room.awareness.states() if room else ():
        author = getattr(owner, "author", None)
        found.append(
            models.Present(
                client=client,
                principal=author.principal if author else principal,
                connection=author.connection if author else "",
                state=orjson.loads(json),
            )
        )
    return models.Presence(clients=found)


async def stay(call: Call) -> models.Stayed:
    """The principal is present until the time is over, as one client however often it says so."""
    return await call.api.guests.stay(call)


async def leave(call: Call) -> None:
    """The principal is gone at once. Nothing happens when it was not there."""
    guest = call.api.guests.find(call)
    if guest is not None:
        guest.leave()


class Guest:
    """The line of a member without a socket: it says for it that it is still here, and ends with its time."""

    dialect = "rest"

    def __init__(self, guests: Guests, call: Call) -> None:
        self.address = call.address
        self.ends = 0.0
        self.who = _who(call)
        self._guests, self._api, self._name = guests, call.api, call.room
        self._clock = 0
        self._state = b""
        self._timer: asyncio.TimerHandle | None = None
        self.client = secrets.randbits(31)
        self.member = Visitor(
            call.principal, call.operations, connection=call.connection
        )
        self.member.line = self
        self.member.user = call.principal.stamp

    def say(self, state: bytes) -> None:
        """Raises Refused for a state that is too large."""
        room, loop = self.member.room, asyncio.get_running_loop()
        self._clock += 1
        room.awareness.apply(
            encode_varint(1)
            + encode_varint(self.client)
            + encode_varint(self._clock)
            + encode_bytes(state),
            self.member,
            loop.time(),
        )
        self._api.replica.present(room)
        self._state = state
        if self._timer is not None:
            self._timer.cancel()
        wait = min(RENEWAL_SECONDS, max(0.0, self.ends - time.time()))
        self._timer = loop.call_later(wait, self._renew)

    def _renew(self) -> None:
        try:
            self._api.access.allow(self.member.principal, self._name, READ | PRESENCE)
            if time.time() < self.ends:
                return self.say(self._state)
        except CollabError:
            pass  # it may not be seen any more
        self.leave()

    def leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._guests.forget(self):
            self._api.replica.leave(self.member.room, self.member)

    # As a line

    def is_alive(self) -> bool:
        return True

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self, error: CollabError) -> None:
        self.leave()

    def notify(self, kind: str, retry_after_milliseconds: int = 0) -> None: ...

    def rights_changed(self, member: Member) -> None:
        if not member.operations & PRESENCE:
            self.leave()

    def expel(self, member: Member, error: CollabError) -> None:
        self.leave()


class Guests:
    """All of a server; one per principal and room. Whoever has too many is refused one more."""

    def __init__(self) -> None:
        self._guests: dict[tuple[str, str], Guest] = {}

    def find(self, call: Call) -> Guest | None:
        return self._guests.get(_who(call))

    async def stay(self, call: Call) -> models.Stayed:
        wanted: models.Stay = call.body
        self._check(call)
        room = await call.open()
        guest = self.find(call)
        if guest is None:
            self._check(call)  # others may have come meanwhile
            guest = self._guests[_who(call)] = Guest(self, call)
            call.api.replica.join(room, guest.member)
        else:
            # The token that was shown last is the one that it lives by.
            guest.member.speak_for(call.principal)
            guest.member.operations = call.operations
        guest.ends = time.time() + wanted.ttl_seconds
        try:
            guest.say(orjson.dumps(wanted.state))
        except CollabError:
            guest.leave()
            raise
        return models.Stayed(
            client=guest.client, expires_milliseconds=int(guest.ends * 1000)
        )

    def _check(self, call: Call) -> None:
        """Raises RateLimited when the principal cannot be present in one room more."""
        if self.find(call) is not None:
            return
        who = call.principal
        held = sum(
            (each.member.principal.tenant, each.member.principal.id)
            == (who.tenant, who.id)
            for each in self._guests.values()
        )
        if held >= MAX_GUESTS_PER_PRINCIPAL or len(self._guests) >= MAX_GUESTS:
            raise RateLimited("present in too many rooms")

    def forget(self, guest: Guest) -> bool:
        """Whether it was still here."""
        return self._guests.pop(guest.who, None) is not None


def _who(call: Call) -> tuple[str, str]:
    return call.key, call.principal.id
