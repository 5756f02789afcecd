"""Records in a hash of Redis, beside the rooms: as durable as Redis is, and put back by replicas when it was emptied."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Self, TypeVar

from collab.auth.records import Record
from collab.auth.shelves.base import NOTHING, Held
from collab.auth.shelves.encoding import Decoder, encode, encode_name, next_version
from collab.connection import Client, Endpoint, ForeignContent, Script
from collab.errors import StoreCorrupt, StoreUnavailable

_VERSION = "version"  # a field of the hash; those of records are JSON
# Arguments: the version that is expected and the one to be, how many records, their names and bodies, names to drop.
_WRITE = Script("""
if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[1] then
  return 0
end
local last = 3 + 2 * tonumber(ARGV[3])
for at = 4, last, 2 do
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
end
for at = last + 1, #ARGV do
  redis.call('HDEL', KEYS[1], ARGV[at])
end
redis.call('HSET', KEYS[1], 'version', ARGV[2])
return 1
""")

T = TypeVar("T")


class RedisShelf:
    """One hash for the whole cluster of replicas, changed by one script in one step."""

    def __init__(self, endpoint: Endpoint, cluster: str) -> None:
        self._endpoint, self._key = endpoint, f"{cluster}:access"
        self._decoder = Decoder()
        self._client: Client

    def __enter__(self) -> Self:
        # The client can only be awaited; who uses a shelf has no event loop, so it brings one along.
        self._runner = asyncio.Runner()
        try:
            self._runner.run(self._open())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._runner.run(self._client.__aexit__(*exc_info))
        finally:
            self._runner.close()

    async def _open(self) -> None:
        self._client = await Client(
            self._endpoint, unavailable=StoreUnavailable
        ).__aenter__()
        await self._client.check()

    def version(self) -> str:
        return _text(self._do(self._client.run("HGET", self._key, _VERSION)))

    def read(self) -> Held:
        found = self._do(self._client.run("HGETALL", self._key))
        version = _text(found.pop(_VERSION.encode(), None))
        if found and version == NOTHING:
            raise StoreCorrupt(
                "the keys, grants and revocations in Redis are not whole"
            )
        return Held(version, self._decoder.decode(found.items()))

    def write(
        self, version: str, put: Sequence[Record], drop: Sequence[Record]
    ) -> str | None:
        made = next_version(version)
        arguments: list[str | bytes | int] = [version, made, len(put)]
        for record in put:
            arguments += encode_name(record), encode(record)
        arguments += map(encode_name, drop)
        is_done = self._do(self._client.call(_WRITE, [self._key], *arguments))
        return made if is_done else None

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._runner.run(work)
        except ForeignContent:
            raise StoreCorrupt(
                f"{self._key} in Redis was not written by this program"
            ) from None


def _text(version: Any) -> str:
    if version is None:
        return NOTHING
    try:
        text: str = version.decode()
        int(text.partition("-")[0])
    except (ValueError, AttributeError):
        raise StoreCorrupt(
            "the version of keys, grants and revocations in Redis is none"
        ) from None
    return text
