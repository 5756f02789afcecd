"""A room as its hash tells: the histories it had, and the one that lives."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from collab import logs
from collab.errors import RoomUnavailable, StoreCorrupt
from collab.names import spoken
from collab.store.base import RoomInfo
from collab.store.records import Damaged
from collab.store.redis.entries import FORMAT, unseal

log = logs.logger(__name__)


_NUMBER = re.compile(rb"\d{1,19}")
_SHAPES = {
    **dict.fromkeys(
        b"format created changed position bytes history fence purge deletions".split(),
        _NUMBER,
    ),
    b"live": re.compile(rb"[\x20-\x7e]+"),
    b"deleted": re.compile(rb"\d{1,9} \d{1,19}"),
    b"rejected": re.compile(rb"(\d{1,19} [^\n]*\n)*"),
    b"landmarks": re.compile(rb"(at-\d{1,19}( \d{1,19}){5}\n)*"),
    b"attribution": re.compile(rb"\d{1,19}( \d{1,19}){3}"),
}


class Kept(NamedTuple):
    """Where a checkpoint lies."""

    place: str  # "a" or "b"; of a landmark "at-" and its position
    position: int
    milliseconds: int
    checksum: int
    pieces: int
    bytes: int


class KeptAttribution(NamedTuple):
    """How the attribution was written."""

    position: int
    checksum: int
    pieces: int
    bytes: int


class State:
    """One room. Raises RoomUnavailable when a newer version has written it, StoreCorrupt when a foreign writer has."""

    def __init__(self, room: str, flat: Sequence[bytes]) -> None:
        self.room = room
        self.fields = dict(zip(flat[::2], flat[1::2], strict=True))
        if not all(map(_is_ours, self.fields.items())):
            raise foreign(room)
        if int(self.fields.get(b"format", 0)) > FORMAT:
            raise RoomUnavailable(
                f"room {spoken(room)} was written by a newer version of the server"
            )
        self.live = self.fields.get(b"live", b"").decode()

    @property
    def deletions(self) -> int:
        """How many histories have ended."""
        return int(self.fields.get(b"deletions", 0))

    def next_epoch(self, identity: str) -> str:
        """Of the history that a first entry begins: computed, so that all replicas say the same and nobody writes it down.

        Another one after each deletion.
        """
        seed = f"{identity}\0{self.room}\0{self.deletions}"
        return hashlib.sha256(seed.encode()).hexdigest()[:16]

    def is_like(self, other: State) -> bool:
        """Whether nobody has begun the room anew, or put a checkpoint there, in between."""
        return self.live == other.live and all(
            self._get(name, self.live) == other._get(name, self.live)
            for name in ("new", "old")
        )

    def _get(self, field: str, epoch: str) -> bytes | None:
        return self.fields.get(f"{field}:{epoch}".encode())

    def number(self, field: str, epoch: str) -> int:
        """Such as the last position, of one history."""
        return int(self._get(field, epoch) or 0)

    def checkpoints(self, epoch: str) -> list[Kept]:
        """The newest first, as far as they can be read: two, and the landmarks."""
        found = []
        for line in (
            self._get("new", epoch),
            self._get("old", epoch),
            *reversed((self._get("landmarks", epoch) or b"").splitlines()),
        ):
            try:
                place, *numbers = (line or b"").decode().split()
                found.append(Kept(place, *map(int, numbers)))
            except (ValueError, TypeError):
                continue
        return found

    def landmarks(self, epoch: str) -> list[Kept]:
        """The checkpoints that are neither of the two newest."""
        return [each for each in self.checkpoints(epoch) if len(each.place) > 1]

    def attribution(self, epoch: str) -> KeptAttribution | None:
        """How far it reaches, and where it lies."""
        line = self._get("attribution", epoch)
        return None if line is None else KeptAttribution(*map(int, line.split()))

    def raw(self, field: str, epoch: str) -> bytes:
        """As it stands there, so that a script can tell whether it still does; b"" where nothing does."""
        return self._get(field, epoch) or b""

    @property
    def may_trim(self) -> bool:
        """Whether the live history has an end for its log, and two checkpoints."""
        return bool(self._get("history", self.live) and self._get("old", self.live))

    def rejected(self, epoch: str) -> set[int]:
        """Positions to be left out."""
        lines = (self._get("rejected", epoch) or b"").splitlines()
        return {int(line.partition(b" ")[0]) for line in lines}

    def deleted(self) -> list[str]:
        """Epochs whose content is still there, the one deleted last at the end."""
        found = []
        for field, value in self.fields.items():
            epoch = field.removeprefix(b"deleted:")
            if epoch != field and b"purge:" + epoch in self.fields:
                found.append((int(value.partition(b" ")[0]), epoch.decode()))
        return [epoch for _, epoch in sorted(found)]

    def leftovers(self) -> list[str]:
        """Purged epochs of which a replica of the version before has left what it does not know."""
        epochs = {
            name.partition(b":")[2]
            for name in self.fields
            if name.startswith((b"landmarks:", b"attribution:"))
        }
        return [
            epoch.decode()
            for epoch in sorted(epochs)
            if epoch.decode() != self.live and b"purge:" + epoch not in self.fields
        ]

    def restorable(self, now: int) -> str:
        """The epoch that was deleted last and can be brought back; "" when there is none."""
        kept = [epoch for epoch in self.deleted() if self.number("purge", epoch) > now]
        return kept[-1] if kept else ""

    def info(self, epoch: str) -> RoomInfo:
        """One history as a listing shows it."""
        checkpoints, attribution = self.checkpoints(epoch), self.attribution(epoch)
        deleted, history = self._get("deleted", epoch), self._get("history", epoch)
        created = self.number("created", epoch)
        return RoomInfo(
            self.room,
            epoch,
            self.number("position", epoch),
            checkpoints[0].position if checkpoints else 0,
            self.number("bytes", epoch)
            + sum(each.bytes for each in checkpoints)
            + (attribution.bytes if attribution else 0),
            created,
            max(created, self.number("changed", epoch)),
            self._metadata(epoch),
            None if history is None else int(history),
            None if deleted is None else int(deleted.partition(b" ")[2]),
        )

    def _metadata(self, epoch: str) -> dict[str, object]:
        record = self._get("metadata", epoch)
        if record is None:
            return {}
        try:
            found: dict[str, object] = orjson.loads(
                unseal(self.room, "metadata", record)
            )
        except (Damaged, ValueError):
            log.error("damaged metadata", room=self.room)
            return {}
        return found


def _is_ours(field: tuple[bytes, bytes]) -> bool:
    """Whether it can be read: what it says is for the scripts, which alone write it."""
    name, value = field
    shape = _SHAPES.get(name.partition(b":")[0])
    try:
        name.decode()
    except ValueError:
        return False
    return shape is None or shape.fullmatch(value) is not None


def foreign(room: str) -> StoreCorrupt:
    """What is said of a room whose keys are not as we left them."""
    return StoreCorrupt(
        f"room {spoken(room)}: a key of it in Redis holds what others have written"
    )
