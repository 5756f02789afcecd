"""Which replica the proxies choose: the same for all of one room, another one when it must be. Stubs stand for replicas."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections import Counter
from urllib.parse import quote

import httpx2
import pytest
from endpoints import endpoint, hang_up
from proxying import PROXIES, SHIPPED, Haproxy, Nginx, Proxy, Stub, put, stubs
from websockets.asyncio.client import ClientConnection, connect

pytestmark = pytest.mark.anyio

NAMES = (
    "notes",
    "team/plan",
    "a/b/c/d",
    "two words",
    "50%",
    "what?",
    "a&b=c#d",
    "größe/🌍",
    "a//b",
    "x+y",
    '"quoted" {x}',
)
PATIENCE_SECONDS = 30


async def chosen(proxy: Proxy, path: str) -> str:
    """Who answers a handshake there."""
    async with connect(proxy.address + path) as socket:
        return replica_of(socket)


def replica_of(socket: ClientConnection) -> str:
    assert socket.response is not None
    return socket.response.headers["Replica"]


async def asked(proxy: Proxy, *paths: str) -> list[str]:
    """Who answers requests there."""
    async with httpx2.AsyncClient(base_url=proxy.url) as client:
        return [(await client.get(path)).headers["Replica"] for path in paths]


async def all_ways(proxy: Proxy, room: str) -> set[str]:
    """Who answers in each dialect and over REST, whichever way the name is written."""
    once, whole = quote(room), quote(room, safe="")
    letters = "".join(f"%{byte:02x}" for byte in room.encode())
    sockets = [
        f"/ws/{once}?token=1",
        f"/ws/{whole}?token=2",
        f"/ws/{letters}",
        f"/d/{once}/ws/{once}",
        f"/d/{once}/ws/{whole}?token=3",
    ]
    requests = [
        f"/doc/{whole}/auth",
        f"/doc/{once}/auth?x",
        *(
            f"/v1/rooms/{whole}{rest}"
            for rest in ("", "/document?format=text", "/members/1", "/presence")
        ),
    ]
    return {
        *[await chosen(proxy, path) for path in sockets],
        *await asked(proxy, *requests),
    }


async def until(proxy: Proxy, path: str, replicas: set[str]) -> None:
    """Wait until one of these takes what goes there."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await chosen(proxy, path) not in replicas:
            pass


async def at(proxy: Proxy, replica: Stub) -> str:
    """The path of a room that this replica takes."""
    for number in range(200):
        path = f"/ws/room{number}"
        if await chosen(proxy, path) == replica.name:
            return path
    raise AssertionError("no room goes there")


@pytest.mark.parametrize("kind", PROXIES)
def test_the_program_takes_the_shipped_configuration(kind: type[Proxy]) -> None:
    proxy = kind([8001, 8002, 8003])
    proxy.port = 8080
    try:
        found = subprocess.run(
            proxy.check(), capture_output=True, text=True, timeout=30, check=False
        )
    finally:
        proxy.close()

    assert found.returncode == 0, found.stderr
    assert "warn" not in found.stderr.lower()


