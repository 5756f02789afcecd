"""Records in two tables of the Postgres where the rooms are. Needs the extra `postgres`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import asyncpg

from collab.auth.records import Record
from collab.auth.shelves.base import Held
from collab.auth.shelves.encoding import Decoder, encode, encode_name, next_version
from collab.errors import (
    CollabError,
    ConfigurationError,
    StoreCorrupt,
    StoreUnavailable,
)

COMMAND_SECONDS = 5.0  # of all that one question or change takes, connecting included

# Replicas of the version before go on working while the first of the next one migrates. So a migration only adds, or
# raises `oldest`.
MIGRATIONS = (
    """
    CREATE TABLE collab.access_about (
        tables int NOT NULL,
        oldest int NOT NULL,               -- a program that knows only older tables must not work with these
        version text NOT NULL              -- of the records: another one with every change
    );
    INSERT INTO collab.access_about VALUES (1, 1, '');

    -- Both are JSON: the name a list, the record an object.
    CREATE TABLE collab.access (
        name text COLLATE "C" PRIMARY KEY,
        record text NOT NULL
    );
    """,
)
_LOCK = 0x636F6C6C6162  # that of the store's tables: they share a schema

_MISCONFIGURED = (
    asyncpg.InvalidAuthorizationSpecificationError,  # a wrong password too
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)

T = TypeVar("T")


class PostgresShelf:
    """One connection, made anew when it is lost. Nothing is tried again: who asks once a second asks again."""

    def __init__(self, dsn: str, password_file: Path | None = None) -> None:
        self._dsn, self._password_file = dsn, password_file
        self._db: Any = None
        self._decoder = Decoder()

    def __enter__(self) -> Self:
        # The client can only be awaited; who uses a shelf has no event loop, so it brings one along.
        self._runner = asyncio.Runner()
        try:
            self._do(self._prepare())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._runner.run(self._close())
        finally:
            self._runner.close()

    def version(self) -> str:
        return self._do(self._version())

    def read(self) -> Held:
        version, rows = self._do(self._read())
        found = ((name.encode(), record.encode()) for name, record in rows)
        return Held(version, self._decoder.decode(found))

    def write(
        self, version: str, put: Sequence[Record], drop: Sequence[Record]
    ) -> str | None:
        return self._do(
            self._write(
                version,
                [encode_name(record).decode() for record in put],
                [encode(record).decode() for record in put],
                [encode_name(record).decode() for record in drop],
            )
        )

    async def _version(self) -> str:
        db = await self._connected()
        version = await db.fetchval("SELECT version FROM collab.access_about")
        if version is None:
            raise StoreCorrupt(
                "the keys, grants and revocations in Postgres are not whole"
            )
        return str(version)

    async def _read(self) -> tuple[str, list[Any]]:
        db = await self._connected()
        async with db.transaction(isolation="repeatable_read", readonly=True):
            version = await self._version()
            return version, await db.fetch("SELECT name, record FROM collab.access")

    async def _write(
        self, version: str, names: list[str], records: list[str], dropped: list[str]
    ) -> str | None:
        made = next_version(version)
        db = await self._connected()
        async with db.transaction():
            # Holds up who writes at the same moment until this is done, and it then finds another version.
            done = await db.execute(
                "UPDATE collab.access_about SET version = $1 WHERE version = $2",
                *(made, version),
            )
            if done != "UPDATE 1":
                return None
            await db.execute(
                "DELETE FROM collab.access WHERE name = ANY ($1::text[])", dropped
            )
            await db.execute(
                """
                INSERT INTO collab.access SELECT * FROM unnest($1::text[], $2::text[])
                ON CONFLICT (name) DO UPDATE SET record = excluded.record
                """,
                *(names, records),
            )
        return made

    async def _connected(self) -> Any:
        if self._db is None or self._db.is_closed():
            try:
                self._db = await asyncpg.connect(
                    self._dsn,
                    password=self._password if self._password_file else None,
                    target_session_attrs="read-write",
                )
            except ValueError:  # which shows the address
                raise ConfigurationError(
                    "the address of Postgres cannot be understood"
                ) from None
        return self._db

    def _password(self) -> str:
        """Read for each connection, since it may have been changed."""
        assert self._password_file is not None
        return self._password_file.read_text().strip()

    async def _close(self) -> None:
        if self._db is not None:
            with suppress(
                TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError
            ):
                async with asyncio.timeout(COMMAND_SECONDS):
                    await self._db.close()
            self._db.terminate()

    async def _prepare(self) -> None:
        """Bring the tables to the newest form. Raises ConfigurationError for newer ones, or when it may not."""
        db = await self._connected()
        if await self._tables() < len(MIGRATIONS):
            # Before the transaction, which would not see what another one has made while this one waited.
            await db.execute(f"SELECT pg_advisory_lock({_LOCK})")
            async with db.transaction():
                if not await db.fetchval("SELECT to_regnamespace('collab')"):
                    await db.execute("CREATE SCHEMA collab")
                done = await self._tables()
                for script in MIGRATIONS[done:]:
                    await db.execute(script)
                if done < len(MIGRATIONS):
                    await db.execute(
                        "UPDATE collab.access_about SET tables = $1", len(MIGRATIONS)
                    )
            await db.execute(f"SELECT pg_advisory_unlock({_LOCK})")
        oldest = await db.fetchval("SELECT oldest FROM collab.access_about")
        if oldest > len(MIGRATIONS):
            raise ConfigurationError(
                "the keys, grants and revocations in Postgres were brought up to date by a newer version: run that version"
            )

    async def _tables(self) -> int:
        db = self._db
        if not await db.fetchval("SELECT to_regclass('collab.access_about')"):
            return 0
        return int(await db.fetchval("SELECT tables FROM collab.access_about"))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(self._bounded(work))

    async def _bounded(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                return await work
        except CollabError:
            raise
        except BaseException as error:
            # What the connection would say next is unknown.
            if self._db is not None:
                self._db.terminate()
            if isinstance(error, Exception):
                raise _translated(error) from None
            raise


def _translated(error: Exception) -> Exception:
    match error:
        case TimeoutError():
            return StoreUnavailable("Postgres does not answer in time")
        case asyncpg.PostgresError() if isinstance(error, _MISCONFIGURED):
            return ConfigurationError(f"Postgres does not let us in: {error}")
        case asyncpg.PostgresError() | asyncpg.InterfaceError() | OSError():
            # Without its details, which may hold what is kept.
            said = getattr(error, "message", None) or str(error).partition("\n")[0]
            return StoreUnavailable(f"Postgres: {said or type(error).__name__}")
        case _:
            return error
