"""Clients of every dialect whose transport is a list, on a replica with access control; no process, no port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pycrdt import Doc, Text

from collab.auth.authority import Authority
from collab.auth.base import Credential
from collab.auth.permissions import Grant, Principal
from collab.errors import CollabError, Unauthenticated
from collab.metrics import Metrics
from collab.protocol import yjs
from collab.protocol.varint import (
    Reader,
    encode_bytes,
    encode_string,
    encode_varint,
)
from collab.server.access import Access
from collab.server.app import (
    make_audit,
    make_limits,
    make_replica,
    make_sockets,
    make_store,
)
from collab.server.hocuspocus import HocuspocusSocket
from collab.server.socket import Socket
from collab.server.y_sweet import YSweetSocket
from collab.server.y_websocket import RoomSocket
from collab.settings import Settings

PATIENCE = 30.0


class Table:
    """A verifier that knows the tokens it was given."""

    def __init__(self) -> None:
        self.principals: dict[str, Principal] = {}
        self.fault: CollabError | None = None  # what it answers while it is set

    def add(
        self, token: str, operations: int, *, room: str = "r", **about: Any
    ) -> Principal:
        """A token, by default of a principal of the same name."""
        about.setdefault("id", token)
        principal = Principal(grants=(Grant(room, operations),), token=token, **about)
        self.principals[token] = principal
        return principal

    async def verify(self, credential: Credential, room: str) -> Principal | None:
        if not credential.token:
            return None
        if self.fault is not None:
            raise self.fault
        found = self.principals.get(credential.token)
        if found is None:
            raise Unauthenticated("a valid token is needed here")
        return found


class Transport:
    """What a socket writes, and whether it is still there."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.news = asyncio.Event()
        self.is_gone = False
        self.protocol: Any = None

    def write(self, data: bytes) -> None:
        self.written += data
        self.news.set()

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_gone

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        self.is_gone = True

    abort = close


class Peer:
    """A client with a document: says what it is told to, and keeps what it hears."""

    prefix = b""

    def __init__(self, house: House, name: str) -> None:
        self.house, self.name = house, name
        self.transport = Transport()
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.made: list[bytes] = []
        self.doc.observe(lambda event: self.made.append(event.update))
        self.socket: Socket

    def send(self, message: bytes) -> None:
        """One binary frame, as clients mask it."""
        n = len(message)
        head = (
            bytes((0x82, 0x80 | n)) if n < 126 else b"\x82\xfe" + n.to_bytes(2, "big")
        )
        self.socket.data_received(head + bytes(4) + message)

    def say(self, message: bytes) -> None:
        self.send(self.prefix + message)

    def write(self, word: str) -> bytes:
        """Add a word and send the update."""
        self.text.insert(0, word)
        self.say(yjs.update_message(self.made[-1]))
        return self.made[-1]

    def delete(self, at: int, count: int) -> None:
        """Delete characters and send the update."""
        del self.text[at : at + count]
        self.say(yjs.update_message(self.made[-1]))

    def hear(self) -> None:
        """Take in all that others have written."""
        for kind in (b"\x00\x01", b"\x00\x02"):
            for one in self.heard(kind):
                self.doc.apply_update(Reader(one, 2).read_bytes())

    def ask(self) -> None:
        """Step 1."""
        self.say(yjs.sync_step_1(self.doc.get_state()))

    def present(self, client: int, clock: int, state: dict[str, Any]) -> None:
        encoded = json.dumps(state).encode()
        entry = encode_varint(client) + encode_varint(clock) + encode_bytes(encoded)
        self.say(yjs.awareness_message(b"\x01" + entry))

    @property
    def frames(self) -> list[tuple[int, bytes]]:
        """Opcode and content of everything that was heard."""
        data, at, found = bytes(self.transport.written), 0, []
        while at < len(data):
            n, head = data[at + 1], 2
            if n == 126:
                n, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
            found.append((data[at] & 15, data[at + head : at + head + n]))
            at += head + n
        return found

    @property
    def messages(self) -> list[bytes]:
        return [
            content[len(self.prefix) :]
            for opcode, content in self.frames
            if opcode == 2 and content.startswith(self.prefix)
        ]

    def heard(self, start: bytes) -> list[bytes]:
        """Messages that begin so."""
        return [message for message in self.messages if message.startswith(start)]

    @property
    def close_code(self) -> int | None:
        codes = [
            int.from_bytes(content[:2], "big")
            for opcode, content in self.frames
            if opcode == 8
        ]
        return codes[0] if codes else None

    @property
    def states(self) -> dict[int, dict[str, Any]]:
        """Who is here, as this client was told last."""
        found: dict[int, Any] = {}
        for message in self.heard(b"\x01"):
            reader = Reader(Reader(message, 1).read_bytes())
            for _ in range(reader.read_varint()):
                client, _clock = reader.read_varint(), reader.read_varint()
                found[client] = json.loads(reader.read_bytes())
        return {client: state for client, state in found.items() if state is not None}

    def answer(self) -> None:
        """Answer the last question of the server."""
        question = self.heard(b"\x00\x00")[-1]
        vector = Reader(question, 2).read_bytes()
        self.say(yjs.sync_step_2(self.doc.get_update(vector)))

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for what the server does later; it is always something that it says."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.transport.news.clear()
                await self.transport.news.wait()


