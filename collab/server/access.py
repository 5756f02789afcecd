"""Access control at the edge: what a peer shows becomes a principal, and a principal enters a room or is refused.

What it may do there is asked again once a second and after every change: rights change under live sockets.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from starlette.requests import HTTPConnection

from collab import logs
from collab.auth.authority import Authority
from collab.auth.base import Credential
from collab.auth.certificates import CERTIFICATE
from collab.auth.permissions import PRESENCE, READ, WRITE, Principal, names_of
from collab.auth.registry import KEY_PREFIX, Registry
from collab.auth.shelves.memory import MemoryShelf
from collab.auth.tickets import TICKET_PREFIX, Tickets
from collab.errors import CollabError, PermissionDenied, Unauthenticated
from collab.names import room_key, room_name, split_key
from collab.protocol.yjs import TOKEN_PREFIX
from collab.replica import Replica
from collab.room import Member, Room

REVIEW_SECONDS = 1.0
LEAST_SECONDS = 0.2  # between two looks at the registry, however much is changed there
ENDED = "this token has expired or was revoked: get a new one"

log = logs.logger(__name__)


class Entry(NamedTuple):
    """Who may enter which room, to do what."""

    room: Room
    principal: Principal
    operations: int


class Access:
    """What every way in asks: sockets of all dialects and the REST API."""

    def __init__(
        self,
        authority: Authority,
        replica: Replica,
        *,
        registry: Registry | None = None,
        tickets: Tickets | None = None,
        allow_query_token: bool = False,
    ) -> None:
        self.authority, self._replica = authority, replica
        self.registry = Registry(MemoryShelf()) if registry is None else registry
        self.tickets = Tickets() if tickets is None else tickets  # empty is false
        self._allow_query_token = allow_query_token
        self._is_behind = False  # the registry could not be read the last time
        self._reviewed = -1  # the version of what is granted and revoked here
        self.registry.changed = self._changed
        self._woken = asyncio.Event()
        if replica.relay is not None:
            replica.relay.rights_changed = self._woken.set
            replica.relay.distrusted = self._distrust
        if not authority.is_open:
            replica.metrics.gauges["rights_age_seconds"] = lambda: (
                self.registry.age_seconds
            )

    # What a peer shows

    def credential(self, connection: HTTPConnection) -> Credential:
        """What a request or an upgrade shows by itself, in one of the places for it.

        Raises Unauthenticated for two tokens, and for one in the address, where logs and histories keep it; only a
        ticket may stand there, since it is used up.
        """
        address = connection.client.host if connection.client else ""
        if self.authority.is_open:
            return Credential(address=address)
        shown = [*_in_headers(connection), *self._in_address(connection)]
        if len(shown) > 1:
            raise Unauthenticated(
                "two tokens were shown where one is wanted: leave one out"
            )
        return Credential(
            token=shown[0] if shown else "",
            certificate=connection.scope.get("extensions", {}).get(CERTIFICATE),
            address=address,
        )

    def _in_address(self, connection: HTTPConnection) -> list[str]:
        query = connection.query_params
        shown = [
            token
            for name in ("ticket", "token")
            for token in query.getlist(name)
            if token
        ]
        for token in shown:
            is_allowed = self._allow_query_token and not token.startswith(KEY_PREFIX)
            if not (is_allowed or token.startswith(TICKET_PREFIX)):
                raise Unauthenticated(
                    "a token in the address is not taken here: send Authorization: Bearer …, or get a ticket (POST /v1/tickets)"
                )
        return shown

    # Coming in

    async def enter(self, shown: Credential | Principal, name: str) -> Entry:
        """Let a principal into a room, opening it if need be. Somebody who is authenticated already is not again.

        Raises Unauthenticated, PermissionDenied, InvalidRoomName, and what `Replica.open` raises. There is no `await`
        after the rights were looked at, so that what is returned is true when it is used at once.
        """
        room_name(name)
        principal, address = None, ""
        try:
            if isinstance(shown, Principal):
                principal = self.authority.recheck(shown, name)
                if principal is None:
                    raise Unauthenticated(ENDED)
            else:
                address = shown.address
                principal = await self.authority.authenticate(shown, name)
            self.allow(principal, name, READ)
            room = await self._replica.open(room_key(principal.tenant, name))
            return Entry(room, principal, self.allow(principal, name, READ))
        except CollabError as error:
            self.denied(error, "enter", principal, room=name, address=address)
            raise

    def allow(self, principal: Principal, name: str, operation: int) -> int:
        """All operations a principal has in a room. Raises PermissionDenied when `operation` is not among them.

        The answer is the same whether the room exists or not.
        """
        operations = self.authority.operations(principal, name)
        if operations & operation != operation:
            if self.authority.has_ended(principal):
                raise Unauthenticated(ENDED)
            lacking = " and ".join(names_of(operation & ~operations))
            raise PermissionDenied(
                f"you may not do this in this room: it needs the right to {lacking}"
            )
        return operations

    async def refresh(self, member: Member, credential: Credential) -> None:
        """Let a live member go on with a new credential of the same principal.

        Raises Unauthenticated, or PermissionDenied when it is somebody else's; the member then stays as it was.
        """
        name = split_key(member.room.name)[1]
        principal = await self.authority.authenticate(credential, name)
        before = member.principal
        if _who(principal) != _who(before):
            raise PermissionDenied(
                "a member stays who it is: this token is somebody else's"
            )
        member.speak_for(principal)
        if member in member.room:
            self._review(member, name)

    def denied(
        self,
        error: CollabError,
        what: str,
        principal: Principal | None = None,
        *,
        room: str = "",
        address: str = "",
    ) -> None:
        """Audit a refusal once, when it is one of authentication or permission."""
        if error.is_audited:
            return
        error.is_audited = True
        if isinstance(error, (Unauthenticated, PermissionDenied)):
            self._replica.audit.record(
                "denied",
                principal="" if principal is None else principal.id,
                tenant="" if principal is None else principal.tenant,
                room=room,
                what=what,
                code=error.code,
                address=address,
            )

    # While they are here

    @property
    def troubles(self) -> list[str]:
        """Why nobody should rely on rights here; empty when everybody can."""
        return ["keys and revocations cannot be read"] if self._is_behind else []

    async def watch(self) -> None:
        """Runs for the life of the server: nothing that ends or is taken back holds for more than two seconds."""
        while not self.authority.is_open:
            await self._pause()
            try:
                await self._poll()
                self.review()
                await self.tickets.settle()
            except Exception:
                log.exception("a bug met the watch over rights")

    async def _pause(self) -> None:
        """A second, less when another replica says that something has changed, but never no time at all."""
        await asyncio.sleep(LEAST_SECONDS)
        try:
            async with asyncio.timeout(REVIEW_SECONDS - LEAST_SECONDS):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()

    async def recheck(self, tenant: str, principal: str = "") -> None:
        """Look whether rights have changed, in the registry and wherever somebody else decides, at every replica."""
        await self.authority.poll()
        self._distrust(tenant, principal)
        self.review()
        if self._replica.relay is not None:
            self._replica.relay.say_distrusted(tenant, principal)

    def _distrust(self, tenant: str, principal: str) -> None:
        self.authority.distrust(tenant, principal)
        self._woken.set()

    def _changed(self) -> None:
        """Something was granted, revoked or made by this process."""
        self.review()
        if self._replica.relay is not None:
            self._replica.relay.say_rights_changed()

    async def _poll(self) -> None:
        """While the registry cannot be read, what was known last goes on to hold."""
        try:
            await self.authority.poll()
            self._is_behind = False
        except CollabError as error:
            if not self._is_behind:
                log.error("the registry cannot be read", reason=str(error))
            self._is_behind = True

    def review(self) -> None:
        """What every live member may do now; who may not even read any more has to go."""
        authority = self.authority
        if authority.is_open:
            return
        is_same, self._reviewed = authority.version == self._reviewed, authority.version
        now = authority.clock()
        for room in self._replica.rooms:
            name = split_key(room.name)[1]
            for member in room.members:
                principal = member.principal
                if is_same and principal.expires > now and not principal.is_lent:
                    continue
                try:
                    self._review(member, name)
                except Exception:
                    log.exception("a bug met the review of rights", room=room.name)
                    self._reviewed = -1  # so that it is tried again

    def _review(self, member: Member, name: str) -> None:
        authority = self.authority
        principal = authority.recheck(member.principal, name)
        if principal is None:
            return self._expel(member, Unauthenticated(ENDED))
        if principal is not member.principal:
            member.speak_for(principal)
        operations = authority.operations(principal, name)
        if operations == member.operations:
            return
        if not operations & READ:
            has_ended = authority.has_ended(principal)
            return self._expel(
                member,
                Unauthenticated(ENDED)
                if has_ended
                else PermissionDenied("you may no longer read this room"),
            )
        self._audit_rights(member, operations)
        if self._change(member, operations) & WRITE:
            member.line.rights_changed(member)

    def _expel(self, member: Member, error: CollabError) -> None:
        if not member.operations:
            return  # it has no socket to be closed
        self._audit_rights(member, 0, code=error.code)
        self._change(member, 0)  # whatever it has sent already
        member.line.expel(member, error)

    def _change(self, member: Member, operations: int) -> int:
        """From here on its messages are judged by this; returns what it has won or lost."""
        moved = member.operations ^ operations
        member.operations = operations
        if moved & PRESENCE and not operations & PRESENCE:
            member.room.awareness.leave(member)
            self._replica.present(member.room)
        return moved

    def _audit_rights(self, member: Member, operations: int, **details: str) -> None:
        self._replica.audit.record(
            "rights",
            principal=member.principal.id,
            room=member.room.name,
            connection=member.author.connection,
            may=names_of(operations),
            **details,
        )


def _who(principal: Principal) -> tuple[str, str, str]:
    return principal.tenant, principal.id, principal.on_behalf_of


def _in_headers(connection: HTTPConnection) -> list[str]:
    shown = []
    for value in connection.headers.getlist("authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            shown.append(token.strip())
    for offered in connection.scope.get("subprotocols", ()):
        if offered.startswith(TOKEN_PREFIX):
            shown.append(offered[len(TOKEN_PREFIX) :])
    return [token for token in shown if token]
