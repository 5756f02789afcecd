"""How requests were answered that may come again."""

from __future__ import annotations

from zlib import crc32

from collab.connection import ForeignContent
from collab.errors import StoreCorrupt
from collab.store.base import ANSWER_SECONDS, MAX_ANSWERS, Remembered
from collab.store.records import Damaged
from collab.store.redis import scripts
from collab.store.redis.entries import pack_answer, unpack_answer
from collab.store.redis.ground import Ground

BUCKETS = 16  # which a Cluster keeps in different places
MAX_ANSWERS_BYTES = 256 << 20  # of all together, since they stand in memory


class Answers:
    """Kept for a day, as long as there is room."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def _keys(self, bucket: int) -> list[str]:
        tag = f"{{answers-{bucket}}}"
        return [self._ground.key(tag, name) for name in ("kept", "order", "bytes")]

    async def remember(self, key: str, remembered: Remembered) -> None:
        record = pack_answer(key, self._ground.clock(), remembered)
        await self._put(_bucket(key), key, record)

    async def tidy(self) -> None:
        """Forget the old ones."""
        for bucket in range(BUCKETS):
            await self._put(bucket, "", b"")

    async def _put(self, bucket: int, key: str, record: bytes) -> None:
        now = self._ground.clock()
        try:
            await self._ground.client.call(
                scripts.REMEMBER,
                self._keys(bucket),
                key,
                now,
                record,
                now - ANSWER_SECONDS * 1000,
                MAX_ANSWERS // BUCKETS,
                MAX_ANSWERS_BYTES // BUCKETS,
            )
        except ForeignContent:
            raise StoreCorrupt(
                "the keys of earlier answers hold what others have written"
            ) from None

    async def recall(self, key: str) -> Remembered | None:
        record = await self._ground.run("HGET", self._keys(_bucket(key))[0], key)
        if record is None:
            return None
        try:
            milliseconds, remembered = unpack_answer(key, record)
        except Damaged:
            raise StoreCorrupt("the record of an earlier answer is damaged") from None
        is_over = milliseconds < self._ground.clock() - ANSWER_SECONDS * 1000
        return None if is_over else remembered


def _bucket(key: str) -> int:
    return crc32(key.encode()) % BUCKETS
