"""What waits for a socket: in order, bounded, and what belongs together leaves as one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from collab.protocol import yjs
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

    def frame(self) -> bytes:
        return yjs.sync_step_2(self.update)


Item = bytes | Stretch | Answer | Callable[[], bytes]


class Outgoing:
    """The queue of one connection. Synchronous, but for `wait`."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._count = self._size = 0
        self._is_waiting = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whoever adds more to it must give the connection up."""
        return self._count >= MAX_WAITING or self._size >= MAX_WAITING_BYTES

    def update(self, update: bytes, changes: int) -> None:
        """A local change, with its number."""
        last = self._items[-1] if self._items else None
        if (
            not isinstance(last, Stretch)
            or len(last.updates) >= MAX_TOGETHER
            or last.size + len(update) > MAX_TOGETHER_BYTES
        ):
            last = Stretch(changes)
            self._items.append(last)
        last.updates.append(update)
        last.changes = changes
        last.size += len(update)
        self._add(len(update))

    def answer(self, update: bytes, changes: int) -> None:
        """A step 2."""
        self._items.append(Answer(changes, update))
        self._add(len(update))

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
        kept = [item for item in self._items if not isinstance(item, Stretch | Answer)]
        self._items = deque(kept)
        self._count = len(kept)
        self._size = sum(len(item) for item in kept if isinstance(item, bytes))

    def take(self) -> Item | None:
        """What leaves next."""
        if not self._items:
            self._is_waiting.clear()
            return None
        item = self._items.popleft()
        if isinstance(item, Stretch):
            self._count -= len(item.updates)
            self._size -= item.size
        else:
            self._count -= 1
            self._size -= len(item.update) if isinstance(item, Answer) else 0
            self._size -= len(item) if isinstance(item, bytes) else 0
        return item

    async def wait(self) -> None:
        """Until something waits, or `wake` was called."""
        await self._is_waiting.wait()

    def wake(self) -> None:
        """There is something to do, if only to look."""
        self._is_waiting.set()

    def rest(self) -> None:
        """What waits must wait, until `wake` or something new."""
        self._is_waiting.clear()
