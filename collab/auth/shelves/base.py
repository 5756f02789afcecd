"""What a shelf promises. One contract suite (`tests/auth/test_shelves_contract.py`) runs on every implementation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

from collab.auth.records import Record

NOTHING = ""  # the version of a shelf that nobody has written to, or that was emptied


class Held(NamedTuple):
    """What a shelf holds at one version."""

    version: str
    records: Sequence[Record]


class Shelf(Protocol):
    """Keys, grants and revocations, which several processes read and change at the same time.

    A context manager. It blocks, and is used by one thread at a time, which runs no event loop. Everything raises
    StoreUnavailable while the shelf cannot be reached, and StoreCorrupt when it holds what nobody here has written.
    """

    def __enter__(self) -> Self:
        """Also raises ConfigurationError for what a newer version has written."""
        ...

    def __exit__(self, *exc_info: object) -> None: ...

    def version(self) -> str:
        """Another one after every change by another process. Cheap: it is asked for once a second."""
        ...

    def read(self) -> Held:
        """All records, and the version of which they are all."""
        ...

    def write(
        self, version: str, put: Sequence[Record], drop: Sequence[Record]
    ) -> str | None:
        """Put records in place of those of the same name, drop others: all of it durably, or nothing.

        Returns the version that it makes; None when the shelf's is not the given one any more: read it again. After
        StoreUnavailable it may have happened or not.
        """
        ...
