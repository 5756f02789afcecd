"""What peers show, and rights that change while they are connected."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2 as httpx
import pytest
from processes import BUSY_SECONDS, Server, close_code
from pycrdt import Doc, Text
from rooms import Client, update_message
from starlette.requests import HTTPConnection
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from collab.auth.authority import Authority
from collab.auth.base import Credential
from collab.auth.permissions import (
    EVERYTHING,
    PRESENCE,
    READ,
    WRITE,
    Grant,
    Principal,
)
from collab.auth.registry import Registry
from collab.auth.shelves.memory import MemoryShelf
from collab.auth.tickets import Tickets
from collab.errors import (
    ClientIdConflict,
    CollabError,
    PermissionDenied,
    StoreUnavailable,
    Unauthenticated,
)
from collab.metrics import Metrics
from collab.protocol import yjs
from collab.protocol.varint import Reader, encode_bytes, encode_varint
from collab.replica import Replica
from collab.server.access import Access
from collab.store.memory import MemoryStore

ALL = (Grant("", EVERYTHING, is_prefix=True),)
ADA = Principal("ada", grants=ALL)


class Table:
    """A verifier of the principals it was given, by token."""

    def __init__(self, **principals: Principal) -> None:
        self.principals = principals

    async def verify(self, credential: Credential, room: str) -> Principal | None:
        return self.principals.get(credential.token)

    def distrust(self, tenant: str, principal: str = "") -> None: ...

    def recheck(self, principal: Principal, room: str) -> Principal | None:
        return self.principals.get(principal.token)


class House:
    """A replica with access control and a clock that stands still."""

    def __init__(self, replica: Replica, registry: Registry, table: Table) -> None:
        self.now = 1_000_000.0
        self.table, self.registry, self.replica = table, registry, replica
        registry._clock = lambda: self.now
        authority = Authority([table], registry, clock=lambda: self.now)
        self.access = Access(authority, replica, registry=registry)

    async def join(self, principal: Principal, name: str = "r") -> Client:
        """A member whose socket is a list."""
        entry = await self.access.enter(principal, name)
        client = Client(principal.id, principal=principal, operations=entry.operations)
        self.replica.join(entry.room, client.member)
        return client

    def write(self, client: Client, word: str) -> None:
        client.member.room.update(client.member, client.write(word))


@asynccontextmanager
async def open_house(**principals: Principal) -> AsyncIterator[House]:
    async with (
        Replica(MemoryStore(), Metrics(), binding="enforce") as replica,
        Registry(MemoryShelf()) as registry,
    ):
        yield House(replica, registry, Table(**principals))


# What a peer shows


@asynccontextmanager
async def open_access(**options: Any) -> AsyncIterator[Access]:
    async with Replica(MemoryStore(), Metrics()) as replica:
        yield Access(Authority([Tickets()]), replica, **options)


def shown(
    *headers: tuple[str, str], query: str = "", subprotocols: tuple[str, ...] = ()
) -> HTTPConnection:
    return HTTPConnection(
        {
            "type": "websocket" if subprotocols else "http",
            "headers": [(name.encode(), value.encode()) for name, value in headers],
            "query_string": query.encode(),
            "client": ("192.0.2.7", 1234),
            "subprotocols": list(subprotocols),
        }
    )


BEARER = ("authorization", "Bearer a.b.c")


@pytest.mark.parametrize(
    ("connection", "token"),
    [
        (shown(), ""),
        (shown(BEARER), "a.b.c"),
        (shown(("authorization", "bearer  ck_1.2 ")), "ck_1.2"),
        (shown(("authorization", "Basic YTpi")), ""),
        (shown(("authorization", "Bearer")), ""),
        (shown(subprotocols=("collab.v1", "collab.token.a.b.c")), "a.b.c"),
        (shown(subprotocols=("collab.v1", "collab.token.")), ""),
        (shown(query="ticket=tk_1"), "tk_1"),
        (shown(query="token=tk_1"), "tk_1"),
        (shown(query="ticket=&token="), ""),
        (shown(query="x=a.b.c"), ""),
    ],
)
@pytest.mark.anyio
async def test_a_credential_is_found_where_it_may_stand(
    connection: HTTPConnection, token: str
) -> None:
    async with open_access() as access:
        credential = access.credential(connection)

    assert credential.token == token
    assert credential.address == "192.0.2.7"


@pytest.mark.parametrize(
    "connection",
    [
        shown(query="token=a.b.c"),
        shown(query="ticket=a.b.c"),
        shown(query="token=ck_1.2"),
        shown(BEARER, BEARER),
        shown(BEARER, query="ticket=tk_1"),
        shown(BEARER, subprotocols=("collab.token.a.b.c",)),
        shown(subprotocols=("collab.token.a.b.c", "collab.token.d.e.f")),
        shown(query="ticket=tk_1&ticket=tk_2"),
        shown(query="ticket=tk_1&token=tk_1"),
    ],
)
@pytest.mark.anyio
async def test_a_token_in_the_address_and_two_of_them_are_refused(
    connection: HTTPConnection,
) -> None:
    async with open_access() as access:
        with pytest.raises(Unauthenticated):
            access.credential(connection)


@pytest.mark.anyio
async def test_a_token_in_the_address_may_be_allowed_but_never_a_key() -> None:
    async with open_access(allow_query_token=True) as access:
        credential = access.credential(shown(query="token=a.b.c"))

        assert credential.token == "a.b.c"
        with pytest.raises(Unauthenticated):
            access.credential(shown(query="token=ck_1.2"))


@pytest.mark.anyio
async def test_without_access_control_nothing_is_looked_at() -> None:
    async with Replica(MemoryStore(), Metrics()) as replica:
        access = Access(Authority(), replica)

        credential = access.credential(shown(BEARER, query="token=a.b.c"))

    assert credential == Credential(address="192.0.2.7")


# Coming in


@pytest.mark.anyio
async def test_whether_a_room_exists_is_not_told_to_who_may_not_read() -> None:
    async with open_house() as house:
        await house.join(ADA, "there")
        eve = Principal("eve")

        for name in ("there", "nowhere"):
            with pytest.raises(PermissionDenied) as refused:
                await house.access.enter(eve, name)
            assert str(refused.value) == (
                "you may not do this in this room: it needs the right to read"
            )
        assert [room.name for room in house.replica.rooms] == ["there"]


@pytest.mark.anyio
async def test_tenants_have_rooms_of_their_own() -> None:
    async with open_house() as house:
        ours = await house.join(ADA)
        theirs = await house.join(replace(ADA, tenant="acme"))

        assert ours.member.room is not theirs.member.room
        assert theirs.member.room.name == "acme\x1fr"


@pytest.mark.anyio
async def test_who_was_revoked_while_the_room_was_opened_stays_outside() -> None:
    async with open_house() as house:
        entering = asyncio.ensure_future(house.access.enter(ADA, "r"))
        await asyncio.sleep(0)
        house.registry.revoke("ada")

        with pytest.raises(Unauthenticated):
            await entering


@pytest.mark.anyio
async def test_who_was_let_in_by_a_backend_is_not_let_in_again_without_it() -> None:
    lent = replace(ADA, token="ada", is_lent=True)
    async with open_house(ada=lent) as house:
        await house.access.enter(lent, "r")
        reader = replace(lent, grants=(Grant("r", READ),))

        house.table.principals["ada"] = reader
        entry = await house.access.enter(lent, "r")
        del house.table.principals["ada"]
        with pytest.raises(Unauthenticated):
            await house.access.enter(lent, "r")

        assert (entry.principal, entry.operations) == (reader, READ)


# Rights that change


@pytest.mark.anyio
async def test_a_demoted_member_stays_and_its_next_write_is_refused() -> None:
    async with open_house(ada=replace(ADA, token="ada", is_lent=True)) as house:
        ada = await house.join(house.table.principals["ada"])
        house.write(ada, "before")

        house.table.principals["ada"] = Principal(
            "ada", grants=(Grant("r", READ),), token="ada", is_lent=True
        )
        house.access.review()

        with pytest.raises(PermissionDenied):
            house.write(ada, "after")
        assert ada.line.notices == ["read-only"]
        assert ada.line.closed is None


@pytest.mark.anyio
async def test_a_grant_made_here_is_won_and_lost_at_once() -> None:
    reader = Principal("ada", grants=(Grant("r", READ),))
    async with open_house() as house:
        ada = await house.join(reader)

        await house.registry.change(house.registry.grant, "ada", Grant("r", WRITE))
        house.write(ada, "hello")
        await house.registry.change(house.registry.withdraw, "ada", "r")

        with pytest.raises(PermissionDenied):
            house.write(ada, "more")
        assert ada.line.notices == ["writable", "read-only"]


@pytest.mark.anyio
async def test_who_may_not_read_any_more_has_to_go() -> None:
    async with open_house() as house:
        await house.registry.change(house.registry.grant, "ada", Grant("r", READ))
        ada = await house.join(Principal("ada"))

        await house.registry.change(house.registry.withdraw, "ada", "r")

        assert isinstance(ada.line.closed, PermissionDenied)
        assert ada.member.operations == 0


@pytest.mark.parametrize("way", ["principal", "token", "expired", "withdrawn"])
@pytest.mark.anyio
async def test_who_has_no_valid_credential_any_more_has_to_go(way: str) -> None:
    principal = replace(ADA, token="jti", expires=1_000_060.0)
    async with open_house() as house:
        if way == "withdrawn":
            principal = replace(principal, is_lent=True)
            house.table.principals["jti"] = principal
        ada = await house.join(principal)
        bob = await house.join(Principal("bob", grants=ALL))

        match way:
            case "principal":
                house.registry.revoke("ada")
            case "token":
                house.registry.revoke_token("jti")
            case "expired":
                house.now += 61
            case "withdrawn":
                del house.table.principals["jti"]
        house.access.review()

        assert isinstance(ada.line.closed, Unauthenticated)
        with pytest.raises(PermissionDenied):
            house.write(ada, "late")
        assert bob.line.closed is None


@pytest.mark.anyio
async def test_who_may_not_be_seen_any_more_disappears() -> None:
    async with open_house(ada=replace(ADA, token="ada", is_lent=True)) as house:
        ada = await house.join(house.table.principals["ada"])
        room = ada.member.room
        state = encode_varint(7) + encode_varint(1) + encode_bytes(b'{"x":1}')
        room.awareness.apply(b"\x01" + state, ada.member, 0.0)

        house.table.principals["ada"] = Principal(
            "ada",
            grants=(Grant("r", EVERYTHING & ~PRESENCE),),
            token="ada",
            is_lent=True,
        )
        house.access.review()

        assert list(room.awareness.states()) == []
        assert ada.line.closed is None


@pytest.mark.anyio
async def test_a_bug_in_one_line_costs_no_other_member_its_rights() -> None:
    async with open_house() as house:
        ada = await house.join(ADA)
        bob = await house.join(Principal("bob", grants=ALL))

        def broken(member: object, error: object) -> None:
            raise RuntimeError

        ada.line.expel = broken  # type: ignore[method-assign]
        house.registry.revoke("ada")
        house.registry.revoke("bob")
        house.access.review()

        assert isinstance(bob.line.closed, Unauthenticated)
        assert ada.member.operations == 0


# A new credential in place of the old


@pytest.mark.anyio
async def test_a_member_goes_on_with_a_new_credential() -> None:
    old = replace(ADA, expires=1_000_060.0)
    new = replace(ADA, expires=1_000_600.0)
    async with open_house(new=new) as house:
        ada = await house.join(old)

        await house.access.refresh(ada.member, Credential("new"))
        house.now += 61
        house.access.review()

        assert ada.line.closed is None
        assert ada.member.principal is new


@pytest.mark.anyio
async def test_a_new_credential_brings_its_own_rights() -> None:
    narrow = Principal("ada", grants=(Grant("r", READ),))
    async with open_house(new=narrow) as house:
        ada = await house.join(ADA)

        await house.access.refresh(ada.member, Credential("new"))

        assert ada.line.notices == ["read-only"]
        assert ada.member.operations == READ


@pytest.mark.parametrize(
    "other", [Principal("eve", grants=ALL), replace(ADA, tenant="acme")]
)
@pytest.mark.anyio
async def test_a_member_never_becomes_somebody_else(other: Principal) -> None:
    async with open_house(new=other) as house:
        ada = await house.join(ADA)

        with pytest.raises(PermissionDenied):
            await house.access.refresh(ada.member, Credential("new"))

        assert ada.member.principal is ADA


@pytest.mark.anyio
async def test_a_worthless_credential_changes_nothing() -> None:
    async with open_house() as house:
        ada = await house.join(ADA)

        with pytest.raises(Unauthenticated):
            await house.access.refresh(ada.member, Credential("nothing"))

        assert ada.member.operations == EVERYTHING


# Whose client ids they are


@pytest.mark.anyio
async def test_a_principal_writes_on_under_its_client_id_after_a_reconnect() -> None:
    async with open_house() as house:
        first = await house.join(ADA)
        house.write(first, "one")
        house.replica.leave(first.member.room, first.member)

        second = await house.join(ADA)
        second.doc, second.text, second.made = first.doc, first.text, first.made
        house.write(second, "two")

        eve = await house.join(Principal("eve", grants=ALL))
        with pytest.raises(ClientIdConflict):
            eve.member.room.update(eve.member, first.write("three"))


@pytest.mark.anyio
async def test_the_watch_takes_in_what_others_changed_and_survives_trouble() -> None:
    async with open_house() as house:
        ada = await house.join(ADA)
        polls: list[int] = []
        troubles: list[str] = []
        expelled = asyncio.Event()

        async def poll() -> None:
            polls.append(1)
            if len(polls) == 1:
                raise StoreUnavailable("the disk is gone")
            troubles.extend(house.access.troubles)
            house.registry.revoke("ada")

        def expel(member: object, error: CollabError) -> None:
            ada.line.closed = error
            expelled.set()

        house.access.authority.poll = poll  # type: ignore[method-assign]
        ada.line.expel = expel  # type: ignore[method-assign]
        watching = asyncio.ensure_future(house.access.watch())
        async with asyncio.timeout(30):
            await expelled.wait()
        watching.cancel()

        assert isinstance(ada.line.closed, Unauthenticated)
        assert troubles == ["keys and revocations cannot be read"]
        assert house.access.troubles == []


# Over real sockets


def key(server: Server, principal: str, *more: str, may: str = "r=read,write") -> str:
    done = server.run(
        "key", "create", "--json", "--principal", principal, "--room", may, *more
    )
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["key"])


def join(server: Server, token: str, *, room: str = "r") -> connect:
    return connect(
        f"{server.address}/ws/{room}",
        subprotocols=["collab.v1"],  # type: ignore[list-item]
        additional_headers={"Authorization": f"Bearer {token}"},
    )


@pytest.fixture
def guarded(serve: Callable[..., Server]) -> Server:
    return serve("--auth", "keys", "--binding", "enforce")


class Writer:
    """A collab.v1 client that writes one letter after the other, each once the last is answered."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.made: list[bytes] = []
        self.doc.observe(lambda event: self.made.append(event.update))
        self.notices: list[str] = []

    async def write(self) -> bool:
        """Whether the letter was logged; False when it was refused."""
        self.text.insert(0, "x")
        await self.socket.send(update_message(self.made[-1]))
        while True:
            kind = await self.hear()
            if kind in (yjs.ACK, yjs.REFUSED):
                return kind == yjs.ACK

    async def hear(self) -> int:
        """The kind of the next message."""
        async with asyncio.timeout(30):
            message = await self.socket.recv()
        assert isinstance(message, bytes)
        if message[0] == yjs.NOTICE:
            self.notices.append(Reader(message, 1).read_string(64))
        return message[0]


