"""R: names of rooms, which are opaque: never a path, never a pattern, never folded."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from catalogue import Field, Row, story
from peer import HOCUSPOCUS, WEBSOCKET, YSWEET, Dialect, authentication, upgrade_request
from wire import insertion, read_string, string, update_of

REFUSED = (400, 403, 404, 4400)  # over HTTP, or as a close code after the handshake


# A Y-Sweet address holds its room between slashes, so no room there has one in its name.
SLASHED = (WEBSOCKET, HOCUSPOCUS)


async def knock(field: Field, raw_name: str | bytes, path: str | None = None) -> int:
    """The status or the close code with which a room is refused; 101 when it is not.

    `raw_name` stands in the path as it is, percent signs and all; for Hocuspocus it is the address.
    """
    if field.dialect is HOCUSPOCUS:
        peer = await field.open()
        peer.shout(string(raw_name) + authentication())
        await peer.until(lambda: bool(peer.messages) or peer.is_over)
        if not peer.messages:
            return await peer.closed()
        # One document is refused; the socket is for others too.
        _, at = read_string(peer.messages[0])
        return 403 if peer.messages[0][at : at + 2] == b"\x02\x01" else 101
    if path is None:
        path = {WEBSOCKET: "/ws/{0}", YSWEET: "/d/{0}/ws/{0}"}[field.dialect].format(
            raw_name
        )
    answer = await field.ask(upgrade_request(path, field.port))
    if answer.status != 101:
        return answer.status
    peer = await field.open(path)
    await peer.until(lambda: bool(peer.messages) or peer.is_over)
    return await peer.closed() if not peer.messages else 101


def _refused(
    id: str, name: str, spelt: str | bytes, addressed: str | bytes | None = None
) -> Row:
    """A name that no room may have: as it stands in a path, and as an address."""

    async def act(field: Field) -> None:
        in_address = field.dialect is HOCUSPOCUS
        raw_name = addressed if in_address and addressed is not None else spelt
        code = await knock(field, raw_name)

        assert code in REFUSED

    dialects: tuple[Dialect, ...] = (
        (WEBSOCKET, YSWEET) if addressed is None else (WEBSOCKET, HOCUSPOCUS, YSWEET)
    )
    return Row(
        id=id,
        name=name,
        act=act,
        dialects=dialects,
        lines=(1, 2),
        counter="closes|refused_requests",
    )


def _harmless(id: str, name: str, path: str) -> Row:
    """A path that looks like a file's: a room like any other, or none; nothing else on the disk."""

    async def act(field: Field) -> None:
        before = _files(field)

        code = await knock(field, "", path)

        assert code in (101, *REFUSED)
        assert _files(field) == before

    return Row(id="R1", name=name, act=act, dialects=(WEBSOCKET,), lines=(0, 1, 2))


def _files(field: Field) -> set[str]:
    """What lies where the server keeps its data, and next to it; SQLite's own helpers aside."""
    found = set()
    for folder, _, names in os.walk(field.house.data.parent):
        found |= {
            os.path.join(folder, name)
            for name in names
            if not name.endswith(("-wal", "-shm", "-journal"))
        }
    return found


def _distinct(
    id: str,
    name: str,
    names: Callable[[str], Sequence[str]],
    dialects: Sequence[Dialect] = (WEBSOCKET, HOCUSPOCUS, YSWEET),
) -> Row:
    """Names that look alike, or mean something elsewhere, are ordinary rooms and each its own."""

    async def act(field: Field) -> None:
        spelt = names(field.room)
        members = [await field.join(room=room) for room in spelt]

        for at, member in enumerate(members):
            member.say(update_of(insertion(100 + at, 0, f"only {at}.")))
            await member.document()

        for at, member in enumerate(members):
            document = await member.document()
            assert [
                other
                for other in range(len(spelt))
                if f"only {other}.".encode() in document
            ] == [at]

    return Row(id=id, name=name, act=act, dialects=tuple(dialects), lines=(0,))


@story("R7", "names of our own pages", lines=(0,))
async def reserved(field: Field) -> None:
    for name in (
        "healthz",
        "readyz",
        "metrics",
        "_admin",
        "static",
        "ws",
        "hocuspocus",
    ):
        member = await field.join(room=name)
        assert member.messages
    answer = await field.ask(
        f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{field.port}\r\nConnection: close\r\n\r\n".encode()
    )
    assert answer.status == 200


@story(
    "R6",
    "two rooms in one Y-Sweet address",
    dialects=(YSWEET,),
    lines=(1, 2),
    counter="closes|refused_requests",
)
async def two_rooms(field: Field) -> None:
    assert await knock(field, "", "/d/one/ws/two") in REFUSED


