"""Checkpoints on their way to Redis, and log that may go."""

from __future__ import annotations

from collab.store.base import Checkpoint
from collab.store.redis import scripts
from collab.store.redis.entries import FORMAT, checkpoint_checksum
from collab.store.redis.ground import Ground
from collab.store.redis.loading import Seen

PIECE_BYTES = 4 << 20  # of a checkpoint, so that each goes in time
UPLOAD_SECONDS = 600  # in which all of them are there


async def put_checkpoint(
    ground: Ground, room: str, checkpoint: Checkpoint, *, fence: int, seen: Seen
) -> bool:
    """In place of the older one. False when the fence is stale, or the log is not any more what was seen."""
    epoch = seen.epoch or (await ground.state(room)).live
    if not epoch:
        return False
    position, snapshot = checkpoint
    names = [f"{epoch}:{name}" for name in ("log", f"upload:{fence}", "a", "b")]
    keys = ground.keys(room, "room", *names)
    count = await _upload(ground, keys[2], snapshot)
    checksum = checkpoint_checksum(room, epoch, position, snapshot)
    about = f"{ground.clock()} {checksum} {count} {len(snapshot)}"
    arguments = position, fence, about, count, seen.last, seen.mark
    is_stored = await ground.call(
        room, scripts.CHECKPOINT, keys, FORMAT, epoch, *arguments
    )
    if not is_stored:
        await ground.run("UNLINK", keys[2])
        return False
    await trim(ground, room, epoch)
    return True


async def _upload(ground: Ground, key: str, snapshot: bytes) -> int:
    """In pieces, which go by themselves when we never come to the end."""
    count = 0
    await ground.run("UNLINK", key)
    for at in range(0, max(1, len(snapshot)), PIECE_BYTES):
        await ground.run("RPUSH", key, snapshot[at : at + PIECE_BYTES])
        await ground.run("EXPIRE", key, UPLOAD_SECONDS)
        count += 1
    return count


async def trim(ground: Ground, room: str, epoch: str) -> None:
    """Forget entries that are too old, as far as both checkpoints cover them."""
    keys = ground.keys(room, "room", f"{epoch}:log")
    while await ground.call(room, scripts.TRIM, keys, FORMAT, epoch, ground.clock()):
        pass
