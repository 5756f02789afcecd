"""Idempotency-Key: a write that is asked for twice happens once, and is answered alike.

A key belongs to a principal. It stands for one method, path and body: with another one it is a conflict, and so is a
second request while the first is under way. Only what succeeded is remembered, since anything else changed nothing; but
for an edit that a failing disk has not taken yet: asked for again, it is waited for again.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from starlette.responses import Response

from collab import logs
from collab.errors import Conflict, InvalidRequest, StoreUnavailable
from collab.names import SEPARATOR
from collab.room import Room, RoomState
from collab.store.base import Remembered, Store

if TYPE_CHECKING:
    from collab.server.api.dispatch import Call

MAX_KEY_CHARACTERS = 255
MAX_KEPT_BYTES = 16_384
MAX_UNSAVED = 1000  # then the oldest is forgotten, and would happen again
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
_KEPT_HEADERS = ("content-type", "etag", "location")
_UNTOLD = b"untold"


log = logs.logger(__name__)


@dataclass(slots=True)
class Repeat:
    """What there is to answer: from before, or what the caller puts here."""

    answer: Response | None = None


class _Unsaved(NamedTuple):
    digest: bytes
    room: Room
    position: int
    tag: str


class Repeats:
    """What was answered under which key; the store keeps it for 24 hours."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way: set[str] = set()
        # Edits that are in a room, of which nobody could say in time that they are saved.
        self._unsaved: OrderedDict[str, _Unsaved] = OrderedDict()

    @asynccontextmanager
    async def once(self, call: Call) -> AsyncIterator[Repeat]:
        """Hold the request's key while it is answered. Raises Conflict for a key that stands for something else."""
        key = _key(call)
        if key is None:
            yield Repeat()
            return
        who = SEPARATOR.join((call.principal.tenant, call.principal.id, key))
        if who in self._under_way:
            raise Conflict("a request with this Idempotency-Key is under way")
        digest = _digest(call)
        self._under_way.add(who)
        try:
            known = await self._store.recall(who)
            if known is not None:
                yield Repeat(_replay(known, digest))
                return
            self._take_up(call, who, digest)
            repeat = Repeat()
            try:
                yield repeat
            except StoreUnavailable:
                self._put_aside(call, who, digest)
                raise
            if repeat.answer is not None and repeat.answer.status_code < 300:
                await self._remember(who, digest, _pack(call, repeat.answer))
        finally:
            self._under_way.discard(who)

    def _take_up(self, call: Call, who: str, digest: bytes) -> None:
        """An edit that was taken in with this key is only waited for. Raises Conflict for another one."""
        unsaved = self._unsaved.pop(who, None)
        if unsaved is None or unsaved.room.state is RoomState.CLOSED:
            return  # with a room that began again, what was not saved is gone
        if unsaved.digest != digest:
            self._unsaved[who] = unsaved
            raise Conflict("this Idempotency-Key stands for another request")
        call.taken_in = unsaved.room, unsaved.position, unsaved.tag

    def _put_aside(self, call: Call, who: str, digest: bytes) -> None:
        if call.taken_in is not None:
            if len(self._unsaved) >= MAX_UNSAVED:
                self._unsaved.popitem(last=False)
            self._unsaved[who] = _Unsaved(digest, *call.taken_in)

    async def _remember(self, who: str, digest: bytes, answer: bytes) -> None:
        try:
            await self._store.remember(who, digest, answer)
        except StoreUnavailable:
            # What was asked for is done and saved. Only a repeat of it would not be known.
            log.warning("an answer cannot be remembered")


def _key(call: Call) -> str | None:
    given = call.request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise InvalidRequest(
            f"an Idempotency-Key is up to {MAX_KEY_CHARACTERS} characters of printable ASCII, once"
        )
    return given[0]


def _digest(call: Call) -> bytes:
    request = call.request
    parts = (
        request.method.encode(),
        request.scope["raw_path"],
        request.scope["query_string"],
        call.media_type.encode(),
        getattr(request.state, "body", b""),
    )
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def _pack(call: Call, answer: Response) -> bytes:
    """An answer as it is kept. One that holds a credential is not, and none of ours is too long."""
    if call.route.is_secret or len(bytes(answer.body)) > MAX_KEPT_BYTES:
        return _UNTOLD
    headers = "".join(
        f"{name}: {answer.headers[name]}\n"
        for name in _KEPT_HEADERS
        if name in answer.headers
    )
    return f"{answer.status_code}\n{headers}\n".encode() + bytes(answer.body)


def _replay(known: Remembered, digest: bytes) -> Response:
    packed = known.answer
    if known.digest != digest:
        raise Conflict("this Idempotency-Key stands for another request")
    if packed == _UNTOLD:
        raise Conflict("this was done before, and its answer is told only once")
    head, _, body = packed.partition(b"\n\n")
    status, *lines = head.decode().split("\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Response(
        body or None,
        status_code=int(status),
        headers=headers | {"idempotent-replay": "true"},
    )
