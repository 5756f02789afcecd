"""The socket of a Y-Sweet client: y-websocket, and a barrier that comes back when all before it is logged."""

from __future__ import annotations

from collab.protocol import ysweet
from collab.server.y_websocket import RoomSocket


class YSweetSocket(RoomSocket):
    """A socket with one member in one room; its client sends a heart-beat of its own."""

    __slots__ = ()

    def receive(self, message: bytes) -> None:
        for one in ysweet.decode(message):
            self._handle(one)

    def _barrier(self, token: bytes) -> None:
        self.member.room.owe(self.member, ysweet.barrier(token))

    def _repeat(self, update: bytes) -> None:
        """Its acknowledgement is the barrier."""

    def keep_alive(self) -> None:
        """Its own barrier every two seconds does that."""
