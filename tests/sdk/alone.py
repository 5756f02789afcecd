"""A document with nobody around, for edits that need no server; and somebody else who has a copy of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pycrdt import Doc as Raw
from pycrdt import Text

from collab.sdk.doc import Doc
from collab.sdk.provider import Event


class Alone:
    """What a turn needs of a provider, without a room."""

    epoch = "alone"

    def __init__(self, raw: Raw[Any] | None = None) -> None:
        self.doc = raw or Raw()
        self.peers: dict[int, Any] = {}
        self.shown: dict[str, Any] = {"agent": {"status": "idle"}}
        self.said: list[str] = []  # the statuses and tails that were shown
        self.turns: list[tuple[str, Mapping[str, str]]] = []
        self.flushed = 0
        self.told: Exception | None = None
        self._observers: list[Callable[[Event], object]] = []

    def observe(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        self._observers.append(callback)
        return lambda: self._observers.remove(callback)

    def tell(self, event: Event) -> None:
        for callback in list(self._observers):
            callback(event)

    def turn(self, id: str, about: Mapping[str, str] | None = None) -> None:
        self.turns.append((id, about or {}))

    def show(self, state: Mapping[str, Any]) -> None:
        self.shown = dict(state)
        self.said.append(state["agent"].get("tail", state["agent"]["status"]))

    def heard(self, error: Exception) -> None:
        self.told = error

    async def synced(self, seconds: float) -> None:
        """There is nothing to wait for."""

    async def flush(self, level: str, seconds: float) -> int:
        self.flushed += 1
        return self.flushed


class Other:
    """Somebody else with a copy of the document."""

    def __init__(self, doc: Doc, client: int | None = None) -> None:
        self.raw: Raw[Any] = Raw(client_id=client) if client else Raw()
        self._doc = doc
        self.hear()
        self.text = self.raw.get("text", type=Text)

    def hear(self) -> None:
        self.raw.apply_update(self._doc.raw.get_update(self.raw.get_state()))

    def say(self) -> None:
        self._doc.raw.apply_update(self.raw.get_update(self._doc.raw.get_state()))

    def type(self, index: int, text: str) -> None:
        """Insert before a character, and be heard."""
        self.text.insert(len(str(self.text)[:index].encode()), text)
        self.say()

    def erase(self, start: int, stop: int) -> None:
        """Delete characters, and be heard."""
        shown = str(self.text)
        first, last = len(shown[:start].encode()), len(shown[:stop].encode())
        del self.text[first:last]
        self.say()

    @property
    def shown(self) -> str:
        return str(self.text)


def alone(text: str = "") -> Doc:
    """A document that says this, by somebody else."""
    raw: Raw[Any] = Raw()
    if text:
        other: Raw[Any] = Raw()
        other["text"] = Text(text)
        raw.apply_update(other.get_update())
    return Doc(Alone(raw))
