"""Reading and editing a document over HTTP, for whoever has no socket."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from hashlib import sha256

from starlette.responses import Response

from collab.auth.permissions import HISTORY
from collab.document.edits import Operation, Replacement, Rewrite, Splice
from collab.document.tree import Patch
from collab.errors import (
    DocumentBroken,
    InvalidRequest,
    NotYet,
    PermissionDenied,
    PreconditionFailed,
    RoomNotFound,
    StoreUnavailable,
)
from collab.room import Room, Visitor
from collab.server.api import models
from collab.server.api.dispatch import BYTES, JSON, Call
from collab.turns import About

TEXT = "text/plain"
MARKDOWN = "text/markdown"
JSON_PATCH = "application/json-patch+json"
# Of the author of an edit: the store keeps each pair of principal and connection, and requests are many.
CONNECTION = "http"
FORMATS = {"json": JSON, "text": TEXT, "markdown": MARKDOWN, "update": BYTES}


# Reading


async def read(call: Call) -> Response:
    """As JSON (every root), plain text or Markdown (one root), or the whole document as a Yjs update: by `format` or
    by Accept, JSON else. With `state_vector`, an update of what that lacks. The ETag names epoch and position of what
    is read: give it to `If-Match` with an edit. It is missing while nothing can be saved. With `at` or `at_time`, the
    document as it was: for that `history` is needed too.
    """
    query: models.DocumentQuery = call.query
    if query.at is not None or query.at_time is not None:
        return await _read_past(call, query)
    room = await existing(call)
    if query.min_position is not None:
        await _reach(call, room, query.min_position)
        room = await call.open()  # rights may have ended meanwhile, and the room
    kind = query.format or _wanted(call.request.headers.get("accept", ""))
    if query.state_vector is not None:
        kind = "update"
    tag, position = entity_tag(room), room.position
    is_known = _names(call.request.headers.getlist("if-none-match"), tag, is_weak=True)
    content = b"" if is_known else await _rendered(call, room, kind, query)
    headers = _typed(kind)
    if await _is_saved(call, room, position):
        headers["etag"] = tag
        if is_known:
            del headers["content-type"]
            return Response(None, 304, headers)
    elif is_known:
        content = await _rendered(call, room, kind, query)
    return Response(content, headers=headers)


async def _read_past(call: Call, query: models.DocumentQuery) -> Response:
    if not call.operations & HISTORY:
        raise PermissionDenied("you may not read the past of this room")
    if query.state_vector is not None or query.min_position is not None:
        raise InvalidRequest("the past is read by its position or time alone")
    if query.at is not None and query.at_time is not None:
        raise InvalidRequest("say either a position or a time")
    kind = query.format or _wanted(call.request.headers.get("accept", ""))
    room, _ = await settled(call)
    historian = call.api.replica.historian
    at = query.at
    if at is None:
        at = await historian.position_at(room.name, query.at_time or 0)
    content = await historian.document(room.name, at, kind, query.root)
    return Response(content, headers={"etag": f'"{room.epoch}-{at}"', **_typed(kind)})


def _typed(kind: str) -> dict[str, str]:
    is_text = kind in ("text", "markdown")
    content_type = FORMATS[kind] + ("; charset=utf-8" if is_text else "")
    return {"vary": "accept", "content-type": content_type}


async def settled(call: Call) -> tuple[Room, int]:
    """The room, and where its log ends, with all that it holds in it. Raises RoomNotFound."""
    room = await existing(call)
    try:
        if room.unwritable is None:
            await call.api.replica.logged(room, room.position)
    except StoreUnavailable:
        pass  # what is logged can be read all the same
    room = await call.open()  # rights may have ended meanwhile, and the room
    return room, room.log_end


async def existing(call: Call) -> Room:
    """The live room, when somebody has written there, created it or is in it. Raises RoomNotFound."""
    replica = call.api.replica
    if replica.live(call.key) is None:
        info = await replica.store.info(call.key)
        if info is None or info.deleted_milliseconds is not None:
            raise RoomNotFound("there is no such room")
    return await call.open()


def entity_tag(room: Room) -> str:
    """Names the content. Positions do where this process alone makes them; others are told apart by what is in them."""
    if not room.origin:
        return f'"{room.epoch}-{room.position}"'
    content = room.document.state_vector() + room.document.deletes()
    return f'"{room.epoch}-{sha256(content).hexdigest()[:16]}"'


async def _rendered(
    call: Call, room: Room, kind: str, query: models.DocumentQuery
) -> bytes:
    """Of the state that the document is in when this is called."""
    document = room.document
    with call.work():
        if query.state_vector is not None:
            return document.diff(_decoded(query.state_vector))
        snapshot = document.snapshot()
        if kind == "update":
            return snapshot
        renderer = call.api.replica.renderer
        content = renderer.render_at_once(room.name, snapshot, kind, query.root)
    if content is None:
        content = await renderer.render(room.name, snapshot, kind, query.root)
    return content


def _wanted(accept: str) -> str:
    """The format whose type the header likes best; JSON when it says nothing of any."""
    best, found = 0.0, "json"
    for part in accept.lower().split(","):
        media_type, *parameters = (each.strip() for each in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if re.fullmatch(r"q=[01](\.[0-9]{0,3})?", parameter):
                weight = float(parameter[2:])
        for kind, its_type in FORMATS.items():
            if media_type == its_type and weight > best:
                best, found = weight, kind
    return found


def _decoded(state_vector: str) -> bytes:
    padded = state_vector.rstrip("=")
    padded += "=" * (-len(padded) % 4)
    try:
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except ValueError:
        raise InvalidRequest("the state vector is not base64url") from None


async def _reach(call: Call, room: Room, position: int) -> None:
    try:
        await call.api.replica.reached(room, position)
    except StoreUnavailable:
        raise NotYet(f"the log has not reached {position}") from None


async def _is_saved(call: Call, room: Room, position: int) -> bool:
    """Wait until what was read is saved, unless nothing can be: a position means nothing else before."""
    try:
        if room.logged_position < position:
            if room.unwritable is not None:
                return False
            await call.api.replica.logged(room, position)
    except StoreUnavailable:
        return False
    return True


# Writing


async def write(call: Call) -> Response:
    """Merges a Yjs update (version 1). What the document knows already is left out; answers when the rest is saved. With
    `turn` it belongs to that turn.
    """
    update: bytes = call.body

    def merge(room: Room, visitor: Visitor) -> bool:
        return room.update(visitor, update, precise=True)

    return await _write(call, merge)


async def edit(call: Call) -> Response:
    """By path (JSON Patch) on maps and lists, or by characters on texts: splices, replacements of what is there once,
    or the whole text of a root. Only what differs is changed, all of it or nothing. With `If-Match`, only when nobody
    has written since. With `turn` it belongs to that turn. Answers when it is saved.
    """
    operations = _operations(call.body)
    return await _write(
        call,
        lambda room, visitor: call.api.drafts.edit(room, visitor, operations),
    )


async def _write(call: Call, change: Callable[[Room, Visitor], bool]) -> Response:
    if call.taken_in is None:
        call.taken_in = await _take_in(call, change)
    room, position, tag = call.taken_in
    await call.api.replica.logged(room, position)
    # In a log that others write too, the edit is somewhere up to there.
    end = room.place if room.origin else position
    saved = models.Saved(epoch=room.epoch, position=end)
    return Response(
        saved.model_dump_json(),
        headers={"etag": tag},
        media_type=JSON,
    )


async def _take_in(
    call: Call, change: Callable[[Room, Visitor], bool]
) -> tuple[Room, int, str]:
    """The room with the change in it, the position at which the log will have it, and the tag of its content."""
    replica = call.api.replica
    room = await call.open()
    _match(call, room)
    visitor = Visitor(call.principal, call.operations, connection=CONNECTION)
    limits = call.api.limits
    visitor.bound(limits.of_agent(call.principal, room.name))
    query: models.EditQuery = call.query
    replica.join(room, visitor)
    try:
        if query.turn:
            visitor.bound(limits.budget(call.principal, visitor.owner, room.name))
            said = About(task=query.task, model=query.model, reason=query.reason)
            room.begin_turn(visitor, query.turn, said)
        with call.work():
            change(room, visitor)
        return room, room.position, entity_tag(room)
    except DocumentBroken:
        await replica.rebuild(room)
        raise
    finally:
        replica.leave(room, visitor)


def _match(call: Call, room: Room) -> None:
    given = call.request.headers.getlist("if-match")
    if given and not _names(given, entity_tag(room), is_weak=False):
        raise PreconditionFailed(
            f"the document is at {entity_tag(room)} now: read it again"
        )


def _names(given: list[str], tag: str, *, is_weak: bool) -> bool:
    """Whether a header of entity tags names this one. `*` names any."""
    for each in ",".join(given).split(","):
        named = each.strip()
        if is_weak:
            named = named.removeprefix("W/")
        if named in (tag, "*"):
            return True
    return False


def _operations(body: models.Patch | models.Edits) -> list[Operation]:
    if isinstance(body, models.Patch):
        return [
            Patch(
                each.op,
                each.path,
                getattr(each, "value", None),
                getattr(each, "source", ""),
            )
            for each in body.root
        ]
    match body.root:
        case models.Splices(splices=splices):
            return [
                Splice(each.root, each.index, each.delete, each.insert, each.attributes)
                for each in splices
            ]
        case models.Replacements(replacements=replacements):
            return [
                Replacement(each.root, each.old, each.new, each.near)
                for each in replacements
            ]
        case models.WholeText(text=text):
            return [Rewrite(text.root, text.content)]
