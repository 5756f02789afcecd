"""Checkpoints and attributions on their way to Redis, and log that may go."""

from __future__ import annotations

from collab import logs
from collab.errors import StoreUnavailable
from collab.store.base import Attributed, Checkpoint, is_landmark
from collab.store.redis import scripts
from collab.store.redis.entries import (
    FORMAT,
    attribution_checksum,
    checkpoint_checksum,
)
from collab.store.redis.ground import ATTEMPTS, Ground
from collab.store.redis.loading import Seen
from collab.store.redis.state import State

log = logs.logger(__name__)

PIECE_BYTES = 4 << 20  # of what is put there, so that each goes in time
UPLOAD_SECONDS = 600  # in which all of them are there


async def put_checkpoint(
    ground: Ground, room: str, checkpoint: Checkpoint, *, fence: int, seen: Seen
) -> bool:
    """In place of the older one, which stays as a landmark where it is one.

    False when the fence is stale, or the log is not any more what was seen.
    """
    state = await ground.state(room)
    epoch = seen.epoch or state.live
    if not epoch:
        return False
    position, snapshot = checkpoint
    upload = f"{epoch}:upload:{fence}"
    landmark, line = _landmark(state, epoch)
    names = [upload, f"{epoch}:a", f"{epoch}:b", f"{epoch}:{landmark}"]
    keys = ground.keys(room, "room", f"{epoch}:log", *names)
    count = await _upload(ground, keys[2], snapshot)
    checksum = checkpoint_checksum(room, epoch, position, snapshot)
    about = f"{ground.clock()} {checksum} {count} {len(snapshot)}"
    arguments = position, fence, about, count, seen.last, seen.mark
    old = state.raw("old", epoch)
    is_stored = await ground.call(
        room, scripts.CHECKPOINT, keys, FORMAT, epoch, *arguments, old, line
    )
    if not is_stored:
        await ground.run("UNLINK", keys[2])
        return False
    await trim(ground, await ground.state(room), epoch)
    return True


def _landmark(state: State, epoch: str) -> tuple[str, str]:
    """The name under which the older of the two checkpoints stays, and the line about it; "" where it does not."""
    landmarks = state.landmarks(epoch)
    before = landmarks[0].position if landmarks else None
    for each in state.checkpoints(epoch)[1:2]:
        if len(each.place) == 1 and is_landmark(each.position, each.bytes, before):
            place = f"at-{each.position}"
            return place, " ".join((place, *map(str, each[1:])))
    return "at-0", ""


async def put_attribution(
    ground: Ground, room: str, attributed: Attributed, *, fence: int, seen: Seen
) -> bool:
    """In place of the one before. False as for a checkpoint, or where a later one is kept."""
    epoch = seen.epoch or (await ground.state(room)).live
    if not epoch:
        return False
    known, damaged = await read_attribution(ground, room, epoch)
    if known is not None and known.position >= attributed.position:
        return False
    position, encoded = attributed
    names = [f"{epoch}:{name}" for name in ("log", f"upload:{fence}", "attribution")]
    keys = ground.keys(room, "room", *names)
    count = await _upload(ground, keys[2], encoded)
    checksum = attribution_checksum(room, epoch, position, encoded)
    about = f"{position} {checksum} {count} {len(encoded)}"
    arguments = position, fence, about, count, seen.last, seen.mark
    is_stored = await ground.call(
        room, scripts.ATTRIBUTE, keys, FORMAT, epoch, *arguments, damaged
    )
    if not is_stored:
        await ground.run("UNLINK", keys[2])
    return bool(is_stored)


async def read_attribution(
    ground: Ground, room: str, epoch: str
) -> tuple[Attributed | None, bytes]:
    """What is kept; where that is damaged, what is said of it instead."""
    before = b""
    for _ in range(ATTEMPTS):
        state = await ground.state(room)
        kept, line = state.attribution(epoch), state.raw("attribution", epoch)
        if kept is None:
            return None, b""
        (key,) = ground.keys(room, f"{epoch}:attribution")
        encoded = await ground.pieces(key, kept.pieces)
        checksum = attribution_checksum(room, epoch, kept.position, encoded)
        if checksum == kept.checksum:
            return Attributed(kept.position, encoded), b""
        if line == before:  # and not replaced in between
            log.error("damaged attribution", room=room)
            return None, line
        before = line
    raise StoreUnavailable("the room changes all the time")


async def _upload(ground: Ground, key: str, snapshot: bytes) -> int:
    """In pieces, which go by themselves when we never come to the end."""
    count = 0
    await ground.run("UNLINK", key)
    for at in range(0, max(1, len(snapshot)), PIECE_BYTES):
        await ground.run("RPUSH", key, snapshot[at : at + PIECE_BYTES])
        await ground.run("EXPIRE", key, UPLOAD_SECONDS)
        count += 1
    return count


async def trim(ground: Ground, state: State, epoch: str) -> None:
    """Forget entries that are too old, as far as checkpoints and attribution cover them, and landmarks before those."""
    room = state.room
    landmarks = [f"{epoch}:{each.place}" for each in state.landmarks(epoch)]
    keys = ground.keys(room, "room", f"{epoch}:log", *landmarks)
    while await ground.call(room, scripts.TRIM, keys, FORMAT, epoch, ground.clock()):
        pass
