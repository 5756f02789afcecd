"""Which processes live, so that a load under way in another one is not taken for a crash."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from collab.errors import StoreUnavailable
from collab.store.redis import scripts
from collab.store.redis.ground import Ground

ALIVE_SECONDS = 8  # after which one that has said nothing counts as dead
MAX_ENDED = (
    10_000  # loads that ended while Redis was away; more look like crashes later
)
LOADING_SECONDS = 7 * 24 * 3600  # that a load which never ended is remembered


def _place() -> str:
    """Where a process id means something: this boot of this machine, and this namespace of process ids."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    return ""


PLACE = _place()


class Processes:
    """Notes of loads, by who makes them: process id, a name of its own, place."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._name = f"{os.getpid()}/{secrets.token_hex(8)}/{PLACE}"
        self._counted: dict[str, list[str]] = {}  # by room, until its load ends
        self._ended: dict[str, list[str]] = {}  # what Redis could not yet be told

    async def beat(self) -> None:
        """Say that this one lives, and which loads have ended meanwhile."""
        key = self._ground.key("alive", self._name)
        await self._ground.run("SET", key, 1, "EX", ALIVE_SECONDS)
        for room in list(self._ended):
            if room in self._ended:  # and not loaded again since
                await self._forget(room, self._ended[room])
                self._ended.pop(room, None)

    async def begin_load(self, room: str) -> int:
        """In how many processes that are gone a load never ended. One that is under way elsewhere counts for nothing."""
        self._ended.pop(room, None)
        keys = self._ground.keys(room, "loading")
        noted = await self._ground.call(
            room, scripts.BEGIN_LOAD, keys, self._name, LOADING_SECONDS
        )
        names = [name.decode(errors="replace") for name in noted]
        dead = [name for name in names if await self._has_ended(name)]
        self._counted[room] = [self._name, *dead]
        return len(dead)

    async def _has_ended(self, name: str) -> bool:
        if name == self._name:
            return False
        if _is_surely_dead(name):
            return True
        return not await self._ground.run("EXISTS", self._ground.key("alive", name))

    async def end_load(self, room: str) -> None:
        """Where Redis does not hear it now, it is told with the next beat that it does: this is no crash."""
        names = self._counted.pop(room, [self._name])
        try:
            await self._forget(room, names)
        except StoreUnavailable:
            if len(self._ended) < MAX_ENDED:
                self._ended[room] = names

    async def _forget(self, room: str, names: list[str]) -> None:
        await self._ground.run("HDEL", *self._ground.keys(room, "loading"), *names)


def _is_surely_dead(name: str) -> bool:
    """Of a process that ran here, so that nobody has to wait for its silence."""
    pid, _, rest = name.partition("/")
    if not PLACE or rest.partition("/")[2] != PLACE or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
