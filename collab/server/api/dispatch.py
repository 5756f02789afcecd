"""One request of the API from its first header to its answer, the same way for every route of the table.

The order is: address and method, who asks, whether it may, what it brings, whether it was asked before, what it does.
Whoever may not do something learns nothing from what it sent, nor whether the room exists.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import thread_time
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from collab import logs
from collab.auth.permissions import ANONYMOUS, Principal
from collab.errors import (
    CollabError,
    Conflict,
    InvalidRequest,
    MethodNotAllowed,
    NothingHere,
    RootNotFound,
    TooLarge,
    Unauthenticated,
    UnsupportedMediaType,
)
from collab.metrics import Metrics
from collab.names import room_key, room_name
from collab.replica import Replica
from collab.room import Room
from collab.server.access import ENDED, Access
from collab.server.api import reading
from collab.server.api.repeats import Repeats
from collab.server.limits import Limits
from collab.server.responses import Problem

if TYPE_CHECKING:
    from collab.server.api.drafts import Drafts
    from collab.server.api.presence import Guests

JSON = "application/json"
BYTES = "application/octet-stream"
SMALL_BODY_BYTES = 65_536  # of what is not a document
NO_OPERATION = 0

# Nobody but the browser that asks keeps an answer, and not even that one without asking again.
_HEADERS = {
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
# Their messages name keys and roots, which are content: for who asked, not for the log.
_QUOTING = (InvalidRequest, Conflict, RootNotFound)
_SHOWN_TO_SCRIPTS = "etag, location, retry-after, x-request-id, idempotent-replay"
_TAKEN_FROM_SCRIPTS = (
    "accept, authorization, content-type, idempotency-key, if-match, if-none-match, "
    "last-event-id"
)

log = logs.logger(__name__)


@dataclass(slots=True)
class Call:
    """One request that may go ahead: who asks, for which room, and what it brought."""

    api: Api
    route: Route
    request: Request
    principal: Principal
    parameters: Mapping[str, str]  # of the path
    room: str = ""  # its name; "" where the route is about the tenant
    operations: int = NO_OPERATION  # all that the principal may do in that room
    query: Any = None  # the model that the route names
    body: Any = None  # likewise, or bytes
    media_type: str = ""  # of the body
    opened: Room | None = None
    # The room that the edit is in already, and the position to wait for.
    taken_in: tuple[Room, int, str] | None = None

    @property
    def key(self) -> str:
        """What the room is called inside the server."""
        return room_key(self.principal.tenant, self.room)

    @property
    def connection(self) -> str:
        """Stands in the log of the room where a socket's members have their connection."""
        return str(self.request.state.id)

    @property
    def address(self) -> str:
        return self.request.client.host if self.request.client else ""

    async def audit(self, event: str, **details: Any) -> None:
        """Write down what is about to be done; raises StoreUnavailable when that fails, and then it must not be."""
        await self.api.replica.audit.confirmed(event, **self._happening(details))

    def record(self, event: str, **details: Any) -> None:
        """Write down what was done, without waiting for it."""
        self.api.replica.audit.record(event, **self._happening(details))

    def _happening(self, details: dict[str, Any]) -> dict[str, Any]:
        return {
            "principal": self.principal.id,
            "tenant": self.principal.tenant,
            "room": self.key if self.room else "",
            "address": self.address,
            "request": self.connection,
            **details,
        }

    @contextmanager
    def work(self) -> Iterator[None]:
        """Around what may keep the event loop, and waits for nothing: the principal is charged for it."""
        begun = thread_time()
        try:
            yield
        finally:
            self.api.limits.charge(self.principal, thread_time() - begun)

    async def open(self) -> Room:
        """The live room. What the route needs was true when the request came, and is true again now."""
        self.opened = room = await self.api.replica.open(self.key)
        if isinstance(self.route.needs, int):
            self.operations = self.api.access.allow(
                self.principal, self.room, self.route.needs
            )
        return room


Handler = Callable[[Call], Awaitable[BaseModel | Response | None]]
# "self": whoever is authenticated, for itself alone. "none": anybody.
Needs = int | Literal["self", "none"]
# By media type; None where it is bytes.
Bodies = Mapping[str, type[BaseModel] | None]


