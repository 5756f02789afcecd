"""Rooms by name: list them, make, describe, delete and restore one."""

from __future__ import annotations

import base64

from collab.auth.permissions import READ
from collab.errors import InvalidRequest, RoomNotFound
from collab.names import SEPARATOR, room_name
from collab.server.api import models
from collab.server.api.dispatch import Call
from collab.store import base

MAX_SEEN = 10_000  # rooms that one page looks at; then it ends early, with a cursor
PORTION = 1000


async def list_rooms(call: Call) -> models.Rooms:
    """In order of their names; only those that the principal may read."""
    query: models.RoomsQuery = call.query
    tenant = call.principal.tenant
    begin = f"{tenant}{SEPARATOR}" if tenant else ""
    after = begin + _name_of(query.cursor) if query.cursor else ""
    allowed = call.api.access.authority.operations
    found: list[models.RoomInfo] = []
    for _ in range(MAX_SEEN // PORTION):
        portion = await call.api.replica.store.rooms(
            prefix=begin + query.prefix, after=after, limit=PORTION
        )
        for info in portion:
            name = info.name[len(begin) :]
            if SEPARATOR in name or not allowed(call.principal, name) & READ:
                continue
            if len(found) == query.limit:
                return models.Rooms(rooms=found, next=_cursor(found[-1].name))
            found.append(_shown(call, info, name))
        if len(portion) < PORTION:
            return models.Rooms(rooms=found, next=None)
        after = portion[-1].name
    return models.Rooms(rooms=found, next=_cursor(after[len(begin) :]))


async def describe(call: Call) -> models.RoomInfo:
    portion = await call.api.replica.store.rooms(prefix=call.key, limit=1)
    if not portion or portion[0].name != call.key:
        raise RoomNotFound("there is no such room")
    return _shown(call, portion[0], call.room)


def _shown(call: Call, info: base.RoomInfo, name: str) -> models.RoomInfo:
    live = call.api.replica.live(info.name)
    return models.RoomInfo(
        name=name,
        epoch=info.epoch,
        position=info.position,
        bytes=info.bytes,
        created_milliseconds=info.created_milliseconds,
        changed_milliseconds=info.changed_milliseconds,
        members=len(live) if live else 0,
    )


def _cursor(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _name_of(cursor: str) -> str:
    try:
        return room_name(
            base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
        )
    except ValueError:
        raise InvalidRequest("this cursor is not one of ours") from None
