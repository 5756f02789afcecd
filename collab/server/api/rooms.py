"""Rooms by name: list them, make, describe, delete and restore one."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from starlette.responses import Response

from collab.auth.permissions import READ
from collab.errors import RoomNotFound
from collab.names import SEPARATOR, split_key
from collab.server.api import models
from collab.server.api.dispatch import JSON, Call
from collab.store import base

MAX_LOOKS = 50  # into the store for one page; then it ends early, with a cursor
PORTION = 1000
LAST = "\U0010ffff"  # behind every other character


async def list_rooms(call: Call) -> models.Rooms:
    """In order of their names; only those that the principal may read."""
    query: models.RoomsQuery = call.query
    tenant = call.principal.tenant
    begin = f"{tenant}{SEPARATOR}" if tenant else ""
    allowed = call.api.access.authority.operations
    found: list[models.RoomInfo] = []
    looks, cursor = 0, query.cursor
    for place, is_prefix in _places(call, query):
        is_over = False
        while not is_over:
            if looks == MAX_LOOKS:
                return models.Rooms(rooms=found, next=cursor)
            looks += 1
            size = PORTION if is_prefix else 1
            portion = await call.api.replica.store.rooms(
                prefix=begin + place,
                after=begin + cursor if is_prefix and cursor else "",
                limit=size,
                deleted=query.deleted,
            )
            names = [info.name[len(begin) :] for info in portion]
            for name, info in zip(names, portion, strict=True):
                if SEPARATOR in name or not allowed(call.principal, name) & READ:
                    continue
                if not (is_prefix or name == place):
                    continue
                if len(found) == query.limit:
                    return models.Rooms(rooms=found, next=found[-1].name)
                found.append(_shown(call, info, name))
            is_over = not is_prefix or len(portion) < size
            if is_over:
                cursor = place + LAST if is_prefix else place
            else:
                cursor = _skipped(names[-1])
    return models.Rooms(rooms=found, next=None)


def _places(call: Call, query: models.RoomsQuery) -> Iterator[tuple[str, bool]]:
    """Rooms and prefixes to look at, in order. What the principal may not read is not even looked for: neither a
    cursor nor the time that it takes tells of it.
    """
    last = ""
    is_prefix = False
    for grant in sorted(
        call.api.access.authority.grants(call.principal),
        key=lambda grant: (grant.room, not grant.is_prefix),
    ):
        if not grant.operations & READ or (
            grant.room.startswith(last) if is_prefix else grant.room == last != ""
        ):
            continue
        last, is_prefix = grant.room, grant.is_prefix
        place = last
        if is_prefix and query.prefix.startswith(last):
            place = query.prefix
        elif not last.startswith(query.prefix):
            continue
        if place > query.cursor or (is_prefix and query.cursor.startswith(place)):
            yield place, is_prefix


def _skipped(name: str) -> str:
    """Where to look on after this name: behind all rooms of a tenant, which stand together."""
    tenant, _ = split_key(name)
    return f"{tenant}{SEPARATOR}{LAST}" if tenant else name


async def create(call: Call) -> Response:
    """Rooms need not be created: who may write in one makes it by writing. This one is empty and described."""
    wanted: models.NewRoom = call.body
    await call.audit("room.create")
    info = await call.api.replica.create(
        call.key, wanted.metadata, history_seconds=wanted.history_seconds
    )
    return Response(
        _shown(call, info, call.room).model_dump_json(),
        status_code=call.route.status,
        headers={"location": f"/v1/rooms/{quote(call.room, safe='')}"},
        media_type=JSON,
    )


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
