"""What a document knows, and what waits outside it for something it does not know yet.

Updates out of causal order would lose content inside the document without a sign, so only what can be integrated
completely gets in; the rest waits here, bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush

from collab.errors import TooLarge
from collab.protocol.guard import Known, check, scan, split
from collab.protocol.nesting import Link
from collab.protocol.varint import encode_varint


class StashFull(TooLarge):
    """Too much waits for what is missing: ask the sender for a state-vector exchange."""

    def __init__(self) -> None:
        super().__init__("stash")


class Gate:
    """A document's vector and its stash.

    Either `check` an update against `known`, apply it, and `advance` by its runs; or let `admit` decide and apply
    what it returns. In both cases apply all that is returned, in that order, before the next update comes.
    """

    __slots__ = (
        "_stash",
        "_waiting",
        "known",
        "max_bytes",
        "max_updates",
        "stashed_bytes",
    )

    def __init__(
        self,
        known: Mapping[int, int] | None = None,
        *,
        max_bytes: int,
        max_updates: int = 5000,
    ) -> None:
        self.known = Known(known)
        self.max_bytes = max_bytes
        self.max_updates = max_updates
        self.stashed_bytes = 0
        self._stash: set[bytes] = set()
        self._waiting: dict[
            int, list[tuple[int, bytes]]
        ] = {}  # client → heap of (clock to try at, update)

    def __len__(self) -> int:
        """How many updates wait."""
        return len(self._stash)

    def advance(self, runs: Iterable[tuple[int, int, int]]) -> list[bytes]:
        """Note what was applied after `check`; returns what that unblocks, to be applied now in this order."""
        known = self.known
        for client, _, end in runs:
            if end > known.get(client, 0):
                known[client] = end
        if not self._stash:
            return []
        return self.unblock([run[0] for run in runs])

    def admit(self, update: bytes) -> list[bytes]:
        """The updates to apply now, in this order: this one, its ready part or nothing; then what that unblocks.

        Raises `StashFull` before anything has changed when the rest has no place, `Refused` and `TooLarge` as `check`.
        """
        runs = check(update, self.known)
        if runs is not None:
            return [update, *self.advance(runs)]
        ready: list[bytes] = []
        return self._retry(self._part(update, ready), ready)

    def unblock(self, clients: Iterable[int]) -> list[bytes]:
        """What can be applied now that `known` has come further for these clients."""
        return self._retry(list(clients), [])

    def reset(self, known: Mapping[int, int]) -> None:
        """Set the vector from the document itself, after a native call that may have done only part of its work."""
        self.known.clear()
        self.known.update(known)

    def load(self, snapshot: bytes, known: Mapping[int, int]) -> None:
        """Begin from a snapshot whose vector is `known`: finds out how deep its shared types lie.

        A full pass only when something in it does lie inside a shared type.
        """
        self.known.clear()
        self.known.depths.clear()
        if _may_nest(snapshot, known):
            links: list[Link] = []
            scan(snapshot, links)
            self.known.depths.grow(links, {})
        self.known.update(known)

    def _part(self, update: bytes, out: list[bytes]) -> list[int]:
        """Put what is ready into `out` and the rest into the stash; returns the clients that came further."""
        known = self.known
        ready, rest, missing = split(update, known)
        runs = check(ready, known) if ready else []
        if rest and rest not in self._stash:
            if (
                len(self._stash) >= self.max_updates
                or self.stashed_bytes + len(rest) > self.max_bytes
            ):
                raise StashFull
            self._stash.add(rest)
            self.stashed_bytes += len(rest)
            for client, clock in missing.items():
                heappush(self._waiting.setdefault(client, []), (clock, rest))
        if not ready or runs is None:
            return []
        out.append(ready if rest else update)
        for client, _, end in runs:
            known[client] = max(end, known.get(client, 0))
        return [run[0] for run in runs]

    def _retry(self, moved: list[int], out: list[bytes]) -> list[bytes]:
        """Try again what waited for clients that moved, which may move others."""
        known, waiting, stash = self.known, self._waiting, self._stash
        while moved:
            client = moved.pop()
            queue = waiting.get(client)
            if queue is None:
                continue
            while queue and queue[0][0] <= known.get(client, 0):
                _, update = heappop(queue)
                if update in stash:  # else it was taken out when another client moved
                    stash.remove(update)
                    self.stashed_bytes -= len(update)
                    try:
                        moved += self._part(update, out)
                    except TooLarge:
                        continue  # nested too deep, seen only now: its sender is long gone, and it stays outside
            if not queue:
                waiting.pop(client, None)
        return out


def _may_nest(snapshot: bytes, clients: Iterable[int]) -> bool:
    """Could a struct name a shared type by its id? Never wrong about "no"; searching beats reading by far."""
    for client in clients:
        pattern = b"\0" + encode_varint(client)
        at = snapshot.find(pattern, 1)
        while at > 0:
            if 0 < snapshot[at - 1] & ~32 < 10:
                return True
            at = snapshot.find(pattern, at + 1)
    return False
