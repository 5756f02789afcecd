"""What all parts of the Redis store stand on: the names of keys, and answers that are believed only as far as they are ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from collab import logs
from collab.connection import Call, Client, ForeignContent, Script
from collab.errors import (
    Conflict,
    RoomNotFound,
    RoomUnavailable,
    StoreCorrupt,
    StoreUnavailable,
)
from collab.names import key_of, spoken
from collab.store.base import Clock
from collab.store.redis import scripts
from collab.store.redis.state import State, foreign

log = logs.logger(__name__)

ATTEMPTS = 8  # where another replica changed the room in between


class Ground:
    """Commands on the keys of one cluster. They raise StoreUnavailable, and StoreCorrupt where others have written."""

    def __init__(self, client: Client, cluster: str, clock: Clock) -> None:
        self.client, self.cluster, self.clock = client, cluster, clock

    def key(self, *names: str) -> str:
        """Of something that is no room's."""
        return ":".join((self.cluster, *names))

    def keys(self, room: str, *names: str) -> list[str]:
        """Of one room."""
        return [key_of(self.cluster, room, name) for name in names]

    async def run(self, *command: str | bytes | float) -> Any:
        """One command on the key after it."""
        try:
            return await self.client.run(*command)
        except ForeignContent:
            raise StoreCorrupt(
                "a key in Redis holds what others have written"
            ) from None

    async def pieces(self, key: str, count: int) -> bytes:
        """What lies in a list, cut so that each piece comes in time."""
        parts = []
        for number in range(count):
            parts.append(await self.run("LINDEX", key, number) or b"")
        return b"".join(parts)

    async def call(
        self, room: str, script: Script, keys: Sequence[str], *arguments: Any
    ) -> Any:
        """A script of one room. Raises RoomUnavailable, RoomNotFound and Conflict as it says."""
        try:
            answer = await self.client.call(script, keys, *arguments)
        except ForeignContent:
            raise foreign(room) from None
        match answer:
            case b"newer":
                raise RoomUnavailable(
                    f"room {spoken(room)} was written by a newer version of the server"
                )
            case b"foreign":
                raise foreign(room)
            case b"none":
                raise RoomNotFound(f"there is no room {spoken(room)}")
            case b"there":
                raise Conflict("there is a room of this name")
            case b"over":
                raise Conflict("this history of the room is over")
        return answer

    async def state(self, room: str) -> State:
        """The room as it is."""
        return State(room, await self.call(room, scripts.READ, self.keys(room, "room")))

    async def living(self, room: str) -> State:
        """Raises RoomNotFound."""
        state = await self.state(room)
        if not state.live:
            raise RoomNotFound(f"there is no room {spoken(room)}")
        return state

    async def states(self, rooms: Sequence[str]) -> list[State]:
        """As far as they can be read: one of a newer version is passed over, and one that others have written to."""
        calls = [Call(scripts.READ, self.keys(room, "room"), ()) for room in rooms]
        states = []
        answers = await self.client.call_all(calls) if calls else []
        for room, answer in zip(rooms, answers, strict=True):
            if isinstance(answer, StoreUnavailable):
                raise answer
            try:
                if not isinstance(answer, Exception):
                    states.append(State(room, answer))
            except (RoomUnavailable, StoreCorrupt) as error:
                log.debug("room passed over", room=room, reason=str(error))
        return states
