"""What a channel of the bus is made of in Redis."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from redis.crc import key_slot

from collab.names import key_of


class Names(NamedTuple):
    """What a channel is made of; all in one slot."""

    numbering: str  # epoch and number, and of which life of the server they are
    stream: str
    channel: str
    claim: str
    slot: int


@lru_cache(maxsize=10_000)
def names(cluster: str, database: int, channel: str) -> Names:
    """Of a room, or of the channel of all replicas. Channels in Redis know no databases, so the number is in the name."""
    numbering, stream, sharded, claim = (
        key_of(cluster, channel, what)
        for what in (
            "bus-numbering",
            "bus-stream",
            f"bus-channel-{database}",
            "bus-claim",
        )
    )
    return Names(numbering, stream, sharded, claim, key_slot(numbering.encode()))
