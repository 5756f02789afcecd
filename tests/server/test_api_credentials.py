"""Tickets, keys, grants and revocations over REST: what they do to who is connected, and that nobody gains by them."""

from __future__ import annotations

from typing import Any

import pytest
from calling import Caller, open_api

from collab.auth.base import Credential
from collab.auth.permissions import (
    ADMIN,
    EVERYTHING,
    PRESENCE,
    READ,
    WRITE,
    Grant,
    Principal,
)

pytestmark = pytest.mark.anyio


async def made(call: Caller, path: str, by: str = "root", **body: Any) -> Any:
    answer = await call("POST", f"/v1/{path}", json=body, token=by)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_ticket_speaks_for_who_got_it_once() -> None:
    async with open_api() as call:
        call.may("ada", READ)

        ticket = (await made(call, "tickets", "ada"))["ticket"]

        authority = call.house.access.authority
        principal = await authority.authenticate(Credential(token=ticket), "r")
        assert principal.id == "ada"
        answer = await call("GET", "/v1/rooms", token=ticket)
        assert answer.status_code == 401


async def test_a_ticket_for_a_room_is_good_there_alone() -> None:
    async with open_api() as call:
        ticket = (await made(call, "tickets", room="r"))["ticket"]

        answer = await call("GET", "/v1/rooms/s/members", token=ticket)

        assert answer.status_code == 403


async def test_an_answer_with_a_secret_is_not_kept() -> None:
    async with open_api() as call:
        answer = await call("POST", "/v1/tickets", json={})

        assert answer.headers["cache-control"] == "no-store"


async def test_a_key_is_shown_once_and_listed_without_its_secret() -> None:
    async with open_api() as call:
        found = await made(
            call,
            "keys",
            principal="bot",
            kind="agent",
            name="Bot",
            grants=[
                {"room": "r", "operations": ["read"]},
                {"prefix": "team/", "operations": ["read", "write"]},
            ],
            seconds=60,
        )

        listed = await call("GET", "/v1/keys")
        assert listed.json() == {"keys": [found["key"]]}
        assert found["token"].startswith(found["key"]["id"])
        assert found["token"] not in listed.text
        holder = call.house.access.registry.holder(found["token"])
        assert holder.grants == (
            Grant("r", READ),
            Grant("team/", READ | WRITE, is_prefix=True),
        )


async def test_a_key_says_what_its_holder_does_and_for_whom() -> None:
    async with open_api() as call:
        found = await made(
            call,
            "keys",
            principal="bot",
            role="reviewer",
            on_behalf_of="ada",
            grants=[{"room": "r", "operations": ["read"]}],
        )

        (listed,) = (await call("GET", "/v1/keys")).json()["keys"]
        assert (listed["role"], listed["on_behalf_of"]) == ("reviewer", "ada")
        holder = call.house.access.registry.holder(found["token"])
        assert (holder.role, holder.on_behalf_of) == ("reviewer", "ada")


@pytest.mark.parametrize(
    "said",
    [
        {"role": "a\nb"},
        {"role": " "},
        {"role": "x" * 257},
        {"role": 5},
        {"on_behalf_of": "a\x1fb"},
        {"on_behalf_of": "anonymous"},
        {"on_behalf_of": "x" * 257},
        {"on_behalf_of": None},
    ],
)
async def test_a_key_for_nobody_or_no_role_is_refused(said: dict[str, Any]) -> None:
    async with open_api() as call:
        scope = {"room": "r", "operations": ["read"]}
        body = {"principal": "bot", "grants": [scope], **said}

        answer = await call("POST", "/v1/keys", json=body)

        assert answer.status_code == 400
        assert (await call("GET", "/v1/keys")).json() == {"keys": []}


async def test_nobody_makes_a_key_on_behalf_of_who_was_granted_more_than_it_has() -> (
    None
):
    async with open_api() as call:
        call.may("clerk", ADMIN | READ)
        await made(call, "grants", principal="ada", room="r", operations=["write"])
        scope = {"room": "r", "operations": ["read"]}
        body = {"principal": "bot", "on_behalf_of": "ada", "grants": [scope]}

        answer = await call("POST", "/v1/keys", json=body, token="clerk")

        assert answer.status_code == 403
        assert (await call("GET", "/v1/keys")).json() == {"keys": []}


