"""A document behind guard and gate, fed with anything, and asked whether it is still sound."""

from __future__ import annotations

from typing import Any

from pycrdt import Doc, Text, XmlFragment

from collab.document.gate import Gate, StashFull
from collab.errors import InvalidMessage, TooLarge
from collab.protocol.guard import check
from collab.protocol.statevector import state_vector
from collab.protocol.structs import scan

# Read as texts, which shows a circle in a list. Not as arrays: pycrdt 0.14.13 never returns from reading an array in
# which somebody put a text that is not ASCII, so a server reads no arrays in its own process.
ROOTS = {"text": Text, "array": Text, "map": Text, "xml": XmlFragment, "t": Text}


class Subject:
    """Does what a room's document does with an update, and says how that went."""

    def __init__(self) -> None:
        self.doc: Doc[Any] = Doc()
        self.gate = Gate(max_bytes=1 << 20)

    def feed(self, update: bytes) -> str:
        """The outcome in a word; one that begins with "!" must never happen."""
        gate = self.gate
        try:
            runs = check(update, gate.known)
            ready = gate.admit(update) if runs is None else [update]
        except StashFull:
            return "stash full"
        except TooLarge:
            return "too large"
        except InvalidMessage:
            return "refused"
        except Exception as error:
            return f"! the guard or the gate raised {error!r}"
        try:
            for each in ready:
                self.doc.apply_update(each)
            if runs is not None:
                for each in gate.advance(runs):
                    self.doc.apply_update(each)
        except (ValueError, RuntimeError):
            gate.reset(state_vector(self.doc.get_state()))
            return "native error"
        except BaseException as error:  # a panic is no Exception
            return f"! {type(error).__name__} in apply_update"
        return "applied" if ready else "waits"

    def problem(self, outcome: str) -> str | None:
        """What is wrong right after an update, if anything."""
        if outcome.startswith("!"):
            return outcome[2:]
        if outcome in ("applied", "native error"):
            try:
                native = state_vector(self.doc.get_state())
            except BaseException as error:
                return f"{type(error).__name__} in get_state"
            if native != self.gate.known:
                return "the gate's vector is not the document's"
        return None

    def final_problem(self) -> str | None:
        """What is wrong with the document as a whole: it must be written, read again, and shown."""
        try:
            snapshot = self.doc.get_update()
            again: Doc[Any] = Doc()
            again.apply_update(snapshot)
            if state_vector(again.get_state()) != self.gate.known:
                return "the document lost something on its way through a snapshot"
        except BaseException as error:
            return f"{type(error).__name__} in get_update or on loading its snapshot"
        try:
            scan(snapshot)
        except InvalidMessage as error:
            return f"the guard refuses the document's own snapshot: {error}"
        for name, root in ROOTS.items():
            try:
                str(self.doc.get(name, type=root))
            except (ValueError, TypeError, RuntimeError):
                pass  # a forged overlap can hang content under a wrong parent; its readers are wrapped
            except BaseException as error:
                return f"{type(error).__name__} on reading {name}"
        return None