@story("R1", "an address like a path", dialects=(HOCUSPOCUS,), lines=(0,))
async def path_address(field: Field) -> None:
    before = _files(field)

    for name in (
        "../../etc/passwd",
        "/etc/passwd",
        "..\\..\\boot.ini",
        "a//b",
        "../..",
    ):
        assert await knock(field, name) == 101

    assert _files(field) == before


@story("R2", "a thousand names, one after the other", dialects=(WEBSOCKET,), lines=(0,))
async def many_names(field: Field) -> None:
    before = (await field.house.counters())["collab_rooms"]

    for at in range(1_000):
        peer = await field.open(f"/ws/{field.room}-{at}")
        await peer.until(lambda peer=peer: bool(peer.messages))
        peer.reset()

    # Rooms that nobody wrote in are not kept.
    after = (await field.house.counters())["collab_rooms"]
    assert after - before < 50


ROWS = [
    many_names,
    *(
        _harmless("R1", path, path)
        for path in (
            "/ws/../../etc/passwd",
            "/ws/..%2f..%2fetc%2fpasswd",
            "/ws/%2e%2e/%2e%2e/etc/passwd",
            "/ws/%252e%252e%252fetc",
            "/ws//etc/passwd",
            "/ws/a\\..\\b",
            "/ws/a%5c..%5cb",
            "/ws/.",
            "/ws/..",
            "/d/../ws/..",
            "/static/../../etc/passwd",
            "/static/%2e%2e/%2e%2e/etc/passwd",
            "//ws/a",
        )
    ),
    path_address,
    _refused("R2", "a name of 257 bytes", "x" * 257, "x" * 257),
    _refused("R2", "a name of 4 KB", "x" * 3_500, "x" * 10_000),
    _refused("R2", "no name", "", ""),
    _refused("R2", "a blank name", "%20%20", "  "),
    _refused("R2", "a dot", "%2e", "."),
    _refused("R2", "two dots", ".%2E", ".."),
    _distinct("R2", "a name of 256 bytes", lambda room: [(room + "x" * 256)[:256]]),
    _refused("R3", "a name in normal form D", "e%CC%81", "e\u0301"),
    _distinct(
        "R3",
        "names that look alike",
        lambda room: [
            room + "a",
            room + "\u0430",
            room + "a\u200b",
            room + "a\u200d",
            room + "\uff41",
            room + "\uff0f",
        ],
    ),
    *(
        _refused("R4", f"a name with {name}", f"a{quoted}b", address)
        for name, quoted, address in (
            ("NUL", "%00", "a\0\0b"),
            ("CR and LF", "%0d%0a", "a\r\nb"),
            ("a tab", "%09", "a\tb"),
            ("DEL", "%7f", "a\x7fb"),
            ("a control character of the second row", "%c2%85", "a\x85b"),
            ("a line separator", "%e2%80%a8", "a\u2028b"),
        )
    ),
    _distinct(
        "R5",
        "patterns of other systems",
        lambda room: [
            room + "ab",
            room + "*",
            room + "?",
            room + "[ab]",
            room + "{ab}",
            room + "%",
            room + "_",
        ],
    ),
    _distinct(
        "R6",
        "separators",
        lambda room: [
            f"{room}:a:b",
            f"{room}:a",
            f"{room}:ab",
            f"{room}|a",
            f"{room}\\a",
        ],
    ),
    _distinct(
        "R6",
        "slashes",
        lambda room: [
            f"{room}/a/b",
            f"{room}/a",
            f"{room}/",
            f"{room}//a",
            f"/{room}/a",
        ],
        SLASHED,
    ),
    two_rooms,
    reserved,
    _distinct(
        "R8",
        "upper and lower case",
        lambda room: [
            room + "a",
            room + "A",
            room + "\u00e5",
            room + "\u00c5",
            room + "\u00df",
            room + "SS",
        ],
    ),
    *(
        _refused("R9", f"a path with {name}", spelt)
        for name, spelt in (
            ("an overlong slash", "a%c0%afb"),
            ("an overlong NUL", "a%c0%80b"),
            ("half a surrogate pair", "a%ed%a0%80b"),
            ("bytes that are no UTF-8", "a%ff%feb"),
        )
    ),
    # y-websocket clients write a name into the URL as it is: "50% off" must reach its room.
    *(
        _harmless("R9", f"a percent sign that escapes nothing: {spelt}", f"/ws/{spelt}")
        for spelt in ("a%zzb", "a%", "a%2", "%%%")
    ),
    _refused("R9", "an address that is not UTF-8", "a%ff", b"a\xff"),
]
