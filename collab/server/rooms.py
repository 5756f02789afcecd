"""The paths of the three dialects. To refuse a browser, accept and then close: a failed handshake is only 1006 to it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from collab import logs
from collab.auth.base import Credential
from collab.auth.permissions import EVERYTHING, READ, WRITE, Principal
from collab.auth.tickets import TICKET_PREFIX
from collab.errors import CollabError, InvalidRequest, RateLimited, TooLarge
from collab.names import room_name
from collab.protocol.yjs import COLLAB_V1, TOKEN_PREFIX
from collab.server.access import Entry
from collab.server.hocuspocus import HocuspocusSocket
from collab.server.responses import Json
from collab.server.socket import Socket
from collab.server.sockets import Sockets
from collab.server.upgrade import EXTENSION
from collab.server.y_sweet import YSweetSocket
from collab.server.y_websocket import RoomSocket

RETRY_AFTER_SECONDS = 2
# Who comes back at once with what was refused waits that long for the answer.
REPEAT_SECONDS = 2.0
MAX_ASKED_BYTES = 4096  # with which a client token is asked for
NO_SOCKET_HERE = (
    "There is no WebSocket under this address. Those of this server: /ws/ROOM (y-websocket), /hocuspocus "
    "(Hocuspocus), /d/ROOM/ws/ROOM (Y-Sweet, whose clients ask at /doc/ROOM/auth first).\n"
)
KEPT_REFUSALS = 10_000  # then the oldest is forgotten

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110, section 5.6.2

log = logs.logger(__name__)


class Refusals:
    """What was refused a moment ago, by hash."""

    def __init__(self) -> None:
        self._until: dict[int, float] = {}

    def is_repeat(self, what: int, now: float) -> bool:
        """Whether this was refused before and has come back at once; remembers it in any case."""
        until = self._until.pop(what, 0.0)
        if len(self._until) >= KEPT_REFUSALS:
            del self._until[next(iter(self._until))]
        self._until[what] = now + 2 * REPEAT_SECONDS
        return now < until


class Rooms:
    """The endpoints; each hands its transport to a socket and returns."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets
        self._refusals = Refusals()

    def routes(self) -> list[BaseRoute]:
        return [
            WebSocketRoute("/ws/{room:path}", self.y_websocket),
            WebSocketRoute("/hocuspocus", self.hocuspocus),
            WebSocketRoute("/hocuspocus/", self.hocuspocus),
            WebSocketRoute("/d/{twice:path}", self.y_sweet),
            *(
                Route(path, upgrade_required)
                for path in (
                    "/ws/{room:path}",
                    "/hocuspocus",
                    "/hocuspocus/",
                    "/d/{twice:path}",
                )
            ),
            Route("/doc/{room:path}/auth", self.y_sweet_auth, methods=["POST"]),
            WebSocketRoute("/{elsewhere:path}", no_socket_here),  # the last
        ]

    async def y_websocket(self, websocket: WebSocket) -> None:
        is_v1 = COLLAB_V1 in websocket.scope["subprotocols"]
        subprotocol = COLLAB_V1 if is_v1 else _first_offered(websocket)

        def become(transport: Any, address: str, entry: Entry) -> Socket:
            return RoomSocket(transport, self._sockets, address, entry, is_v1=is_v1)

        name = websocket.path_params["room"]
        await self._enter(websocket, name, subprotocol, become, is_slow_to_refuse=True)

    async def y_sweet(self, websocket: WebSocket) -> None:
        def become(transport: Any, address: str, entry: Entry) -> Socket:
            return YSweetSocket(transport, self._sockets, address, entry)

        twice = websocket.path_params["twice"]
        name = twice[: (len(twice) - len("/ws/")) // 2]  # which may hold slashes
        is_same = twice == f"{name}/ws/{name}"
        await self._enter(websocket, name if is_same else "", None, become)

    async def hocuspocus(self, websocket: WebSocket) -> None:
        if not await self._admit(websocket, _first_offered(websocket)):
            return
        access = self._sockets.access
        try:
            credential = access.credential(websocket)
            shown: Credential | Principal = credential
            if credential.token.startswith(TICKET_PREFIX):
                # It is used up at once, and good for all documents whose messages bring no token.
                shown = await access.authority.authenticate(credential)
        except CollabError as error:
            await self._refuse(websocket, error)
            return
        websocket.scope["extensions"][EXTENSION].attach(
            lambda transport, address: HocuspocusSocket(
                transport, self._sockets, address, shown
            )
        )

    async def y_sweet_auth(self, request: Request) -> Response:
        """What a Y-Sweet client, or the backend of its application, asks before the client connects.

        The client token is a ticket: the client asks for another one each time it has failed to connect with it.
        """
        name = room_name(request.path_params["room"])
        host = request.headers.get("host")
        if not host:
            raise InvalidRequest("say by Host where the client is to connect")
        secure = "s" if request.url.scheme == "https" else ""
        answer = {
            "url": f"ws{secure}://{host}/d/{quote(name)}/ws",
            "baseUrl": f"http{secure}://{host}/d/{quote(name)}",
            "docId": name,
            "authorization": "full",
        }
        access = self._sockets.access
        if not access.authority.is_open:
            try:
                principal = await self._asker(request, name)
                may_write = access.allow(principal, name, READ) & WRITE
            except CollabError as error:
                address = request.client.host if request.client else ""
                access.denied(error, "ticket", room=name, address=address)
                raise
            if not may_write:
                answer["authorization"] = "read-only"
            answer["token"], _ = await access.tickets.issue(principal, name)
            self._sockets.replica.audit.record(
                "ticket", principal=principal.id, tenant=principal.tenant, room=name
            )
        return Json(answer, headers={"cache-control": "no-store"})

    async def _asker(self, request: Request, name: str) -> Principal:
        """Who asks for a client token, as far as that token is to reach."""
        access, limits = self._sockets.access, self._sockets.limits
        credential = access.credential(request)
        limits.arrive(credential.address)
        principal = await access.authority.authenticate(credential, name)
        limits.request(principal)
        if await _wants_to_read_only(request):
            principal = replace(principal, at_most=EVERYTHING & ~WRITE)
        return principal

    async def _admit(self, websocket: WebSocket, subprotocol: str | None) -> bool:
        """Refuse what a client should try again elsewhere or later, before it costs anything; else accept."""
        sockets = self._sockets
        if subprotocol is not None and not _TOKEN.fullmatch(subprotocol):
            await _deny(websocket, 400)
            return False
        if (
            sockets.replica.is_draining
            or len(sockets) + sockets.arriving >= sockets.max_sockets
        ):
            await _deny(websocket, 503)
            return False
        upgrade = websocket.scope["extensions"][EXTENSION]
        try:
            account = sockets.limits.handshake(upgrade.address)
        except RateLimited as error:
            await _deny(websocket, 429, error.retry_seconds)
            return False
        sockets.arriving += 1

        def vacate() -> None:
            sockets.arriving -= 1
            if account is not None:
                account.add_socket(-1)

        upgrade.vacate = vacate
        sockets.metrics.connections += 1
        await websocket.accept(subprotocol)
        return True

    async def _enter(
        self,
        websocket: WebSocket,
        name: str,
        subprotocol: str | None,
        become: Callable[[Any, str, Entry], Socket],
        *,
        is_slow_to_refuse: bool = False,
    ) -> None:
        """One room per socket: open it, and join it without an `await` in between."""
        if not await self._admit(websocket, subprotocol):
            return
        try:
            access = self._sockets.access
            entry = await access.enter(access.credential(websocket), name)
            self._sockets.limits.check_sockets(entry.principal)
            websocket.scope["extensions"][EXTENSION].attach(
                lambda transport, address: become(transport, address, entry)
            )
        except CollabError as error:
            if is_slow_to_refuse and 4400 <= error.close_code < 4500:
                await self._slow_down(websocket)
            await self._refuse(websocket, error)

    async def _slow_down(self, websocket: WebSocket) -> None:
        """y-websocket before 3.1 comes back a tenth of a second after any close, for ever: it would fill the logs."""
        scope = websocket.scope
        shown = websocket.headers.get("authorization"), *scope["subprotocols"]
        what = hash((scope["client"][0], scope["path"], scope["query_string"], shown))
        if self._refusals.is_repeat(what, self._sockets.loop.time()):
            await asyncio.sleep(REPEAT_SECONDS)

    async def _refuse(self, websocket: WebSocket, error: CollabError) -> None:
        self._sockets.metrics.closes[error.code] += 1
        address = websocket.client.host if websocket.client else ""
        room = websocket.path_params.get("room", "")
        self._sockets.access.denied(error, "enter", room=room, address=address)
        log.warning(
            "socket refused",
            code=error.code,
            close_code=error.close_code,
            reason=str(error),
            address=address,
        )
        await websocket.close(error.close_code, str(error))


async def _wants_to_read_only(request: Request) -> bool:
    """What Y-Sweet's own SDK says in the body. Raises InvalidRequest."""
    body = await request.body()
    if not body:
        return False
    if len(body) > MAX_ASKED_BYTES:
        raise TooLarge("request body")
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidRequest("the body is not JSON") from None
    wanted = said.get("authorization", "full") if isinstance(said, dict) else None
    if wanted not in ("full", "read-only"):
        raise InvalidRequest("authorization is full or read-only")
    return bool(wanted == "read-only")


def _first_offered(websocket: WebSocket) -> str | None:
    """The subprotocol to answer when it means nothing to us. A token among them is not one."""
    offered: list[str] = websocket.scope["subprotocols"]
    return next((one for one in offered if not one.startswith(TOKEN_PREFIX)), None)


async def no_socket_here(websocket: WebSocket) -> None:
    """A handshake for any other address."""
    await websocket.send_denial_response(
        Response(NO_SOCKET_HERE, status_code=404, media_type="text/plain")
    )


async def upgrade_required(request: Request) -> Response:
    """A plain request for the address of a socket."""
    return Response(
        "This is the address of a WebSocket.",
        status_code=426,
        headers={"upgrade": "websocket", "connection": "Upgrade"},
        media_type="text/plain",
    )


async def _deny(
    websocket: WebSocket, status: int, retry_seconds: int = RETRY_AFTER_SECONDS
) -> None:
    await websocket.send_denial_response(
        Response(
            status_code=status,
            headers={"retry-after": str(retry_seconds)} if status > 400 else {},
        )
    )
