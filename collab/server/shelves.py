"""Settings → the shelf that the records of access control lie on: where the rooms are."""

from __future__ import annotations

from collab.auth.shelves.base import Shelf
from collab.settings import Settings


def make_shelf(settings: Settings) -> Shelf:
    """For servers and commands alike."""
    if settings.store_kind == "memory":
        from collab.auth.shelves.memory import MemoryShelf

        return MemoryShelf()
    from collab.auth.shelves.sqlite import FILE, SqliteShelf

    return SqliteShelf(settings.data / FILE)
