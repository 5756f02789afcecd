"""Who is connected to a room, at whatever replica, and ending a connection."""

from __future__ import annotations

from collab.auth.permissions import ADMIN, READ
from collab.errors import BusUnavailable, NothingHere
from collab.replicas.attendance import Attendance, attendees
from collab.server.api import models
from collab.server.api.dispatch import Call


async def list_members(call: Call) -> models.Members:
    """Of all replicas; addresses are for administrators."""
    others = await _elsewhere(call, READ)
    is_admin = bool(call.operations & ADMIN)
    found = [*attendees(call.api.replica.live(call.key)), *others.attendees]
    return models.Members(
        members=[
            models.MemberInfo(
                **{**each._asdict(), "address": each.address if is_admin else None}
            )
            for each in found
        ],
        partial=not others.is_whole,
    )


async def disconnect(call: Call) -> None:
    """Close a member with 4403: it may not come back by itself, but nothing keeps it from joining anew."""
    replica, connection = call.api.replica, call.parameters["connection"]
    is_here = any(
        each.connection == connection for each in attendees(replica.live(call.key))
    )
    if not is_here:
        await _expect_elsewhere(call, connection)
    await call.audit("room.disconnect", connection=connection)
    if not is_here and replica.relay is not None:
        replica.relay.disconnected(call.key, connection)
        return
    room = replica.live(call.key)
    if room is None or not room.disconnect(connection):
        raise NothingHere("there is no such member")


async def _elsewhere(call: Call, needs: int) -> Attendance:
    """Raises PermissionDenied when the right that this needs was lost while the others were asked."""
    relay = call.api.replica.relay
    if relay is None:
        return Attendance([], True)
    found = await relay.attendance(call.key)
    call.operations = call.api.access.allow(call.principal, call.room, needs)
    return found


async def _expect_elsewhere(call: Call, connection: str) -> None:
    others = await _elsewhere(call, ADMIN)
    if any(each.connection == connection for each in others.attendees):
        return
    if not others.is_whole:
        raise BusUnavailable("another replica may have this member; ask again")
    raise NothingHere("there is no such member")
