"""The table of everything under /v1. Dispatch, the OpenAPI document and the tests of who may what are made from it."""

from __future__ import annotations

from functools import cache

import orjson
from starlette.responses import Response

from collab.auth.permissions import ADMIN, HISTORY, PRESENCE, READ, WRITE
from collab.errors import (
    AmbiguousText,
    BusUnavailable,
    ClientIdConflict,
    Conflict,
    HistoryGone,
    NothingHere,
    NotYet,
    PreconditionFailed,
    Refused,
    RoomNotFound,
    RoomUnavailable,
    RootNotFound,
    TextNotFound,
    TooLarge,
)
from collab.server.api import (
    credentials,
    document,
    history,
    members,
    models,
    presence,
    rooms,
    turns,
    updates,
)
from collab.server.api.dispatch import BYTES, JSON, Call, Route, json
from collab.server.api.openapi import describe


async def openapi(call: Call) -> Response:
    """This API, for programs."""
    return Response(_document(), media_type=JSON)


@cache
def _document() -> bytes:
    return orjson.dumps(describe(ROUTES))


# fmt: off
ROUTES: tuple[Route, ...] = (
    Route(
        method="GET", path="/v1/rooms", needs="self", handler=rooms.list_rooms,
        summary="List the rooms you may read", query=models.RoomsQuery, gives=json(models.Rooms),
    ),
    Route(
        method="POST", path="/v1/rooms", needs=ADMIN, names="name", handler=rooms.create,
        summary="Create a room", takes=json(models.NewRoom), status=201, gives=json(models.RoomInfo),
        shows=(("Location", "Where it is."),),
    ),
    Route(
        method="GET", path="/v1/rooms/{room}", needs=READ, handler=rooms.describe,
        summary="Describe a room", gives=json(models.RoomInfo), errors=(RoomNotFound,),
    ),
    Route(
        method="PATCH", path="/v1/rooms/{room}", needs=ADMIN, handler=rooms.change,
        summary="Change a room's metadata or how long its log is kept",
        takes=json(models.RoomChange), gives=json(models.RoomInfo), errors=(RoomNotFound,),
    ),
    Route(
        method="DELETE", path="/v1/rooms/{room}", needs=ADMIN, handler=rooms.delete,
        summary="Delete a room", status=204, errors=(RoomNotFound,),
    ),
    Route(
        method="POST", path="/v1/rooms/{room}/restore", needs=ADMIN, handler=rooms.restore,
        summary="Restore a deleted room", gives=json(models.RoomInfo), errors=(RoomNotFound,),
    ),
    Route(
        method="GET", path="/v1/rooms/{room}/document", needs=READ, handler=document.read,
        summary="Read a document", query=models.DocumentQuery,
        headers=(("If-None-Match", "304 when the document is still what this ETag names."),),
        gives={JSON: None, document.TEXT: None, document.MARKDOWN: None, BYTES: None},
        shows=(("ETag", "Epoch and position of what was read."),),
        errors=(RoomNotFound, RootNotFound, NotYet, HistoryGone, RoomUnavailable),
    ),
    Route(
        method="PATCH", path="/v1/rooms/{room}/document", needs=READ | WRITE, handler=document.edit, is_large=True,
        summary="Edit a document", query=models.EditQuery, takes={JSON: models.Edits, document.JSON_PATCH: models.Patch},
        headers=(("If-Match", "412 unless the document is still what this ETag names."),),
        gives=json(models.Saved), shows=(("ETag", "Epoch and position of the edit."),),
        errors=(RoomNotFound, PreconditionFailed, AmbiguousText, TextNotFound, RoomUnavailable),
    ),
    Route(
        method="POST", path="/v1/rooms/{room}/update", needs=WRITE, handler=document.write, is_large=True,
        summary="Merge a Yjs update into a document", query=models.EditQuery, takes={BYTES: None},
        headers=(("If-Match", "412 unless the document is still what this ETag names."),),
        gives=json(models.Saved), shows=(("ETag", "Epoch and position after it."),),
        errors=(Refused, RoomNotFound, PreconditionFailed, ClientIdConflict, RoomUnavailable),
    ),
    Route(
        method="GET", path="/v1/rooms/{room}/updates", needs=READ | HISTORY, handler=updates.read,
        summary="Read the log of a document, or follow it", query=models.UpdatesQuery,
        headers=(("Last-Event-ID", "The position after which a stream goes on."),),
        gives={JSON: models.Updates, updates.EVENTS: None}, errors=(RoomNotFound, NotYet, RoomUnavailable),
    ),
    Route(
        method="GET", path="/v1/rooms/{room}/blame", needs=READ | HISTORY, handler=history.blame,
        summary="Who wrote what", query=models.BlameQuery, gives=json(models.Blame),
        errors=(RoomNotFound, RootNotFound, NothingHere, Conflict, NotYet, HistoryGone, RoomUnavailable),
    ),
    Route(
        method="GET", path="/v1/rooms/{room}/changeset", needs=READ | HISTORY, handler=history.changeset,
        summary="What changed between two positions", query=models.ChangesetQuery, gives=json(models.Changeset),
        errors=(RoomNotFound, RootNotFound, NothingHere, Conflict, NotYet, HistoryGone, TooLarge, RoomUnavailable),
    ),
    Route(
        method="GET", path="/v1/rooms/{room}/activity", needs=READ | HISTORY, handler=history.activity,
        summary="Who did what lately", query=models.ActivityQuery, gives=json(models.Activity),
        errors=(RoomNotFound, RoomUnavailable),
    ),
    Route(
        method="GET", path="/v1/rooms/{room}/turns/{turn}", needs=READ | HISTORY, handler=history.turn,
        summary="Describe a turn", query=models.TurnQuery, gives=json(models.TurnInfo),
        errors=(RoomNotFound, NothingHere, Conflict, RoomUnavailable),
    ),
    Route(
        method="POST", path="/v1/rooms/{room}/turns/{turn}/undo", needs=READ | WRITE, handler=history.undo,
        summary="Take a turn back", takes=json(models.TakeBack), gives=json(models.TakenBack),
        shows=(("ETag", "Epoch and position after it."),),
        errors=(RoomNotFound, NothingHere, HistoryGone, RoomUnavailable, BusUnavailable),
    ),
    Route(
        method="POST", path="/v1/rooms/{room}/turns/{turn}/redo", needs=READ | WRITE, handler=history.redo,
        summary="Bring back a turn that was taken back", takes=json(models.TakeBack), gives=json(models.TakenBack),
        shows=(("ETag", "Epoch and position after it."),),
        errors=(RoomNotFound, NothingHere, HistoryGone, RoomUnavailable, BusUnavailable),
    ),
    Route(
        method="POST", path="/v1/rooms/{room}/undo", needs=READ | WRITE, handler=history.undo_range,
        summary="Take back what somebody did in some time", takes=json(models.TakeBackRange),
        gives=json(models.TakenBack), shows=(("ETag", "Epoch and position after it."),),
        errors=(RoomNotFound, HistoryGone, RoomUnavailable, BusUnavailable),
    ),
    Route(
        method="GET", path="/v1/rooms/{room}/presence", needs=READ, handler=presence.read,
        summary="Who is present", gives=json(models.Presence),
    ),
    Route(
        method="PUT", path="/v1/rooms/{room}/presence", needs=READ | PRESENCE, handler=presence.stay,
        summary="Be present without a socket", takes=json(models.Stay), gives=json(models.Stayed),
        errors=(RoomNotFound, RoomUnavailable),
    ),
    Route(
        method="DELETE", path="/v1/rooms/{room}/presence", needs=PRESENCE, handler=presence.leave,
        summary="Be present no longer", status=204,
    ),
    Route(
        method="GET", path="/v1/rooms/{room}/members", needs=READ, handler=members.list_members,
        summary="List the connections in a room", gives=json(models.Members),
    ),
    Route(
        method="DELETE", path="/v1/rooms/{room}/members/{connection}", needs=ADMIN, handler=members.disconnect,
        summary="Disconnect a member", status=204, errors=(NothingHere,),
    ),
    Route(
        method="POST", path="/v1/rooms/{room}/turns/{turn}/cancel", needs=WRITE, handler=turns.cancel,
        summary="Stop a turn", query=models.CancelQuery, status=204, errors=(NothingHere,),
    ),
    Route(
        method="POST", path="/v1/tickets", needs="self", handler=credentials.ticket,
        summary="Get a ticket for a socket", takes=json(models.Ticket), status=201, gives=json(models.NewTicket),
        is_secret=True,
    ),
    Route(
        method="GET", path="/v1/keys", needs=ADMIN, handler=credentials.list_keys,
        summary="List API keys", gives=json(models.Keys), errors=(Conflict,),
    ),
    Route(
        method="POST", path="/v1/keys", needs=ADMIN, handler=credentials.create_key,
        summary="Make an API key", takes=json(models.NewKey), status=201, gives=json(models.MadeKey),
        is_secret=True,
    ),
    Route(
        method="DELETE", path="/v1/keys/{key}", needs=ADMIN, handler=credentials.revoke_key,
        summary="Revoke an API key", status=204, errors=(NothingHere,),
    ),
    Route(
        method="GET", path="/v1/grants", needs=ADMIN, handler=credentials.list_grants,
        summary="List grants", query=models.GrantsQuery, gives=json(models.Grants), errors=(Conflict,),
    ),
    Route(
        method="POST", path="/v1/grants", needs=ADMIN, handler=credentials.grant,
        summary="Grant operations", takes=json(models.NewGrant), status=201, gives=json(models.GrantInfo),
    ),
    Route(
        method="DELETE", path="/v1/grants", needs=ADMIN, handler=credentials.withdraw,
        summary="Take a grant back", query=models.GrantQuery, status=204, errors=(NothingHere,),
    ),
    Route(
        method="POST", path="/v1/revocations", needs=ADMIN, handler=credentials.revoke,
        summary="Revoke a principal or a token", takes=json(models.Revocation), status=201,
        gives=json(models.Revoked), errors=(NothingHere,),
    ),
    Route(
        method="POST", path="/v1/recheck", needs=ADMIN, handler=credentials.recheck,
        summary="Look whether rights have changed", takes=json(models.Recheck), status=204,
    ),
    Route(
        method="GET", path="/v1/openapi.json", needs="none", handler=openapi,
        summary="This API as an OpenAPI 3.1 document", gives={JSON: None},
    ),
)
# fmt: on