class Hocuspocus(Peer):
    """A client of one document on a socket that may have others."""

    def authenticate(self, token: str = "", version: str | None = None) -> None:
        body = b"\x02\x00" + encode_string(token)
        self.say(body if version is None else body + encode_string(version))

    @property
    def statuses(self) -> list[int]:
        return [message[1] for message in self.heard(b"\x08")]

    @property
    def scopes(self) -> list[str]:
        return [Reader(one, 2).read_string(64) for one in self.heard(b"\x02\x02")]

    @property
    def denials(self) -> list[str]:
        return [Reader(one, 2).read_string(256) for one in self.heard(b"\x02\x01")]


class House:
    """A replica with access control, and peers in it."""

    def __init__(self, table: Table, access: Access, sockets: Any) -> None:
        self.table, self.access, self.sockets = table, access, sockets
        self.replica = sockets.replica

    async def y_websocket(self, token: str, *, is_v1: bool = False) -> Peer:
        entry = await self.access.enter(Credential(token=token), "r")
        peer = Peer(self, token)
        peer.socket = RoomSocket(
            peer.transport, self.sockets, "peer", entry, is_v1=is_v1
        )
        return peer

    async def y_sweet(self, token: str) -> Peer:
        entry = await self.access.enter(Credential(token=token), "r")
        peer = Peer(self, token)
        peer.socket = YSweetSocket(peer.transport, self.sockets, "peer", entry)
        return peer

    def hocuspocus(
        self, shown: str = "", *, beside: Peer | None = None, room: str = "r"
    ) -> Hocuspocus:
        """Not authenticated yet; `shown` is the token of the handshake."""
        peer = Hocuspocus(self, shown)
        peer.prefix = encode_string(room)
        if beside is not None:
            peer.transport, peer.socket = beside.transport, beside.socket
        else:
            peer.socket = HocuspocusSocket(
                peer.transport, self.sockets, "peer", Credential(token=shown)
            )
        return peer

    def grant(self, peer: Peer, operations: int) -> None:
        """What the access does when rights change."""
        for member in peer.socket.members():
            member.operations = operations
            member.line.rights_changed(member)

    def text(self, room: str = "r") -> str:
        """What the server holds."""
        live = self.replica.live(room)
        doc: Doc[Any] = Doc()
        doc.apply_update(live.document.snapshot())
        return str(doc.get("text", type=Text))


@asynccontextmanager
async def open_house(*, is_open: bool = False, **settled: Any) -> AsyncIterator[House]:
    """With access control, unless it is open to everybody."""
    settings, metrics, table = Settings(store="memory", **settled), Metrics(), Table()
    audit = make_audit(settings, metrics)
    store = make_store(settings)
    async with make_replica(settings, store, metrics, audit) as replica:
        access = Access(Authority([] if is_open else [table]), replica)
        limits = make_limits(settings, metrics)
        sockets = make_sockets(settings, replica, metrics, access, limits)
        yield House(table, access, sockets)
