"""What a document knows, and what waits outside it for something it does not know yet.

Updates out of causal order would lose content inside the document without a sign, so only what can be integrated
completely gets in; the rest waits here, bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from itertools import count

from collab.errors import TooLarge
from collab.protocol.guard import Known, check, reach
from collab.protocol.rewriting import cut, cut_pairs, cut_texts, encode
from collab.protocol.structs import Need, Notes, Range, Run, Scan, scan
from collab.protocol.varint import encode_varint

Wait = tuple[int, int]  # a client, and the clock it must have reached
Runs = list[tuple[int, int, int]]  # client, clock, end

_four_bytes = re.compile(rb"[\xf0-\xf4][\x80-\xbf]{3}").search


class StashFull(TooLarge):
    """Too much waits for what is missing: ask the sender for a state-vector exchange."""

    def __init__(self) -> None:
        super().__init__("stash")


class LateRun:
    """Structs of one client that wait for a predecessor or for what they refer to.

    A reference is looked at until it is known and then never again, however often the run is woken: nobody can make
    waiting expensive.
    """

    __slots__ = ("_base", "_body", "_needs", "_next", "_run", "key", "size", "waits")

    def __init__(self, update: bytes, run: Run, needs: list[Need]) -> None:
        self._body = update[run.start : run.stop]
        self._base = (
            run.start
        )  # where the body was in the update: runs and needs count from there
        self._run = run
        self._needs = needs
        self._next = 0
        self.key: object = (run.client, run.clock, self._body)
        self.size = len(self._body)
        self.waits: Wait | None = None

    def take(self, known: Mapping[int, int]) -> bytes:
        """What of it is ready now, as an update, or b""; `waits` then says for what the rest waits."""
        run, needs, at = self._run, self._needs, self._next
        reached = known.get(run.client, 0)
        if run.clock > reached:
            self.waits = (run.client, run.clock)
            return b""
        while at < len(needs) and needs[at][5] <= known.get(needs[at][4], 0):
            at += 1
        self._next = at
        if at == len(needs):
            self.waits = None
        else:
            self.waits = needs[at][4:]
            run, self._run = cut(run, needs[at])
        if run.end <= reached:
            return b""
        return self._encode(run)

    def rest(self) -> bytes:
        """What waits, as an update."""
        return self._encode(self._run)

    def _encode(self, run: Run) -> bytes:
        start, stop = run.start - self._base, run.stop - self._base
        return encode(self._body, [run._replace(start=start, stop=stop)], ())


class LateDeletes:
    """Deleted ranges of one client that reach beyond what is known of it."""

    __slots__ = ("_next", "_ranges", "key", "size", "waits")

    def __init__(self, ranges: Iterable[Range]) -> None:
        self._ranges = sorted(ranges)
        self._next = 0
        self.key: object = tuple(self._ranges)
        self.size = 8 * len(self._ranges)
        self.waits: Wait | None = None

    def take(self, known: Mapping[int, int]) -> bytes:
        """What of it is ready now, as an update, or b""; `waits` then says for what the rest waits."""
        ranges, at = self._ranges, self._next
        client = ranges[0][0]
        reached = known.get(client, 0)
        ready: list[Range] = []
        self.waits = None
        while at < len(ranges):
            _, clock, end = ranges[at]
            if clock < reached:
                ready.append((client, clock, min(end, reached)))
            if end > reached:
                clock = max(clock, reached)
                ranges[at] = (client, clock, end)
                self.waits = (client, clock + 1)
                break
            at += 1
        self._next = at
        return encode(b"", (), ready)

    def rest(self) -> bytes:
        """What waits, as an update."""
        return encode(b"", (), self._ranges[self._next :])


class Gate:
    """A document's vector, and the stash of what must wait.

    Either `check` an update against `known`, apply it, and `advance` by its runs; or let `admit` decide and apply
    what it returns. In both cases apply all that is returned, in that order, before the next update comes.
    """

    __slots__ = (
        "_numbers",
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
        self._stash: dict[object, LateRun | LateDeletes] = {}
        # client → heap of (clock to wake at, a number so that entries are never compared, entry)
        self._waiting: dict[int, list[tuple[int, int, LateRun | LateDeletes]]] = {}
        self._numbers = count()

    def __len__(self) -> int:
        """How many parts of updates wait."""
        return len(self._stash)

    def waiting(self) -> list[bytes]:
        """All that waits, as updates."""
        return [entry.rest() for entry in self._stash.values()]

    @property
    def awaited(self) -> set[int]:
        """The clients for whose ids something waits."""
        return set(self._waiting)

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

        Raises `StashFull` when the rest has no place, `Refused` and `TooLarge` as `check` does; then nothing changed.
        """
        runs = check(update, self.known)
        if runs is not None:
            return [update, *self.advance(runs)]
        return self.divide(update, scan(update))

    def divide(self, update: bytes, found: Scan) -> list[bytes]:
        """`admit` for an update that `check` has found not ready, and what `scan` has found in it."""
        ready, late = self._split(update, found)
        late = [entry for entry in late if entry.key not in self._stash]
        size = self.stashed_bytes + sum(entry.size for entry in late)
        if late and (
            size > self.max_bytes or len(self._stash) + len(late) > self.max_updates
        ):
            raise StashFull
        passing = self._pass(ready) if ready else []
        self.stashed_bytes = size
        for entry in late:
            self._stash[entry.key] = entry
            self._wait(entry)
        runs = [run for _, runs in passing for run in runs]
        return [*(each for each, _ in passing), *self.advance(runs)]

    def unblock(self, clients: Iterable[int]) -> list[bytes]:
        """What can be applied now that `known` has come further for these clients; that may move others."""
        known, waiting = self.known, self._waiting
        moved = list(clients)
        unblocked: list[bytes] = []
        while moved:
            client = moved.pop()
            queue = waiting.get(client)
            if queue is None:
                continue
            while queue and queue[0][0] <= known.get(client, 0):
                entry = heappop(queue)[2]
                ready = entry.take(known)
                if ready:
                    try:
                        passing = self._pass(ready)
                    except TooLarge:
                        # Nested too deep, seen only now: its sender may be long gone.
                        self._drop(entry)
                        continue
                    for each, runs in passing:
                        unblocked.append(each)
                        for moving, _, end in runs:
                            if end > known.get(moving, 0):
                                known[moving] = end
                                moved.append(moving)
                if entry.waits is None:
                    self._drop(entry)
                else:
                    self._wait(entry)
            if not queue:
                waiting.pop(client, None)
        return unblocked

    def reset(self, known: Mapping[int, int]) -> None:
        """Set the vector from the document itself, after a native call that may have done only part of its work."""
        self.known.reset(known)

    def load(self, snapshot: bytes, known: Mapping[int, int]) -> None:
        """Begin from a snapshot whose vector is `known`: find out how deep its types lie and where its pairs are.

        Reads all of it only when it seems to have any.
        """
        self.known.reset({})
        if _may_nest(snapshot, known) or _may_pair(snapshot):
            notes = Notes()
            scan(snapshot, notes, max_structs=len(snapshot))  # it is our own
            self.known.note(snapshot, notes)
        self.known.update(known)

    def _pass(self, ready: bytes) -> list[tuple[bytes, Runs]]:
        """What to apply for an update that is ready, and the runs of each.

        Usually that is the update itself. A surrogate pair that it cuts is deleted whole: one that is there already
        before, so that native code has nothing to cut; one of its own after, having come as two U+FFFD.
        """
        known = self.known
        runs = check(ready, known)
        if runs is not None:
            return [(ready, runs)]
        notes = Notes()
        there, own = cut_pairs(ready, scan(ready, notes), notes, known)
        if own:
            ready = cut_texts(ready, notes, own)
        for pair in there:
            known.pairs.forget(*pair)
        try:
            runs = check(ready, known)
        except TooLarge:
            for pair in there:
                known.pairs.restore(*pair)
            raise
        assert runs is not None, "it is ready, and cuts no pair any more"
        before = [(client, half - 1, half + 1) for client, half in there]
        # The first half may be known as something else, which is none of this update's business.
        after = [
            (client, max(half - 1, known.get(client, 0)), half + 1)
            for client, half in own
        ]
        passing = [
            (encode(b"", (), before), []),
            (ready, runs),
            (encode(b"", (), after), []),
        ]
        return [each for each in passing if each[0]]

    def _split(
        self, update: bytes, found: Scan
    ) -> tuple[bytes, list[LateRun | LateDeletes]]:
        """What can be integrated now, as one update, and what must wait, as entries that know what they wait for."""
        known = self.known
        needs: list[list[Need]] = [[] for _ in found.runs]
        for need in found.needs:
            needs[need[0]].append(need)
        ready: list[Run] = []
        late: list[LateRun | LateDeletes] = []
        after = dict(known)
        for run, mine, (at, stop) in zip(
            found.runs, needs, reach(found, known), strict=True
        ):
            if at < 0:
                late.append(LateRun(update, run, mine))
                continue
            if stop is not None:
                run, rest = cut(run, stop)
                late.append(LateRun(update, rest, mine[mine.index(stop) :]))
            if run.end > known.get(run.client, 0):
                ready.append(run)
                after[run.client] = run.end
        gone: list[Range] = []
        ahead: dict[int, list[Range]] = {}
        for client, clock, end in found.deletes:
            reached = after.get(client, 0)
            if clock < reached:
                gone.append((client, clock, min(end, reached)))
            if end > reached:
                ahead.setdefault(client, []).append((client, max(clock, reached), end))
        late += map(LateDeletes, ahead.values())
        for entry in late:
            entry.take(after)  # gives nothing: it finds out what the entry waits for
        return encode(update, ready, gone), late

    def _wait(self, entry: LateRun | LateDeletes) -> None:
        """Have the entry woken when what it waits for is there."""
        assert entry.waits is not None, "only what waits is in the stash"
        client, clock = entry.waits
        queue = self._waiting.setdefault(client, [])
        heappush(queue, (clock, next(self._numbers), entry))

    def _drop(self, entry: LateRun | LateDeletes) -> None:
        del self._stash[entry.key]
        self.stashed_bytes -= entry.size


def _may_pair(snapshot: bytes) -> bool:
    """Could there be a character outside the basic plane? Never wrong about "no"."""
    return _four_bytes(snapshot) is not None


def _may_nest(snapshot: bytes, clients: Iterable[int]) -> bool:
    """Could a struct name a shared type by its id? Never wrong about "no"; searching beats reading by far."""
    for client in clients:
        # the parent's kind of address (an id) and its client, after the struct's first byte: a kind below 10
        pattern = b"\0" + encode_varint(client)
        at = snapshot.find(pattern, 1)
        while at > 0:
            if 0 < snapshot[at - 1] & ~32 < 10:
                return True
            at = snapshot.find(pattern, at + 1)
    return False
