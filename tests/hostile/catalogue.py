"""What a row of the catalogue of hostile input is, and which rows must be there."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from house import House
from peer import (
    DIALECTS,
    HOCUSPOCUS,
    Answer,
    Dialect,
    Peer,
    ask,
    join,
    open_socket,
)

if TYPE_CHECKING:
    from liveness import Pair

# The catalogue, less what is tried elsewhere or not here yet: H3 with cookies, S5 read-only members, most T rows.
IN_SCOPE = (
    *(f"H{n}" for n in range(1, 18)),
    *(f"W{n}" for n in range(1, 14)),
    *(f"V{n}" for n in range(1, 10)),
    *(f"S{n}" for n in range(1, 29) if n != 5),
    *(f"A{n}" for n in range(1, 14)),
    *(f"P{n}" for n in range(1, 10)),
    *(f"R{n}" for n in range(1, 11)),
    *(f"J{n}" for n in range(1, 16)),
    *(f"B{n}" for n in range(1, 11)),
    *("T5", "T7"),
    *("F24", "F25", "F27", "F30"),
)

# What no peer may ever be told.
INTERNAL = re.compile(
    rb'Traceback|File "|\.py\b|Exception|site-packages|panick|pycrdt|/collab/|0x[0-9a-f]{8}'
)

CODES = {
    1002: "protocol_violation",
    1003: "unsupported_frame",
    1009: "frame_too_big",
    1013: "slow_member|busy|room_unavailable",
    4205: "overrun",
    4401: "unauthenticated",
    4400: "invalid_message|refused|invalid_room_name",
    4403: "permission_denied",
    4408: "handshake_timeout",
    4409: "client_id_conflict",
    4413: "too_large",
    4429: "rate_limited",
}


@dataclass
class Field:
    """Where one row is tried: a server, a dialect, a room nobody else uses, and all that was opened there."""

    house: House
    dialect: Dialect
    pair: Pair
    room: str = field(default_factory=lambda: f"room-{os.urandom(6).hex()}")
    peers: list[Peer] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.house.port

    async def join(
        self, dialect: Dialect | None = None, room: str | None = None, **options: Any
    ) -> Peer:
        options = {"token": self.house.token} | options
        peer = await join(
            self.port, dialect or self.dialect, room or self.room, **options
        )
        self.peers.append(peer)
        return peer

    async def open(
        self, path: str | None = None, *extra: tuple[str, str | bytes], **options: Any
    ) -> Peer:
        """Only the handshake."""
        peer = await open_socket(
            self.port, path or self.dialect.path(self.room), *extra, **options
        )
        peer.dialect, peer.room = self.dialect, self.room
        self.peers.append(peer)
        return peer

    async def ask(self, request: bytes, **options: Any) -> Answer:
        """One request and all that comes back."""
        answer = await ask(self.port, request, **options)
        self.answers.append(answer)
        return answer

    async def grows(self, sample: str, since: dict[str, float], seconds: float) -> None:
        """Wait until a sample of /metrics that fits the pattern is more than it was."""
        deadline = time.monotonic() + seconds
        while True:
            now = await self.house.counters()
            if any(
                value > since.get(name, 0)
                for name, value in now.items()
                if re.search(sample, name)
            ):
                return
            assert time.monotonic() < deadline, f"{sample} has not grown"
            await asyncio.sleep(0.05)

    async def slowed_or_refused(self, peer: Peer, frames: bytes) -> None:
        """Frames without end: the server takes them ever more slowly, or closes with 4429."""
        since = await self.house.counters()
        flooding = asyncio.create_task(peer.flood(frames, 10_000))
        try:
            await self.grows(rf"collab_throttles_total|{counted(4429)}", since, 10)
        finally:
            flooding.cancel()
            await asyncio.wait([flooding])
        assert peer.close_code in (None, 4429)

    async def leave(self) -> None:
        for peer in self.peers:
            await peer.leave()

    def heard(self) -> bytes:
        """Everything the server said to the hostile side."""
        parts = [answer.raw for answer in self.answers]
        for peer in self.peers:
            parts += [*peer.messages, peer.close_reason]
        return b"\n".join(parts)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of hostile input. `lines` and `counter` are what an operator must see of it."""

    id: str
    name: str
    act: Callable[[Field], Awaitable[None]]
    dialects: tuple[Dialect, ...] = DIALECTS
    house: str = "plain"
    lines: Collection[int] = (0, 1)
    counter: str | None = None  # a pattern of samples of which one must have grown

    def __str__(self) -> str:
        return f"{self.id} {self.name}"


