"""Who is connected to a room, and ending a connection."""

from __future__ import annotations

from collab.auth.permissions import ADMIN, names_of
from collab.errors import NothingHere, PermissionDenied
from collab.room import Member
from collab.server.api import models
from collab.server.api.dispatch import Call


async def list_members(call: Call) -> models.Members:
    """Of this server; addresses are for administrators."""
    room = call.api.replica.live(call.key)
    is_admin = bool(call.operations & ADMIN)
    return models.Members(
        members=[
            models.MemberInfo(
                principal=member.author.principal,
                name=member.principal.name,
                kind=member.principal.kind,
                role=member.principal.role,
                on_behalf_of=member.principal.on_behalf_of,
                turn=member.author.turn,
                connection=member.author.connection,
                dialect=member.line.dialect,
                since_milliseconds=int(member.since * 1000),
                operations=names_of(member.operations),
                address=member.line.address if is_admin else None,
            )
            for member in (room.members if room else ())
        ]
    )


async def disconnect(call: Call) -> None:
    """Close a member with 4403: it may not come back by itself, but nothing keeps it from joining anew."""
    if not _connected(call):
        raise NothingHere("there is no such member")
    await call.audit("room.disconnect", connection=call.parameters["connection"])
    for member in _connected(call):
        member.line.expel(member, PermissionDenied("disconnected by an administrator"))


def _connected(call: Call) -> list[Member]:
    """The members of the connection that the path names."""
    room = call.api.replica.live(call.key)
    return [
        member
        for member in (room.members if room else ())
        if member.author.connection == call.parameters["connection"]
    ]
