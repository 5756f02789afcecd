"""Records that are gone with the process: for a server that keeps nothing, and for tests of several registries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from collab.auth.records import Record, name_of
from collab.auth.shelves.base import NOTHING, Held


class MemoryShelf:
    """Keeps the whole contract among those who share it."""

    def __init__(self) -> None:
        self._records: dict[tuple[object, ...], Record] = {}
        self._changes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def version(self) -> str:
        return str(self._changes) if self._changes else NOTHING

    def read(self) -> Held:
        return Held(self.version(), list(self._records.values()))

    def write(
        self, version: str, put: Sequence[Record], drop: Sequence[Record]
    ) -> str | None:
        if version != self.version():
            return None
        for record in put:
            self._records[name_of(record)] = record
        for record in drop:
            self._records.pop(name_of(record), None)
        self._changes += 1
        return self.version()
