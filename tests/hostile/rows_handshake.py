"""H: what comes before the first frame. B: what else plain HTTP may bring."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

from catalogue import Field, Row, closes, requests, stays, story
from peer import WEBSOCKET, upgrade_request

LINE = (WEBSOCKET,)  # rows that end before any path is looked at


def _origin(value: str) -> Row:
    return requests(
        "H2",
        f"origin {value!r}",
        {403},
        lambda path, port: upgrade_request(
            path, port, origin=value.format(port=port, other=port + 1)
        ),
    )


def _host(value: str) -> Row:
    return requests(
        "H5",
        f"host {value!r}",
        {400, 421},
        lambda path, port: upgrade_request(path, port, host=value.format(port=port)),
    )


def _key(name: str, value: str) -> Row:
    return requests(
        "H7",
        f"key {name}",
        {400},
        lambda path, port: upgrade_request(path, port, sec_websocket_key=value),
    )


def _extension(name: str, value: str, statuses: tuple[int, ...] = (101, 400)) -> Row:
    async def act(field: Field) -> None:
        answer = await field.ask(
            upgrade_request(
                field.dialect.path(field.room),
                field.port,
                ("sec-websocket-extensions", value),
            )
        )

        assert answer.status in statuses
        assert "sec-websocket-extensions" not in answer.headers

    return Row(id="H11", name=f"extension {name}", act=act)


def _subprotocols(name: str, value: str | bytes, statuses: tuple[int, ...]) -> Row:
    return requests(
        "H10",
        name,
        statuses,
        lambda path, port: upgrade_request(
            path, port, ("sec-websocket-protocol", value)
        ),
    )


@story("H3", "no origin, as programs come")
async def no_origin(field: Field) -> None:
    peer = await field.join()

    await peer.document()


@story(
    "H9",
    "one byte of a header a second",
    dialects=LINE,
    lines=(1,),
    counter="refused_requests.*408",
)
async def slow_loris(field: Field) -> None:
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", field.port)
    request = upgrade_request("/ws/slow", field.port)

    async def drip() -> None:
        for at in range(len(request)):
            writer.write(request[at : at + 1])
            await asyncio.sleep(1)

    dripping = asyncio.create_task(drip())
    answer = await asyncio.wait_for(reader.read(), 30)
    dripping.cancel()
    writer.close()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert 4 < time.monotonic() - began < 25


@story("H14", "forwarding headers of a stranger", lines=(1,))
async def forwarded(field: Field) -> None:
    since = len(field.house.lines)
    peer = await field.open(
        None,
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "203.0.113.7"),
        ("forwarded", "for=203.0.113.7;proto=https"),
        ("x-real-ip", "203.0.113.7"),
    )

    peer.shout(b"")

    assert await peer.closed() == 4400
    await field.house.incidents(since)
    assert not any(b"203.0.113.7" in line for line in field.house.raw_lines[since:])


def own_address() -> str | None:
    """An address of this machine that is not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return None if address.startswith("127.") else address


@story("H16", "a token in the query string", lines=(2,))
async def token_in_query(field: Field) -> None:
    secret = "SECRET-eyJhbGciOiJIUzI1NiJ9"
    since = len(field.house.lines)
    peer = await field.join(query=f"?token={secret}&access_token={secret}")
    loud = await field.open(f"{field.dialect.path(field.room)}?token={secret}")

    loud.shout(b"")

    assert await loud.closed() == 4400
    await peer.document()
    refused = await field.ask(
        upgrade_request(
            f"{field.dialect.path('x')}?token={secret}", field.port, host="evil.example"
        )
    )
    assert refused.status in (400, 421)
    await field.house.incidents(since)
    assert not any(secret.encode() in line for line in field.house.raw_lines[since:])


