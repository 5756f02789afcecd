"""B: requests to the API that are too much, malformed, contradictory or not allowed; and R, names of rooms in paths."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from urllib.parse import quote

from catalogue import Field, Row, requests, story
from house import House
from peer import WEBSOCKET, Answer
from rows_names import _files
from wire import (
    ANY,
    DELETED,
    EMBED,
    GC,
    STRING,
    any_of,
    deletes,
    insertion,
    item,
    section,
    string,
    update,
    varint,
)

LINE = (WEBSOCKET,)  # there is one way to ask over HTTP
JSON = ("Content-Type", "application/json")
BYTES = ("Content-Type", "application/octet-stream")
READER = {"prefixes": {"": ["read"]}}


def request(
    method: str,
    path: str,
    port: int,
    *headers: tuple[str, str],
    body: bytes | None = None,
    is_announced: bool = True,
) -> bytes:
    """One request, after which the server is to close."""
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers),
    ]
    if body is not None and is_announced:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


def chunked(body: bytes) -> bytes:
    return b"".join(
        b"%x\r\n%b\r\n" % (len(part), part)
        for part in (body[at : at + 8192] for at in range(0, len(body), 8192))
    )


def refused(
    id: str,
    name: str,
    status: int | Collection[int],
    method: str,
    path: str,
    *headers: tuple[str, str],
    body: bytes | None = None,
) -> Row:
    """A request that is answered with a problem; `{room}` in the path is a room of its own."""
    statuses = {status} if isinstance(status, int) else set(status)
    return requests(
        id,
        name,
        statuses,
        lambda _, port: request(
            method,
            path.replace("{room}", f"rest-{os.urandom(6).hex()}"),
            port,
            *headers,
            body=body,
        ),
        dialects=LINE,
    )


async def ask(
    field: Field,
    method: str,
    path: str,
    *headers: tuple[str, str],
    content: object = None,
) -> Answer:
    """A well-made request."""
    body = None if content is None else json.dumps(content).encode()
    kind = () if content is None else (JSON,)
    return await field.ask(
        request(method, path, field.port, *headers, *kind, body=body)
    )


# Bodies


BROKEN = {
    "nothing": b"",
    "half an object": b'{"name": "r"',
    "a comma too many": b'{"name": "r",}',
    "NaN": b'{"name": "r", "history_seconds": NaN}',
    "infinity": b'{"name": "r", "history_seconds": 1e999}',
    "a number of 60,000 digits": b'{"name": "r", "history_seconds": 1'
    + b"0" * 60_000
    + b"}",
    "a field twice": b'{"name": "r", "name": "s"}',
    "a field twice further in": b'{"name": "r", "metadata": {"a": 1, "a": 2}}',
    "arrays 30,000 deep": b'{"name": ' + b"[" * 30_000,
    "arrays 100 deep": b'{"name": ' + b"[" * 100 + b"]" * 100 + b"}",
    "bytes that are no UTF-8": b'{"name": "\xff\xfe"}',
    "a lone surrogate": b'{"name": "\\ud800"}',
    "UTF-16": '{"name": "r"}'.encode("utf-16"),
    "a text": b'"r"',
    "an unknown field": b'{"name": "r", "__proto__": {}}',
    "a name that is a number": b'{"name": 5}',
}

KINDS = {
    "no type": (),
    "text": (("Content-Type", "text/plain"),),
    "XML": (("Content-Type", "application/xml"),),
    "a form": (("Content-Type", "application/x-www-form-urlencoded"),),
    "a multipart form": (("Content-Type", "multipart/form-data; boundary=x"),),
    "another alphabet": (("Content-Type", "application/json; charset=utf-16"),),
    "two types": (JSON, BYTES),
}

UPDATES = {
    "no bytes": b"",
    "a thousand zeros": b"\x00" * 1000,
    "2^28 clients": varint(2**28) + b"\x00",
    "2^31 structs": b"\x01" + varint(2**31) + b"\x07\x00",
    "an array that claims 2^40 values": any_of(b"\x75" + varint(2**40)),
    "2^40 values": update(section(1, 0, item(ANY, varint(2**40)))),
    "arrays 30,000 deep": any_of(b"\x75\x01" * 30_000 + b"\x7e"),
    "JSON 5,000 deep": update(
        section(1, 0, item(EMBED, string("[" * 5000 + "]" * 5000)))
    ),
    "garbage of length 2^32-1": update(section(7, 0, bytes((GC,)) + varint(2**32 - 1))),
    "something deleted of length 2^32-1": update(
        section(7, 0, item(DELETED, varint(2**32 - 1)))
    ),
    "a clock of 2^32-1": insertion(7, 2**32 - 1, "ab"),
    "a deleted range of length 2^32-1": update(gone=deletes((7, [(1, 2**32 - 1)]))),
    "a byte behind it": insertion(7, 0, "a") + b"\x00",
    "text that is no UTF-8": update(section(7, 0, item(STRING, string(b"\xff\xfe")))),
}


def _bodies() -> Iterator[Row]:
    yield refused(
        "B1",
        "JSON of 100,000 bytes",
        413,
        "POST",
        "/v1/rooms",
        JSON,
        body=b'{"name": "' + b"x" * 100_000 + b'"}',
    )
    yield refused(
        "B1",
        "an update of 2 MB",
        413,
        "POST",
        "/v1/rooms/{room}/update",
        BYTES,
        body=b"x" * 2_000_000,
    )
    yield refused(
        "B1",
        "an update of 600,000 bytes",
        413,
        "POST",
        "/v1/rooms/{room}/update",
        BYTES,
        body=insertion(7, 0, "x" * 600_000),
    )
    for coding in ("gzip", "deflate", "br", "gzip, gzip"):
        yield refused(
            "B1",
            f"a body in {coding}",
            415,
            "POST",
            "/v1/rooms",
            JSON,
            ("Content-Encoding", coding),
            body=b"\x1f\x8b\x08\x00" + b"\x00" * 100,
        )
    for name, body in BROKEN.items():
        yield refused("B2", name, 400, "POST", "/v1/rooms", JSON, body=body)
    for name, body in BROKEN.items():
        yield refused(
            "B2",
            f"{name}, to a document",
            400,
            "PATCH",
            "/v1/rooms/{room}/document",
            JSON,
            body=body,
        )
    for name, kind in KINDS.items():
        yield refused(
            "B3", name, 415, "POST", "/v1/rooms", *kind, body=b'{"name": "r"}'
        )
    yield refused(
        "B3",
        "an update as JSON",
        415,
        "POST",
        "/v1/rooms/{room}/update",
        JSON,
        body=b"{}",
    )
    for name, content in UPDATES.items():
        yield refused(
            "B5",
            name,
            400,
            "POST",
            "/v1/rooms/{room}/update",
            BYTES,
            body=content,
        )


@story("B1", "JSON without end in chunks", dialects=LINE, lines=(1, 2), counter="413")
async def endless(field: Field) -> None:
    head = request(
        "POST", "/v1/rooms", field.port, JSON, ("Transfer-Encoding", "chunked")
    )

    answer = await field.ask(head + chunked(b" " * 3_000_000))

    assert answer.status == 413
    assert answer.raw.count(b"HTTP/1.1 ") == 1


@story("B1", "JSON in chunks, of unknown length", dialects=LINE, lines=(0,))
async def unannounced(field: Field) -> None:
    """Nothing is wrong with it."""
    head = request(
        "POST", "/v1/rooms", field.port, JSON, ("Transfer-Encoding", "chunked")
    )
    body = json.dumps({"name": field.room}).encode()

    answer = await field.ask(head + chunked(body) + b"0\r\n\r\n")

    assert answer.status == 201


# What surrounds them


@story("B4", "a range of ten thousand parts", dialects=LINE, lines=(0,))
async def ranges(field: Field) -> None:
    parts = ",".join(f"{n}-{n}" for n in range(0, 1500, 2))

    answer = await ask(field, "GET", "/v1/rooms", ("Range", f"bytes={parts}"))

    assert answer.status == 200


@story(
    "B6",
    "an edit of a version that is not yet",
    dialects=LINE,
    lines=(1,),
    counter="412",
)
async def future(field: Field) -> None:
    path = f"/v1/rooms/{field.room}"
    await ask(field, "POST", "/v1/rooms", content={"name": field.room})

    answer = await ask(
        field,
        "PATCH",
        f"{path}/document",
        ("If-Match", '"0000000000000000-999"'),
        content={"splices": [{"root": "text", "index": 0, "insert": "x"}]},
    )

    assert answer.status == 412
    info = await ask(field, "GET", path)
    assert json.loads(info.body)["position"] == 0


@story(
    "B6",
    "a read of a position that is not yet",
    dialects=LINE,
    lines=(1,),
    counter="425",
)
async def early(field: Field) -> None:
    await ask(field, "POST", "/v1/rooms", content={"name": field.room})

    answer = await ask(
        field, "GET", f"/v1/rooms/{field.room}/document?min_position=999999999"
    )

    assert answer.status == 425
    assert "retry-after" in answer.headers


@story(
    "B7",
    "an idempotency key for something else",
    dialects=LINE,
    lines=(1,),
    counter="409",
)
async def reused(field: Field) -> None:
    key = ("Idempotency-Key", field.room)
    first = await ask(field, "POST", "/v1/rooms", key, content={"name": field.room})

    again = await ask(field, "POST", "/v1/rooms", key, content={"name": field.room})
    other = await ask(
        field, "POST", "/v1/rooms", key, content={"name": f"{field.room}-2"}
    )

    assert (first.status, again.status, other.status) == (201, 201, 409)
    assert first.body == again.body


@story("B8", "a method in a header", dialects=LINE, lines=(0,))
async def overridden(field: Field) -> None:
    path = f"/v1/rooms/{field.room}"
    await ask(field, "POST", "/v1/rooms", content={"name": field.room})

    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        answer = await ask(field, "GET", path, (name, "DELETE"))
        assert answer.status == 200

    assert (await ask(field, "GET", path)).status == 200


def bearer(house: House, **claims: object) -> tuple[str, str]:
    assert house.issuer is not None
    return ("Authorization", f"Bearer {house.issuer.token(**claims)}")


VERBS = (
    ("POST", "/v1/rooms", {"name": "made"}),
    ("PATCH", "/v1/rooms/r", {"metadata": {}}),
    ("DELETE", "/v1/rooms/r", None),
    ("POST", "/v1/rooms/r/restore", None),
    ("DELETE", "/v1/rooms/r/members/x", None),
    ("GET", "/v1/keys", None),
    ("POST", "/v1/keys", {"principal": "alice", "grants": []}),
    (
        "POST",
        "/v1/grants",
        {"principal": "alice", "room": "r", "operations": ["admin"]},
    ),
    ("POST", "/v1/revocations", {"principal": "bob"}),
)


@story(
    "B8",
    "verbs of administrators with a token to read",
    house="guarded",
    dialects=LINE,
    lines=(len(VERBS),),
    counter="403",
)
async def verbs(field: Field) -> None:
    token = bearer(field.house, **READER)

    answers = [
        await ask(field, method, path, token, content=content)
        for method, path, content in VERBS
    ]

    assert [answer.status for answer in answers] == [403] * len(VERBS)


@story(
    "B9", "a foreign page asks whether it may", dialects=LINE, lines=(1,), counter="403"
)
async def preflight(field: Field) -> None:
    answer = await ask(
        field,
        "OPTIONS",
        "/v1/rooms",
        ("Origin", "https://evil.example"),
        ("Access-Control-Request-Method", "DELETE"),
    )

    assert answer.status == 403
    assert "access-control-" not in answer.headers


@story(
    "B9",
    "a foreign page writes without asking",
    dialects=LINE,
    lines=(1,),
    counter="403",
)
async def simple_post(field: Field) -> None:
    answer = await ask(
        field,
        "POST",
        "/v1/rooms",
        ("Origin", "https://evil.example"),
        content={"name": field.room},
    )

    assert answer.status == 403
    assert (await ask(field, "GET", "/v1/rooms?prefix=" + field.room)).body.startswith(
        b'{"rooms":[],'
    )


# Names


def _named(id: str, name: str, spelt: str, status: int | Collection[int] = 400) -> Row:
    return refused(
        id, f"{name}, in a path", status, "GET", f"/v1/rooms/{spelt}/members"
    )


@story("R1", "rooms called like files", dialects=LINE, lines=(0,))
async def files(field: Field) -> None:
    before = _files(field)
    for name in ("../../etc/passwd", "..\\boot.ini", "/etc/passwd", "..", ".", "a//b"):
        name = f"{name}-{field.room}"
        made = await ask(field, "POST", "/v1/rooms", content={"name": name})
        found = await ask(field, "GET", f"/v1/rooms/{quote(name, safe='')}")
        assert (made.status, found.status) == (201, 200)
        assert json.loads(found.body)["name"] == name

    assert _files(field) == before


@story(
    "R8", "names that look alike or mean something elsewhere", dialects=LINE, lines=(0,)
)
async def distinct(field: Field) -> None:
    """R3, R5, R6 and R7 too: each is a room of its own."""
    endings = (
        "a",
        "A",
        "\u0430",
        "a\u200b",
        "*",
        "?",
        "[a]",
        "{a}",
        ":a:b",
        ":a",
        "/a",
        "\u00df",
        "SS",
        "%2Fa",
    )
    for ending in endings:
        made = await ask(
            field,
            "POST",
            "/v1/rooms",
            content={"name": field.room + ending, "metadata": {"ending": ending}},
        )
        assert made.status == 201

    for ending in endings:
        found = await ask(
            field, "GET", f"/v1/rooms/{quote(field.room + ending, safe='')}"
        )
        assert json.loads(found.body)["metadata"] == {"ending": ending}


@story(
    "R10",
    "is there such a room?",
    house="guarded",
    dialects=LINE,
    lines=(2, 4),
    counter="403",
)
async def probing(field: Field) -> None:
    """The member beside it keeps a room alive, which is not for this token."""
    token = bearer(field.house, prefixes={"mine/": ["read", "write", "admin"]})
    there = field.pair.members[0].room

    answers = [
        await ask(field, "GET", f"/v1/rooms/{name}{part}", token)
        for part in ("", "/document")
        for name in (there, "absent-" + field.room)
    ]

    assert {answer.status for answer in answers} == {403}
    assert len({answer.body for answer in answers}) == 1


ROWS = [
    *_bodies(),
    endless,
    unannounced,
    refused(
        "B4",
        "100,000 parameters of a list",
        414,
        "GET",
        "/v1/rooms?" + "a=b&" * 100_000,
    ),
    refused(
        "B4", "1,000 parameters of a list", 400, "GET", "/v1/rooms?" + "a=b&" * 1000
    ),
    ranges,
    future,
    early,
    reused,
    overridden,
    verbs,
    preflight,
    simple_post,
    files,
    _named("R1", "dots that are no address", "../../etc/passwd", 404),
    _named("R2", "a name of 257 bytes", "x" * 257),
    _named("R2", "a blank name", "%20%20"),
    _named("R2", "no name", "", 404),
    _named("R3", "a name in normal form D", "e%CC%81"),
    _named("R4", "NUL", "a%00b"),
    _named("R4", "CR and LF", "a%0d%0ab"),
    _named("R4", "a tab", "a%09b"),
    _named("R4", "a control character of the second row", "a%c2%85b"),
    _named("R4", "what stands between tenant and room", "a%1fb"),
    _named("R9", "an overlong slash", "a%c0%afb"),
    _named("R9", "half a surrogate pair", "a%ed%a0%80b"),
    _named("R9", "a percent sign that escapes nothing", "a%zzb"),
    _named("R9", "bytes that are no UTF-8", "a%ff%feb"),
    distinct,
    probing,
]
