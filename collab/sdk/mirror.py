"""A pycrdt document with the guard and the gate before it: what a server sends is proven before native code sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from pycrdt import Doc, TransactionEvent, merge_updates

from collab.document.document import NOTHING
from collab.document.gate import Gate
from collab.errors import CollabError, DocumentBroken, Refused
from collab.protocol.guard import check, is_ready
from collab.protocol.statevector import state_vector
from collab.protocol.structs import MAX_STRUCTS, Notes, scan

# What a server may have sent before what it refers to; none of ours ever does.
MAX_STASH_BYTES, MAX_STASHED_UPDATES = 1 << 20, 1000

# Origin of the transactions that bring what others did.
REMOTE = "collab.remote"

Read = TypeVar("Read")


class Mirror:
    """One document in step with a room. `changed` is called with each local change, and must not raise.

    Not for several threads. Raises of `apply`: InvalidMessage when the update is none or cannot be placed, nothing of
    it is in then; DocumentBroken when native code has failed, after which this document is not to be trusted.
    """

    def __init__(self, doc: Doc[Any], changed: Callable[[bytes], object]) -> None:
        self.doc = doc
        self._changed = changed
        self._is_receiving = False
        self._is_stale = False  # the gate missed something: ask the document
        self._moved: set[int] = set()  # clients that a local change has moved
        self.gate = Gate(max_bytes=MAX_STASH_BYTES, max_updates=MAX_STASHED_UPDATES)
        vector = state_vector(self._native(doc.get_state))
        if vector:
            self.gate.load(self._native(doc.get_update), vector)
        self._subscription = doc.observe(self._observed)

    def close(self) -> None:
        """Let go of the document, which stays as it is."""
        self.doc.unobserve(self._subscription)

    @property
    def is_empty(self) -> bool:
        return not self.gate.known

    def state_vector(self) -> bytes:
        """What this document has, encoded."""
        return self._native(self.doc.get_state)

    def diff(self, encoded: bytes) -> bytes:
        """What a peer with this state vector lacks. Raises Refused when it is not one."""
        state_vector(encoded)
        return self._native(lambda: self.doc.get_update(encoded))

    def apply(self, update: bytes) -> None:
        """Take in what the server sends."""
        if self._is_stale:
            self._recount()
        gate = self.gate
        if self._moved:
            moved, self._moved = self._moved, set()
            for part in gate.unblock(moved):
                self._integrate(part)
        if len(update) > MAX_STRUCTS and self._apply_large(update):
            return
        for part in gate.admit(update):
            self._integrate(part)

    def _apply_large(self, update: bytes) -> bool:
        """A whole document may hold more structs than one update of a member: same proof, without that limit."""
        known = self.gate.known
        notes = Notes()
        found = scan(update, notes, max_structs=len(update))
        if len(known) or not is_ready(found, known):
            return False
        self._integrate(update)
        self.gate.load(update, state_vector(self._native(self.doc.get_state)))
        return True

    def _observed(self, event: TransactionEvent) -> None:
        if self._is_receiving:
            return
        update = event.update
        if update == NOTHING:
            return
        self._note(update)
        self._changed(update)

    def _note(self, update: bytes) -> None:
        """Keep the gate's vector in step with a local change, which is in the document already."""
        known = self.gate.known
        try:
            runs = check(update, known)
        except CollabError:  # the server will say what is wrong with it
            runs = None
        if runs is None:
            self._is_stale = True
            return
        for client, _, end in runs:
            if end > known.get(client, 0):
                known[client] = end
                if len(self.gate):
                    self._moved.add(client)

    def _recount(self) -> None:
        self._is_stale = False
        self.gate.reset(state_vector(self._native(self.doc.get_state)))

    def _integrate(self, update: bytes) -> None:
        """The one place where a server's bytes enter native code."""
        self._is_receiving = True
        try:
            self._apply_natively(update)
        except ExceptionGroup as errors:
            # An observer of the program itself: the update is in.
            asyncio.get_running_loop().call_exception_handler(
                {"message": "an observer of the document failed", "exception": errors}
            )
        except (ValueError, RuntimeError):
            self._is_stale = True
            raise Refused("native") from None
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # a Rust panic is not an Exception
            raise DocumentBroken(
                f"native code failed: {type(error).__name__}"
            ) from None
        finally:
            self._is_receiving = False

    def _apply_natively(self, update: bytes) -> None:
        doc = self.doc
        try:
            transaction = doc.transaction(origin=REMOTE)
        except RuntimeError:
            transaction = doc.transaction()  # the program's own is open: this joins it
        with transaction:
            doc.apply_update(update)

    def _native(self, call: Callable[[], Read]) -> Read:
        try:
            return call()
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:
            raise DocumentBroken(
                f"native code failed: {type(error).__name__}"
            ) from None


def merged(updates: list[bytes]) -> bytes:
    """Several updates, in order, as one."""
    return updates[0] if len(updates) == 1 else merge_updates(*updates)