Build = Callable[[str, int], bytes]
# A message; or what makes one when its time comes, for those that take long to make; or what does more than that.
Say = bytes | Callable[[], bytes] | Callable[[Peer], Awaitable[None] | None]


def requests(
    id: str, name: str, statuses: Collection[int], build: Build, **options: Any
) -> Row:
    """A row about a request; `build` gets the path of the dialect and the port."""

    async def act(field: Field) -> None:
        answer = await field.ask(build(field.dialect.path(field.room), field.port))

        assert answer.status in statuses, answer.raw[:500]
        assert 101 in statuses or "connection: close" in answer.headers

    if 101 in statuses:
        return Row(id=id, name=name, act=act, **options)
    counted = "|".join(map(str, statuses))
    return Row(
        id=id,
        name=name,
        act=act,
        **{
            "lines": (1,),
            "counter": rf'collab_refused_requests_total{{status="({counted})"}}',
        }
        | options,
    )


async def _speak(peer: Peer, says: Sequence[Say]) -> None:
    for say in says:
        if isinstance(say, bytes):
            peer.say(say)
        elif not inspect.signature(say).parameters:
            peer.say(say())  # type: ignore[call-arg, arg-type]  # by the line above
        elif inspect.isawaitable(spoken := say(peer)):  # type: ignore[call-arg]
            await spoken


def closes(
    id: str,
    name: str,
    codes: int | Collection[int],
    *says: Say,
    is_joined: bool = True,
    **options: Any,
) -> Row:
    """A row that ends the connection of a member with one of the codes."""
    expected = (codes,) if isinstance(codes, int) else tuple(codes)

    async def act(field: Field) -> None:
        peer = await (field.join() if is_joined else field.open())

        await _speak(peer, says)

        code = await peer.closed()
        assert code in expected, (code, peer.close_reason)

    return Row(
        id=id,
        name=name,
        act=act,
        **{"lines": (1,), "counter": counted(*expected)} | options,
    )


def stays(
    id: str, name: str, *says: Say, or_closes: Collection[int] = (), **options: Any
) -> Row:
    """A row that changes nothing: the member is still served; or, where both are right, is closed."""

    async def act(field: Field) -> None:
        peer = await field.join()

        await _speak(peer, says)

        try:
            await peer.document()
        except AssertionError:
            assert await peer.closed() in or_closes, (
                peer.close_code,
                peer.close_reason,
            )

    return Row(id=id, name=name, act=act, **options)


def story(
    id: str, name: str, **options: Any
) -> Callable[[Callable[[Field], Awaitable[None]]], Row]:
    """A row that tells for itself what must happen."""

    def made(act: Callable[[Field], Awaitable[None]]) -> Row:
        return Row(id=id, name=name, act=act, **options)

    return made


def counted(*codes: int) -> str:
    """The pattern of the counters that these close codes move."""
    words = "|".join(CODES.get(code, "none") for code in codes)
    return rf'collab_closes_total{{code="({words})"}}'


def raw(*frames: bytes) -> Callable[[Peer], None]:
    """Bytes as they are."""

    def say(peer: Peer) -> None:
        peer.write(b"".join(frames))

    return say


def flood(
    content: Callable[[], bytes], times: int = 1
) -> Callable[[Peer], Awaitable[None]]:
    """Raw bytes over and over until the server has enough."""

    def say(peer: Peer) -> Awaitable[None]:
        return peer.flood(content(), times)

    return say


def shout(content: bytes) -> Callable[[Peer], None]:
    """One frame of exactly this, without an address."""

    def say(peer: Peer) -> None:
        peer.shout(content)

    return say


ONLY_HOCUSPOCUS = (HOCUSPOCUS,)
