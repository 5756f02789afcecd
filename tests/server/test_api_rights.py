"""Who may what: every route and every other way in, with every operation. A way in without a rule fails here."""

from __future__ import annotations

import re
from typing import Any

import pytest
from calling import open_api
from peers import Peer

from collab.auth.permissions import EVERYTHING, READ, WRITE, Operation
from collab.errors import PermissionDenied, Unauthenticated
from collab.server.api.dispatch import JSON, Route
from collab.server.api.routes import ROUTES

pytestmark = pytest.mark.anyio

# What the body or query must hold where rights depend on it.
BODIES: dict[str, Any] = {"POST /v1/rooms": {"name": "a/r"}}

# Every other address of the application: what is behind it, and who may.
WAYS = {
    "/": "public",
    "/static/{file}": "public",
    "/docs": "public",
    "/healthz": "public",
    "/readyz": "public",
    "/metrics": "public",
    "/v1": "table",
    "/ws/{room:path}": "y-websocket",
    "/hocuspocus": "hocuspocus",
    "/hocuspocus/": "hocuspocus",
    "/d/{twice:path}": "y-sweet",
    "/doc/{room:path}/auth": "y-sweet token",
    "/{elsewhere:path}": "no socket",
}

SETS = [0, *(int(one) for one in Operation), EVERYTHING]
EACH = pytest.mark.parametrize("route", ROUTES, ids=str)


def path_of(route: Route) -> str:
    """Under the prefix that the tests grant."""
    return re.sub(r"\{\w+\}", "x", route.path.replace("{room}", "a%2Fr"))


def is_of_tenant(route: Route) -> bool:
    return "{room}" not in route.path and not route.names


@EACH
async def test_every_route_says_who_may(route: Route) -> None:
    assert route.needs in ("none", "self") or (
        isinstance(route.needs, int) and route.needs & EVERYTHING == route.needs > 0
    )
    assert not (route.needs == "none" and (route.is_write or "{" in route.path))
    assert not (route.needs == "self" and "{" in route.path)


@EACH
@pytest.mark.parametrize("operations", SETS)
async def test_a_route_is_for_those_who_have_its_operations(
    route: Route, operations: int
) -> None:
    async with open_api() as call:
        call.may("eve", operations, "" if is_of_tenant(route) else "a/")

        answer = await call(
            route.method,
            path_of(route),
            token="eve",
            headers={"content-type": JSON},
            json=BODIES.get(str(route)),
        )

        may = isinstance(route.needs, str) or operations & route.needs == route.needs
        assert (answer.status_code != 403) == may, answer.text
        assert answer.status_code != 401


@EACH
async def test_rights_elsewhere_are_none_here(route: Route) -> None:
    async with open_api() as call:
        call.may("eve", EVERYTHING, "b/")
        call.may("mallory", EVERYTHING, "a/r/")

        for token in ("eve", "mallory"):
            answer = await call(
                route.method, path_of(route), token=token, json=BODIES.get(str(route))
            )

            assert (answer.status_code == 403) == isinstance(route.needs, int)


@EACH
async def test_without_a_valid_token_there_is_only_what_needs_none(
    route: Route,
) -> None:
    async with open_api() as call:
        for token in ("", "nobody"):
            answer = await call(
                route.method, path_of(route), token=token, json=BODIES.get(str(route))
            )

            assert (answer.status_code == 401) == (route.needs != "none")


async def test_every_way_in_has_a_rule() -> None:
    async with open_api() as call:
        assert {route.path for route in call.app.routes} == set(WAYS)


async def test_no_two_routes_are_one() -> None:
    assert len({str(route) for route in ROUTES}) == len(ROUTES)


async def joined(call: Any, dialect: str, token: str) -> Peer | None:
    """A member of the dialect; None when it was refused."""
    house = call.house
    if dialect == "hocuspocus":
        peer = house.hocuspocus(token)
        peer.authenticate()
        await peer.until(lambda: peer.scopes or peer.denials or peer.close_code)
        return peer if peer.scopes else None
    try:
        return await getattr(house, dialect.replace("-", "_"))(token)  # type: ignore[no-any-return]
    except (PermissionDenied, Unauthenticated):
        return None


DIALECTS = sorted({way for way in WAYS.values() if way.startswith(("y-w", "hoc"))})


@pytest.mark.parametrize("dialect", [*DIALECTS, "y-sweet"])
@pytest.mark.parametrize("operations", SETS)
async def test_a_dialect_lets_in_who_may_read_and_takes_edits_of_who_may_write(
    dialect: str, operations: int
) -> None:
    async with open_api() as call:
        call.may("ada", READ | WRITE)
        call.may("eve", operations)
        ada = await call.house.y_websocket("ada")

        eve = await joined(call, dialect, "eve")
        if eve is not None:
            eve.write("leak ")
        ada.write("sign")
        await ada.until(lambda: ada.heard(b"\x00\x02"))

        assert (eve is not None) == bool(operations & READ)
        may = operations & (READ | WRITE) == READ | WRITE
        assert ("leak" in call.house.text()) == may


@pytest.mark.parametrize("dialect", [*DIALECTS, "y-sweet"])
@pytest.mark.parametrize("operations", SETS)
async def test_a_dialect_shows_who_may_be_present(
    dialect: str, operations: int
) -> None:
    async with open_api() as call:
        call.may("ada", READ | WRITE)
        call.may("eve", operations | READ)
        ada = await call.house.y_websocket("ada")
        eve = await joined(call, dialect, "eve")
        assert eve is not None

        eve.present(9, 1, {"n": 1})

        live = call.house.replica.live("r")
        seen = {client for client, *_ in live.awareness.states()}
        may = operations & int(Operation.PRESENCE)
        assert seen == ({9} if may else set())
        assert ada.close_code is None
