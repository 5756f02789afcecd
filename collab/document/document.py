"""The shared document of a room: guard, gate and binding in front of pycrdt, one wrapper around it.

Everything that enters native code passes `apply`. Nothing is ever pending inside pycrdt: what cannot be integrated
yet waits in the gate, since yrs loses content that arrives out of causal order.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from time import thread_time
from typing import Any, Literal, NamedTuple

from pycrdt import Doc, TransactionEvent

from collab.document.deletions import Ranges, deletions, hashed
from collab.document.erasure import Erasure
from collab.document.gate import Gate
from collab.errors import ClientIdConflict, DocumentBroken, Refused, TooLarge
from collab.protocol.division import (
    LONG_BYTES,
    PART_RANGES,
    PART_STRUCTS,
    Reading,
    divide,
    read,
    steps,
)
from collab.protocol.guard import check
from collab.protocol.repeats import copied
from collab.protocol.rewriting import encode
from collab.protocol.statevector import encode_state_vector, state_vector
from collab.protocol.structs import Range, Run, scan

NOTHING = b"\x00\x00"  # an update that holds nothing
EMPTY_STATE_VECTOR = b"\x00"

Binding = Literal["off", "audit", "enforce"]

# And a connection: an owner that nobody can be told to be again.
ANONYMOUS = "anonymous:"

MAX_STASHED_UPDATES = 5000
MAX_OWN_CLIENTS = (
    1000  # of those for whom something was taken back; the first gets another id then
)
MAX_CONTESTED = 1000  # client ids that copies have used; the first is forgotten then
# Two replicas take in the same ids only before they hear of each other: what they have logged is compared so far back.
RACED_IDS = 64

# Updates between two comparisons of the gate's vector with the document's.
_CANARY_EVERY = 1000

# An insertion is compared with all that stands between its neighbours, which take 0.1 to 0.5 µs each: who wrote one
# saw nothing there, so these are what others have put there meanwhile. Made for the purpose they can be the whole
# document, for each of thousands. So what is longer than a few keystrokes goes in by parts, and the time is looked at
# in between: the largest bound is ten times what honest updates need.
COSTLY_SECONDS = 0.05
STRUCT_SECONDS = 3e-6
# In a document of so many bytes that holds for what is longer than one keystroke.
LARGE_BYTES, SHORT_BYTES = 1 << 16, 48
# A snapshot that was quick to load stays so while it grows little: each new struct may be compared with all.
PROVEN_BYTES = 4096
PROVEN_WORK = 10_000_000  # in bytes times bytes
UNBLOCKED_SECONDS = 0.5  # for what has waited for an update and goes in with it
# Parts have fewer structs the more there is to be compared with.
LEAST_PART_STRUCTS = 4
PART_WORK = 3_000_000  # in structs times bytes of the document


class Change(NamedTuple):
    """What an update did, where that is not simply all of it."""

    # What entered the document, to be passed on in this order.
    forward: Sequence[bytes]
    # What the log must keep: more than that when a part of it has to wait.
    log: bytes


class TooCostly(TooLarge):
    """It takes native code out of all proportion long, as no client's edits do. The document has `kept` a part."""

    def __init__(self, kept: Change) -> None:
        super().__init__("too costly")
        self.kept = kept


class WaitTooCostly(DocumentBroken):
    """What had waited for it takes native code out of all proportion long."""

    def __init__(self) -> None:
        super().__init__("what waited takes too long")


