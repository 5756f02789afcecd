"""Idempotency-Key: a write that is asked for twice happens once, and is answered alike.

A key belongs to a principal. It stands for one method, path and body: with another one it is a conflict, and so is a
second request while the first is under way. Only what succeeded is remembered, since anything else changed nothing.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import Response

from collab.errors import Conflict, InvalidRequest

if TYPE_CHECKING:
    from collab.server.api.dispatch import Call

KEEP_SECONDS = 24 * 3600
MAX_REMEMBERED = 10_000  # then the oldest is forgotten
MAX_KEY_CHARACTERS = 255
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
_KEPT_HEADERS = ("content-type", "etag", "location")
_SECRET = b"secret"


@dataclass(slots=True)
class Repeat:
    """What there is to answer: from before, or what the caller puts here."""

    answer: Response | None = None


class Repeats:
    """What was answered under which key."""

    def __init__(self) -> None:
        self._under_way: set[tuple[str, str]] = set()
        self._known: OrderedDict[tuple[str, str], tuple[float, bytes, bytes]] = (
            OrderedDict()
        )

    @asynccontextmanager
    async def once(self, call: Call) -> AsyncIterator[Repeat]:
        """Hold the request's key while it is answered. Raises Conflict for a key that stands for something else."""
        key = _key(call)
        if key is None:
            yield Repeat()
            return
        who = (f"{call.principal.tenant}\x1f{call.principal.id}", key)
        if who in self._under_way:
            raise Conflict("a request with this Idempotency-Key is under way")
        digest = _digest(call)
        self._under_way.add(who)
        try:
            known = self._recall(who)
            if known is not None:
                yield Repeat(_replay(known, digest))
                return
            repeat = Repeat()
            yield repeat
            if repeat.answer is not None and repeat.answer.status_code < 300:
                self._remember(who, digest, _pack(call, repeat.answer))
        finally:
            self._under_way.discard(who)

    def _recall(self, who: tuple[str, str]) -> tuple[bytes, bytes] | None:
        now = time.monotonic()
        while self._known:
            at, _, _ = next(iter(self._known.values()))
            if now - at < KEEP_SECONDS:
                break
            self._known.popitem(last=False)
        found = self._known.get(who)
        return found[1:] if found else None

    def _remember(self, who: tuple[str, str], digest: bytes, answer: bytes) -> None:
        if len(self._known) >= MAX_REMEMBERED:
            self._known.popitem(last=False)
        self._known[who] = (time.monotonic(), digest, answer)


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
    """An answer as it is kept. One that holds a credential is not."""
    if call.route.is_secret:
        return _SECRET
    headers = "".join(
        f"{name}: {answer.headers[name]}\n"
        for name in _KEPT_HEADERS
        if name in answer.headers
    )
    return f"{answer.status_code}\n{headers}\n".encode() + bytes(answer.body)


def _replay(known: tuple[bytes, bytes], digest: bytes) -> Response:
    asked, packed = known
    if asked != digest:
        raise Conflict("this Idempotency-Key stands for another request")
    if packed == _SECRET:
        raise Conflict(
            "this was done before, and its answer held a secret that is told only once"
        )
    head, _, body = packed.partition(b"\n\n")
    status, *lines = head.decode().split("\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Response(
        body or None,
        status_code=int(status),
        headers=headers | {"idempotent-replay": "true"},
    )
