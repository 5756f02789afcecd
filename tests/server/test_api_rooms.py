"""Rooms by name: who sees which, and what making, describing, deleting and restoring one does."""

from __future__ import annotations

import asyncio

import pytest
from calling import Caller, open_api

from collab.auth.base import Credential
from collab.auth.permissions import ADMIN, EVERYTHING, READ, WRITE, Grant, Principal
from collab.server.api import rooms

pytestmark = pytest.mark.anyio


async def listed(call: Caller, query: str = "", token: str = "root") -> list[str]:
    """The names on all pages."""
    found: list[str] = []
    cursor = ""
    while True:
        answer = await call("GET", f"/v1/rooms?{query}&cursor={cursor}", token=token)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += [room["name"] for room in page["rooms"]]
        if page["next"] is None:
            return found
        cursor = page["next"]


async def test_a_new_room_is_empty_and_described() -> None:
    async with open_api() as call:
        answer = await call(
            "POST",
            "/v1/rooms",
            json={
                "name": "r",
                "metadata": {"title": "Plan", "year": 2026, "draft": True, "by": None},
                "history_seconds": 60,
            },
        )

        room = answer.json()
        assert (answer.status_code, room["position"]) == (201, 0)
        assert room["metadata"]["title"] == "Plan"
        assert (await call("GET", "/v1/rooms/r")).json() == room


async def test_a_new_room_is_where_the_answer_says() -> None:
    async with open_api() as call:
        answer = await call("POST", "/v1/rooms", json={"name": "a/b ü"})

        there = await call("GET", answer.headers["location"])
        assert there.json() == answer.json()


async def test_a_room_is_made_once() -> None:
    async with open_api() as call:
        await call.create()

        answer = await call("POST", "/v1/rooms", json={"name": "r"})

        assert answer.status_code == 409


@pytest.mark.parametrize(
    "name", ["", " ", "a\x00b", "e\u0301", "x" * 257, "\u00e9" * 129]
)
async def test_a_name_that_no_room_may_have_makes_none(name: str) -> None:
    async with open_api() as call:
        answer = await call("POST", "/v1/rooms", json={"name": name})

        assert answer.status_code == 400
        assert await listed(call) == []


@pytest.mark.parametrize("path", ["%00", "%0d%0a", "e%CC%81", "%20", "x" * 257, "a%7f"])
async def test_a_name_that_no_room_may_have_is_not_looked_up(path: str) -> None:
    async with open_api() as call:
        answer = await call("GET", f"/v1/rooms/{path}")

        assert (answer.status_code, answer.json()["code"]) == (
            400,
            "invalid_room_name",
        )


async def test_names_are_opaque() -> None:
    names = [
        "../..",
        "*",
        "a/b",
        "a%2Fb",
        "{room}",
        "{}",
        "rooms",
        "openapi.json",
        "ß",
        "SS",
    ]
    async with open_api() as call:
        for name in names:
            await call.create(name)

        assert await listed(call) == sorted(names)
        answer = await call("GET", "/v1/rooms/%7B%7D")
        assert answer.json()["name"] == "{}"


async def test_rooms_come_in_pages() -> None:
    async with open_api() as call:
        for n in range(7):
            await call.create(f"room-{n}")

        first = (await call("GET", "/v1/rooms?limit=3")).json()

        assert [room["name"] for room in first["rooms"]] == [
            "room-0",
            "room-1",
            "room-2",
        ]
        assert await listed(call, "limit=3") == [f"room-{n}" for n in range(7)]


async def test_a_page_looks_at_so_many_rooms_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rooms, "PORTION", 2)
    monkeypatch.setattr(rooms, "MAX_LOOKS", 3)
    async with open_api() as call:
        names = [f"room-{n}" for n in range(9)]
        call.house.table.principals["eve"] = Principal(
            "eve", grants=tuple(Grant(name, READ) for name in [*names, "z"])
        )
        await call.create("z")

        first = (await call("GET", "/v1/rooms", token="eve")).json()

        assert first == {"rooms": [], "next": "room-2"}
        assert await listed(call, token="eve") == ["z"]


async def test_a_list_tells_nothing_of_rooms_that_its_reader_may_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rooms, "PORTION", 2)
    monkeypatch.setattr(rooms, "MAX_LOOKS", 3)
    async with open_api() as call:
        call.may("eve", READ, "m/")
        for n in range(9):
            await call.create(f"secret-{n}")

        answers = [
            (await call("GET", f"/v1/rooms?{query}", token="eve")).json()
            for query in ("", "prefix=s", "cursor=secret-1", "deleted=true")
        ]

        assert answers == [{"rooms": [], "next": None}] * 4


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["a", "m/", "m/1", "m/2", "m/n/1", "z/1"]),
        ("limit=1", ["a", "m/", "m/1", "m/2", "m/n/1", "z/1"]),
        ("prefix=m/", ["m/", "m/1", "m/2", "m/n/1"]),
        ("prefix=m", ["m/", "m/1", "m/2", "m/n/1"]),
        ("prefix=m/n", ["m/n/1"]),
        ("prefix=a", ["a"]),
        ("prefix=ab", []),
    ],
)
async def test_a_list_goes_over_all_that_was_granted_in_order(
    query: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "PORTION", 2)
    async with open_api() as call:
        call.house.table.principals["eve"] = Principal(
            "eve",
            grants=(
                Grant("z/", READ, is_prefix=True),
                Grant("m/n/", READ, is_prefix=True),
                Grant("m/1", READ),
                Grant("a", READ),
                Grant("m/", READ, is_prefix=True),
                Grant("w", WRITE),
            ),
        )
        call.house.access.registry.grant("eve", Grant("a", READ))
        for name in ("a", "ab", "m/", "m/1", "m/2", "m/n/1", "ma", "w", "z/1"):
            await call.create(name)

        assert await listed(call, query, token="eve") == expected