async def test_a_key_ends_when_it_is_revoked() -> None:
    async with open_api() as call:
        found = await made(
            call,
            "keys",
            principal="bot",
            grants=[{"prefix": "", "operations": ["read"]}],
        )
        holder = call.house.access.registry.holder(found["token"])
        call.house.table.principals[found["token"]] = holder
        assert (await call("GET", "/v1/rooms", token=found["token"])).status_code == 200

        answer = await call("DELETE", f"/v1/keys/{found['key']['id']}")

        assert answer.status_code == 204
        assert (await call("GET", "/v1/rooms", token=found["token"])).status_code == 401
        assert (await call("DELETE", "/v1/keys/ck_none")).status_code == 404


async def test_a_grant_holds_at_once_and_until_it_is_withdrawn() -> None:
    async with open_api() as call:
        call.may("eve", READ)
        eve = await call.house.y_websocket("eve")

        await made(call, "grants", principal="eve", room="r", operations=["write"])
        eve.write("may ")
        assert call.house.text() == "may "

        path = "/v1/grants?principal=eve&room=r"
        answer = await call("DELETE", path)
        eve.write("may not ")

        assert answer.status_code == 204
        assert call.house.text() == "may "
        assert (await call("DELETE", path)).status_code == 404


async def test_grants_are_listed_by_principal() -> None:
    async with open_api() as call:
        for who in ("ada", "eve"):
            await made(call, "grants", principal=who, prefix="a/", operations=["read"])

        every = (await call("GET", "/v1/grants")).json()["grants"]
        (one,) = (await call("GET", "/v1/grants?principal=eve")).json()["grants"]

        assert len(every) == 2
        assert (one["principal"], one["prefix"], one["room"]) == ("eve", "a/", None)
        answer = await call("DELETE", "/v1/grants?principal=eve&room=a/&is_prefix=true")
        assert answer.status_code == 204


async def test_who_is_revoked_is_disconnected() -> None:
    async with open_api() as call:
        call.may("eve", READ)
        eve = await call.house.y_websocket("eve")

        await made(call, "revocations", principal="eve")

        assert eve.close_code == 4401
        assert (await call("GET", "/v1/rooms", token="eve")).status_code == 401


async def test_one_token_is_revoked_without_the_others() -> None:
    async with open_api() as call:
        call.may("one", READ, id="eve")
        call.may("two", READ, id="eve")

        await made(call, "revocations", token="one")

        assert (await call("GET", "/v1/rooms", token="one")).status_code == 401
        assert (await call("GET", "/v1/rooms", token="two")).status_code == 200


async def test_a_tenant_is_ruled_from_inside() -> None:
    async with open_api() as call:
        call.may("acme", EVERYTHING, tenant="acme")
        key = (await made(call, "keys", principal="bot", grants=[]))["key"]
        await made(call, "grants", principal="bot", room="r", operations=["read"])
        call.may("bot", READ)

        answers = [
            (await call("GET", "/v1/keys", token="acme")).json(),
            (await call("GET", "/v1/grants", token="acme")).json(),
        ]
        revoked = await call("DELETE", f"/v1/keys/{key['id']}", token="acme")
        withdrawn = await call(
            "DELETE", "/v1/grants?principal=bot&room=r", token="acme"
        )
        await made(call, "revocations", "acme", principal="bot")
        await made(call, "revocations", "acme", token="bot")

        assert answers == [{"keys": []}, {"grants": []}]
        assert (revoked.status_code, withdrawn.status_code) == (404, 404)
        assert (await call("GET", "/v1/rooms", token="bot")).status_code == 200


SCOPES = [
    ({"room": "r", "operations": ["read"]}, True),
    ({"room": "r", "operations": ["admin"]}, True),
    ({"room": "r", "operations": ["write"]}, False),
    ({"room": "w/r", "operations": ["write"]}, True),
    ({"prefix": "", "operations": ["read", "admin"]}, True),
    ({"prefix": "", "operations": ["write"]}, False),
    ({"prefix": "w/", "operations": ["read", "write"]}, True),
    ({"prefix": "w/x/", "operations": ["write"]}, True),
    # A room may be called like a prefix; what may be done there says nothing of the others.
    ({"room": "p/", "operations": ["presence"]}, True),
    ({"prefix": "p/", "operations": ["presence"]}, False),
]


