"""Access control on two replicas that share a bus and what the registry knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from rooms import Client

from collab.auth.authority import Authority
from collab.auth.keys import Keys
from collab.auth.permissions import READ, WRITE, Grant
from collab.auth.registry import Registry
from collab.auth.shelves.memory import MemoryShelf
from collab.bus.memory import Hub, MemoryBus
from collab.errors import Busy, StoreUnavailable, Unauthenticated
from collab.metrics import Metrics
from collab.replica import Replica
from collab.server import access as module
from collab.server.access import Access
from collab.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

NOTES = Grant("notes", READ | WRITE)


class Shelf(MemoryShelf):
    """Can be out of reach."""

    is_away = False

    def version(self) -> str:
        if self.is_away:
            raise StoreUnavailable("Postgres does not answer")
        return super().version()


class Site:
    """One replica with its access control."""

    def __init__(self, replica: Replica, registry: Registry) -> None:
        authority = Authority([Keys(registry)], registry)
        self.replica, self.registry = replica, registry
        self.access = Access(authority, replica, registry=registry)

    async def join(self, token: str) -> Client:
        principal = await self.access.authority.authenticate(_shown(token))
        entry = await self.access.enter(principal, "notes")
        client = Client(principal.id, principal=principal, operations=entry.operations)
        self.replica.join(entry.room, client.member)
        return client


def _shown(token: str) -> module.Credential:
    return module.Credential(token)


@asynccontextmanager
async def two(shelf: MemoryShelf, hub: Hub) -> AsyncIterator[tuple[Site, Site]]:
    store = MemoryStore(is_shared=True)
    async with AsyncExitStack() as stack:
        sites = []
        for _ in range(2):
            replica = await stack.enter_async_context(
                Replica(store, Metrics(), bus=MemoryBus(hub))
            )
            registry = await stack.enter_async_context(Registry(shelf))
            sites.append(Site(replica, registry))
        watches = [asyncio.create_task(site.access.watch()) for site in sites]
        yield sites[0], sites[1]
        for watch in watches:
            watch.cancel()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110  # another replica does it
            await asyncio.sleep(0.005)


async def test_a_word_from_another_replica_is_heeded_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REVIEW_SECONDS", 1000.0)
    async with two(Shelf(), Hub()) as (here, there):
        key, token = await here.registry.change(
            here.registry.create_key, "ci", (NOTES,)
        )
        client = await there.join(token)

        await here.registry.change(here.registry.revoke_key, key.id)

        await until(lambda: client.line.closed is not None)
        assert isinstance(client.line.closed, Unauthenticated)


async def test_a_right_is_changed_in_place_on_every_replica(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REVIEW_SECONDS", 1000.0)
    async with two(Shelf(), Hub()) as (here, there):
        reader = Grant("notes", READ)
        _, token = await here.registry.change(here.registry.create_key, "ci", (reader,))
        client = await there.join(token)

        await here.registry.change(here.registry.grant, "ci", NOTES)
        await until(lambda: client.member.may_write)
        await here.registry.change(here.registry.withdraw, "ci", "notes")
        await until(lambda: not client.member.may_write)

        assert client.line.notices == ["writable", "read-only"]
        assert client.line.closed is None


async def test_what_nobody_was_told_of_is_found_by_looking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REVIEW_SECONDS", 0.3)
    hub = Hub()
    async with two(Shelf(), hub) as (here, there):
        key, token = await here.registry.change(
            here.registry.create_key, "ci", (NOTES,)
        )
        client = await there.join(token)
        hub.is_up = False

        await here.registry.change(here.registry.revoke_key, key.id)

        await until(lambda: client.line.closed is not None)


async def test_what_is_known_stays_in_force_while_nobody_can_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REVIEW_SECONDS", 0.3)
    shelf = Shelf()
    async with two(shelf, Hub()) as (here, there):
        _, token = await here.registry.change(here.registry.create_key, "ci", (NOTES,))
        lost, old = await here.registry.change(
            here.registry.create_key, "eve", (NOTES,)
        )
        await here.registry.change(here.registry.revoke_key, lost.id)
        await there.registry.poll()
        shelf.is_away = True
        await until(lambda: bool(there.access.troubles))

        client = await there.join(token)
        with pytest.raises(Unauthenticated):
            await there.join(old)
        with pytest.raises(Busy):
            await there.join("ck_0000000000000000.unknown")
        with pytest.raises(StoreUnavailable):
            await there.registry.change(there.registry.revoke, "ci")

        assert client.member.may_write
        assert there.replica.metrics.gauges["rights_age_seconds"]() > 0
        assert there.access.troubles == ["keys and revocations cannot be read"]
        shelf.is_away = False
        await until(lambda: not there.access.troubles)


async def test_the_backend_is_asked_anew_by_every_replica_when_one_is_told_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REVIEW_SECONDS", 1000.0)
    async with two(Shelf(), Hub()) as (here, there):
        asked: list[tuple[str, str]] = []
        for site in (here, there):
            site.access.authority.distrust = lambda *who: asked.append(who)  # type: ignore[method-assign]

        await here.access.recheck("acme", "ada")

        await until(lambda: len(asked) == 2)
        assert asked == [("acme", "ada")] * 2
