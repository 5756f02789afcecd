"""Rooms by name: list them, make, describe, delete and restore one."""

from __future__ import annotations

from collab.auth.permissions import READ
from collab.errors import RoomNotFound
from collab.names import SEPARATOR
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
    after = begin + query.cursor if query.cursor else ""
    allowed = call.api.access.authority.operations
    found: list[models.RoomInfo] = []
    limit = min(query.limit + 1, PORTION)  # enough for who may read them all
    for _ in range(MAX_SEEN // PORTION):
        portion = await call.api.replica.store.rooms(
            prefix=begin + query.prefix,
            after=after,
            limit=limit,
            deleted=query.deleted,
        )
        for info in portion:
            name = info.name[len(begin) :]
            if SEPARATOR in name or not allowed(call.principal, name) & READ:
                continue
            if len(found) == query.limit:
                return models.Rooms(rooms=found, next=found[-1].name)
            found.append(_shown(call, info, name))
        if len(portion) < limit:
            return models.Rooms(rooms=found, next=None)
        after, limit = portion[-1].name, PORTION
    return models.Rooms(rooms=found, next=after[len(begin) :])


async def create(call: Call) -> models.RoomInfo:
    """Rooms need not be created: who may write in one makes it by writing. This one is empty and described."""
    wanted: models.NewRoom = call.body
    await call.audit("room.create")
    info = await call.api.replica.create(
        call.key, wanted.metadata, history_seconds=wanted.history_seconds
    )
    return _shown(call, info, call.room)


async def describe(call: Call) -> models.RoomInfo:
    """As the log has it; a room that nobody has written to or created is none."""
    info = await call.api.replica.store.info(call.key)
    if info is None or info.deleted_milliseconds is not None:
        raise RoomNotFound("there is no such room")
    return _shown(call, info, call.room)


async def change(call: Call) -> models.RoomInfo:
    """Replaces the metadata, and says how long the log is kept; what is not named stays."""
    wanted: models.RoomChange = call.body
    store = call.api.replica.store
    await call.audit("room.describe")
    if "metadata" in wanted.model_fields_set:
        await store.describe(call.key, wanted.metadata)
    if "history_seconds" in wanted.model_fields_set:
        await store.retain(call.key, wanted.history_seconds)
    return await describe(call)


async def delete(call: Call) -> None:
    """Everybody in it is disconnected with 4404. It can be restored for some days, and cannot be joined meanwhile."""
    await call.audit("room.delete")
    await call.api.replica.delete(call.key)


async def restore(call: Call) -> models.RoomInfo:
    """Brings a deleted room back as it was."""
    await call.audit("room.restore")
    return _shown(call, await call.api.replica.store.restore(call.key), call.room)


def _shown(call: Call, info: base.RoomInfo, name: str) -> models.RoomInfo:
    live = call.api.replica.live(info.name)
    return models.RoomInfo(
        name=name,
        epoch=info.epoch,
        position=info.position,
        bytes=info.bytes,
        created_milliseconds=info.created_milliseconds,
        changed_milliseconds=info.changed_milliseconds,
        deleted_milliseconds=info.deleted_milliseconds,
        metadata=info.metadata,
        history_seconds=info.history_seconds,
        members=len(live) if live else 0,
    )
