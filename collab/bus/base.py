"""What a bus promises. One contract suite (`tests/bus/test_bus_contract.py`) runs on every implementation.

A bus may lose, and says so: nothing on it is the only copy of anything. What must arrive is in the store before it is
published, and replicas repair what they missed among themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol, Self

# The channel that every replica listens to; no room is called that.
EVERYBODY = ""

MAX_BODY_BYTES = 4 << 20  # of one message; a foreign writer's larger ones are dropped
KEPT_ENTRIES = 10_000  # of one room's stream at most
KEPT_SECONDS = 120.0  # that a stream outlives its last entry
PEER_SECONDS = 10.0  # without a beat, after which a replica is gone
MAX_REPLICAS = 1000  # in the roster; beyond it, it is begun anew
MAX_INFO_BYTES = 4096  # of what a replica says of itself there


class Published(NamedTuple):
    """One entry of a room's stream. Numbers follow each other without a hole as long as the epoch stays."""

    epoch: str  # of the numbering; the bus began anew when it changes
    number: int
    body: bytes


class Subscriber(Protocol):
    """Who listens to a channel. Called on the event loop; must not raise or wait."""

    def entry(self, published: Published) -> None:
        """Somebody has published, this replica included."""
        ...

    def word(self, body: bytes) -> None:
        """Somebody has said something, this replica included; not numbered, not kept."""
        ...

    def interrupted(self) -> None:
        """The subscription stands (again): what was published or said until now may have been missed.

        The first time, this says that nothing will be missed from now on.
        """
        ...

    def dropped(self) -> None:
        """What this replica published here was given up, for too much was waiting or the bus refused it."""
        ...


class Bus(Protocol):
    """An async context manager; leaving it gives what is queued a moment to leave. All calls come from one event loop."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    @property
    def is_up(self) -> bool:
        """Whether messages pass, as far as is known."""
        ...

    @property
    def troubles(self) -> list[str]:
        """Why messages do not pass, each in one word; empty when they do, as far as is known."""
        ...

    def subscribe(self, channel: str, subscriber: Subscriber) -> None:
        """Have the subscriber told what happens in a room (named by its key). Returns at once; again and again tried
        until `interrupted` says that it stands. One subscriber a channel."""
        ...

    def unsubscribe(self, channel: str) -> None: ...

    def publish(self, channel: str, body: bytes) -> None:
        """Append to the room's stream and tell every subscriber, numbered, in the order of the calls.

        Never blocks: what waits is sent in batches, in one order, and tried again unchanged after a failure. Bounded:
        at too much the room's waiting entries are dropped, and its subscriber is told.
        """
        ...

    def say(self, channel: str, body: bytes) -> None:
        """Tell every subscriber, unnumbered. Dropped when that is not possible now."""
        ...

    async def position(self, channel: str) -> tuple[str, int]:
        """Epoch and number of the last entry; ("", 0) when there is none. Raises BusUnavailable."""
        ...

    async def read(
        self, channel: str, epoch: str, after: int
    ) -> list[Published] | None:
        """All entries after that number; None when they are not all there any more. Raises BusUnavailable."""
        ...

    async def beat(self, replica: str, info: bytes) -> Mapping[str, bytes]:
        """Say that this replica lives, and hear which do, itself included: name → what it says of itself.

        Who has not been heard for `PEER_SECONDS` by the clock of the bus is left out. Raises BusUnavailable.
        """
        ...

    async def leave(self, replica: str) -> None:
        """This replica goes, and need not be missed first. Raises BusUnavailable."""
        ...

    async def keep(self, key: str, value: bytes, seconds: float) -> None:
        """Keep a small value that any replica may `take`. Raises BusUnavailable."""
        ...

    async def take(self, key: str) -> bytes | None:
        """The value, to the first who asks; None when there is none or its time has passed. Raises BusUnavailable."""
        ...

    async def claim(self, channel: str, token: str, seconds: float) -> bool:
        """Whether a room is now this token's, and nobody else's, for so long: no two are told yes at a time. Raises
        BusUnavailable, after which it may be claimed nevertheless, until the time has passed.

        It holds what the bus holds: one that is emptied, or fails over to a follower that is behind, has forgotten it.
        """
        ...

    async def renew(self, channel: str, token: str, seconds: float) -> bool:
        """Whether the room is still this token's, and has been all the time; if so, for so long from now. Raises
        BusUnavailable."""
        ...

    async def release(self, channel: str, token: str) -> None:
        """Let go of a room, if it is this token's. Raises BusUnavailable."""
        ...