def test_haproxy_starts_before_its_replicas_have_addresses() -> None:
    found = subprocess.run(
        ["haproxy", "-c", "-f", str(SHIPPED / "haproxy.cfg")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_room_has_one_replica_and_every_replica_has_rooms(
    kind: type[Proxy],
) -> None:
    async with stubs() as replicas:
        with kind([each.port for each in replicas]) as proxy:
            first = [await chosen(proxy, f"/ws/room{n}?token={n}") for n in range(60)]
            again = [await chosen(proxy, f"/ws/room{n}?token=x{n}") for n in range(60)]

    assert first == again
    assert min(Counter(first).values()) >= 5
    assert len(set(first)) == 3


def hash_with_query(text: str) -> str:
    """The fault that the test before must find."""
    if "haproxy" in text:
        text = put(r"set-var\(txn\.path\) path,url_dec", "set-var(txn.path) url", text)
        return text
    return put(r"map \$uri \$collab_room", "map $request_uri $collab_room", text)


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_hash_that_takes_in_the_query_would_be_found(kind: type[Proxy]) -> None:
    async with stubs() as replicas:
        with kind([each.port for each in replicas], hash_with_query) as proxy:
            first = [await chosen(proxy, f"/ws/room{n}?token={n}") for n in range(20)]
            again = [await chosen(proxy, f"/ws/room{n}?token=x{n}") for n in range(20)]

    assert first != again


@pytest.mark.parametrize("kind", PROXIES)
async def test_all_of_one_room_goes_to_one_replica(kind: type[Proxy]) -> None:
    async with stubs() as replicas:
        with kind([each.port for each in replicas]) as proxy:
            found = {room: await all_ways(proxy, room) for room in NAMES}

    assert {room: who for room, who in found.items() if len(who) > 1} == {}
    assert len(set.union(*found.values())) > 1


async def test_haproxy_knows_a_room_whose_name_ends_like_a_route() -> None:
    names = [f"{n}/document" for n in range(8)]
    async with stubs() as replicas:
        with Haproxy([each.port for each in replicas]) as proxy:
            found = [await all_ways(proxy, room) for room in names]

    assert [len(who) for who in found] == [1] * len(names)


@pytest.mark.parametrize("kind", PROXIES)
async def test_the_path_goes_on_as_it_came(kind: type[Proxy]) -> None:
    path = "/v1/rooms/a%2Fb%20%3f//x/./document?format=text&x=%2F"
    async with stubs(1) as (replica,):
        with kind([replica.port]) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            head = f"GET {path} HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())
            await reader.read()
            writer.close()

    assert [request.path for request in replica.asked] == [path]


@pytest.mark.parametrize("kind", PROXIES)
async def test_sockets_of_many_documents_are_spread(kind: type[Proxy]) -> None:
    async with stubs() as replicas:
        with kind([each.port for each in replicas]) as proxy:
            found = Counter([await chosen(proxy, "/hocuspocus") for _ in range(60)])

    assert len(found) == 3
    assert min(found.values()) >= 6


@pytest.mark.parametrize("kind", PROXIES)
async def test_what_has_no_room_stays_with_one_replica(kind: type[Proxy]) -> None:
    paths = ("/", "/static/x.js", "/v1/tickets", "/v1/rooms", "/docs?x")
    async with stubs() as replicas:
        with kind([each.port for each in replicas]) as proxy:
            found = set(await asked(proxy, *paths))

    assert len(found) == 1


@pytest.mark.parametrize("kind", PROXIES)
async def test_nobody_asks_for_figures_through_the_proxy(kind: type[Proxy]) -> None:
    async with stubs(1) as (replica,), httpx2.AsyncClient() as client:
        with kind([replica.port]) as proxy:
            found = [
                (await client.get(proxy.url + path)).status_code
                for path in ("/metrics", "/metrics?x", "/%6detrics")
            ]

    assert found == [404] * 3
    assert replica.asked == []


@pytest.mark.parametrize("kind", PROXIES)
async def test_what_a_client_says_about_itself_is_replaced(kind: type[Proxy]) -> None:
    lies = {
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Proto": "https",
        "Forwarded": "for=203.0.113.7",
    }
    async with stubs(1) as (replica,):
        with kind([replica.port]) as proxy:
            async with connect(f"{proxy.address}/ws/r", additional_headers=lies):
                pass

    headers = replica.asked[0].headers
    assert headers.get_all("X-Forwarded-For") == ["127.0.0.1"]
    assert headers.get_all("X-Forwarded-Proto") == ["http"]
    assert "Forwarded" not in headers
    assert headers["Host"] == f"127.0.0.1:{proxy.port}"


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_draining_replica_keeps_its_sockets_and_gets_no_new_ones(
    kind: type[Proxy],
) -> None:
    async with stubs() as replicas:
        with kind([each.port for each in replicas]) as proxy:
            path = await at(proxy, replicas[0])
            async with connect(proxy.address + path) as socket:
                replicas[0].is_draining = True
                others = [await chosen(proxy, path) for _ in range(20)]
                await socket.send("still here?")
                heard = await socket.recv()
            replicas[0].is_draining = False

            await until(proxy, path, {replicas[0].name})

    assert replicas[0].name not in others
    assert len(set(others)) == 1
    assert heard == "still here?"


async def test_haproxy_leaves_a_draining_replica_alone_after_two_checks() -> None:
    async with stubs() as replicas:
        with Haproxy([each.port for each in replicas]) as proxy:
            path = await at(proxy, replicas[0])
            replicas[0].is_draining = True
            async with asyncio.timeout(PATIENCE_SECONDS):
                before = -1
                while before != len(replicas[0].asked):
                    before = len(replicas[0].asked)
                    await chosen(proxy, path)

            whole = await asked(proxy, "/v1/rooms/" + path.removeprefix("/ws/"))

    assert whole != [replicas[0].name]


@pytest.mark.parametrize("kind", PROXIES)
async def test_when_all_drain_a_client_is_told_to_come_back(kind: type[Proxy]) -> None:
    async with stubs() as replicas, httpx2.AsyncClient() as client:
        with kind([each.port for each in replicas]) as proxy:
            for each in replicas:
                each.is_draining = True
            handshake = {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            }

            found = await client.get(f"{proxy.url}/ws/r", headers=handshake)

    assert found.status_code == 503


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_request_that_one_replica_has_refused_stays_refused(
    kind: type[Proxy],
) -> None:
    async with stubs() as replicas, httpx2.AsyncClient() as client:
        with kind([each.port for each in replicas]) as proxy:
            for each in replicas:
                each.status = 503
            found = await client.get(f"{proxy.url}/v1/rooms/r/document")

    assert found.status_code == 503
    assert sum(len(each.asked) for each in replicas) == 1


@pytest.mark.parametrize("kind", PROXIES)
async def test_an_edit_that_nobody_answered_is_not_sent_twice(
    kind: type[Proxy],
) -> None:
    async with (
        endpoint(hang_up) as first,
        endpoint(hang_up) as second,
        httpx2.AsyncClient() as client,
    ):
        with kind([first.port, second.port]) as proxy:
            found = [
                await client.request(
                    method,
                    f"{proxy.url}/v1/rooms/r/document",
                    headers={"connection": "close"},
                )
                for method in ("POST", "PATCH")
            ]

    edits = [
        one.method for one in [*first.asked, *second.asked] if one.path != "/readyz"
    ]
    assert [each.status_code for each in found] == [502, 502]
    assert sorted(edits) == ["PATCH", "POST"]


def test_sockets_may_be_silent_for_an_hour_and_connecting_takes_two_seconds() -> None:
    nginx, haproxy = [
        re.sub(r"#.*", "", (SHIPPED / kind.file).read_text())
        for kind in (Nginx, Haproxy)
    ]

    assert re.findall(r"proxy_(\w+)_timeout (\w+);", nginx) == [
        ("connect", "2s"),
        ("read", "1h"),
        ("send", "1h"),
        ("next_upstream", "10s"),
    ]
    assert re.findall(r"timeout (connect|tunnel) +(\w+)", haproxy) == [
        ("connect", "2s"),
        ("tunnel", "1h"),
    ]
    assert "proxy_buffering off;" in nginx
    assert "server_tokens off;" in nginx
