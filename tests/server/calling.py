"""The API with access control and a client for it, in this process; sockets of `peers` may be beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from peers import House, Table

from collab.audit.audit import Audit
from collab.auth.authority import Authority
from collab.auth.permissions import EVERYTHING, Grant, Principal
from collab.auth.registry import Registry
from collab.auth.shelves.memory import MemoryShelf
from collab.auth.tickets import Tickets
from collab.metrics import Metrics
from collab.server.access import Access
from collab.server.app import (
    make_api,
    make_app,
    make_limits,
    make_replica,
    make_sockets,
)
from collab.settings import Settings
from collab.store.base import Store
from collab.store.memory import MemoryStore


class Caller:
    """Asks as whoever a token belongs to; by default as an administrator of everything."""

    def __init__(
        self, house: House, client: httpx2.AsyncClient, metrics: Metrics, app: Any
    ) -> None:
        self.house, self.metrics, self.app = house, metrics, app
        self._client = client

    async def __call__(
        self, method: str, path: str, *, token: str = "root", **options: Any
    ) -> httpx2.Response:
        headers = dict(options.pop("headers", {}))
        if token:
            headers["authorization"] = f"Bearer {token}"
        # Built by hand, since the client would tidy the path.
        request = self._client.build_request(
            method, "http://localhost", headers=headers, **options
        )
        path, _, query = path.partition("?")
        request.url = httpx2.URL(
            "http://localhost",
            raw_path=(path + (f"?{query}" if query else "")).encode(),
        )
        return await self._client.send(request)

    def may(self, token: str, operations: int, prefix: str = "", **about: Any) -> None:
        """A token with these operations in all rooms that begin so."""
        self.house.table.principals[token] = Principal(
            about.pop("id", token),
            grants=(Grant(prefix, operations, is_prefix=True),),
            token=token,
            **about,
        )

    async def create(self, room: str = "r", **about: Any) -> None:
        made = await self("POST", "/v1/rooms", json={"name": room, **about})
        assert made.status_code == 201, made.text


@asynccontextmanager
async def open_api(
    *, is_open: bool = False, store: Store | None = None, **chosen: Any
) -> AsyncIterator[Caller]:
    settings, metrics, table = Settings(store="memory", **chosen), Metrics(), Table()
    audit, registry, tickets = Audit(), Registry(MemoryShelf()), Tickets()
    async with (
        make_replica(settings, store or MemoryStore(), metrics, audit) as replica,
        registry,
    ):
        authority = Authority(() if is_open else (tickets, table), registry)
        access = Access(authority, replica, registry=registry, tickets=tickets)
        limits = make_limits(settings, metrics)
        sockets = make_sockets(settings, replica, metrics, access, limits)
        api = make_api(settings, replica, sockets, metrics)
        app = make_app(settings, replica, sockets, api)
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app)  # type: ignore[arg-type]  # Starlette's types are wider
        ) as client:
            caller = Caller(House(table, access, sockets), client, metrics, app)
            caller.may("root", EVERYTHING)
            yield caller
