"""API keys, grants and revocations made here: one small SQLite file that servers and commands open at the same time.

Reads are answered from memory. Whoever changes something writes it to the file first; a server looks once a second
whether another process did. Nothing secret is in the file: of a key it holds the SHA-256 of 256 random bits, which
needs no slow hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hmac import compare_digest
from math import inf
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from collab.auth.permissions import Grant, Kind, Principal, allowed
from collab.auth.records import (
    ANY_TENANT,
    MAX_GRANTS,
    Granted,
    Key,
    Revocation,
    State,
    bound,
    checked,
    connect,
    delete_revocation,
    find_key,
    finite,
    insert_key,
    insert_revocation,
    read,
)
from collab.errors import (
    CollabError,
    Conflict,
    InvalidRequest,
    NothingHere,
    StoreCorrupt,
    StoreUnavailable,
)
from collab.names import principal_id, shown_name, tenant_name

FILE = "access.sqlite"
KEY_PREFIX = "ck_"
# No token lives longer, and clocks may differ: after this time nothing is left for a revocation to end.
REVOCATION_SECONDS = 25 * 3600.0
ENDED_SECONDS = 30 * 86400.0  # that a key is still listed after its end

MAX_SECONDS = 36_525 * 86400.0

_NO_HASH = bytes(32)

P = ParamSpec("P")
T = TypeVar("T")


class Registry:
    """Opened with `with` by a command, with `async with` by a server, which then calls `poll` once a second.

    Methods that change something block on the disk: a server runs them through `change`. With no path everything
    lives in memory.
    """

    def __init__(
        self, path: Path | None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.version = 0  # moves with every change, whoever made it
        self.changed: Callable[[], None] = lambda: None  # called after `change`
        self._path, self._clock = path, clock
        self._state = State()
        self._db: sqlite3.Connection | None = None
        self._seen = 0  # SQLite's counter of what other connections have committed
        self._thread: ThreadPoolExecutor | None = None

    # Life

    def __enter__(self) -> Self:
        """Raises StoreCorrupt, StoreUnavailable, or ConfigurationError for a file of a newer version."""
        try:
            self._db = connect(self._path)
            self._read()
        except sqlite3.Error as error:
            raise self._translated(error) from None
        except OSError as error:
            raise StoreUnavailable(
                f"{self._path} cannot be opened: {error.strerror}"
            ) from None
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    async def __aenter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="registry")
        try:
            await self._in_thread(self.__enter__)
        except BaseException:
            self._thread.shutdown()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._thread is not None
        await self._in_thread(self.__exit__)
        self._thread.shutdown()

    async def change(
        self, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs
    ) -> T:
        """Run one of the methods that change something beside the event loop; what it did holds when this returns."""
        result = await self._in_thread(partial(function, *arguments, **keywords))
        self.changed()
        return result

    async def poll(self) -> None:
        """Take in what other processes changed, and what has ended meanwhile. Raises StoreUnavailable."""
        await self._in_thread(self.refresh)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # What a server asks

    def granted(self, principal: Principal, room: str) -> int:
        granted = self._state.granted
        if not granted:
            return 0
        grants = granted.get((principal.tenant, principal.id))
        return allowed(grants, room) if grants else 0

    def grants_of(self, principal: Principal) -> Sequence[Grant]:
        return self._state.granted.get((principal.tenant, principal.id), ())

    def is_revoked(self, principal: Principal) -> bool:
        state = self._state
        token = principal.token
        if token in state.marked:
            end = state.ends.get(token)
            if end is not None:
                if end <= self._clock():
                    return True
            elif not state.tokens.isdisjoint(
                ((principal.tenant, token), (ANY_TENANT, token))
            ):
                return True
        if not state.principals:
            return False
        made = state.principals.get((principal.tenant, principal.id))
        return made is not None and principal.issued <= made

    def holder(self, token: str) -> Principal | None:
        """Who holds this API key; None when it is not one of ours. Whether it has ended, `is_revoked` says.

        An unknown id costs what a wrong secret costs.
        """
        state = self._state
        id = token.partition(".")[0]
        expected = state.hashes.get(id, _NO_HASH)
        if compare_digest(_hash(token), expected):
            return state.holders[id]
        return None

    def keys(self, tenant: str | None = None) -> list[Key]:
        """In the order they were made, without secrets; ended ones too, for a month. None is every tenant."""
        found = [
            key for key in self._state.keys.values() if tenant in (None, key.tenant)
        ]
        return sorted(found, key=lambda key: (key.created, key.id))

    def grants(
        self, tenant: str | None = None, principal: str | None = None
    ) -> list[Granted]:
        """Grants made here. None is every tenant, every principal."""
        return [
            each
            for each in self._state.grants
            if tenant in (None, each.tenant) and principal in (None, each.principal)
        ]

    def revocations(self, tenant: str | None = None) -> list[Revocation]:
        """Those that are not forgotten yet. None is every tenant."""
        return [
            each for each in self._state.revocations if tenant in (None, each.tenant)
        ]

    # Changes

    def create_key(
        self,
        principal: str,
        grants: tuple[Grant, ...],
        *,
        tenant: str = "",
        kind: Kind = "service",
        name: str = "",
        seconds: float = inf,
    ) -> tuple[Key, str]:
        """A new key, and the token that is shown this once."""
        now = self._clock()
        key = Key(
            id=KEY_PREFIX + secrets.token_hex(8),
            principal=principal_id(principal),
            tenant=tenant and tenant_name(tenant),
            kind=kind,
            name=name and shown_name(name),
            grants=tuple(checked(grant) for grant in grants),
            created=now,
            expires=now + _lasting(seconds),
        )
        token, hash = _secret(key.id)
        self._write(lambda db: insert_key(db, key, hash))
        return key, token

    def revoke_key(self, id: str, *, tenant: str | None = None) -> Key:
        """End a key now. Raises NothingHere; a key that has ended stays as it is."""

        def work(db: sqlite3.Connection) -> Key:
            key = find_key(db, _token_id(id), tenant)
            db.execute(
                "UPDATE key SET revoked = ? WHERE id = ? AND revoked IS NULL",
                (self._clock(), key.id),
            )
            return find_key(db, key.id, tenant)

        return self._write(work)

    def rotate_key(
        self, id: str, *, overlap_seconds: float, tenant: str | None = None
    ) -> tuple[Key, str]:
        """A new key like the old one, which ends when the overlap is over.

        Raises NothingHere, or Conflict when the old one has ended or was replaced already.
        """

        def work(db: sqlite3.Connection) -> tuple[Key, str]:
            now = self._clock()
            old = find_key(db, _token_id(id), tenant)
            if old.ends <= now:
                raise Conflict("this key has ended; make a new one")
            if old.replaced_by:
                raise Conflict(f"this key was replaced by {old.replaced_by} already")
            new = Key(
                id=KEY_PREFIX + secrets.token_hex(8),
                principal=old.principal,
                tenant=old.tenant,
                kind=old.kind,
                name=old.name,
                grants=old.grants,
                created=now,
                expires=now + (old.expires - old.created),
            )
            db.execute(
                "UPDATE key SET expires = ?, replaced_by = ? WHERE id = ?",
                (min(old.expires, now + _lasting(overlap_seconds)), new.id, old.id),
            )
            token, hash = _secret(new.id)
            insert_key(db, new, hash)
            return new, token

        return self._write(work)

    def grant(
        self,
        principal: str,
        grant: Grant,
        *,
        tenant: str = "",
        seconds: float = inf,
    ) -> Granted:
        """Allow a principal something beyond what its credentials say, in place of an earlier grant for the same room."""
        now = self._clock()
        made = Granted(
            tenant and tenant_name(tenant),
            principal_id(principal),
            checked(grant),
            now,
            now + _lasting(seconds),
        )

        def work(db: sqlite3.Connection) -> Granted:
            db.execute(
                "REPLACE INTO granted VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    made.tenant,
                    made.principal,
                    grant.room,
                    grant.is_prefix,
                    grant.operations,
                    now,
                    finite(made.expires),
                ),
            )
            bound(db, "granted", MAX_GRANTS, tenant)
            return made

        return self._write(work)

    def withdraw(
        self, principal: str, room: str, *, is_prefix: bool = False, tenant: str = ""
    ) -> None:
        """Take a grant back that was made here. Raises NothingHere."""

        def work(db: sqlite3.Connection) -> None:
            if not db.execute(
                "DELETE FROM granted WHERE tenant = ? AND principal = ? AND room = ? AND is_prefix = ?",
                (tenant, principal, room, is_prefix),
            ).rowcount:
                raise NothingHere("there is no such grant")

        self._write(work)

    def revoke(
        self,
        principal: str,
        *,
        tenant: str = "",
        seconds: float = REVOCATION_SECONDS,
    ) -> int:
        """End all credentials of a principal that were issued until now; returns how many API keys were among them.

        What is issued to it later is valid again, and what was granted to it here still holds then.
        """
        tenant = tenant and tenant_name(tenant)

        def work(db: sqlite3.Connection) -> int:
            now = self._clock()
            insert_revocation(
                db,
                Revocation(
                    tenant, "principal", principal, now, now + _lasting(seconds)
                ),
            )
            return db.execute(
                "UPDATE key SET revoked = ? WHERE tenant = ? AND principal = ? AND revoked IS NULL",
                (now, tenant, principal),
            ).rowcount

        principal_id(principal)
        return self._write(work)

    def revoke_token(
        self,
        token: str,
        *,
        tenant: str = ANY_TENANT,
        seconds: float = REVOCATION_SECONDS,
    ) -> None:
        """End one credential by its id: a `jti`, a key's id, a certificate's serial number."""
        token = _token_id(token)

        def work(db: sqlite3.Connection) -> None:
            now = self._clock()
            insert_revocation(
                db,
                Revocation(tenant, "token", token, now, now + _lasting(seconds)),
            )

        if token.startswith(KEY_PREFIX):
            self.revoke_key(token, tenant=None if tenant == ANY_TENANT else tenant)
        else:
            self._write(work)

    def restore(self, principal: str, *, tenant: str = "") -> int:
        """Undo `revoke`; returns how many API keys came back with it. Raises NothingHere."""

        def work(db: sqlite3.Connection) -> int:
            made = delete_revocation(db, tenant, "principal", principal)
            return db.execute(
                "UPDATE key SET revoked = NULL WHERE tenant = ? AND principal = ? AND revoked = ?",
                (tenant, principal, made),
            ).rowcount

        return self._write(work)

    def restore_token(self, token: str, *, tenant: str = ANY_TENANT) -> None:
        """Undo `revoke_token`. Raises NothingHere."""
        id = _token_id(token)

        def work(db: sqlite3.Connection) -> None:
            if id.startswith(KEY_PREFIX):
                key = find_key(db, id, None if tenant == ANY_TENANT else tenant)
                if key.revoked == inf:
                    raise NothingHere("this key is not revoked")
                db.execute("UPDATE key SET revoked = NULL WHERE id = ?", (key.id,))
            else:
                delete_revocation(db, tenant, "token", id)

        self._write(work)

    # The file

    def refresh(self) -> None:
        """What `poll` does, at once."""
        db = self._connection
        try:
            (seen,) = db.execute("PRAGMA data_version").fetchone()
            if seen != self._seen or self._clock() >= self._state.next_end:
                self._read()
        except sqlite3.Error as error:
            raise self._translated(error) from None

    def _read(self) -> None:
        db = self._connection
        # What is committed between the two is read now, and once more the next time.
        (self._seen,) = db.execute("PRAGMA data_version").fetchone()
        db.execute("BEGIN")
        try:
            state = read(db, self._clock())
        except (ValueError, TypeError, KeyError) as error:
            raise StoreCorrupt(f"{self._path} holds what cannot be read") from error
        finally:
            db.execute("ROLLBACK")
        self._state = state
        self.version += 1

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction, on what the file holds now; forgets what is long over."""
        db = self._connection
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                result = work(db)
                now = self._clock()
                db.execute("DELETE FROM revocation WHERE expires <= ?", (now,))
                db.execute("DELETE FROM granted WHERE expires <= ?", (now,))
                db.execute(
                    "DELETE FROM key WHERE min(ifnull(expires, 9e99), ifnull(revoked, 9e99)) <= ?",
                    (now - ENDED_SECONDS,),
                )
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            self._read()
        except sqlite3.Error as error:
            raise self._translated(error) from None
        return result

    @property
    def _connection(self) -> sqlite3.Connection:
        assert self._db is not None, "the registry is not open"
        return self._db

    def _translated(self, error: sqlite3.Error) -> CollabError:
        if isinstance(error, sqlite3.OperationalError):
            return StoreUnavailable(f"{self._path or 'the registry'}: {error}")
        return StoreCorrupt(f"{self._path or 'the registry'}: {error}")


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _lasting(seconds: float) -> float:
    """How long something is to last, infinity included; never a time that is none."""
    if not (0 <= seconds <= MAX_SECONDS or seconds == inf):
        raise InvalidRequest("a time to last is 0 seconds to 100 years, or without end")
    return seconds


def _token_id(token: str) -> str:
    """Somebody may hand in a whole key where its id is enough."""
    id = token.partition(".")[0] if token.startswith(KEY_PREFIX) else token
    if not 0 < len(id) <= 256:
        raise InvalidRequest("the id of a token has 1 to 256 characters")
    return id


def _secret(id: str) -> tuple[str, bytes]:
    """A new token for a key of this id, and what is kept of it."""
    token = f"{id}.{secrets.token_urlsafe(32)}"
    return token, _hash(token)