@pytest.mark.parametrize(("scope", "may"), SCOPES)
async def test_nobody_can_grant_more_than_it_has(
    scope: dict[str, Any], may: bool
) -> None:
    async with open_api() as call:
        call.house.table.principals["half"] = Principal(
            "half",
            grants=(
                Grant("", READ | ADMIN, is_prefix=True),
                Grant("w/", WRITE, is_prefix=True),
                Grant("p/", PRESENCE),
            ),
        )

        key = await call(
            "POST",
            "/v1/keys",
            json={"principal": "bot", "grants": [scope]},
            token="half",
        )
        grant = await call(
            "POST", "/v1/grants", json={"principal": "bot", **scope}, token="half"
        )

        expected = 201 if may else 403
        assert (key.status_code, grant.status_code) == (expected, expected)


async def test_nobody_makes_a_key_of_somebody_who_was_granted_more_than_it_has() -> (
    None
):
    async with open_api() as call:
        call.may("half", READ | ADMIN)
        await made(call, "grants", principal="bob", room="r", operations=["write"])
        scope = {"room": "r", "operations": ["read"]}

        bobs = await call(
            "POST",
            "/v1/keys",
            json={"principal": "bob", "grants": [scope]},
            token="half",
        )

        assert bobs.status_code == 403
        await made(call, "keys", "root", principal="bob", grants=[scope])


@pytest.mark.parametrize(
    "scope",
    [
        {"operations": ["read"]},
        {"room": "r", "prefix": "", "operations": ["read"]},
        {"room": "r", "operations": []},
        {"room": "r", "operations": ["*"]},
        {"prefix": "a", "operations": ["read"]},
        {"prefix": "a*/", "room": None, "operations": ["fly"]},
        {"room": "e\u0301", "operations": ["read"]},
    ],
)
async def test_a_grant_that_cannot_be_meant_is_refused(scope: dict[str, Any]) -> None:
    async with open_api() as call:
        answer = await call("POST", "/v1/grants", json={"principal": "bot", **scope})

        assert answer.status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "tickets", {}),
        ("GET", "keys", None),
        ("POST", "keys", {"principal": "bot", "grants": []}),
        ("DELETE", "keys/ck_1", None),
        ("GET", "grants", None),
        (
            "POST",
            "grants",
            {"principal": "bot", "room": "r", "operations": ["read"]},
        ),
        ("DELETE", "grants?principal=bot&room=r", None),
        ("POST", "revocations", {"principal": "bot"}),
        ("POST", "recheck", {}),
    ],
)
async def test_without_access_control_there_is_nothing_to_hand_out(
    method: str, path: str, body: object
) -> None:
    async with open_api(is_open=True) as call:
        answer = await call(method, f"/v1/{path}", json=body)

        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


class Lending:
    """A backend that decides about everybody, and is asked again when it is not believed any more."""

    def __init__(self) -> None:
        self.may = READ | WRITE
        self.known = self.may
        self.asked: list[tuple[str, str]] = []

    async def verify(self, credential: Credential, room: str) -> Principal | None:
        if credential.token != "lent":
            return None
        return self._principal()

    def recheck(self, principal: Principal, room: str) -> Principal | None:
        return self._principal()

    def distrust(self, tenant: str, principal: str = "") -> None:
        self.asked.append((tenant, principal))
        self.known = self.may

    def _principal(self) -> Principal:
        return Principal("eve", grants=(Grant("r", self.known),), is_lent=True)


async def test_rights_at_ones_own_backend_are_looked_up_at_once() -> None:
    async with open_api() as call:
        backend = Lending()
        call.house.access.authority._verifiers = (backend, call.house.table)
        eve = await call.house.y_websocket("lent")
        backend.may = 0

        answer = await call("POST", "/v1/recheck", json={"principal": "eve"})

        assert answer.status_code == 204
        assert backend.asked == [("", "eve")]
        assert eve.close_code == 4403
