"""nginx and HAProxy as shipped, in front of three real servers: who is seen, what comes through, what happens when one goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
from certificates import Files
from processes import Server, close_code, eventually
from proxying import PROXIES, Haproxy, Proxy, put
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.protocol import State

from collab.protocol import hocuspocus
from collab.protocol.varint import encode_string

pytestmark = pytest.mark.anyio

FLAGS = ("--store", "memory", "--trusted-proxies", "127.0.0.1")
CLIENT = "127.0.0.7"  # which no proxy of ours has
STEP_1 = b"\x00\x00\x01\x00"
ROOMS = 60


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Three that outlive a test."""
    folder = tmp_path_factory.mktemp("replicas")
    started = [Server(folder / f"data{number}", *FLAGS) for number in range(3)]
    for each in started:
        each.start()
    yield started
    for each in started:
        each.kill()


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest, servers: list[Server]) -> Iterator[Proxy]:
    """In front of those."""
    with request.param([each.port for each in servers]) as made:
        yield made


async def join(proxy: Proxy, path: str) -> ClientConnection:
    """A socket whose room has answered, of a client that is not where the proxy is."""
    socket = await connect(f"{proxy.address}{path}", local_addr=(CLIENT, 0))
    await socket.send(STEP_1)
    await socket.recv()
    return socket


async def members(server: Server, *rooms: str) -> list[list[tuple[str, str]]]:
    """Dialect and address of each in each room, asked past the proxy."""
    async with httpx2.AsyncClient(base_url=server.url) as client:
        answers = [await client.get(f"/v1/rooms/{room}/members") for room in rooms]
    return [
        [(each["dialect"], each["address"]) for each in answer.json()["members"]]
        for answer in answers
    ]


async def houses(
    servers: list[Server], *rooms: str
) -> list[list[list[tuple[str, str]]]]:
    """For each room its members on each server that has some."""
    found = [await members(each, *rooms) for each in servers if each.process]
    return [[there for there in room if there] for room in zip(*found, strict=True)]


async def test_both_who_join_a_room_meet_on_one_of_three_servers(
    proxy: Proxy, servers: list[Server]
) -> None:
    kind = proxy.file
    async with AsyncExitStack() as stack:
        for number in range(ROOMS):
            for query in ("?token=a", "?x=b&token=c"):
                socket = await join(proxy, f"/ws/{kind}{number}{query}")
                stack.push_async_callback(socket.close)

        found = await houses(servers, *(f"{kind}{number}" for number in range(ROOMS)))

    assert [[len(room) for room in each] for each in found] == [[2]] * ROOMS


async def test_each_dialect_gets_through_and_its_client_has_its_own_address(
    proxy: Proxy, servers: list[Server]
) -> None:
    room = f"dialects-{proxy.file}"
    async with (
        httpx2.AsyncClient() as client,
        await join(proxy, f"/ws/{room}"),
    ):
        asked = await client.post(f"{proxy.url}/doc/{room}/auth")
        token = asked.json()
        async with (
            connect(f"{token['url']}/{room}", local_addr=(CLIENT, 0)) as y_sweet,
            connect(f"{proxy.address}/hocuspocus", local_addr=(CLIENT, 0)) as socket,
        ):
            await y_sweet.send(STEP_1)
            await y_sweet.recv()
            to = encode_string(room)
            await socket.send(to + b"\x02\x00" + encode_string(""))
            answer = await socket.recv()

            (housed,) = await houses(servers, room)

    found = [member for each in housed for member in each]
    assert token["url"] == f"ws://127.0.0.1:{proxy.port}/d/{room}/ws"
    assert answer == to + hocuspocus.authenticated(may_write=True)
    assert sorted(found) == [
        ("hocuspocus", CLIENT),
        ("y-sweet", CLIENT),
        ("y-websocket", CLIENT),
    ]


async def test_events_come_through_one_by_one_and_large_bodies_whole(
    proxy: Proxy,
) -> None:
    room = f"{proxy.url}/v1/rooms/streams-{proxy.file}"
    large = {"splices": [{"root": "text", "index": 0, "insert": "x" * 400_000}]}
    small = {"splices": [{"root": "text", "index": 0, "insert": "hello"}]}
    async with httpx2.AsyncClient(timeout=20) as client:
        edited = await client.patch(f"{room}/document", json=large)
        events = {"accept": "text/event-stream"}
        async with client.stream("GET", f"{room}/updates", headers=events) as stream:
            lines = stream.aiter_lines()
            heard = [await anext(lines) for _ in range(2)]
            await client.patch(f"{room}/document", json=small)
            async with asyncio.timeout(30):
                while not (line := await anext(lines)).startswith("data: "):
                    heard.append(line)

        read = await client.get(f"{room}/document?format=text")

    assert edited.status_code == 200
    assert line
    assert read.text == "hello" + "x" * 400_000


