"""What waits for a socket: in order, bounded, and what belongs together leaves as one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from collab.protocol import yjs
from collab.protocol.division import Indivisible, divide
from collab.protocol.structs import MAX_STRUCTS
from collab.sdk.errors import SdkError, TooLarge
from collab.sdk.messages import MAX_UPDATE_BYTES
from collab.sdk.mirror import merged

# One update leaves with what was made since the last one left; more would be merged too slowly.
MAX_TOGETHER, MAX_TOGETHER_BYTES = 200, 1 << 18
# When more waits, all of it is dropped and found again by the state vectors of the next connection.
MAX_WAITING, MAX_WAITING_BYTES = 10_000, 8 << 20


@dataclass(slots=True)
class Stretch:
    """Updates with no other message between them. `changes` numbers the last local change among them."""

    changes: int
    updates: list[bytes] = field(default_factory=list)
    size: int = 0

    def frame(self) -> bytes:
        return yjs.update_message(merged(self.updates))


@dataclass(slots=True)
class Answer:
    """A step 2, which brings the server all changes up to this number."""

    changes: int
    update: bytes

    @property
    def size(self) -> int:
        return len(self.update)

    def frame(self) -> bytes:
        return yjs.sync_step_2(self.update)


@dataclass(slots=True)
class Parts:
    """What is too long for one message: each part leaves as a step 2 of its own, and only with the last are all changes
    there. It is kept once, and let go of as it leaves.
    """

    changes: int
    parts: deque[bytes]

    def take(self) -> Answer:
        update = self.parts.popleft()
        return Answer(0 if self.parts else self.changes, update)


# An error stands for a change that cannot be sent; nothing behind it can be either.
Item = bytes | Stretch | Answer | Callable[[], bytes] | SdkError


class Outgoing:
    """The queue of one connection. Synchronous, but for `wait`."""

    def __init__(self) -> None:
        self.max_update_bytes = MAX_UPDATE_BYTES  # until the server says how many
        self._items: deque[Item | Parts] = deque()
        self._count = self._size = 0
        self._is_waiting = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whoever adds more to it must give the connection up."""
        return self._count >= MAX_WAITING or self._size >= MAX_WAITING_BYTES

    def update(self, update: bytes, changes: int) -> None:
        """A local change, with its number."""
        if len(update) > min(self.max_update_bytes, MAX_STRUCTS):
            self._divided(update, changes)
            return
        last = self._items[-1] if self._items else None
        if (
            not isinstance(last, Stretch)
            or len(last.updates) >= MAX_TOGETHER
            or last.size + len(update) > self._together_bytes
        ):
            last = Stretch(changes)
            self._items.append(last)
        last.updates.append(update)
        last.changes = changes
        last.size += len(update)
        self._add(len(update))

    def answer(self, update: bytes, changes: int) -> None:
        """A step 2, or several. Raises TooLarge when the update cannot be divided; none of it waits then."""
        parts = _parts(update, self.max_update_bytes)
        self._items.append(Parts(changes, deque(parts)))
        # Another connection would only have to say the same, so its size is no reason to give this one up.
        self._add(0)

    def _divided(self, update: bytes, changes: int) -> None:
        try:
            parts = _parts(update, self.max_update_bytes)
        except TooLarge as error:
            self._items.append(error)
            self._add(0)
            return
        for number, part in enumerate(parts, start=1):
            whole = changes if number == len(parts) else 0
            self._items.append(Stretch(whole, [part], len(part)))
            self._add(len(part))

    @property
    def _together_bytes(self) -> int:
        return min(MAX_TOGETHER_BYTES, self.max_update_bytes // 2)

    def message(self, frame: bytes) -> None:
        """Anything else, which keeps its place among the updates."""
        self._items.append(frame)
        self._add(len(frame))

    def latest(self, encode: Callable[[], bytes]) -> None:
        """A message that is made when it leaves. The same one waits only once."""
        if encode not in self._items:
            self._items.append(encode)
            self._add(0)

    def _add(self, size: int) -> None:
        self._count += 1
        self._size += size
        self._is_waiting.set()

    def drop_updates(self) -> None:
        """Forget those that wait: they would be refused, or are in an answer already."""
        gone = Stretch | Parts | SdkError
        kept = [item for item in self._items if not isinstance(item, gone)]
        self._items = deque(kept)
        self._count = len(kept)
        self._size = sum(len(item) for item in kept if isinstance(item, bytes))

    def take(self) -> Item | None:
        """What leaves next."""
        if not self._items:
            self._is_waiting.clear()
            return None
        first = self._items[0]
        if isinstance(first, Parts) and len(first.parts) > 1:
            return first.take()
        item = self._items.popleft()
        self._count -= len(item.updates) if isinstance(item, Stretch) else 1
        if isinstance(item, Stretch):
            self._size -= item.size
        elif isinstance(item, bytes):
            self._size -= len(item)
        return item.take() if isinstance(item, Parts) else item

    async def wait(self) -> None:
        """Until something waits, or `wake` was called."""
        await self._is_waiting.wait()

    def wake(self) -> None:
        """There is something to do, if only to look."""
        self._is_waiting.set()

    def rest(self) -> None:
        """What waits must wait, until `wake` or something new."""
        self._is_waiting.clear()


def _parts(update: bytes, max_bytes: int) -> list[bytes]:
    """What a server takes one after the other. Raises TooLarge."""
    if len(update) <= min(max_bytes, MAX_STRUCTS):
        return [update]  # it cannot even have too many structs
    try:
        return divide(update, max_bytes=max_bytes, max_structs=MAX_STRUCTS)
    except Indivisible:
        raise TooLarge(
            f"one value takes more than the {max_bytes} bytes that the server takes at once: nothing of it was sent",
            max_bytes,
        ) from None
