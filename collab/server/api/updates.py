"""What the log of a room holds, page by page or as it comes: server-sent events that go on where they were left."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from collab.auth.permissions import HISTORY
from collab.errors import (
    CollabError,
    Draining,
    InvalidRequest,
    NotYet,
    PermissionDenied,
    RoomNotFound,
)
from collab.replica import Replica
from collab.room import Member, Room, RoomState, Visitor
from collab.server.api import models
from collab.server.api.dispatch import Call
from collab.server.api.document import existing
from collab.store.base import Row
from collab.turns import read_about

EVENTS = "text/event-stream"

PORTION = (
    16  # updates that are read from the log at once: with the largest there are, 8 MB
)
MAX_PAGE_BYTES = 4 << 20
# Between two reads for one stream, so that a thousand of them leave the store time for its commits.
PAUSE_SECONDS = 0.05
BEAT_SECONDS = 1.0  # in which a stream sees that it has to end
ALIVE_SECONDS = 15.0  # between two signs of life


async def read(call: Call) -> models.Updates | Response:
    """A page of updates with who wrote them and when, the oldest first. Asked for `text/event-stream`: those after
    `after` (or Last-Event-ID, by default only what comes from now on), and then each as soon as it is logged. An event
    `update` has its position as id; `gap` says that the log begins later, `end` why the stream ends.
    """
    if EVENTS in call.request.headers.get("accept", "").lower():
        return await _stream(call)
    query: models.UpdatesQuery = call.query
    store = call.api.replica.store
    info = await store.info(call.key)
    if info is None or info.deleted_milliseconds is not None:
        raise RoomNotFound("there is no such room")
    found: list[models.UpdateInfo] = []
    at, size = query.after or 0, 0
    while len(found) < query.limit and size < MAX_PAGE_BYTES and at < info.position:
        limit = min(PORTION, query.limit - len(found))
        rows = await store.history(call.key, after=at, limit=limit)
        if not rows:
            break
        with call.work():
            found += map(_shown, rows)
        size += sum(len(row.update) for row in rows)
        at = rows[-1].position
    return models.Updates(
        epoch=info.epoch,
        position=info.position,
        updates=found,
        next=at if found and at < info.position else None,
    )


def _shown(row: Row) -> models.UpdateInfo:
    return models.UpdateInfo(
        position=row.position,
        milliseconds=row.milliseconds,
        principal=row.author.principal,
        connection=row.author.connection,
        turn=row.author.turn,
        about=models.About(**asdict(read_about(row.author.about))),
        update=base64.b64encode(row.update).decode(),
    )


# Server-sent events


async def _stream(call: Call) -> Response:
    after = _resumed(call)
    if call.request.method == "HEAD":
        return Response(media_type=EVENTS)
    room = await existing(call)
    if after is None:
        after = room.log_end
    elif after > room.log_end:
        raise NotYet(f"the log has not reached {after}")
    with ExitStack() as stack:
        stack.enter_context(call.api.limits.stream(call.principal))
        reader = Reader(call.api.replica, room, call)
        stack.callback(reader.leave)
        return EventStream(reader.events(after), stack.pop_all().close)


def _resumed(call: Call) -> int | None:
    """Where a stream goes on: the header of a client that reconnects goes before the address it was given."""
    last = call.request.headers.get("last-event-id")
    if last is None:
        query: models.UpdatesQuery = call.query
        return query.after
    if not re.fullmatch("[0-9]{1,18}", last):
        raise InvalidRequest("Last-Event-ID is the position of an update")
    return int(last)


class EventStream(StreamingResponse):
    """A stream that gives back what it holds, however it ends."""

    media_type = EVENTS

    def __init__(
        self, events: AsyncGenerator[bytes, None], close: Callable[[], None]
    ) -> None:
        # For nginx, which would collect the events otherwise.
        super().__init__(events, headers={"x-accel-buffering": "no"})
        self._events, self._close = events, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            try:
                await self._events.aclose()
            finally:
                self._close()


class Reader:
    """A member that only reads the log; the line of itself, by which it is told to go.

    It holds no more than one portion. Whoever does not read is waited for, and cut off by the connection's own limit.
    """

    dialect = "events"

    def __init__(self, replica: Replica, room: Room, call: Call) -> None:
        self.address = call.address
        self._replica, self._room, self._key = replica, room, call.key
        self._news = asyncio.Event()
        self._ended: CollabError | None = None
        self._member = Visitor(
            call.principal, call.operations, connection=call.connection
        )
        self._member.line = self
        room.watchers[self._news.set] = None
        replica.join(room, self._member)

    def leave(self) -> None:
        self._room.watchers.pop(self._news.set, None)
        self._replica.leave(self._room, self._member)

    async def events(self, after: int) -> AsyncGenerator[bytes, None]:
        """From the first after that position on, until somebody has to go."""
        yield b"retry: 2000\n\n"
        is_first = True
        alive_at = asyncio.get_running_loop().time()
        while self._why() is None:
            self._news.clear()
            rows = await self._read(after)
            if rows and is_first and rows[0].position > after + 1:
                gone = {"after": after, "before": rows[0].position}
                yield _event("gap", gone)
            for row in rows:
                is_first = False
                if self._why() is not None:
                    break
                after = row.position
                shown = _shown(row).model_dump() | {"epoch": self._room.epoch}
                yield _event("update", shown, after)
            now = asyncio.get_running_loop().time()
            if rows:
                alive_at = now
            elif now - alive_at >= ALIVE_SECONDS:
                alive_at = now
                yield b": here\n\n"
            if len(rows) < PORTION:
                await self._more()
        why = self._why() or Draining("the stream ends")
        yield _event("end", {"code": why.code, "detail": str(why)})

    async def _read(self, after: int) -> list[Row]:
        if after >= self._room.log_end:
            return []
        try:
            return await self._replica.store.history(
                self._key, after=after, limit=PORTION
            )
        except CollabError as error:
            self.close(error)
            return []

    async def _more(self) -> None:
        """Wait for news, but not for long."""
        await asyncio.sleep(PAUSE_SECONDS)
        try:
            async with asyncio.timeout(BEAT_SECONDS):
                await self._news.wait()
        except TimeoutError:
            pass

    def _why(self) -> CollabError | None:
        """Why the stream must end, if it must."""
        if self._ended is None and not self._member.operations & HISTORY:
            self._ended = PermissionDenied("you may no longer read the log")
        if self._ended is None and self._replica.is_draining:
            self._ended = Draining("the server restarts; come back in a moment")
        if self._ended is None and self._room.state is RoomState.CLOSED:
            self._ended = Draining("the room was closed; come back")
        return self._ended

    # As a line

    def is_alive(self) -> bool:
        return True

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def notify(self, kind: str, retry_after_milliseconds: int = 0) -> None: ...

    def rights_changed(self, member: Member) -> None:
        self._news.set()

    def close(self, error: CollabError) -> None:
        self._ended = self._ended or error
        self._news.set()

    def expel(self, member: Member, error: CollabError) -> None:
        self.close(error)


def _event(name: str, content: dict[str, Any], position: int | None = None) -> bytes:
    head = (
        f"event: {name}\n" if position is None else f"event: {name}\nid: {position}\n"
    )
    return head.encode() + b"data: " + orjson.dumps(content) + b"\n\n"