@pytest.mark.parametrize("kind", PROXIES)
async def test_when_a_server_dies_all_its_rooms_are_served_at_once_by_the_others(
    kind: type[Proxy], serve: Callable[..., Server]
) -> None:
    servers = [serve(*FLAGS) for _ in range(3)]
    with kind([each.port for each in servers]) as proxy:
        servers[0].kill()

        async with AsyncExitStack() as stack:
            for number in range(ROOMS):
                socket = await join(proxy, f"/ws/r{number}?token=hush-hush")
                stack.push_async_callback(socket.close)
            found = await houses(servers, *(f"r{number}" for number in range(ROOMS)))
        written = proxy.written()

    assert [len(each) for each in found] == [1] * ROOMS
    assert "hush" not in written


@pytest.mark.parametrize("kind", PROXIES)
async def test_who_is_told_that_a_server_drains_comes_back_at_once_to_another(
    kind: type[Proxy], serve: Callable[..., Server]
) -> None:
    servers = [serve(*FLAGS) for _ in range(3)]

    with kind([each.port for each in servers]) as proxy:
        sockets = [await join(proxy, f"/ws/r{number}") for number in range(ROOMS)]
        housed = await members(servers[0], *(f"r{number}" for number in range(ROOMS)))
        leaving = [number for number, there in enumerate(housed) if there]

        async def come_back(number: int) -> int | None:
            """The code of the close, once the next attempt has been let in."""
            code = await close_code(sockets[number])
            sockets[number] = await join(proxy, f"/ws/r{number}")
            return code

        coming_back = asyncio.gather(*map(come_back, leaving))
        drained = await asyncio.to_thread(servers[0].terminate)
        codes = await asyncio.wait_for(coming_back, 30)
        staying = [each for each in sockets if each.state is State.OPEN]
        for each in sockets:
            await each.close()

    assert drained == 0
    assert len(leaving) >= 5
    assert codes == [1012] * len(leaving)
    assert len(staying) == ROOMS


async def test_no_token_stands_in_any_log(proxy: Proxy) -> None:
    secret = "hush-hush"
    async with httpx2.AsyncClient() as client:
        for path in ("/", "/ws/r", "/nowhere", "/v1/rooms/r", "/metrics"):
            await client.get(
                f"{proxy.url}{path}?token={secret}",
                headers={
                    "Authorization": f"Bearer {secret}",
                    "Referer": f"http://a/?ticket={secret}",
                    "Cookie": secret,
                },
            )
        with pytest.raises(InvalidStatus):
            await connect(
                f"{proxy.address}/ws/r?ticket={secret}",
                origin="http://elsewhere.example",  # type: ignore[arg-type]
            )
        async with connect(
            f"{proxy.address}/ws/r?ticket={secret}",
            subprotocols=["y-websocket", f"collab.token.{secret}"],  # type: ignore[list-item]
        ) as socket:
            await socket.send("not binary")
            await close_code(socket)
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(f"GET /ws/r?ticket={secret} HTTP/9.9 \x01\r\n\r\n".encode())
    writer.close()

    assert await asyncio.to_thread(
        eventually, lambda: proxy.written().count("/ws/r") >= 3
    )
    assert secret not in proxy.written()
    assert "ticket" not in proxy.written()


@pytest.mark.parametrize("kind", PROXIES)
async def test_the_lines_for_tls_work_once_they_are_no_comments(
    kind: type[Proxy], servers: list[Server], tmp_path: Path
) -> None:
    files = Files(tmp_path / "tls")
    both = tmp_path / "both.pem"
    both.write_bytes(files.certificate.read_bytes() + files.key.read_bytes())

    def secure(text: str) -> str:
        if kind is Haproxy:
            text = put(r"# bind :8443 ssl", "bind :8080 ssl", text)
            text = put(r"^ +bind :8080\n", "", text)
            return put(r"/etc/haproxy/tls.pem", str(both), text)
        text = put(r"listen 8080;", "", text)
        text = put(r"# listen 8443 ssl;", "listen 8080 ssl;", text)
        text = text.replace("# ssl_", "ssl_")
        text = put(r"/etc/nginx/tls.crt", str(files.certificate), text)
        return put(r"/etc/nginx/tls.key", str(files.key), text)

    with kind([each.port for each in servers], secure) as proxy:
        url = f"https://localhost:{proxy.port}"
        async with httpx2.AsyncClient(verify=files.context()) as client:
            asked = (await client.post(f"{url}/doc/r/auth")).json()
        async with connect(f"{asked['url']}/r", ssl=files.context()) as socket:
            await socket.send(STEP_1)
            answer = await socket.recv()

    assert asked["url"] == f"wss://localhost:{proxy.port}/d/r/ws"
    assert answer


async def test_no_version_is_told(proxy: Proxy) -> None:
    async with httpx2.AsyncClient() as client:
        answers = [await client.get(proxy.url + path) for path in ("/metrics", "/x")]

    assert [each.status_code for each in answers] == [404, 404]
    assert [each for each in answers if "/" in each.headers.get("server", "")] == []
    assert "nginx/" not in answers[0].text
