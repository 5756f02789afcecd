"""What goes over a connection to Redis, in whole replies: so that a proxy can drop, repeat or exchange pushed messages."""

from __future__ import annotations

import random
from collections.abc import Iterator

AGGREGATES = b"*~>%|"
BULKS = b"$=!"


class Replies:
    """Cuts a stream of RESP bytes into whole replies."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        self._rest += chunk
        at = 0
        while (end := end_of_reply(self._rest, at)) is not None:
            yield self._rest[at:end]
            at = end
        self._rest = self._rest[at:]


def end_of_reply(stream: bytes, at: int) -> int | None:
    """Where the reply that begins here ends; None when not all of it is there."""
    due = 1  # replies that are still to come, inner ones included
    while due:
        line = stream.find(b"\r\n", at)
        if line < 0:
            return None
        kind, number = stream[at : at + 1], stream[at + 1 : line]
        at, due = line + 2, due - 1
        if kind in BULKS and int(number) >= 0:
            at += int(number) + 2
            if at > len(stream):
                return None
        elif kind in AGGREGATES and int(number) > 0:
            due += int(number) * (2 if kind in b"%|" else 1)
            due += kind == b"|"  # an attribute stands before its reply
    return at


def is_message(reply: bytes) -> bool:
    """Whether it is a message to subscribers, not the confirmation of a subscription or an answer."""
    return reply[:1] in b">*" and (
        b"\r\n$7\r\nmessage\r\n" in reply[:24]
        or b"\r\n$8\r\nsmessage\r\n" in reply[:24]
    )


class Tamper:
    """Passes replies on, except for some pushed messages; `chance` says which."""

    def __init__(self, kind: str, share: float, chance: random.Random) -> None:
        self._kind, self._share, self._chance = kind, share, chance
        self._replies = Replies()
        self._before: list[bytes] = []  # repeated later
        self._held: list[bytes] = []
        self.done = 0

    def __call__(self, chunk: bytes) -> bytes:
        return b"".join(self._out(reply) for reply in self._replies.feed(chunk))

    def _out(self, reply: bytes) -> bytes:
        if not is_message(reply):
            return reply
        out = [reply]
        if self._held:  # behind the next one
            out, self._held = [reply, *self._held], []
            return b"".join(out)
        if self._chance.random() < self._share:
            self.done += 1
            match self._kind:
                case "drop":
                    out = []
                case "repeat":
                    out = [reply, *self._before]
                case "exchange":
                    out, self._held = [], [reply]
        self._before = [*self._before[-4:], reply]
        return b"".join(out)
