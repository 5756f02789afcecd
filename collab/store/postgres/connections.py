"""Connections to Postgres: few, each command with a deadline, tried again with growing pauses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg

from collab import logs
from collab.errors import (
    CollabError,
    ConfigurationError,
    InvalidRequest,
    StoreUnavailable,
)

log = logs.logger(__name__)

COMMAND_SECONDS = 2.0  # of a command, connecting included
FIRST_SECONDS = 10.0  # of the first connection of a process
BYTES_PER_SECOND = 8 << 20  # for what is large: a second more for so many bytes
MAX_READERS = 4  # connections beside the one that appends
PLACE_SECONDS = 10.0  # that somebody waits for one of them
MAX_WAITING = 10_000  # who so wait; the next is refused
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 2.0  # between attempts to connect

# Not as parameters of the connection: poolers refuse those. What a client left behind when its host vanished holds
# nobody up for long.
SESSION = """
    SET default_transaction_isolation = 'read committed';
    SET statement_timeout = '30s';
    SET lock_timeout = '2s';
    SET idle_in_transaction_session_timeout = '5s';
    SET jit = off;
"""

_FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)


class Connections:
    """All connections of one process. The name of the process tells Postgres, and so the others, that it lives."""

    def __init__(self, dsn: str, password_file: Path | None, *, process: str) -> None:
        self._dsn, self._password_file, self._process = dsn, password_file, process
        self._idle: list[Any] = []
        self._places = asyncio.Semaphore(MAX_READERS)
        self._waiting = 0
        self._pause = 0.0
        self._next = 0.0  # no attempt to connect before
        self._trouble = ""

    async def first(self) -> Any:
        """As `connect`. ConfigurationError for what waiting does not mend."""
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                return await self.connect(FIRST_SECONDS)
        except ValueError:  # its text shows the address
            raise ConfigurationError(
                "postgres: this is no address of a Postgres database"
            ) from None
        except (
            asyncpg.InvalidAuthorizationSpecificationError,  # a wrong password too
            asyncpg.InvalidCatalogNameError,
        ) as error:
            raise ConfigurationError(f"Postgres does not let us in: {error}") from None
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"postgres_password_file: there is no file {error.filename}"
            ) from None
        except TimeoutError:
            raise StoreUnavailable("Postgres does not answer in time") from None
        except _FAILURES as error:
            raise translate(error) from None

    async def connect(self, seconds: float = COMMAND_SECONDS) -> Any:
        """A new connection to a server that takes writes: of several in the address the first such.

        Raises what `deadline` translates, and StoreUnavailable at once when the last attempt has just failed.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._next:
            raise StoreUnavailable(self._trouble)
        try:
            db = await asyncpg.connect(
                self._dsn,
                password=self._password if self._password_file else None,
                target_session_attrs="read-write",
                # One that does not answer leaves the others their time.
                timeout=0.9 * seconds / (self._dsn.count(",") + 1),
                server_settings={"application_name": self._process},
            )
            try:
                await db.execute(SESSION)
            except BaseException:
                db.terminate()
                raise
        except BaseException as error:
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LAST_PAUSE)
            self._next = loop.time() + self._pause * random.uniform(0.5, 1)
            self._trouble = "Postgres does not answer"
            if isinstance(error, Exception):
                self._trouble = str(translate(error))
            raise
        if self._pause:
            log.info("postgres answers again")
        self._pause = 0.0
        return db

    def _password(self) -> str:
        """Read for each connection, since it may have been changed."""
        assert self._password_file is not None
        return self._password_file.read_text().strip()

    @asynccontextmanager
    async def borrowed(self) -> AsyncIterator[tuple[Any, asyncio.Timeout]]:
        """One of a few connections, for one command, with its deadline. Raises StoreUnavailable.

        After a failure or a cancellation the connection is not used again, since what it would say next is unknown.
        """
        await self._take_place()
        try:
            async with deadline() as limit:
                db = await self._connected()
                try:
                    yield db, limit
                except CollabError:
                    self._idle.append(db)
                    raise
                except BaseException:
                    db.terminate()
                    raise
                self._idle.append(db)
        finally:
            self._places.release()

    async def _take_place(self) -> None:
        if self._waiting >= MAX_WAITING:
            raise StoreUnavailable("too many wait for Postgres")
        self._waiting += 1
        try:
            async with asyncio.timeout(PLACE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise StoreUnavailable("Postgres cannot keep up") from None
        finally:
            self._waiting -= 1

    async def _connected(self) -> Any:
        while self._idle:
            db = self._idle.pop()
            if not db.is_closed():
                return db
        return await self.connect()

    async def close(self) -> None:
        """Nothing is under way any more."""
        idle, self._idle = self._idle, []
        for db in idle:
            await close(db)


@asynccontextmanager
async def deadline(seconds: float = COMMAND_SECONDS) -> AsyncIterator[asyncio.Timeout]:
    """Bounds all that happens within, and makes what Postgres and its client raise one of our errors."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield limit
    except CollabError:
        raise
    except TimeoutError:
        raise StoreUnavailable("Postgres does not answer in time") from None
    except _FAILURES as error:
        raise translate(error) from None


def allow(limit: asyncio.Timeout, size: int) -> None:
    """Put a deadline off for so many bytes that are still to be carried."""
    limit.reschedule((limit.when() or 0) + size / BYTES_PER_SECOND)


def translate(error: Exception) -> CollabError:
    """The error to show for one of Postgres' or its client's."""
    if isinstance(error, CollabError):
        return error
    if isinstance(error, asyncpg.DataError):
        return InvalidRequest("Postgres cannot keep a value: a name holds NUL")
    # Without the details of the error, which may hold what is kept.
    said = getattr(error, "message", None) or str(error).partition("\n")[0]
    return StoreUnavailable(f"Postgres: {said or type(error).__name__}")


async def close(db: Any) -> None:
    """In an orderly way if that is possible soon."""
    with suppress(TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        async with asyncio.timeout(COMMAND_SECONDS):
            await db.close()
    if not db.is_closed():
        db.terminate()
