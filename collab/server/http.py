"""uvicorn's HTTP parser with bounds: on the request line, on headers, on bodies and on the time they take."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from collab.auth.certificates import CERTIFICATE, certificate_of
from collab.logs import logger
from collab.server.responses import problem

log = logger(__name__)

# Two of these in one request mean two readers may see two requests.
_ONCE = frozenset(
    (
        b"authorization",
        b"content-length",
        b"host",
        b"origin",
        b"sec-websocket-key",
        b"sec-websocket-version",
        b"transfer-encoding",
    )
)


# As the API's own answers have them.
_CODES = {
    400: "invalid_request",
    408: "handshake_timeout",
    413: "too_large",
    414: "too_large",
    429: "rate_limited",
    431: "too_large",
    505: "protocol_violation",
}


class _Refusal(Exception):
    """Raised inside the parser's callbacks, whose only way out is an exception."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(status, reason)
        self.status, self.reason = status, reason


class Http(HttpToolsProtocol):
    """One HTTP connection until it closes or becomes a WebSocket; `uvicorn.Config(http=Http)`.

    A refused request is answered, logged, counted by status in the `metrics` of the application's state, and
    its connection closed. An upgrade takes nothing along: no timer, no parser, no task.
    """

    max_line_bytes = 8192  # of the request line and of one header; the WebSocket side takes no more either
    max_header_bytes = 16_384
    max_headers = 100
    max_body_bytes = 65_536
    max_pipelined = 8
    head_seconds = (
        5.0  # from the connection or the last response to the end of the headers
    )
    body_seconds = 10.0  # from the end of the headers to the end of the body
    stall_seconds = 30.0  # how long a peer may leave unread what we wrote
    linger_seconds = 1.0  # between a refusal and the end, whatever the peer does

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.max_body_bytes = app_state.get("max_body_bytes", self.max_body_bytes)
        self._in_head = True  # reading a request line or headers, or waiting for them
        self._is_begun = False  # at least one byte of a request is here
        self._is_refused = False
        self._moved = False  # the parser finished a head or a body in this read
        self._read_bytes = 0  # of the head or body being read, framing included
        self._line_bytes = self._header_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    # The transport's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._certificate = certificate_of(transport.get_extra_info("peercert"))
        self._allow(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._allow(None)
        self._unset_keepalive_if_required()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._unset_keepalive_if_required()
        self._moved = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._upgrade(has_more=upgrade.args[0] < len(data))
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, _Refusal):
                return self._refuse(cause.status, cause.reason)
            if isinstance(cause, httptools.HttpParserInvalidURLError):
                return self._refuse(HTTPStatus.BAD_REQUEST, "bad target")
            raise
        except httptools.HttpParserError:
            return self._refuse(HTTPStatus.BAD_REQUEST, "malformed")
        self._count(len(data))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall = self.loop.call_later(self.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        # Closing waits until the peer has read what is left, and it may never do so.
        self._allow(self.stall_seconds)

    # The parser's callbacks

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= self.max_pipelined:
            raise _Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too many pipelined")
        super().on_message_begin()
        if self._certificate is not None:
            self.scope["extensions"] = {CERTIFICATE: self._certificate}  # type: ignore[dict-item]  # it is typed for the dicts of others
        self._is_begun = True
        self._line_bytes = len(b"GET  HTTP/1.1\r\n")
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._line_bytes += len(url)
        if self._line_bytes > self.max_line_bytes:
            raise _Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, "target too long")
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: counted as part of the body, never read
        length = len(name) + len(value) + 4
        self._header_bytes += length
        if (
            length > self.max_line_bytes
            or self._header_bytes > self.max_header_bytes
            or len(self.headers) >= self.max_headers
        ):
            raise _Refusal(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers too large"
            )
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._check_head()
        self._in_head = False
        self._moved = True
        self._allow(self.body_seconds)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        # A body that comes in one read is measured here; one in many parts by `_count` as well.
        if self.cycle is not None and len(self.cycle.body) > self.max_body_bytes:
            raise _Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body too large")

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = self._moved = True
        self._is_begun = False
        self._allow(None)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._allow(self.stall_seconds)
        elif self._in_head:
            self._allow(self.head_seconds)

    # Our own

    def _check_head(self) -> None:
        """Refuse what another reader of the same bytes could take for a different request."""
        version, names = (
            self.parser.get_http_version(),
            [name for name, _ in self.headers],
        )
        if version not in ("1.0", "1.1"):
            raise _Refusal(
                HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "unknown HTTP version"
            )
        if any(names.count(name) > 1 for name in _ONCE.intersection(names)):
            raise _Refusal(HTTPStatus.BAD_REQUEST, "repeated header")
        if version == "1.1" and b"host" not in names:
            raise _Refusal(HTTPStatus.BAD_REQUEST, "no host")
        if not self.url.startswith(b"/"):
            raise _Refusal(HTTPStatus.BAD_REQUEST, "bad target")
        headers = dict(self.headers)
        if headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise _Refusal(HTTPStatus.BAD_REQUEST, "unknown transfer encoding")
        if int(headers.get(b"content-length", 0)) > self.max_body_bytes:
            raise _Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body too large")
        if self.parser.should_upgrade() and self._should_upgrade():
            # uvicorn rebuilds the request for the WebSocket side from method, target and headers alone.
            if self.parser.get_method() != b"GET" or version != "1.1":
                raise _Refusal(HTTPStatus.BAD_REQUEST, "upgrade of another request")
            if b"transfer-encoding" in headers or int(
                headers.get(b"content-length", 0)
            ):
                raise _Refusal(HTTPStatus.BAD_REQUEST, "upgrade with a body")

    def _count(self, read: int) -> None:
        """Bound what the parser holds back or skips: half a header, chunk sizes, trailers, empty lines.

        A read that finished a part starts the count anew, so up to one read more than the bound gets in.
        """
        self._read_bytes = 0 if self._moved else self._read_bytes + read
        if self._in_head:
            if self._read_bytes > self.max_line_bytes + self.max_header_bytes:
                self._refuse(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers too large"
                )
        elif self._read_bytes > self.max_body_bytes:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body too large")

    def _upgrade(self, *, has_more: bool) -> None:
        if not self._should_upgrade():
            # Another upgrade is not ours to make: answered as if it had not asked, and nothing more is read.
            self._allow(None)
            if self.cycle is not None:
                self.cycle.keep_alive = False
            self._is_refused = True
            return
        if has_more:
            return self._refuse(HTTPStatus.BAD_REQUEST, "bytes before the handshake")
        if self.cycle is not None and not self.cycle.response_complete:
            return self._refuse(HTTPStatus.BAD_REQUEST, "upgrade before the answer")
        self._allow(None)
        self.handle_websocket_upgrade()
        # The parser and its callbacks hold each other; without this the connection keeps both until a collection.
        self.parser = None  # type: ignore[assignment]  # as uvicorn does when the connection is lost

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._is_refused = True
        log.info(
            "request refused",
            status=status.value,
            reason=reason,
            address=self.client and self.client[0],
        )
        metrics = self.app_state.get("metrics")
        if metrics is not None:
            metrics.refused_requests[str(status.value)] += 1
        if self.pipeline:
            # Another answer comes first, and may be half written.
            return self.transport.abort()
        cycle = self.cycle
        # One answer for each request: the application may have given this one's, without waiting for the body.
        is_answered = cycle is not None and cycle.response_started
        if cycle is not None and cycle.response_complete and self._in_head:
            is_answered = False
        if cycle is not None:
            cycle.disconnected = True  # what the application still says goes nowhere
            cycle.message_event.set()
        if not is_answered:
            answer = orjson.dumps(problem(status.value, reason, _CODES[status.value]))
            self.transport.write(
                STATUS_LINE[status]
                + b"content-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (len(answer), answer)
            )
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            # Closing at once while the peer still sends would reset the connection and take the answer with it.
            self.transport.write_eof()
        self._allow(self.linger_seconds)

    def _allow(self, seconds: float | None) -> None:
        """Start the one deadline of this connection anew, or end it."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        self._deadline = None
        if self._is_refused or self.transport.is_closing():
            self.transport.abort()
        elif not self._is_begun:
            self.transport.close()  # nothing was asked, so there is nothing to answer
        elif not self._in_head or self.cycle is None or self.cycle.response_complete:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "too slow")
