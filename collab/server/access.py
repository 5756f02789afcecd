"""Access control at the edge: what a peer shows becomes a principal, and a principal enters a room or is refused."""

from __future__ import annotations

from typing import NamedTuple

from starlette.requests import HTTPConnection

from collab.auth.authority import Authority
from collab.auth.base import Credential
from collab.auth.permissions import READ, Principal
from collab.errors import PermissionDenied
from collab.names import room_key, room_name
from collab.replica import Replica
from collab.room import Room


class Entry(NamedTuple):
    """Who may enter which room, to do what."""

    room: Room
    principal: Principal
    operations: int


class Access:
    """What every way in asks: sockets of all dialects and the REST API."""

    def __init__(self, authority: Authority, replica: Replica) -> None:
        self.authority, self._replica = authority, replica

    def credential(self, connection: HTTPConnection) -> Credential:
        """What a request or an upgrade shows by itself."""
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        address = connection.client.host if connection.client else ""
        return Credential(
            token=token.strip() if scheme.lower() == "bearer" else "", address=address
        )

    async def enter(self, credential: Credential, name: str) -> Entry:
        """Let a principal into a room, opening it if need be.

        Raises Unauthenticated, PermissionDenied, InvalidRoomName, and what `Replica.open` raises. There is no `await`
        after the rights were looked at, so that what is returned is true when it is used at once.
        """
        room_name(name)
        principal = await self.authority.authenticate(credential, name)
        self.allow(principal, name, READ)
        room = await self._replica.open(room_key(principal.tenant, name))
        return Entry(room, principal, self.allow(principal, name, READ))

    def allow(self, principal: Principal, name: str, operation: int) -> int:
        """All operations a principal has in a room. Raises PermissionDenied when `operation` is not among them.

        The answer is the same whether the room exists or not.
        """
        operations = self.authority.operations(principal, name)
        if operations & operation != operation:
            raise PermissionDenied("you may not do this in this room")
        return operations
