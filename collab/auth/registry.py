"""API keys, grants and revocations made here, which servers and commands read and change at the same time.

Questions are answered from memory. Whoever changes something writes it to the shelf first (`collab.auth.shelves`); a
server looks once a second whether somebody else did. Nothing secret is there: of a key the SHA-256 of 256 random bits
is kept, which needs no slow hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from hmac import compare_digest
from math import inf
from typing import ParamSpec, Self, TypeVar

from collab import logs
from collab.auth.permissions import Grant, Kind, Principal, allowed
from collab.auth.records import (
    ANY_TENANT,
    Draft,
    Granted,
    Key,
    Name,
    Record,
    Revocation,
    State,
    checked,
    name_of,
    state_of,
)
from collab.auth.shelves.base import NOTHING, Shelf
from collab.errors import Busy, CollabError, Conflict, InvalidRequest, NothingHere
from collab.names import principal_id, role_name, shown_name, tenant_name

KEY_PREFIX = "ck_"
# No token lives longer, and clocks may differ: after this time nothing is left for a revocation to end.
REVOCATION_SECONDS = 25 * 3600.0
MAX_SECONDS = 36_525 * 86400.0

ATTEMPTS = 10  # to change what others are changing too

_NO_HASH = bytes(32)
_LONE = re.compile("[\ud800-\udfff]")  # halves of characters, which no text holds

log = logs.logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Registry:
    """Opened with `with` by a command, with `async with` by a server, which then calls `poll` once a second.

    Methods that change something block: a server runs them through `change`.
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.version = 0  # moves with every change, whoever made it
        self.changed: Callable[[], None] = lambda: None  # called after `change`
        self._shelf, self._clock, self._timer = shelf, clock, timer
        self._held = NOTHING  # the version of the shelf that is in memory
        self._records: dict[Name, Record] = {}
        self._state = State()
        self._looked = -inf
        self._lock = asyncio.Lock()
        self._begun = -inf  # the latest look, and what came of it
        self._fault: CollabError | None = None
        self._thread: ThreadPoolExecutor | None = None

    # Life

    def __enter__(self) -> Self:
        """Raises StoreCorrupt, StoreUnavailable, or ConfigurationError for what a newer version has written."""
        self._shelf.__enter__()
        try:
            self._read()
        except BaseException:
            self._shelf.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._shelf.__exit__(*exc_info)

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
        try:
            await self._in_thread(self.__exit__)
        finally:
            self._thread.shutdown()

    async def change(
        self, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs
    ) -> T:
        """Run one of the methods that change something beside the event loop; what it did holds when this returns."""
        result = await self._in_thread(partial(function, *arguments, **keywords))
        self.changed()
        return result

    async def poll(self) -> None:
        """Take in what other processes changed, and what has ended meanwhile. Raises StoreUnavailable, StoreCorrupt.

        However many ask, there is one look at a time, and whoever waited for it shares the next.
        """
        asked = self._timer()
        async with self._lock:
            if self._begun > asked:
                if self._fault is not None:
                    raise type(self._fault)(str(self._fault))
                return
            begun = self._timer()
            try:
                await self._in_thread(self.refresh)
            except CollabError as error:
                self._begun, self._fault = begun, error
                raise
            # Not of a look that was cancelled: whoever waited for it has to look.
            self._begun, self._fault = begun, None

    @property
    def age_seconds(self) -> float:
        """Since when what is in memory may not be all: what is known stays in force however old it is."""
        return self._timer() - self._looked

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
        # Whoever acts for another one ends with either.
        for who in (principal.id, principal.on_behalf_of):
            made = state.principals.get((principal.tenant, who))
            if made is not None and principal.issued <= made:
                return True
        return False

    def holder(self, token: str) -> Principal | None:
        """Who holds this API key; None when it is not one of ours. Whether it has ended, `is_revoked` says.

        An unknown id costs what a wrong secret costs.
        """
        state = self._state
        key = state.keys.get(token.partition(".")[0])
        expected = _NO_HASH if key is None else key.hash
        if compare_digest(_hash(token), expected) and key is not None:
            return state.holders[key.id]
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
        role: str = "",
        on_behalf_of: str = "",
        seconds: float = inf,
    ) -> tuple[Key, str]:
        """A new key, and the token that is shown this once. Raises InvalidRequest, InvalidRoomName or Conflict."""
        now = self._clock()
        token, hash, id = _secret()
        key = Key(
            id=id,
            principal=principal_id(principal),
            tenant=tenant and tenant_name(tenant),
            kind=kind,
            name=name and shown_name(name),
            grants=tuple(checked(grant) for grant in grants),
            created=now,
            expires=now + _lasting(seconds),
            hash=hash,
            role=role and role_name(role),
            on_behalf_of=on_behalf_of and principal_id(on_behalf_of),
        )
        self._write(lambda draft: draft.add(key))
        return key, token

    def revoke_key(self, id: str, *, tenant: str | None = None) -> Key:
        """End a key now. Raises NothingHere; a key that has ended stays as it is."""

        def work(draft: Draft) -> Key:
            key = draft.key(_token_id(id), tenant)
            if key.revoked == inf:
                key = replace(key, revoked=self._clock())
                draft.add(key)
            return key

        return self._write(work)

    def rotate_key(
        self, id: str, *, overlap_seconds: float, tenant: str | None = None
    ) -> tuple[Key, str]:
        """A new key like the old one, which ends when the overlap is over.

        Raises NothingHere, or Conflict when the old one has ended or was replaced already.
        """

        def work(draft: Draft) -> tuple[Key, str]:
            now = self._clock()
            old = draft.key(_token_id(id), tenant)
            if old.ends <= now:
                raise Conflict("this key has ended; make a new one")
            if old.replaced_by:
                raise Conflict(f"this key was replaced by {old.replaced_by} already")
            token, hash, new_id = _secret()
            new = replace(
                old,
                id=new_id,
                created=now,
                expires=now + (old.expires - old.created),
                hash=hash,
            )
            ends = min(old.expires, now + _lasting(overlap_seconds))
            draft.add(replace(old, expires=ends, replaced_by=new.id))
            draft.add(new)
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

        self._write(lambda draft: draft.add(made))
        return made

    def withdraw(
        self, principal: str, room: str, *, is_prefix: bool = False, tenant: str = ""
    ) -> None:
        """Take a grant back that was made here. Raises NothingHere."""

        def work(draft: Draft) -> None:
            found = draft.records.get(("grant", tenant, principal, room, is_prefix))
            if found is None:
                raise NothingHere("there is no such grant")
            draft.drop(found)

        self._write(work)

    def revoke(
        self,
        principal: str,
        *,
        tenant: str = "",
        seconds: float = REVOCATION_SECONDS,
    ) -> int:
        """End all credentials of a principal that were issued until now; returns how many API keys were among them.

        Those of whoever acts for it end too. What is issued to it later is valid again, and what was granted to it here still holds then.
        """
        tenant = tenant and tenant_name(tenant)

        def work(draft: Draft) -> int:
            now = self._clock()
            until = now + _lasting(seconds)
            # Said twice, it is undone with once.
            name = "revocation", tenant, "principal", principal
            earlier = draft.records.get(name)
            before = earlier.made if isinstance(earlier, Revocation) else inf
            draft.add(Revocation(tenant, "principal", principal, now, until))
            keys = [
                key
                for key in draft.keys_of(tenant, principal)
                if key.revoked in (inf, before)
            ]
            for key in keys:
                draft.add(replace(key, revoked=now))
            return len(keys)

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

        def work(draft: Draft) -> None:
            now = self._clock()
            until = now + _lasting(seconds)
            draft.add(Revocation(tenant, "token", token, now, until))

        if token.startswith(KEY_PREFIX):
            self.revoke_key(token, tenant=None if tenant == ANY_TENANT else tenant)
        else:
            self._write(work)

    def restore(self, principal: str, *, tenant: str = "") -> int:
        """Undo `revoke`; returns how many API keys came back with it. Raises NothingHere."""

        def work(draft: Draft) -> int:
            revocation = draft.revocation(tenant, "principal", principal)
            draft.drop(revocation)
            keys = [
                key
                for key in draft.keys_of(tenant, principal)
                if key.revoked == revocation.made
            ]
            for key in keys:
                draft.add(replace(key, revoked=inf))
            return len(keys)

        return self._write(work)

    def restore_token(self, token: str, *, tenant: str = ANY_TENANT) -> None:
        """Undo `revoke_token`. Raises NothingHere."""
        id = _token_id(token)

        def work(draft: Draft) -> None:
            if id.startswith(KEY_PREFIX):
                key = draft.key(id, None if tenant == ANY_TENANT else tenant)
                if key.revoked == inf:
                    raise NothingHere("this key is not revoked")
                draft.add(replace(key, revoked=inf))
            else:
                draft.drop(draft.revocation(tenant, "token", id))

        self._write(work)

    # The shelf

    def refresh(self) -> None:
        """What `poll` does, at once."""
        version = self._shelf.version()
        if version == NOTHING and self._held != NOTHING:
            self._put_back()
        elif version != self._held:
            self._read()
        elif self._clock() >= self._state.next_end:
            self._take(self._held, self._records)
        self._looked = self._timer()

    def _read(self) -> None:
        version, records = self._shelf.read()
        self._take(version, {name_of(each): each for each in records})
        self._looked = self._timer()

    def _take(self, version: str, records: dict[Name, Record]) -> None:
        self._state = state_of(records.values(), self._clock())
        self._held, self._records = version, records
        self.version += 1

    def _put_back(self) -> None:
        """A Redis that lost everything has lost who may not come in any more: it is told by whoever misses it first."""
        version = self._shelf.write(NOTHING, list(self._records.values()), ())
        if version is None:
            self._read()  # somebody else was first
            return
        self._held = version
        log.warning("keys, grants and revocations were gone, and are put back")

    def _write(self, work: Callable[[Draft], T]) -> T:
        """Make a change to what the shelf holds now; forget what is long over."""
        for _ in range(ATTEMPTS):
            self.refresh()
            draft = Draft(self._records)
            draft.forget(self._clock())
            result = work(draft)
            draft.expect_room()
            if not (draft.put or draft.dropped):
                return result
            version = self._shelf.write(self._held, draft.put, draft.dropped)
            if version is not None:
                self._take(version, draft.records)
                return result
        raise Busy("others change keys, grants and revocations at the same moment")


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
    if not 0 < len(id) <= 256 or _LONE.search(id):
        raise InvalidRequest("the id of a token has 1 to 256 characters")
    return id


def _secret() -> tuple[str, bytes, str]:
    """A new token for a new key, what is kept of it, and the key's id."""
    id = KEY_PREFIX + secrets.token_hex(8)
    token = f"{id}.{secrets.token_urlsafe(32)}"
    return token, _hash(token), id
