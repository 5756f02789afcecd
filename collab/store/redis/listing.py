"""Which rooms there are. The keys of each room are the truth, and two indexes say where to look."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from collab import logs
from collab.errors import CollabError, StoreCorrupt
from collab.names import key_in_tag
from collab.store.base import RoomInfo
from collab.store.redis import scripts
from collab.store.redis.compacting import trim
from collab.store.redis.entries import FORMAT
from collab.store.redis.ground import Ground
from collab.store.redis.state import State

log = logs.logger(__name__)

PAGE = 500  # rooms asked for at once


class Listing:
    """Two sorted sets of names, in the order of their bytes, which is that of code points."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._live, self._deleted = ground.key("rooms"), ground.key("deleted")

    async def add(self, rooms: Iterable[str]) -> None:
        """That these live. Where it fails, `sweep` finds them by their own keys."""
        try:
            members = [word for room in sorted(rooms) for word in (0, room)]
            await self._ground.run("ZADD", self._live, *members)
        except CollabError as error:
            log.warning("new rooms are listed later", reason=str(error))

    async def rooms(
        self, prefix: str, after: str, limit: int, *, deleted: bool
    ) -> list[RoomInfo]:
        """The index says which may be there, the keys of each room whether it is."""
        index = self._deleted if deleted else self._live
        start = _place(b"(", after) if after >= prefix else _place(b"[", prefix)
        end = b"(" + prefix.encode() + b"\xff" if prefix else b"+"
        found: list[RoomInfo] = []
        while len(found) < limit:
            count = min(PAGE, limit - len(found) + 10)
            names = await self._ground.run(
                "ZRANGEBYLEX", index, start, end, "LIMIT", 0, count
            )
            found += await self._infos([name.decode() for name in names], deleted)
            if len(names) < count:
                break
            start = b"(" + names[-1]
        return found[:limit]

    async def _infos(self, rooms: Sequence[str], deleted: bool) -> list[RoomInfo]:
        now, found = self._ground.clock(), []
        for state in await self._ground.states(rooms):
            epoch = state.restorable(now) if deleted else state.live
            if epoch:
                found.append(state.info(epoch))
        return found

    async def settle(self, *states: State) -> None:
        """Purge what is over its time, and list these rooms where they belong."""
        now, run = self._ground.clock(), self._ground.run
        for state in states:
            for epoch in state.deleted():
                if state.number("purge", epoch) <= now:
                    await self._purge(state, epoch, now)
            for epoch in state.leftovers():
                await self._purge(state, epoch, now)
        belonging: tuple[tuple[str, Callable[[State], str]], ...] = (
            (self._live, lambda state: state.live),
            (self._deleted, lambda state: state.restorable(now)),
        )
        for index, belongs in belonging:
            rooms = [state.room for state in states]
            scores = await run("ZMSCORE", index, *rooms)
            pairs = zip(rooms, scores, strict=True)
            listed = {room for room, score in pairs if score is not None}
            right = {state.room for state in states if belongs(state)}
            for room in right - listed:
                await run("ZADD", index, 0, room)
            for room in listed - right:
                await run("ZREM", index, room)

    async def _purge(self, state: State, epoch: str, now: int) -> None:
        names = ["log", "origins", "owners", "a", "b", "attribution"]
        names += [each.place for each in state.landmarks(epoch)]
        room, names = state.room, [f"{epoch}:{name}" for name in names]
        keys = self._ground.keys(room, "room", *names)
        await self._ground.call(room, scripts.PURGE, keys, FORMAT, epoch, now)

    async def sweep(self) -> None:
        """Go over the keys of all rooms: purge and trim what is due, list again what an index has missed."""
        begin = len(self._ground.key(""))
        pattern = self._ground.key("{*}", "room")
        async for keys in self._ground.client.scan(pattern):
            tags = (key[begin:].rpartition(":")[0] for key in keys)
            rooms = [room for tag in tags if (room := key_in_tag(tag)) is not None]
            states = await self._ground.states(rooms)
            if states:
                await self.settle(*states)
            for state in states:
                if state.may_trim:
                    with suppress(StoreCorrupt):
                        await trim(self._ground, state, state.live)


def _place(sign: bytes, name: str) -> bytes:
    """Where a range begins."""
    return sign + name.encode() if name else b"-"