async def test_a_list_holds_what_its_reader_may_read() -> None:
    async with open_api() as call:
        call.house.table.principals["eve"] = Principal(
            "eve", grants=(Grant("one", READ), Grant("b/", READ, is_prefix=True))
        )
        for name in ("one", "one1", "b/1", "b/2", "bb"):
            await call.create(name)

        assert await listed(call, token="eve") == ["b/1", "b/2", "one"]
        assert await listed(call, "prefix=b/", token="eve") == ["b/1", "b/2"]
        assert await listed(call, "limit=1", token="eve") == ["b/1", "b/2", "one"]


async def test_tenants_have_the_same_names_and_see_their_own() -> None:
    async with open_api() as call:
        for tenant in ("acme", "globex"):
            call.may(tenant, EVERYTHING, tenant=tenant)
            made = await call("POST", "/v1/rooms", json={"name": "r"}, token=tenant)
            assert made.status_code == 201
        await call("POST", "/v1/rooms", json={"name": "own"}, token="acme")

        assert await listed(call, token="acme") == ["own", "r"]
        assert await listed(call, token="globex") == ["r"]
        assert await listed(call) == []
        assert (await call("GET", "/v1/rooms/own", token="globex")).status_code == 404


async def test_only_what_is_named_is_changed() -> None:
    async with open_api() as call:
        await call.create(metadata={"a": 1}, history_seconds=60)

        answer = await call("PATCH", "/v1/rooms/r", json={"metadata": {"b": 2}})

        assert answer.json()["metadata"] == {"b": 2}
        assert answer.json()["history_seconds"] == 60
        answer = await call("PATCH", "/v1/rooms/r", json={"history_seconds": None})
        assert answer.json()["metadata"] == {"b": 2}
        assert answer.json()["history_seconds"] is None


async def test_a_deleted_room_is_gone_for_who_is_in_it() -> None:
    async with open_api() as call:
        call.house.table.add("ada", READ | WRITE)
        ada = await call.house.y_websocket("ada")
        ada.write("hello")
        await call.house.replica.settle()

        answer = await call("DELETE", "/v1/rooms/r")

        assert answer.status_code == 204
        assert ada.close_code == 4404
        assert (await call("GET", "/v1/rooms/r")).status_code == 404
        assert await listed(call) == []
        assert await listed(call, "deleted=true") == ["r"]


async def test_a_restored_room_is_as_it_was() -> None:
    async with open_api() as call:
        call.house.table.add("ada", READ | WRITE)
        ada = await call.house.y_websocket("ada")
        ada.write("hello")
        await call("DELETE", "/v1/rooms/r")

        answer = await call("POST", "/v1/rooms/r/restore")

        assert (answer.status_code, answer.json()["position"]) == (200, 1)
        eve = await call.house.y_websocket("ada")
        assert call.house.text() == "hello"
        assert eve.close_code is None


async def test_a_room_is_restored_once() -> None:
    async with open_api() as call:
        await call.create()
        await call("DELETE", "/v1/rooms/r")
        await call("POST", "/v1/rooms/r/restore")

        again = await call("POST", "/v1/rooms/r/restore")
        absent = await call("POST", "/v1/rooms/s/restore")

        assert (again.status_code, absent.status_code) == (409, 404)


async def test_what_is_not_there_cannot_be_deleted() -> None:
    async with open_api() as call:
        await call.create()
        await call("DELETE", "/v1/rooms/r")

        answers = [await call("DELETE", f"/v1/rooms/{name}") for name in ("r", "s")]

        assert [answer.status_code for answer in answers] == [404, 404]


async def test_of_two_deletions_at_once_one_deletes() -> None:
    async with open_api() as call:
        await call.create()

        answers = await asyncio.gather(
            *(call("DELETE", "/v1/rooms/r") for _ in range(2))
        )

        assert sorted(answer.status_code for answer in answers) == [204, 404]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/rooms", {"name": "b/r"}),
        ("PATCH", "/v1/rooms/b%2Fr", {"metadata": {}}),
        ("DELETE", "/v1/rooms/b%2Fr", None),
        ("POST", "/v1/rooms/b%2Fr/restore", None),
    ],
)
async def test_an_administrator_rules_under_its_own_prefix(
    method: str, path: str, body: object
) -> None:
    async with open_api() as call:
        call.may("a", ADMIN, "a/")

        answer = await call(method, path, json=body, token="a")

        assert answer.status_code == 403


async def test_too_much_metadata_is_refused() -> None:
    async with open_api() as call:
        metadata = {f"k{n}": "ü" * 1000 for n in range(32)}

        answer = await call(
            "POST", "/v1/rooms", json={"name": "r", "metadata": metadata}
        )

        assert answer.status_code == 413
        assert await listed(call) == []


class Backend:
    """Decides room by room, as a team's own does."""

    async def verify(self, credential: Credential, room: str) -> Principal | None:
        if credential.token != "lent":
            return None
        operations = ADMIN if room == "mine" else READ
        return Principal("eve", grants=(Grant(room, operations),), is_lent=True)


@pytest.mark.parametrize(("name", "status"), [("mine", 201), ("yours", 403)])
async def test_a_backend_is_asked_about_the_room_that_is_to_be_made(
    name: str, status: int
) -> None:
    async with open_api() as call:
        call.house.access.authority._verifiers = (Backend(), call.house.table)

        answer = await call("POST", "/v1/rooms", json={"name": name}, token="lent")

        assert answer.status_code == status
