"""The socket of a Y-Sweet client: y-websocket, and a barrier that comes back when all before it is logged."""

from __future__ import annotations

from typing import Any

from collab.errors import CollabError, PermissionDenied
from collab.protocol import ysweet
from collab.protocol.messages import Barrier, SyncStep2
from collab.server.access import Entry
from collab.server.sockets import Sockets
from collab.server.y_websocket import RoomSocket


class YSweetSocket(RoomSocket):
    """A socket with one member in one room; its client sends a heart-beat of its own.

    The barrier says that all the client's edits are saved. The client sends one before it has told us what it did
    while it was away, and goes on after an update that could not be saved: such a barrier waits until the client
    has answered our question for what we lack. A reader is not asked: what it has seen is compared with what is here.
    """

    __slots__ = ("_has_told", "_waiting")

    dialect = "y-sweet"

    def __init__(
        self, transport: Any, sockets: Sockets, address: str, entry: Entry
    ) -> None:
        super().__init__(transport, sockets, address, entry)
        self._has_told = False
        self._waiting: bytes | None = None  # the latest barrier counts for all before

    def receive(self, message: bytes) -> None:
        for one in ysweet.decode(message):
            if isinstance(one, Barrier):
                self._barrier(one.token)
                continue
            self._handle(one)
            if isinstance(one, SyncStep2):
                self._tell()

    def _tell(self) -> None:
        if self._has_told and self._waiting is not None:
            token, self._waiting = self._waiting, None
            self._barrier(token)

    def _update(self, update: bytes, *, precise: bool) -> None:
        self._has_told = self._has_told or precise
        super()._update(update, precise=precise)

    def _answer(self, state_vector: bytes) -> None:
        room = self.member.room
        if not self.member.may_write:
            self._has_told = room.document.has_seen(state_vector)
            self._tell()
        super()._answer(state_vector)

    def _is_repeat(self) -> bool:
        return False

    def _warn(self, error: PermissionDenied) -> None:
        """Its barrier does not come back: it has no ears for more, and would return after any close."""

    def _refuse(self, error: CollabError) -> None:
        self._has_told = False

    def _barrier(self, token: bytes) -> None:
        if self._has_told:
            self.member.room.owe(self.member, ysweet.barrier(token))
        else:
            self._waiting = token
            super().keep_alive()  # the client reconnects when its heart-beat brings nothing back

    def _remind(self) -> None:
        """Its acknowledgement is the barrier."""

    def _repeat(self, update: bytes) -> None:
        """Its acknowledgement is the barrier."""

    def keep_alive(self) -> None:
        """Its own barrier every two seconds does that."""
