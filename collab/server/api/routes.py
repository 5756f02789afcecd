"""The table of everything under /v1. Dispatch, the OpenAPI document and the tests of who may what are made from it."""

from __future__ import annotations

from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.routing import Route as StarletteRoute

from collab.auth.permissions import ADMIN, READ
from collab.errors import NothingHere, RoomNotFound
from collab.server.api import members, models, presence, rooms
from collab.server.api.dispatch import JSON, Api, Call, Route, json
from collab.server.api.openapi import describe
from collab.server.responses import Json


async def openapi(call: Call) -> Response:
    """This API, for programs."""
    return Json(describe(call.api.routes))


# fmt: off
ROUTES: tuple[Route, ...] = (
    Route(
        method="GET", path="/v1/openapi.json", needs="none", handler=openapi,
        summary="This API as an OpenAPI 3.1 document", gives={JSON: None},
    ),
    Route(
        method="GET", path="/v1/rooms", needs="self", handler=rooms.list_rooms,
        summary="List the rooms you may read", query=models.RoomsQuery, gives=json(models.Rooms),
    ),
    Route(
        method="GET", path="/v1/rooms/{room}", needs=READ, handler=rooms.describe,
        summary="Describe a room", gives=json(models.RoomInfo), errors=(RoomNotFound,),
    ),
    Route(
        method="GET", path="/v1/rooms/{room}/presence", needs=READ, handler=presence.read,
        summary="Who is present", gives=json(models.Presence),
    ),
    Route(
        method="GET", path="/v1/rooms/{room}/members", needs=READ, handler=members.list_members,
        summary="List the connections in a room", gives=json(models.Members),
    ),
    Route(
        method="DELETE", path="/v1/rooms/{room}/members/{connection}", needs=ADMIN, handler=members.disconnect,
        summary="Disconnect a member", status=204, errors=(NothingHere,),
    ),
)
# fmt: on


def api_routes(api: Api) -> list[BaseRoute]:
    """What the application mounts: `Api` finds its way by itself, since it must see the path undecoded."""
    return [StarletteRoute("/v1", api), StarletteRoute("/v1/{rest:path}", api)]