async def text_at(server: Server, token: str) -> int:
    """How many letters a fresh client is told of."""
    doc: Doc[Any] = Doc()
    async with join(server, token) as socket, asyncio.timeout(30):
        await socket.send(b"\x00\x00\x01\x00")
        while True:
            message = await socket.recv()
            assert isinstance(message, bytes)
            if message[:2] == b"\x00\x01":
                doc.apply_update(Reader(message, 2).read_bytes())
                return len(str(doc.get("text", type=Text)))


async def elsewhere(server: Server, *command: str) -> float:
    """Run a command in a process of its own; when it was done."""
    done = await asyncio.to_thread(server.run, *command)
    assert done.returncode == 0, done.stderr
    return time.monotonic()


@pytest.mark.anyio
async def test_who_shows_no_valid_key_is_told_so(guarded: Server) -> None:
    codes = []
    for token in ("", "ck_0000000000000000.x", "nonsense"):
        async with join(guarded, token) as socket:
            codes.append(await close_code(socket))
    async with join(guarded, key(guarded, "ada"), room="other") as socket:
        codes.append(await close_code(socket))

    assert codes == [4401, 4401, 4401, 4403]


@pytest.mark.anyio
async def test_after_a_demotion_elsewhere_the_next_write_is_refused(
    guarded: Server,
) -> None:
    await elsewhere(guarded, "grant", "add", "ada", "--room", "r=write")
    token = key(guarded, "ada", may="r=read")  # who knows it knows the grant
    async with join(guarded, token) as socket:
        writer, logged = Writer(socket), 1
        assert await writer.write()

        demoting = asyncio.create_task(
            elsewhere(guarded, "grant", "remove", "ada", "--room", "r")
        )
        while await writer.write():
            logged += 1
        refused_at = time.monotonic()
        later = [await writer.write() for _ in range(5)]
        demoted_at = await demoting

        assert refused_at - demoted_at < 2 + BUSY_SECONDS
        assert later == [False] * 5
        assert writer.notices.count("read-only") == 1
        assert await text_at(guarded, token) == logged  # refused ones are not in it


