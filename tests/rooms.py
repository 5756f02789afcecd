"""What tests of rooms share: members whose socket is a list, and clients that write."""

from __future__ import annotations

import asyncio
from typing import Any

from pycrdt import Doc, Text

from collab.errors import CollabError
from collab.protocol.varint import Reader, encode_bytes
from collab.room import Member
from collab.store.base import Author


class Line:
    """A socket that remembers what was asked of it."""

    dialect = "fake"

    address = "192.0.2.1"

    def __init__(self) -> None:
        self.closed: CollabError | None = None
        self.holds = 0
        self.notices: list[str] = []
        self.healed = asyncio.Event()

    def is_alive(self) -> bool:
        return True

    def pause(self) -> None:
        self.holds += 1

    def resume(self) -> None:
        self.holds -= 1

    def close(self, error: CollabError) -> None:
        self.closed = error

    def notify(self, kind: str, retry_after_milliseconds: int = 0) -> None:
        self.notices.append(kind)
        if kind == "writable":
            self.healed.set()

    def rights_changed(self, member: Member) -> None:
        self.notices.append("writable" if member.may_write else "read-only")

    def expel(self, member: Member, error: CollabError) -> None:
        self.closed = error


class Client:
    """A member and its copy of the document."""

    def __init__(self, name: str = "ada", prefix: bytes = b"", **options: Any) -> None:
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.made: list[bytes] = []
        self.written: list[bytes] = []
        self.line = Line()
        self.member = Member(
            self.written.append,
            self.line,
            Author(name, f"connection-{name}"),
            owner=name,
            prefix=prefix,
            **options,
        )
        self.doc.observe(lambda event: self.made.append(event.update))

    def write(self, word: str) -> bytes:
        """An update that adds a word; sending it is up to the test."""
        self.text.insert(len(str(self.text).encode()), word)
        return self.made[-1]

    @property
    def messages(self) -> list[bytes]:
        """What the socket got, frame by frame, without headers."""
        found = []
        for piece in self.written:
            at = 0
            while at < len(piece):
                n, head = piece[at + 1], 2
                if n == 126:
                    n, head = int.from_bytes(piece[at + 2 : at + 4], "big"), 4
                elif n == 127:
                    n, head = int.from_bytes(piece[at + 2 : at + 10], "big"), 10
                found.append(piece[at + head : at + head + n])
                at += head + n
        return found

    def read(self) -> str:
        """Take in all updates that were received."""
        for message in self.messages:
            if message[:2] in (b"\x00\x01", b"\x00\x02"):
                self.doc.apply_update(Reader(message, 2).read_bytes())
        self.written.clear()
        return str(self.text)


def update_message(update: bytes) -> bytes:
    return b"\x00\x02" + encode_bytes(update)
