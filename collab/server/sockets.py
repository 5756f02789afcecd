"""All sockets of a process, what they share, and the beat that keeps them alive and ends silent ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from collab import logs
from collab.errors import HandshakeTimeout
from collab.metrics import Metrics
from collab.replica import Replica
from collab.server.access import Access
from collab.server.limits import Limits

if TYPE_CHECKING:
    from collab.server.socket import Socket

BURST_SECONDS = 5.0  # of the sustained rate
# Each socket's turn for keep-alive and ping; stock clients give a silent server 30 s.
BEAT_SECONDS = 12

log = logs.logger(__name__)


class Sockets:
    """All sockets of a process, what they share, and the beat that keeps them alive and ends silent ones."""

    def __init__(
        self,
        replica: Replica,
        metrics: Metrics,
        access: Access,
        limits: Limits,
        *,
        max_message_bytes: int,
        max_outbox_bytes: int,
        slow_member_seconds: float,
        messages_per_second: float,
        bytes_per_second: float,
        max_rooms_per_socket: int,
        max_sockets: int,
        handshake_seconds: float,
        idle_seconds: float,
    ) -> None:
        self.replica, self.metrics = replica, metrics
        self.access, self.limits = access, limits
        self.max_message_bytes, self.max_outbox_bytes = (
            max_message_bytes,
            max_outbox_bytes,
        )
        self.slow_member_seconds = slow_member_seconds
        self.messages_per_second = messages_per_second
        self.bytes_per_message = max(1, int(bytes_per_second / messages_per_second))
        self.burst = messages_per_second * BURST_SECONDS
        self.max_rooms_per_socket = max_rooms_per_socket
        self.max_sockets = max_sockets
        self.handshake_seconds, self.idle_seconds = handshake_seconds, idle_seconds
        self.loop = asyncio.get_running_loop()
        self.connections: set[Any] = set()  # uvicorn's: what it shuts down in the end
        self.arriving = 0  # let in, and not attached yet
        self._seats: list[set[Socket]] = [set() for _ in range(BEAT_SECONDS)]
        self._next_seat = 0
        # Attached, and must say something until then.
        self._silent: dict[Socket, float] = {}
        metrics.gauges["sockets"] = lambda: len(self)

    def __len__(self) -> int:
        return sum(map(len, self._seats))

    def __iter__(self) -> Iterator[Socket]:
        return iter([socket for seat in self._seats for socket in seat])

    def add(self, socket: Socket) -> int:
        """Keep a socket alive from now on; returns its seat."""
        self._next_seat = (self._next_seat + 1) % BEAT_SECONDS
        self._seats[self._next_seat].add(socket)
        self.connections.add(socket)
        self._silent[socket] = self.loop.time() + self.handshake_seconds
        return self._next_seat

    def heard(self, socket: Socket) -> None:
        """It has said something."""
        self._silent.pop(socket, None)

    def discard(self, socket: Socket, seat: int) -> None:
        self._silent.pop(socket, None)
        self._seats[seat].discard(socket)
        self.connections.discard(socket)

    async def beat(self) -> None:
        """Runs for the life of the server. A twelfth of the sockets has its turn each second."""
        turn = 0
        while True:
            await asyncio.sleep(1.0)
            turn = (turn + 1) % BEAT_SECONDS
            try:
                self._visit(turn)
            except Exception:
                log.exception("a bug met the sockets' beat")

    def _visit(self, turn: int) -> None:
        for socket in list(self._seats[turn]):
            socket.beat()
        now = self.loop.time()
        for socket in list(self._silent):
            if self._silent[socket] > now:
                break
            del self._silent[socket]
            socket.close(HandshakeTimeout("nothing was said after the handshake"))