def json(model: type[BaseModel]) -> Bodies:
    """A body of JSON that looks like this."""
    return {JSON: model}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of the table: all that is known of a request before it comes."""

    method: str
    path: str
    summary: str
    needs: Needs  # operations in the room of the path; of the tenant where there is none in it
    handler: Handler
    takes: Bodies = field(default_factory=dict)
    is_large: bool = False  # its body may be as long as a message of a socket
    # The field of the body that names the room, where the path does not.
    names: str = ""
    query: type[BaseModel] | None = None
    # Taken from the request, with what they mean.
    headers: Sequence[tuple[str, str]] = ()
    status: int = 200
    gives: Bodies = field(default_factory=dict)  # nothing: 204
    shows: Sequence[tuple[str, str]] = ()  # headers of the answer, with what they mean
    errors: Sequence[type[CollabError]] = ()  # beyond those that any route may answer
    is_secret: bool = False  # the answer holds a credential

    @property
    def is_write(self) -> bool:
        return self.method != "GET"

    @property
    def segments(self) -> list[str]:
        return self.path.strip("/").split("/")

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Api:
    """The ASGI application of everything under /v1.

    Paths are split before they are decoded, so that a room whose name holds a slash is one segment: `a%2Fb`.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        access: Access,
        limits: Limits,
        replica: Replica,
        metrics: Metrics,
        guests: Guests,
        drafts: Drafts,
        max_body_bytes: int,
    ) -> None:
        self.routes = routes
        self.access, self.limits = access, limits
        self.replica, self.metrics = replica, metrics
        self.repeats = Repeats(replica.store)
        self.guests = guests  # present without a socket
        self.drafts = drafts
        self._max_body_bytes = max_body_bytes
        self._tree: dict[str, Any] = {}
        for route in routes:
            node = self._tree
            for segment in route.segments:
                node = node.setdefault("{}" if segment[0] == "{" else segment, {})
            node.setdefault("", {})[route.method] = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        request.state.id = secrets.token_hex(8)
        request.state.is_read = False
        route: Route | None = None
        try:
            route, parameters = self._find(request)
            if route is None:
                response = self._options(request)
            else:
                response = await self._answer(route, request, parameters)
        except CollabError as error:
            response = Problem(error)
            self._note(request, route, error)
        except ClientDisconnect:
            return
        except Exception:
            log.exception("a bug met a request", request=request.state.id)
            response = Problem(CollabError("an error on our side"))
        if response.status_code >= 400:
            try:
                await _take_rest(request)
            except ClientDisconnect:
                return
        self._finish(request, route, response)
        await response(scope, receive, send)

    # Where to

    def _find(self, request: Request) -> tuple[Route | None, dict[str, str]]:
        """The route and the parameters of its path; without a route, the methods that there are."""
        segments = reading.segments(request.scope["raw_path"])
        node, found = self._tree, []
        for segment in segments:
            if segment in node and segment not in ("", "{}"):
                node = node[segment]
            elif "{}" in node and segment:
                node = node["{}"]
                found.append(segment)
            else:
                raise NothingHere("there is nothing under this address")
        methods: dict[str, Route] = node.get("", {})
        if not methods:
            raise NothingHere("there is nothing under this address")
        allowed = [*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"]
        request.state.allow = ", ".join(allowed)
        if request.method == "OPTIONS":
            return None, {}
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            raise MethodNotAllowed(f"only {request.state.allow} are answered here")
        names = [each[1:-1] for each in route.segments if each[0] == "{"]
        return route, dict(zip(names, found, strict=True))

    def _options(self, request: Request) -> Response:
        """What a browser asks before it lets a page of another origin ask; foreign ones were refused before."""
        response = Response(status_code=204, headers={"allow": request.state.allow})
        if "access-control-request-method" in request.headers:
            response.headers["access-control-allow-methods"] = request.state.allow
            response.headers["access-control-allow-headers"] = _TAKEN_FROM_SCRIPTS
            response.headers["access-control-max-age"] = "600"
        return response

    # Who, and whether it may

    async def _answer(
        self, route: Route, request: Request, parameters: dict[str, str]
    ) -> Response:
        call = request.state.call = Call(self, route, request, ANONYMOUS, parameters)
        if "room" in parameters:
            call.room = room_name(parameters["room"])
        credential = self.access.credential(request)
        self.limits.arrive(credential.address)
        if route.needs != "none":
            call.principal = await self.access.authority.authenticate(
                credential, call.room
            )
            self.limits.request(call.principal)
        if not route.names:
            self._allow(call)
        await self._read(call)
        self._allow(call)  # a body takes its time, and rights end meanwhile
        if not route.is_write:
            return await self._carry_out(call)
        async with self.repeats.once(call) as repeat:
            if repeat.answer is None:
                repeat.answer = await self._carry_out(call)
            return repeat.answer

    def _allow(self, call: Call) -> None:
        needs, access = call.route.needs, self.access
        if isinstance(needs, int):
            call.operations = access.allow(call.principal, call.room, needs)
        elif access.authority.has_ended(call.principal):
            raise Unauthenticated(ENDED)

    async def _carry_out(self, call: Call) -> Response:
        try:
            given = await call.route.handler(call)
        finally:
            if call.opened is not None:
                self.replica.release(call.opened)
        if isinstance(given, Response):
            return given
        if given is None:
            return Response(status_code=204)
        with call.work():
            content = given.model_dump_json()
        return Response(content, status_code=call.route.status, media_type=JSON)

    # What it brings

    async def _read(self, call: Call) -> None:
        route, request = call.route, call.request
        call.query = reading.query(route.query, request.scope["query_string"])
        if not route.takes:
            return
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise UnsupportedMediaType("send the body as it is, not compressed")
        call.media_type = reading.media_type(request.headers.getlist("content-type"))
        if call.media_type not in route.takes:
            raise UnsupportedMediaType(f"send {' or '.join(route.takes)}")
        raw = await self._body(request, route)
        model = route.takes[call.media_type]
        if model is None:
            call.body = raw
        else:
            with call.work():
                call.body = reading.body(model, raw)
        if route.names:
            call.room = room_name(getattr(call.body, route.names))
            if call.principal.is_lent:
                # Whoever lent it was not asked about this room yet.
                call.principal = await self.access.authority.authenticate(
                    self.access.credential(request), call.room
                )

    async def _body(self, request: Request, route: Route) -> bytes:
        """Counted as it comes, whatever was announced."""
        limit = self._max_body_bytes if route.is_large else SMALL_BODY_BYTES
        parts, size = [], 0
        while not request.state.is_read:
            part = await _receive(request)
            size += len(part)
            if size > limit:
                raise TooLarge("request body")
            parts.append(part)
        request.state.body = b"".join(parts)
        return bytes(request.state.body)

    # What becomes of it

    def _note(self, request: Request, route: Route | None, error: CollabError) -> None:
        """One line and one count for each request that was refused."""
        self.metrics.refused_requests[str(error.http_status)] += 1
        call: Call | None = getattr(request.state, "call", None)
        if call is not None:
            self.access.denied(
                error,
                str(call.route),
                None if call.principal is ANONYMOUS else call.principal,
                room=call.room,
                address=request.client.host if request.client else "",
            )
        rule = getattr(error, "rule", None)
        if rule is not None:
            self.metrics.refusals[rule] += 1
        log.info(
            "request refused",
            request=request.state.id,
            route=str(route or ""),
            status=error.http_status,
            code=error.code,
            reason="" if isinstance(error, _QUOTING) else str(error)[:200],
            address=request.client.host if request.client else "",
        )

    def _finish(
        self, request: Request, route: Route | None, response: Response
    ) -> None:
        headers = response.headers
        headers["x-request-id"] = request.state.id
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        if route is not None and route.is_secret:
            headers["cache-control"] = "no-store"
        if response.status_code == 405:
            headers["allow"] = request.state.allow
        origin = request.headers.get("origin")
        if origin is not None:
            # `Origins` has refused every request of a foreign one.
            headers["access-control-allow-origin"] = origin
            headers["access-control-expose-headers"] = _SHOWN_TO_SCRIPTS
            headers.add_vary_header("origin")
        kind = f"{response.status_code // 100}xx"
        self.metrics.requests[str(route) if route else "other", kind] += 1


async def _receive(request: Request) -> bytes:
    """The next part of the body. Raises ClientDisconnect."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    request.state.is_read = not message.get("more_body", False)
    return bytes(message.get("body", b""))


async def _take_rest(request: Request) -> None:
    """Read what is left of the body of a refused request.

    Closing over unread bytes would reset the connection, and take the answer with it. `Http` bounds size and time.
    """
    while not request.state.is_read:
        await _receive(request)