@pytest.mark.anyio
async def test_after_a_revocation_elsewhere_nothing_is_taken(guarded: Server) -> None:
    token, other = key(guarded, "ada"), key(guarded, "bob")
    async with join(guarded, token) as socket:
        writer, logged = Writer(socket), 0

        revoking = asyncio.create_task(elsewhere(guarded, "revoke", "ada"))
        try:
            while await writer.write():
                logged += 1
        except ConnectionClosed:
            pass
        closed_at = time.monotonic()
        revoked_at = await revoking

        assert socket.close_code == 4401
        assert closed_at - revoked_at < 2 + BUSY_SECONDS
        # One may have been taken whose acknowledgement the end overtook.
        assert await text_at(guarded, other) in (logged, logged + 1)
        assert logged + 2 >= len(writer.made)
    async with join(guarded, token) as socket:
        assert await close_code(socket) == 4401


@pytest.mark.anyio
async def test_a_promotion_elsewhere_is_told_and_holds(guarded: Server) -> None:
    async with join(guarded, key(guarded, "ada", may="r=read")) as socket:
        writer = Writer(socket)
        assert not await writer.write()

        await elsewhere(guarded, "grant", "add", "ada", "--room", "r=write")
        while "writable" not in writer.notices:
            await writer.hear()

        assert await writer.write()