@story(
    "B1",
    "a chunked body without end",
    dialects=LINE,
    lines=(1,),
    counter="refused_requests.*413",
)
async def endless_body(field: Field) -> None:
    head = (
        f"POST /doc/a/auth HTTP/1.1\r\nHost: 127.0.0.1:{field.port}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )

    answer = await field.ask(head.encode() + b"8000\r\n%b\r\n" % (b"x" * 0x8000) * 100)

    # What is asked there needs no body, so the answer may be out before the limit is met.
    assert answer.status in (200, 413)
    assert answer.raw.count(b"HTTP/1.1 ") == 1


def _posts() -> Iterator[Row]:
    def post(path: str, port: int, headers: bytes, body: bytes) -> bytes:
        return (
            f"POST /doc/a/auth HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()
            + headers
            + b"\r\n"
            + body
        )

    yield requests(
        "B1",
        "a body over the limit",
        {413},
        lambda path, port: post(
            path, port, b"Content-Length: 10000000\r\n", b"x" * 1_000_000
        ),
        dialects=LINE,
    )
    yield endless_body
    yield requests(
        "B4",
        "100,000 parameters",
        {414},
        lambda path, port: upgrade_request(path + "?" + "a=b&" * 100_000, port),
        dialects=LINE,
    )


ROWS = [
    requests(
        "H1",
        "a foreign page with cookies",
        {403},
        lambda path, port: upgrade_request(
            path, port, origin="https://evil.example", cookie="session=1"
        ),
    ),
    _origin("null"),
    _origin("http://127.0.0.1:{port}.evil.example"),
    _origin("http://127.0.0.1.evil.example:{port}"),
    _origin("HTTP://127.0.0.1:{port}"),
    # Who may only be reached from this machine lets any page of this machine in.
    *(
        requests(
            "H2",
            f"origin {value!r} of this machine",
            {101},
            lambda path, port, value=value: upgrade_request(
                path, port, origin=value.format(other=port + 1)
            ),
        )
        for value in (
            "http://127.0.0.1:{other}",
            "http://localhost:5173",
            "https://[::1]",
        )
    ),
    _origin("http://localhost.evil.example:{port}"),
    _origin("http://[::1]evil.example"),
    _origin("http://127.0.0.1:evil.example"),
    _origin("file://"),
    _origin("http://localhost.:{port}"),
    _origin("http://user@127.0.0.1:{port}"),
    _origin("http://127.0.0.1:{port}/"),
    _origin("http://127.0.0.1:{port}@evil.example"),
    _origin(""),
    no_origin,
    requests(
        "H4",
        "two origins",
        {400},
        lambda path, port: upgrade_request(
            path,
            port,
            ("origin", "https://evil.example"),
            origin=f"http://127.0.0.1:{port}",
        ),
    ),
    requests(
        "H4",
        "two hosts",
        {400},
        lambda path, port: upgrade_request(path, port, ("host", "evil.example")),
    ),
    requests(
        "H4",
        "no host",
        {400},
        lambda path, port: upgrade_request(path, port, without=("host",)),
    ),
    _host("evil.example"),
    _host("evil.example:{port}"),
    _host("127.0.0.1.evil.example:{port}"),
    _host("localhost.evil.example"),
    _host("evil.example@127.0.0.1:{port}"),
    _host("127.0.0.1:{port}, evil.example"),
    requests(
        "H5",
        "host of another name for the page",
        {400, 421},
        lambda path, port: (
            b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        ),
        dialects=LINE,
    ),
    requests(
        "H6",
        "version 12",
        {426},
        lambda path, port: upgrade_request(path, port, sec_websocket_version="12"),
    ),
    requests(
        "H6",
        "version x",
        {426, 400},
        lambda path, port: upgrade_request(path, port, sec_websocket_version="x"),
    ),
    requests(
        "H6",
        "no version",
        {426},
        lambda path, port: upgrade_request(
            path, port, without=("sec-websocket-version",)
        ),
    ),
    requests(
        "H7",
        "no key",
        {400},
        lambda path, port: upgrade_request(path, port, without=("sec-websocket-key",)),
    ),
    _key("too short", "AAAA"),
    _key("too long", "A" * 44),
    _key("not base64", "!" * 24),
    _key("empty", ""),
    requests(
        "H7",
        "two keys",
        {400},
        lambda path, port: upgrade_request(
            path, port, ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==")
        ),
    ),
    requests(
        "H8",
        "a request line of 64 KB",
        {414},
        lambda path, port: upgrade_request(path + "?" + "x" * 65_536, port),
        dialects=LINE,
    ),
    requests(
        "H8",
        "a header of 64 KB",
        {431},
        lambda path, port: upgrade_request(path, port, ("x-long", "x" * 65_536)),
        dialects=LINE,
    ),
    requests(
        "H8",
        "a header of 10 MB",
        {431},
        lambda path, port: upgrade_request(path, port, ("x-long", "x" * 10_000_000)),
        dialects=LINE,
    ),
    requests(
        "H8",
        "10,000 headers",
        {431},
        lambda path, port: upgrade_request(path, port, *[("x", "y")] * 10_000),
        dialects=LINE,
    ),
    slow_loris,
    _subprotocols(
        "a subprotocol that is not ASCII", "a, \u00e9\u4e2d".encode(), (400,)
    ),
    _subprotocols("a subprotocol that is no token", "a, b@c, (d)", (400,)),
    _subprotocols("10,000 subprotocols", ",".join(["a"] * 10_000), (431,)),
    _subprotocols("2,000 subprotocols", ",".join(["a"] * 2_000), (101, 400)),
    _subprotocols("a run of spaces", "a" + " " * 8_000 + "b", (400,)),
    _subprotocols("a run of commas", "," * 8_000, (101, 400)),
    _extension("with no window", "permessage-deflate; server_max_window_bits=0"),
    _extension("with a huge window", "permessage-deflate; client_max_window_bits=99"),
    _extension("that is none", "permessage-deflate; ;;=,"),
    _extension("without an end", 'permessage-deflate; x="'),
    _extension("400 times", ", ".join(["permessage-deflate"] * 400)),
    _extension("1,000 times", ", ".join(["permessage-deflate"] * 1_000), (431,)),
    requests(
        "H12",
        "an upgrade on HTTP/1.0",
        {400, 426},
        lambda path, port: upgrade_request(path, port, version="1.0"),
    ),
    requests(
        "H12",
        "an upgrade to h2c",
        {400, 426},
        lambda path, port: upgrade_request(path, port, upgrade="h2c"),
        lines=(0, 1),
        counter=None,
    ),
    requests(
        "H12",
        "no upgrade",
        {400, 426},
        lambda path, port: upgrade_request(
            path, port, without=("upgrade",), connection="close"
        ),
        lines=(0, 1),
        counter=None,
    ),
    requests(
        "H12",
        "a POST with a body",
        {400, 426},
        lambda path, port: (
            upgrade_request(path, port, method="POST", content_length="4") + b"body"
        ),
    ),
    requests(
        "H12",
        "a chunked body",
        {400, 426},
        lambda path, port: (
            upgrade_request(path, port, transfer_encoding="chunked")
            + b"4\r\nbody\r\n0\r\n\r\n"
        ),
    ),
    requests(
        "H13",
        "length and chunks",
        {400},
        lambda path, port: upgrade_request(
            path, port, method="POST", content_length="4", transfer_encoding="chunked"
        ),
    ),
    requests(
        "H13",
        "bare line feeds",
        {400},
        lambda path, port: upgrade_request(path, port).replace(b"\r\n", b"\n"),
    ),
    requests(
        "H13",
        "a folded header",
        {400},
        lambda path, port: upgrade_request(path, port, ("x-fold", "a\r\n b")),
    ),
    requests(
        "H13",
        "a second request inside the first",
        {400},
        lambda path, port: (
            upgrade_request(path, port)
            + upgrade_request(path, port, host="evil.example")
        ),
    ),
    forwarded,
    token_in_query,
    closes(
        "H17",
        "accepted, then silent",
        4408,
        is_joined=False,
        house="hurried",
    ),
    closes(
        "H17",
        "accepted, then only pongs",
        4408,
        lambda peer: peer.write(b"\x8a\x80\0\0\0\0"),
        is_joined=False,
        house="hurried",
    ),
    *_posts(),
]


ADDRESS = own_address()

if ADDRESS is not None:

    @story(
        "H15",
        "more sockets than one address may have",
        dialects=LINE,
        house="bounded",
        lines=(1,),
    )
    async def many_sockets(field: Field) -> None:
        for _ in range(5):
            await field.open(address=ADDRESS, host=f"{ADDRESS}:{field.port}")

        answer = await field.ask(
            upgrade_request("/ws/a", field.port, host=f"{ADDRESS}:{field.port}"),
            address=ADDRESS,
        )

        assert answer.status == 429

    ROWS.append(many_sockets)
else:
    # Loopback is never bounded, and this machine has no other address: the rule itself is still there to see.
    ROWS.append(stays("H15", "many sockets from loopback", house="plain"))