class Document:
    """One live `pycrdt.Doc` with everything a room must know about it.

    Not for several threads. `owners` maps client ids to the principal that first wrote under them.
    """

    def __init__(
        self,
        *,
        binding: Binding = "audit",
        max_update_bytes: int = 1 << 19,
        max_document_bytes: int = 50 << 20,
        max_stash_bytes: int = 1 << 20,
        clock: Callable[[], float] = thread_time,
    ) -> None:
        self._clock = clock  # of what native code takes
        self._doc: Doc[Any] = Doc()
        # pycrdt's own layer of Python around this costs as much as an update does; a contract test holds it.
        self._native = self._doc._doc
        self._binding = binding
        self.max_update_bytes = max_update_bytes
        self._max_document_bytes = max_document_bytes
        self._snapshot: bytes | None = None
        self._bytes = 0  # at least what a snapshot takes: updates are never smaller than what they leave
        self._counted = 0  # what the last one took
        self._until_canary = _CANARY_EVERY
        self.gate = Gate(max_bytes=max_stash_bytes, max_updates=MAX_STASHED_UPDATES)
        self.owners: dict[int, str] = {}
        self.claimed: dict[int, str] = {}  # owners that are not stored yet
        self._own: dict[str, tuple[int, int]] = {}  # see `own_client`
        # New content under somebody else's client id that was let in.
        self.conflicts = 0
        # Client ids under which somebody has written what others have not: their owners alone may go on.
        self._contested: dict[int, None] = {}
        # Client ids for which something waits that takes too long: nothing new may come under them.
        self._barred: set[int] = set()
        self._suspects: set[int] = set()  # those that may be
        self.copies = 0  # updates that were refused for that, or let in elsewhere
        self.mismatches = 0  # times the canary had to correct the gate
        self.proven = (
            PROVEN_BYTES  # up to so many a snapshot is quick to load in one go
        )

    @classmethod
    def load(
        cls,
        snapshot: bytes | None,
        tail: Iterable[bytes],
        *,
        max_stash_bytes: int = 1 << 20,
    ) -> Document:
        """Rebuild a document from a verified checkpoint and the log after it.

        Raises DocumentBroken when native code panics, Refused when a row of the log cannot be read.
        """
        loading = cls.loading(snapshot, tail, max_stash_bytes=max_stash_bytes)
        while True:
            try:
                next(loading)
            except StopIteration as end:
                document: Document = end.value
                return document

    @classmethod
    def loading(
        cls,
        snapshot: bytes | None,
        tail: Iterable[bytes],
        *,
        owners: dict[int, str] | None = None,
        binding: Binding = "audit",
        max_update_bytes: int = 1 << 19,
        max_document_bytes: int = 50 << 20,
        max_stash_bytes: int = 1 << 20,
    ) -> Generator[None, None, Document]:
        """`load` in small steps, for whoever has other things to do in between."""
        document = cls(
            binding=binding,
            max_update_bytes=max_update_bytes,
            max_document_bytes=max_document_bytes,
            max_stash_bytes=max_stash_bytes,
        )
        if snapshot is not None:
            document._integrate(snapshot)
            document._bytes = document._counted = len(snapshot)
            document.prove(len(snapshot))
            document.gate.load(snapshot, state_vector(document._native_vector()))
        # What was let in once stays in, whatever the limit is now.
        gate = document.gate
        gate.max_bytes = gate.max_updates = 1 << 40
        for update in tail:
            for ready in gate.admit(update):
                for part in steps(ready):
                    document._integrate(part)
                    yield
        gate.max_bytes, gate.max_updates = max_stash_bytes, MAX_STASHED_UPDATES
        document.owners.update(owners or {})
        return document

    def apply(
        self,
        update: bytes,
        principal: str,
        *,
        precise: bool = False,
        is_ours: bool = False,
    ) -> Change | bytes | None:
        """Take in an update. Returns the update itself when all of it went in, which is nearly always; None when it
        brought nothing. `precise` passes on only what it really brought, for updates that repeat much; one of `ours`
        may be as long as the document.

        Raises Refused or TooLarge (nothing was applied), ClientIdConflict (likewise), TooCostly (a part was, as if
        there had been no more), DocumentBroken (the document must be rebuilt).
        """
        size = len(update)
        if size > self.max_update_bytes and not is_ours:
            raise TooLarge("update bytes")
        gate = self.gate
        known = gate.known
        reading = None
        is_long = size > SHORT_BYTES and (size > LONG_BYTES or self._bytes > LARGE_BYTES)  # fmt: skip
        if is_long and not is_ours:
            reading = read(update)
            runs = check(update, known, reading.found)
        else:
            runs = check(update, known)
        if runs is None:
            return self._apply_unready(update, principal)
        if self._barred:
            self._spare(runs)
        owners = self.owners
        is_new = is_repeat = False
        for client, clock, end in runs:
            reached = known.get(client, 0)
            if clock < reached and not is_repeat:
                is_repeat = True
                found = scan(update) if reading is None else reading.found
                self._compare(update, found.runs)
            if end > reached:
                is_new = True
                if owners.get(client) != principal:
                    self._claim(client, principal)
        if not is_new or precise:
            return self._apply_watched(
                update, runs, reading, is_new=is_new, precise=precise
            )
        self._admit_size(len(update))
        if reading is None:
            self._integrate(update)
        else:
            self._integrate_parts(update, reading, self._integrate)
        unblocked = gate.advance(runs)
        self._snapshot = None
        self._until_canary -= 1
        if self._until_canary <= 0:
            self._canary()
        if unblocked:
            return Change((update, *self._integrate_all(unblocked)), update)
        return update

    def merge(self, update: bytes, owner: str) -> list[bytes]:
        """Take in what another replica has let in and logged; returns what it changed, in order.

        Limits and binding were asked there: to refuse it here would part the two for ever. `owner` is "" for nobody's
        account. Raises Refused (nothing was applied), TooLarge when too much waits already, DocumentBroken.
        """
        known, gate = self.gate.known, self.gate
        runs = check(update, known)
        if runs is None:
            found = scan(update)
            clients = {run.client for run in found.runs}
            ready = gate.divide(update, found)
        else:
            clients = {run[0] for run in runs}
            self._look_for_copies(update, runs)
            ready = [update, *gate.advance(runs)]
        if owner:
            for client in clients:
                self.owners.setdefault(client, owner)
        self._bytes += len(update)
        return self._integrate_all(ready, is_bounded=False)

    def _apply_watched(
        self,
        update: bytes,
        runs: list[tuple[int, int, int]],
        reading: Reading | None,
        *,
        is_new: bool,
        precise: bool,
    ) -> Change | bytes | None:
        """A state vector does not move for a deletion, so ask the document itself what changed."""
        if update == NOTHING:
            return None
        if is_new:
            self._admit_size(len(update))
        integrate = partial(self._integrate_watched, whole=not precise)
        if reading is None:
            changed = integrate(update)
            changes = [] if changed is None else [changed]
        else:
            changes = self._integrate_parts(update, reading, integrate)
            if len(changes) > 1:
                changes = [self._brought(changes) if precise else update]
        unblocked = self.gate.advance(runs)
        if not changes:
            return None
        self._snapshot = None
        if not precise and not unblocked:
            return update
        return Change((*changes, *self._integrate_all(unblocked)), changes[0])

    def _apply_unready(self, update: bytes, principal: str) -> Change | None:
        """A part of the update waits for what has not come yet: the log takes it whole, the document what is ready."""
        known = self.gate.known
        found = scan(update)
        if self._barred:
            self._spare([run[:3] for run in found.runs])
        if any(run.clock < known.get(run.client, 0) for run in found.runs):
            self._compare(update, found.runs)
        for run in found.runs:
            if (
                run.end > known.get(run.client, 0)
                and self.owners.get(run.client) != principal
            ):
                self._claim(run.client, principal)
        self._admit_size(len(update))
        stashed = (len(self.gate), self.gate.stashed_bytes)
        forward = self._integrate_all(self.gate.divide(update, found))
        if not forward and stashed == (len(self.gate), self.gate.stashed_bytes):
            return None  # it waits already
        return Change(tuple(forward), update)

    def _integrate_all(
        self, updates: Sequence[bytes], *, is_bounded: bool = True
    ) -> list[bytes]:
        """What the gate lets pass; `is_bounded` when a member's update has made it do so. Raises DocumentBroken."""
        changes: list[bytes] = []
        begun = self._clock() if is_bounded and updates else 0.0
        for update in updates:
            if is_bounded and len(update) > LONG_BYTES:
                try:
                    changes += self._integrate_parts(
                        update, read(update), self._integrate_watched
                    )
                except TooCostly:
                    raise WaitTooCostly from None
            else:
                for part in steps(update):
                    changed = self._integrate_watched(part)
                    if changed is not None:
                        changes.append(changed)
            if is_bounded and self._clock() - begun > UNBLOCKED_SECONDS:
                raise WaitTooCostly
        if changes:
            self._snapshot = None
        return changes

    def _integrate_parts(
        self,
        update: bytes,
        reading: Reading,
        integrate: Callable[[bytes], bytes | None],
    ) -> list[bytes]:
        """Apply an update part by part, as long as that takes no longer than it may; returns what `integrate` did.

        Raises TooCostly, and what `integrate` raises.
        """
        most = max(LEAST_PART_STRUCTS, PART_WORK // (self._bytes + 1))
        left = COSTLY_SECONDS + STRUCT_SECONDS * reading.size
        changes: list[bytes] = []
        parts = divide(
            update,
            max_bytes=1 << 40,
            max_structs=min(PART_STRUCTS, most),
            max_ranges=PART_RANGES,
            reading=reading,
        )
        for number, part in enumerate(parts):
            begun = self._clock()
            try:
                changed = integrate(part)
            except Refused:
                if not number:
                    raise
                raise DocumentBroken("an update went in by halves") from None
            left -= self._clock() - begun
            # To refuse what is in already would spare nothing.
            if left < 0 and number + 1 < len(parts):
                raise TooCostly(self._kept(parts[: number + 1]))
            if changed is not None:
                changes.append(changed)
        return changes

    def _kept(self, parts: Sequence[bytes]) -> Change:
        """What these parts of an update that is given up have brought, and what had waited for that."""
        kept = self._brought(parts)
        self._recount()
        runs = scan(kept, max_structs=len(kept)).runs
        unblocked = self.gate.unblock({run.client for run in runs})
        return Change((kept, *self._integrate_all(unblocked)), kept)

    def _brought(self, parts: Sequence[bytes]) -> bytes:
        """What these have brought that the gate does not know yet, as one update."""
        self._snapshot = None  # of before
        new = self.diff(self.state_vector())
        runs = scan(new, max_structs=len(new)).runs
        # A difference repeats all that was ever deleted.
        deletes = [each for part in parts for each in scan(part).deletes]
        return encode(new, runs, deletes) or NOTHING

    def _integrate(self, update: bytes) -> None:
        """The one place where a peer's bytes enter native code."""
        native = self._native
        try:
            transaction = native.create_transaction()
            try:
                native.apply_update(transaction, update)
                transaction.commit()
            finally:
                transaction.drop()
        except ValueError:  # nothing of it went in
            self._recount()
            raise Refused("native") from None
        except RuntimeError:
            if state_vector(self._native_vector()) == self.gate.known:
                raise Refused("native") from None
            raise DocumentBroken("an update went in by halves") from None
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # a Rust panic is not an Exception
            raise DocumentBroken(
                f"native code failed: {type(error).__name__}"
            ) from None

    def _integrate_watched(self, update: bytes, *, whole: bool = False) -> bytes | None:
        """Apply and return what changed, as an update; None when nothing did. `whole` spares taking it apart: then
        that is the update as it came.
        """
        changes: list[bytes] = []

        def note(event: TransactionEvent) -> None:
            changes.append(update if whole else event.update)

        # Only here, not for the life of the document: an observer costs each update 1 µs.
        subscription = self._native.observe(note)
        try:
            self._integrate(update)
        finally:
            subscription.drop()
        return changes[0] if changes else None

    def _claim(self, client: int, principal: str) -> None:
        """First writer wins; what happens to the second is the binding's mode."""
        owner = self.owners.get(client)
        if owner is None:
            self.owners[client] = principal
            if not principal.startswith(ANONYMOUS):
                self.claimed[client] = principal
        elif self._binding == "enforce" or client in self._contested:
            raise ClientIdConflict(
                "this client id belongs to another member; choose a new one"
            )
        elif self._binding == "audit":
            self.conflicts += 1

    def _look_for_copies(
        self, update: bytes, runs: Iterable[tuple[int, int, int]]
    ) -> None:
        """Count what two replicas have let in at the same ids: it is too late to refuse either."""
        known = self.gate.known
        if len(update) > LONG_BYTES:  # nobody types that in the time
            return
        for client, clock, _ in runs:
            if 0 < known.get(client, 0) - clock <= RACED_IDS:
                try:
                    self._compare(update, scan(update).runs)
                except ClientIdConflict:
                    pass  # counted
                return

    def _compare(self, update: bytes, runs: Sequence[Run]) -> None:
        """Raises ClientIdConflict when these are not the structs that stand at their ids: nothing of them would be kept.

        What native code has of them is asked for, from the first id on; what they bring beyond that is not looked at.
        """
        known = self.gate.known
        since = dict(known)
        for client, clock, *_ in runs:
            if clock < since.get(client, 0):
                since[client] = clock - known.pairs.has_half(client, clock)
        stored = self._read(lambda: self._doc.get_update(encode_state_vector(since)))
        copy = copied(update, runs, stored, known)
        if copy is None:
            return
        if len(self._contested) >= MAX_CONTESTED:
            del self._contested[next(iter(self._contested))]
        self._contested[copy] = None
        self.copies += 1
        raise ClientIdConflict(
            "this client id is used twice, and its ids hold something else; choose a new one"
        )

    def suspect(self, update: bytes) -> None:
        """It let in what takes too long: whoever succeeds this document is not to try that again."""
        self._suspects = {run.client for run in scan(update).runs}

    def succeed(self, broken: Document) -> None:
        """Remember what the one before had learnt of client ids."""
        self._contested = broken._contested
        awaited = self.gate.awaited
        self._barred = {*broken._barred, *broken._suspects} & awaited

    def _spare(self, runs: Iterable[tuple[int, int, int]]) -> None:
        """Raises TooLarge for what would let in what takes too long: to try costs a rebuild each time."""
        known = self.gate.known
        for client, _, end in runs:
            if client in self._barred and end > known.get(client, 0):
                raise TooLarge("waiting")

    def release(self, principal: str) -> None:
        """Forget what an anonymous connection owns: when it comes back it is another connection."""
        for client in [
            client for client, owner in self.owners.items() if owner == principal
        ]:
            del self.owners[client]

    def _admit_size(self, more: int) -> None:
        self._bytes += more
        if self._bytes > self._max_document_bytes:
            self._bytes = len(self.snapshot()) + more
            if self._bytes > self._max_document_bytes:
                self._bytes -= more
                raise TooLarge("document bytes")

    def _canary(self) -> None:
        self._until_canary = _CANARY_EVERY
        if state_vector(self._native_vector()) != self.gate.known:
            self.mismatches += 1
            self._recount()

    def _recount(self) -> None:
        self.gate.reset(state_vector(self._native_vector()))
        self._snapshot = None

    def _native_vector(self) -> bytes:
        return self._read(self._doc.get_state)

    def _read(self, call: Callable[[], bytes]) -> bytes:
        """The one place where native code is asked for something."""
        try:
            return call()
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:
            raise DocumentBroken(
                f"native code failed: {type(error).__name__}"
            ) from None

    def state_vector(self) -> bytes:
        """What this document has, encoded; equal documents give equal bytes."""
        return encode_state_vector(self.gate.known)

    def deletes(self) -> bytes:
        """A hash of what has been deleted: two documents are equal when this and their state vectors are."""
        return hashed(self._deleted())

    def _deleted(self) -> Ranges:
        return deletions(self._deletions())

    def _deletions(self) -> bytes:
        """All of them, as an update."""
        return self._read(lambda: self._doc.get_update(self._native_vector()))

    def own_client(self, principal: str) -> tuple[int, int]:
        """The client id under which this process writes for a principal, and from where on: the same again and again,
        for none ever leaves a document, but another one where somebody else has written under it.
        """
        known, (client, clock) = self.gate.known, self._own.get(principal, (0, -1))
        if known.get(client, 0) != clock:
            clock = 0
            while client in known or not client:
                client = secrets.randbits(32)
        return client, clock

    def keep_client(self, principal: str, client: int) -> None:
        """This process alone has written under it until now."""
        if principal not in self._own and len(self._own) >= MAX_OWN_CLIENTS:
            del self._own[next(iter(self._own))]
        self._own[principal] = client, self.gate.known.get(client, 0)

    def erasure(self) -> Erasure:
        """To count what is deleted from now on; takes less than half a microsecond for each range that was deleted before."""
        return Erasure(self.gate.known, self._deletions())

    def measure(
        self, update: bytes, *, is_ours: bool = False
    ) -> tuple[int, list[Range]]:
        """How many characters an update would bring, and what it deletes. Raises what `apply` raises of its form."""
        if len(update) > self.max_update_bytes and not is_ours:
            raise TooLarge("update bytes")
        known, found = self.gate.known, scan(update)
        new = sum(
            max(0, run.end - max(run.clock, known.get(run.client, 0)))
            for run in found.runs
        )
        return new, found.deletes

    def is_fuller(self, share: float) -> bool:
        """Whether it takes more than this share of what it may; as of when it last grew by a hundredth of that."""
        most = self._max_document_bytes
        if self._bytes > share * most and self._bytes > self._counted + most / 100:
            self.snapshot()
        return self._bytes > share * most

    def prove(self, size: int) -> None:
        """A snapshot of so many bytes was quick to load in one go."""
        grown = size + min(PROVEN_BYTES, PROVEN_WORK // (size + 1))
        self.proven = max(self.proven, grown)

    def snapshot(self) -> bytes:
        """The whole document as one update; kept until the next change."""
        if self._snapshot is None:
            self._snapshot = self._read(self._doc.get_update)
            self._bytes = self._counted = len(self._snapshot)
        return self._snapshot

    def tail(self, client: int, length: int) -> bytes | None:
        """What one client inserted last, as an update; None when it inserted nothing."""
        known = self.gate.known
        clock = known.get(client)
        if not clock:
            return None
        return self.diff(encode_state_vector({**known, client: max(0, clock - length)}))

    def has_seen(self, encoded: bytes) -> bool:
        """Whether a peer with this state vector has inserted nothing that is missing here. Raises Refused."""
        known = self.gate.known
        return all(
            clock <= known.get(client, 0)
            for client, clock in state_vector(encoded).items()
        )

    def diff(self, encoded: bytes) -> bytes:
        """What a peer with this state vector lacks. Raises Refused when it is not one."""
        if encoded == EMPTY_STATE_VECTOR:
            return self.snapshot()
        state_vector(encoded)
        return self._read(lambda: self._doc.get_update(encoded))