@pytest.mark.anyio
async def test_a_key_that_runs_out_closes_its_socket(guarded: Server) -> None:
    token = key(guarded, "ada", "--days", str(3 / 86_400))
    began = time.monotonic()

    async with join(guarded, token) as socket:
        code = await close_code(socket)

    assert code == 4401
    assert time.monotonic() - began < 3 + 2 + BUSY_SECONDS


@pytest.mark.anyio
async def test_a_client_id_stays_its_principals_over_a_restart(
    guarded: Server,
) -> None:
    ada, eve = key(guarded, "ada"), key(guarded, "eve")
    async with join(guarded, ada) as socket:
        writer = Writer(socket)
        await writer.write()
    await asyncio.to_thread(guarded.restart)

    async with join(guarded, ada) as socket:
        writer.socket = socket
        assert await writer.write()
    async with join(guarded, eve) as socket:
        writer.text.insert(0, "forged")
        await socket.send(update_message(writer.made[-1]))

        assert await close_code(socket) == 4409


@pytest.mark.anyio
async def test_no_secret_stands_in_the_log(guarded: Server) -> None:
    token = key(guarded, "ada")
    secret = token.partition(".")[2]
    good = {"Authorization": f"Bearer {token}"}
    for query, headers in (
        (f"?token={token}", {}),
        (f"?ticket={token}", {}),
        ("", {"Authorization": f"Bearer {token}x"}),
        ("", good),
    ):
        async with connect(
            f"{guarded.address}/ws/r{query}", additional_headers=headers
        ) as socket:
            if headers != good:
                await close_code(socket)

    log = guarded.logs() + (guarded.data / "audit.jsonl").read_text()

    assert "unauthenticated" in log
    assert secret not in log


