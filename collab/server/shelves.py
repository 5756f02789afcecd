"""Settings → the shelf that the records of access control lie on: where the rooms are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collab.auth.shelves.base import Shelf
from collab.errors import ConfigurationError
from collab.settings import Settings

if TYPE_CHECKING:
    from collab.connection import Endpoint


def make_shelf(settings: Settings) -> Shelf:
    """For servers and commands alike. Raises ConfigurationError."""
    match settings.store_kind:
        case "memory":
            from collab.auth.shelves.memory import MemoryShelf

            return MemoryShelf()
        case "sqlite":
            from collab.auth.shelves.sqlite import FILE, SqliteShelf

            return SqliteShelf(settings.data / FILE)
        case "redis":
            from collab.auth.shelves.redis import RedisShelf

            return RedisShelf(make_endpoint(settings), settings.cluster)
        case "postgres":
            try:
                from collab.auth.shelves.postgres import PostgresShelf
            except ImportError:
                raise ConfigurationError(
                    "postgres needs the extra of that name: pip install 'collab[postgres]'"
                ) from None
            return PostgresShelf(settings.postgres, settings.postgres_password_file)


def make_endpoint(settings: Settings) -> Endpoint:
    """Where Redis is. Raises ConfigurationError."""
    from collab.connection import endpoint

    return endpoint(
        settings.redis,
        password_file=settings.redis_password_file,
        sentinel_password_file=settings.redis_sentinel_password_file,
        ca=settings.redis_ca,
        certificate=settings.redis_certificate,
        key=settings.redis_key,
    )
