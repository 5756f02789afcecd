"""Which processes live, so that a load under way in another one is not taken for a crash."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from collab.store.redis import scripts
from collab.store.redis.ground import Ground

ALIVE_SECONDS = 8  # after which one that has said nothing counts as dead
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

    async def beat(self) -> None:
        """Say that this one lives."""
        key = self._ground.key("alive", self._name)
        await self._ground.run("SET", key, 1, "EX", ALIVE_SECONDS)

    async def begin_load(self, room: str) -> int:
        """How many loads never ended. One that another living process has under way counts for nothing."""
        keys = self._ground.keys(room, "loading")
        flat = await self._ground.call(
            room, scripts.BEGIN_LOAD, keys, self._name, LOADING_SECONDS
        )
        noted = {name.decode(): int(count) for name, count in _pairs(flat)}
        dead = [name for name in noted if await self._has_ended(name)]
        self._counted[room] = [self._name, *dead]
        return sum(noted[name] for name in dead)

    async def _has_ended(self, name: str) -> bool:
        if name == self._name:
            return False
        if _is_surely_dead(name):
            return True
        return not await self._ground.run("EXISTS", self._ground.key("alive", name))

    async def end_load(self, room: str) -> None:
        names = self._counted.pop(room, [self._name])
        await self._ground.run("HDEL", *self._ground.keys(room, "loading"), *names)


def _pairs(flat: list[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


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
