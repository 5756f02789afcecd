"""What uvicorn builds for an upgrade request: the handshake, then the Starlette application decides.

`uvicorn.Config(ws=…)` takes this class. The endpoint routes, accepts and attaches the transport to a `Socket`; when
it returns, its task, its scope and the HTTP parser are freed. Relies on the constructor's keywords,
`config.loaded_app`, `server_state.connections` and `.tasks` of uvicorn 0.54; `tests/server/test_upgrade.py` holds it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from collab import logs
from collab.auth.certificates import CERTIFICATE, certificate_of
from collab.protocol.frames import close_frame, is_farewell
from collab.server.socket import LINGER_SECONDS, Socket

EXTENSION = "collab.upgrade"  # where the endpoint finds this object in its scope
USER_TIMEOUT_MILLISECONDS = (
    40_000  # how long sent bytes may stay unacknowledged by a peer's machine
)
MAX_SUBPROTOCOLS = 16
MAX_EARLY_BYTES = 65_536  # then reading stops until a socket has taken over

# The handshake library logs what we log ourselves, with bytes of the peer in it.
_silence = logging.Logger("handshake", logging.CRITICAL + 1)

log = logs.logger(__name__)


class Upgrade(asyncio.Protocol):
    """One connection between the upgrade request and the socket it becomes."""

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: Any = None,
    ) -> None:
        self._app = config.loaded_app
        self._state, self._app_state = server_state, app_state
        self._handshake: ServerProtocol | None = ServerProtocol(logger=_silence)
        self._response: Response | None = None
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue(8)
        self._is_over = False
        self._linger: asyncio.TimerHandle | None = None
        self._denial: list[
            Any
        ] = []  # status, headers and body of a refusal in the making
        self._early = bytearray()
        self.transport: Any = None
        self.address = ""
        # Called once, when this is a socket or gone: gives back the places it holds.
        self.vacate: Callable[[], None] | None = None

    # The transport's side

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._state.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        if self._linger is not None:
            self._linger.cancel()
        self._vacate()
        if not self._is_over:
            self._is_over = True
            self._events.put_nowait({"type": "websocket.disconnect", "code": 1006})

    def _vacate(self) -> None:
        if self.vacate is not None:
            self.vacate()
            self.vacate = None

    def shutdown(self) -> None:
        """uvicorn stops."""
        self._is_over = True
        self.transport.close()

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            if not self.transport.can_write_eof() and is_farewell(data):
                self.transport.close()
            return
        if self._response is not None:
            # What the client says before the endpoint has attached a socket.
            self._early += data
            if len(self._early) > MAX_EARLY_BYTES:
                self.transport.pause_reading()
            return
        handshake = self._handshake
        assert handshake is not None
        handshake.receive_data(data)
        events = handshake.events_received()
        if not events:
            if handshake.handshake_exc is not None:
                self._refuse(400, [], b"Bad Request")
            return
        request = events[0]
        assert isinstance(request, Request)
        self._response = handshake.accept(request)
        if self._response.status_code != 101:
            if request.headers.get_all("Sec-WebSocket-Version") != ["13"]:
                # RFC 6455, section 4.2.2; the library says 400.
                self._refuse(426, [("Sec-WebSocket-Version", "13")], b"Bad version")
                return
            self._refuse(
                int(self._response.status_code),
                list(self._response.headers.raw_items()),
                b"Bad handshake",
            )
            return
        try:
            scope = self._scope(request)
        except ValueError:
            self._refuse(400, [], b"Bad Request")
            return
        self._events.put_nowait({"type": "websocket.connect"})
        task = asyncio.get_running_loop().create_task(self._run(scope))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    # The application's side

    def _scope(self, request: Request) -> dict[str, Any]:
        path, _, query = request.path.partition("?")
        offered = [
            part.strip()
            for value in request.headers.get_all("Sec-WebSocket-Protocol")
            for part in value.split(",")
        ]
        if len(offered) > MAX_SUBPROTOCOLS:
            raise ValueError("too many subprotocols")
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if self.transport.get_extra_info("sslcontext") else "ws",
            "server": self.transport.get_extra_info("sockname")[:2],
            "client": (self.transport.get_extra_info("peername") or ("", 0))[:2],
            "root_path": "",
            # Bytes that are not UTF-8 are refused here.
            "path": unquote_to_bytes(path).decode(),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [
                (name.lower().encode(), value.encode("latin-1"))
                for name, value in request.headers.raw_items()
            ],
            "subprotocols": offered,
            "state": self._app_state.copy(),
            "extensions": {
                EXTENSION: self,
                CERTIFICATE: certificate_of(self.transport.get_extra_info("peercert")),
                "websocket.http.response": {},
            },
        }

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self._app(scope, self._events.get, self._send)
        except Exception:
            log.exception("a bug met a handshake", address=self.address)
            self._end(1011)
        else:
            self._end(1000)
        if self.transport.is_closing():
            self._vacate()  # it may have gone before it was let in

    async def _send(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if self._is_over:
            return
        if kind == "websocket.accept":
            self._accept(event.get("subprotocol"))
        elif kind == "websocket.close":
            if self._handshake is not None:
                self._refuse(403, [], b"Forbidden")
            else:
                self._end(event.get("code", 1000), event.get("reason") or "")
        elif kind == "websocket.http.response.start":
            headers = [
                (name.decode(), value.decode("latin-1"))
                for name, value in event["headers"]
            ]
            self._denial = [event["status"], headers, b""]
        elif kind == "websocket.http.response.body":
            self._denial[2] += event.get("body", b"")
            if not event.get("more_body", False):
                self._refuse(*self._denial)

    def _accept(self, subprotocol: str | None) -> None:
        assert self._handshake is not None
        assert self._response is not None
        if subprotocol is not None:
            self._response.headers["Sec-WebSocket-Protocol"] = subprotocol
        self._answer(self._response)
        self._handshake = None

    def _refuse(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Refuse over HTTP. A browser sees no more than that the connection failed, so this is for everybody else."""
        assert self._handshake is not None
        log.info("handshake refused", status=status, address=self.address)
        metrics = self._app_state.get("metrics")
        if metrics is not None:
            metrics.refused_requests[str(status)] += 1
        response = self._handshake.reject(status, body.decode())
        for name, value in headers:
            if name.lower() not in (
                "content-length",
                "content-type",
                "connection",
                "date",
            ):
                response.headers[name] = value
        self._response = response
        self._answer(response)
        self._is_over = True
        self.transport.close()

    def _answer(self, response: Response) -> None:
        assert self._handshake is not None
        self._handshake.send_response(response)
        self.transport.write(b"".join(self._handshake.data_to_send()))

    def _end(self, code: int, reason: str = "") -> None:
        """The application is done without a socket having taken over."""
        if self._is_over:
            return
        self._is_over = True
        if self._handshake is not None:
            self._refuse(500 if code == 1011 else 403, [], b"")
            return
        # The client has begun to speak: closing over unread bytes would reset the connection, and the client might
        # never read why it was refused, and come back for ever.
        if self.transport.is_closing():
            return
        self._early.clear()
        self.transport.write(close_frame(code, reason))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self._linger = asyncio.get_running_loop().call_later(
            LINGER_SECONDS, self.transport.abort
        )

    def attach(self, become: Callable[[Any, str], Socket]) -> None:
        """Hand the transport to the socket that `become(transport, address)` makes; the endpoint then returns."""
        if self._is_over:
            return
        self._is_over = True
        self._state.connections.discard(self)
        raw = self.transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MILLISECONDS
            )
        attached = become(self.transport, self.address)
        self._vacate()
        if self._early:
            early = bytes(self._early)
            if not self.transport.is_closing():
                self.transport.resume_reading()
            attached.data_received(early)