@pytest.mark.anyio
async def test_a_ticket_opens_one_socket_and_ends_with_its_key(guarded: Server) -> None:
    token = key(guarded, "ada")
    async with httpx.AsyncClient(base_url=guarded.url) as client:
        answer = await client.post(
            "/v1/tickets", json={}, headers={"Authorization": f"Bearer {token}"}
        )
    assert answer.status_code == 201, answer.text
    address = f"{guarded.address}/ws/r?ticket={answer.json()['ticket']}"

    async with (
        connect(address, subprotocols=["collab.v1"]) as first,  # type: ignore[list-item]
        connect(address) as second,
    ):
        assert await close_code(second) == 4401
        assert await Writer(first).write()
        await elsewhere(guarded, "key", "revoke", token.partition(".")[0])
        assert await close_code(first) == 4401


@pytest.mark.anyio
async def test_a_token_among_the_subprotocols_is_taken_and_not_answered(
    guarded: Server,
) -> None:
    token = key(guarded, "ada")

    async with connect(
        f"{guarded.address}/ws/r",
        subprotocols=[f"collab.token.{token}", "collab.v1"],  # type: ignore[list-item]
    ) as socket:
        assert socket.subprotocol == "collab.v1"
        assert await Writer(socket).write()


@pytest.mark.anyio
async def test_tenants_do_not_meet_in_a_room_of_one_name(guarded: Server) -> None:
    ours, theirs = key(guarded, "ada"), key(guarded, "ada", "--tenant", "acme")
    async with join(guarded, ours) as socket:
        await Writer(socket).write()

    assert await text_at(guarded, ours) == 1
    assert await text_at(guarded, theirs) == 0
