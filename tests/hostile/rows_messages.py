"""V: numbers, strings and types of messages. S: updates and state vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from catalogue import Field, Row, closes, counted, shout, stays, story
from peer import HOCUSPOCUS, WEBSOCKET, YSWEET, Peer, authentication
from pycrdt import Doc, Text
from wire import (
    ANY,
    BINARY,
    DELETED,
    EMBED,
    FORMAT,
    GC,
    MOVE,
    NOTHING,
    SKIP,
    STRING,
    SUBDOCUMENT,
    TYPE,
    any_of,
    awareness,
    deletes,
    frame,
    insertion,
    item,
    padded,
    section,
    state_vector,
    step_1,
    step_2,
    string,
    update,
    update_of,
    varint,
)

Make = Callable[[], bytes]

PLAIN = (WEBSOCKET, YSWEET)  # no address before the message
HELLO = insertion(9, 0, "hello")
HUGE = b"\xff" * 7 + b"\x7f"  # 2^56 - 1 in eight bytes


def _bad(id: str, name: str, codes: int | tuple[int, ...], content: bytes) -> list[Row]:
    """An update that must be refused, pushed and as an answer."""
    return [
        closes(id, f"{name} (update)", codes, update_of(content)),
        closes(id, f"{name} (step 2)", codes, step_2(content)),
    ]


def _refused(
    id: str,
    name: str,
    codes: int | tuple[int, ...],
    *contents: bytes | Make,
    house: str = "plain",
) -> Row:
    return closes(
        id, name, codes, *(_said(content) for content in contents), house=house
    )


def _said(content: bytes | Make) -> bytes | Make:
    if isinstance(content, bytes):
        return update_of(content)
    return lambda: update_of(content())


def _inert(name: str, *contents: bytes) -> Row:
    return stays(
        "S18", name, *(update_of(content) for content in contents), or_closes=(4400,)
    )


# V


@story("V9", "a room name that turns a line of the log around", lines=(1,))
async def turning_name(field: Field) -> None:
    since = len(field.house.lines)
    field.room = f"\u202eevil\ufeff\u200b-{field.room}"
    peer = await field.join()

    peer.shout(b"")

    assert await peer.closed() == 4400
    await field.house.incidents(since)
    for line in field.house.raw_lines[since:]:
        assert line.isascii()
        assert all(byte >= 32 or byte == 10 for byte in line)


V_ROWS = [
    closes("V1", "twenty times 255", 4400, b"\xff" * 20),
    closes("V1", "twenty times 255, no address", 4400, shout(b"\xff" * 20)),
    closes("V2", "a padded type", 4400, b"\x80\x80\x00" + b"\x00\x01\x00"),
    closes("V2", "a padded length", 4400, b"\x00\x00" + padded(1, 3) + b"\x00"),
    closes(
        "V2",
        "a padded clock in an update",
        4400,
        update_of(update(b"\x01\x09\x80\x00" + item(STRING, string("x")))),
    ),
    closes("V2", "nine bytes of zero", 4400, b"\x80" * 8 + b"\x00" + b"\x00\x01\x00"),
    closes("V3", "a type over 2^53", 4400, HUGE),
    closes("V3", "a length over 2^53", 4400, b"\x00\x00" + HUGE),
    closes(
        "V3",
        "a presence client over 2^53",
        4400,
        b"\x01" + string(b"\x01" + varint(2**53) + b"\x01" + string("{}")),
    ),
    closes(
        "V3",
        "a presence client of 2^80",
        4400,
        b"\x01" + string(b"\x01" + varint(2**80) + b"\x01" + string("{}")),
    ),
    closes("V4", "a length beyond the end", 4400, b"\x00\x02\x7f" + HELLO),
    closes(
        "V4",
        "a length one beyond the end",
        4400,
        b"\x00\x02" + varint(len(HELLO) + 1) + HELLO,
    ),
    closes("V4", "a presence length beyond the end", 4400, b"\x01\x7f\x00"),
    closes("V5", "a byte behind a message", 4400, update_of(HELLO) + b"\x00"),
    closes("V5", "a byte behind a state vector", 4400, step_1(b"\x00\x00")),
    closes("V5", "a byte behind an update", 4400, update_of(HELLO + b"\x00")),
    closes("V5", "a byte behind a presence", 4400, b"\x01" + string(b"\x00\x00")),
    stays(
        "V6",
        "ten messages of unknown types",
        *(bytes((kind,)) for kind in range(20, 30)),
    ),
    closes(
        "V6",
        "eleven messages of unknown types",
        4400,
        *(bytes((kind,)) for kind in range(20, 31)),
    ),
    stays(
        "V7", "an authentication message", b"\x02\x00" + string("no"), dialects=PLAIN
    ),
    closes(
        "V8",
        "an update with text that is not UTF-8",
        4400,
        update_of(insertion(9, 0, b"\xff\xfe")),
    ),
    closes(
        "V8",
        "an update with half a surrogate pair",
        4400,
        update_of(insertion(9, 0, b"\xed\xa0\x80")),
    ),
    closes(
        "V8",
        "a root that is not UTF-8",
        4400,
        update_of(update(section(9, 0, item(STRING, string("a"), root=b"\xc0\xaf")))),
    ),
    closes(
        "V8", "a presence that is not UTF-8", 4400, awareness((9, 1, b'{"a":"\xff"}'))
    ),
    closes(
        "V8",
        "an address that is not UTF-8",
        4400,
        shout(string(b"\xff") + step_1()),
        dialects=(HOCUSPOCUS,),
    ),
    closes(
        "V8",
        "a token that is not UTF-8",
        4400,
        b"\x02\x00" + string(b"\xff"),
        dialects=(HOCUSPOCUS,),
    ),
    turning_name,
]


# S


async def _grown(field: Field, kilobytes: int) -> Peer:
    """A member of a room of that size."""
    author = await field.join()
    text = "x" * 100_000
    for at in range(kilobytes // 100):
        author.say(update_of(insertion(500 + at, 0, text)))
    await author.document()
    return author


@story("S4", "5,000 times: what have you got?", lines=(1,), counter=counted(4429))
async def step_1_flood(field: Field) -> None:
    await _grown(field, 500)
    peer = await field.join()

    await peer.flood(frame(field.dialect.wrap(field.room, step_1())) * 500, 10)

    assert await peer.closed(30) == 4429


@story(
    "S4",
    "asking on and never listening",
    house="hurried",
    lines=(0, 1),
    counter=counted(4429, 1013),
)
async def deaf_step_1_flood(field: Field) -> None:
    await _grown(field, 500)
    peer = await field.join(receive_buffer=4096)
    peer.stop_reading()
    before = await field.house.counters()

    flooding = asyncio.create_task(
        peer.flood(frame(field.dialect.wrap(field.room, step_1())) * 500, 10)
    )

    await field.grows(counted(4429, 1013), before, 10)

    flooding.cancel()


@story("S6", "an update before the step 1")
async def update_first(field: Field) -> None:
    peer = await field.open()
    if field.dialect is HOCUSPOCUS:
        peer.say(update_of(HELLO))
        peer.say(authentication())
    else:
        peer.say(update_of(HELLO))

    assert b"hello" in await peer.document()


def _cuts() -> Row:
    whole = update(
        section(
            9,
            0,
            item(STRING, string("hé")),
            item(TYPE, b"\x01", root="map"),
            item(ANY, b"\x01\x77" + string("v"), parent=(9, 2), key="k"),
        ),
        section(8, 0, item(STRING, string("x"), origin=(9, 0), right=(9, 1))),
        gone=deletes((9, [(0, 1)])),
    )

    async def act(field: Field) -> None:
        witness = await field.join()
        for at in range(1, len(whole)):
            peer = await field.join()
            peer.say(update_of(whole[:at]))
            assert await peer.closed() == 4400, at
            await peer.leave()

        witness.say(update_of(whole))

        assert b"map" in await witness.document()

    return Row(
        id="S7",
        name="cut short at every place",
        act=act,
        lines=(len(whole) - 1,),
        counter=counted(4400),
    )


@story("S10", "an object that claims 2^26 keys", lines=(1,), counter=counted(4400))
async def claimed_object(field: Field) -> None:
    peer = await field.join()

    peer.say(update_of(any_of(b"\x76" + varint(2**26))))

    assert await peer.closed() == 4400


def _nested() -> bytes:
    """10,000 shared arrays, each inside the one before."""
    inner = [item(TYPE, b"\x00", parent=(3, at)) for at in range(9_999)]
    return update(section(3, 0, item(TYPE, b"\x00", root="array"), *inner))


ORPHAN = item(STRING, string("x"), origin=(5, 5))  # waits for one that never comes


def _erasures(client: int, count: int) -> bytes:
    """Deleted ranges of a client that nobody knows."""
    spans = b"".join(varint(clock) + b"\x01" for clock in range(count))
    return b"\x00\x01" + varint(client) + varint(count) + spans


def _orphans(client: int, count: int) -> bytes:
    """Structs that all wait for one that never comes."""
    return update(section(client, 0, ORPHAN * count, count=count))


@story(
    "S17",
    "2 MB that wait for what never comes, others beside it",
    lines=(0, 1),
    dialects=(WEBSOCKET,),
)
async def heavy_messages(field: Field) -> None:
    """However much each of them asks for: `liveness` holds what others may notice of it."""
    peer = await field.join()
    heavy = [_erasures(client, 100_000) for client in range(7, 10)]
    heavy += [_orphans(client, 80_000) for client in range(10, 13)]
    since = await field.house.counters()

    for content in heavy:
        peer.say(update_of(content))

    await field.grows(f"collab_throttles_total|{counted(4413)}", since, 30)


@story(
    "S19",
    "content under the client id of another member",
    counter="client_id_conflicts",
    lines=(1,),
)
async def forged_client_audited(field: Field) -> None:
    owner, forger = await field.join(), await field.join()
    owner.say(update_of(insertion(60, 0, "mine")))
    await forger.until(lambda: bool(forger.updates()))

    before = await field.house.counters()

    forger.say(update_of(insertion(60, 4, "forged", origin=(60, 3))))

    assert b"mine" in await forger.document()
    await owner.document()
    await field.grows("client_id_conflicts", before, 3)


@story(
    "S19",
    "content under the client id of another member, enforced",
    house="enforcing",
    lines=(1,),
    counter=counted(4409),
)
async def forged_client_refused(field: Field) -> None:
    owner, forger = await field.join(), await field.join()
    owner.say(update_of(insertion(60, 0, "mine")))
    await forger.until(lambda: bool(forger.updates()))

    forger.say(update_of(insertion(60, 4, "forged", origin=(60, 3))))

    assert await forger.closed() == 4409
    assert b"forged" not in await owner.document()


@story("S25", "30,000 writers at one point", lines=(0, 1))
async def many_writers(field: Field) -> None:
    peer = await field.join()
    crowd = update(
        *(
            section(client, 0, item(STRING, string("x")))
            for client in range(1_000, 31_000)
        )
    )
    worked = field.house.cpu_seconds()

    peer.say(update_of(crowd))

    try:
        assert len(await peer.document()) > 30_000
        assert field.house.cpu_seconds() - worked < 3
    except AssertionError:
        assert await peer.closed() == 4413


def _before_each(characters: int) -> bytes:
    """Insertions at the beginning, each before another character of a text: every one is compared with all others."""
    crafted = [item(STRING, string("x"), right=(100, at)) for at in range(characters)]
    return update(section(200, 0, *crafted))


TEXT = "some words that are there "  # 26 characters


@story(
    "S25",
    "an insertion before each of 9,000 characters",
    lines=(1,),
    counter=counted(4413),
)
async def insertions_before_each(field: Field) -> None:
    """Native code would take 10 s for these 54 KB."""
    witness, peer = await field.join(), await field.join()
    witness.say(update_of(insertion(100, 0, TEXT * 350)))
    await peer.until(lambda: bool(peer.updates()))
    worked = field.house.cpu_seconds()

    peer.say(update_of(_before_each(9_000)))

    assert await peer.closed() == 4413
    assert field.house.cpu_seconds() - worked < 2
    fresh = await field.join()
    kept = await fresh.document()
    assert kept.count(b"\x01x") > 64
    assert len(await witness.document()) == len(kept)


@story("S26", "a surrogate pair split by two members")
async def split_pair(field: Field) -> None:
    one, two = await field.join(), await field.join()
    one.say(update_of(insertion(50, 0, "\U0001f600")))
    await two.until(lambda: bool(two.updates()))
    two.say(
        update_of(
            update(
                section(51, 0, item(STRING, string("x"), origin=(50, 0), right=(50, 1)))
            )
        )
    )
    await one.until(lambda: len(one.updates()) >= 2)
    one.say(update_of(update(gone=deletes((50, [(0, 1)])))))
    await two.document()

    newcomer = await field.join()
    document: Doc[Text] = Doc()
    text = document.get("text", type=Text)
    document.apply_update(await newcomer.document())

    assert "x" in str(text)
    assert await one.document()


def _updates_of(counters: dict[str, float]) -> float:
    return counters["collab_updates_total"]


@story("S27", "the same update 100,000 times", lines=(1,), counter=counted(4429))
async def repeats(field: Field) -> None:
    peer = await field.join()
    await peer.document()
    before, beside = await field.house.counters(), field.pair.sent

    await peer.flood(
        frame(field.dialect.wrap(field.room, update_of(HELLO))) * 1_000, 100
    )

    assert await peer.closed() == 4429
    after = await field.house.counters()
    assert _updates_of(after) - _updates_of(before) <= field.pair.sent - beside + 2


@story("S28", "all content deleted by a writer")
async def mass_deletion(field: Field) -> None:
    author, vandal = await field.join(), await field.join()
    author.say(update_of(insertion(40, 0, "w" * 1_000)))
    await vandal.until(lambda: bool(vandal.updates()))

    vandal.say(update_of(update(gone=deletes((40, [(0, 1_000)])))))

    await author.until(lambda: len(author.updates()) >= 1)
    assert b"www" not in await vandal.document()
    await author.document()


BIG = "x" * 600_000  # over the bound of one update, under that of a message

S_ROWS = [
    *(
        closes("S1", f"sync message {step}", 4400, bytes((0, step)) + string(NOTHING))
        for step in (3, 4, 100)
    ),
    closes("S2", "a state vector of 2^40 clients", 4400, step_1(varint(2**40))),
    closes("S2", "a state vector of 2^28 clients", 4400, step_1(varint(2**28))),
    closes("S3", "a client twice", 4400, step_1(state_vector((7, 1), (7, 2)))),
    closes("S3", "a clock of 2^53", 4400, step_1(state_vector((7, 2**53)))),
    closes("S3", "a clock of 2^32", 4400, step_1(state_vector((7, 2**32)))),
    closes("S3", "a state vector cut short", 4400, step_1(b"\x02\x07\x01")),
    closes("S3", "an empty state vector message", 4400, step_1(b"")),
    step_1_flood,
    deaf_step_1_flood,
    update_first,
    *_bad("S7", "empty", 4400, b""),
    *_bad("S7", "one byte", 4400, b"\x00"),
    *_bad("S7", "one byte of 1", 4400, b"\x01"),
    *_bad("S7", "three zeros", 4400, b"\x00" * 3),
    *_bad("S7", "a thousand zeros", 4400, b"\x00" * 1_000),
    stays("S7", "nothing, well said", update_of(NOTHING), step_2(NOTHING), lines=(0,)),
    _cuts(),
    *_bad("S8", "2^28 clients", 4400, varint(2**28) + b"\x00"),
    *_bad("S9", "2^31 structs", 4400, b"\x01" + varint(2**31) + b"\x07\x00"),
    _refused("S9", "2^40 structs", 4400, b"\x01" + varint(2**40) + b"\x07\x00"),
    _refused("S9", "no structs", 4400, b"\x01\x00\x07\x00\x00"),
    claimed_object,
    _refused(
        "S10", "an array that claims 2^40 values", 4400, any_of(b"\x75" + varint(2**40))
    ),
    _refused(
        "S10", "2^40 values", 4400, update(section(1, 0, item(ANY, varint(2**40))))
    ),
    *(
        _refused(
            "S11", f"arrays {depth} deep", 4400, any_of(b"\x75\x01" * depth + b"\x7e")
        )
        for depth in (65, 5_000, 30_000, 200_000)
    ),
    *(
        _refused(
            "S11",
            f"objects {depth} deep",
            4400,
            any_of(b"\x76\x01\x01a" * depth + b"\x7e"),
        )
        for depth in (65, 5_000, 30_000)
    ),
    *(
        _refused(
            "S11",
            f"JSON {depth} deep",
            4400,
            update(section(1, 0, item(EMBED, string("[" * depth + "]" * depth)))),
        )
        for depth in (65, 5_000, 30_000)
    ),
    stays(
        "S11",
        "arrays 60 deep",
        update_of(any_of(b"\x75\x01" * 60 + b"\x7e")),
        lines=(0,),
    ),
    _refused("S12", "10,000 shared arrays inside each other", 4413, _nested),
    *(
        _refused(
            "S13",
            f"garbage of length {length}",
            4400,
            update(section(7, 0, bytes((GC,)) + varint(length))),
        )
        for length in (0, 2**31, 2**32 - 1)
    ),
    _refused(
        "S13",
        "a gap of length 2^32-1",
        4400,
        update(section(7, 0, bytes((SKIP,)) + varint(2**32 - 1))),
    ),
    _refused(
        "S13",
        "something deleted of length 2^32-1",
        4400,
        update(section(7, 0, item(DELETED, varint(2**32 - 1)))),
    ),
    _refused(
        "S14", "a clock of 2^32-1 and a length", 4400, insertion(7, 2**32 - 1, "ab")
    ),
    _refused(
        "S14", "a clock of 2^31-1 and a length", 4400, insertion(7, 2**31 - 1, "ab")
    ),
    stays(
        "S14",
        "an origin beyond 2^32, for which it waits for ever",
        update_of(insertion(7, 0, "a", origin=(8, 2**33))),
        or_closes=(4400,),
    ),
    _refused(
        "S15",
        "a deleted range beyond 2^32",
        4400,
        update(gone=deletes((7, [(2**32 - 1, 5)]))),
    ),
    _refused(
        "S15",
        "a deleted range of length 2^32-1",
        4400,
        update(gone=deletes((7, [(1, 2**32 - 1)]))),
    ),
    _refused(
        "S15", "a deleted range of no length", 4400, update(gone=deletes((7, [(1, 0)])))
    ),
    _refused(
        "S16",
        "500,000 deleted ranges",
        4413,
        lambda: b"\x00\x01\x07" + varint(500_000) + b"\x00\x01" * 500_000,
    ),
    _refused(
        "S16",
        "deleted ranges of unknown clients, more than may wait",
        4413,
        *(partial(_erasures, client, 8_000) for client in range(7, 17)),
        house="tight",
    ),
    _refused(
        "S17",
        "structs that wait for others, more than may wait",
        4413,
        *(partial(_orphans, client, 8_000) for client in range(10, 20)),
        house="tight",
    ),
    heavy_messages,
    _inert(
        "its own left neighbour",
        update(section(1, 0, item(STRING, string("a"), origin=(1, 0)))),
    ),
    _inert(
        "its own right neighbour",
        update(section(1, 0, item(STRING, string("a"), right=(1, 0)))),
    ),
    _inert("its own parent", update(section(1, 0, item(TYPE, b"\x00", parent=(1, 0))))),
    _inert("a later left neighbour", insertion(1, 0, "a", origin=(1, 5))),
    _inert(
        "neighbours of each other",
        update(
            section(1, 0, item(STRING, string("a"), origin=(2, 0))),
            section(2, 0, item(STRING, string("b"), origin=(1, 0))),
        ),
    ),
    _inert(
        "parents of each other",
        update(
            section(1, 0, item(TYPE, b"\x00", parent=(2, 0))),
            section(2, 0, item(TYPE, b"\x00", parent=(1, 0))),
        ),
    ),
    _inert(
        "a right neighbour left of the left one",
        insertion(1, 0, "abc"),
        update(section(2, 0, item(STRING, string("x"), origin=(1, 2), right=(1, 0)))),
    ),
    _inert(
        "a deleted parent",
        update(
            section(1, 0, item(TYPE, b"\x00", root="array")),
            gone=deletes((1, [(0, 1)])),
        ),
        update(section(2, 0, item(STRING, string("a"), parent=(1, 0)))),
    ),
    _inert(
        "a parent that is text",
        insertion(1, 0, "abc"),
        update(section(2, 0, item(STRING, string("a"), parent=(1, 1)))),
    ),
    _inert(
        "a left neighbour in another parent",
        insertion(1, 0, "abc", root="a"),
        insertion(2, 0, "x", root="b"),
        update(section(3, 0, item(STRING, string("y"), origin=(1, 0), right=(2, 0)))),
    ),
    forged_client_audited,
    forged_client_refused,
    stays("S20", "client id 0", update_of(insertion(0, 0, "zero")), lines=(0,)),
    stays(
        "S20",
        "client id 2^53-1",
        update_of(insertion(2**53 - 1, 0, "last")),
        lines=(0,),
    ),
    _refused("S20", "client id 2^53", 4400, insertion(2**53, 0, "over")),
    _refused("S20", "client id 2^63", 4400, insertion(2**63, 0, "over")),
    *_bad(
        "S21",
        "an update of version 2",
        4400,
        bytes.fromhex(
            "000003cd01010200040007040081008400280c0674686c6f6d6b410002410001010002020101040075037d017d0276010161770162014d010101"
        ),
    ),
    *(
        _refused(
            "S22",
            f"content of kind {kind}",
            4400,
            update(section(7, 0, item(kind, b"\x01a"))),
        )
        for kind in range(MOVE, 32)
    ),
    *(
        _refused(
            "S22",
            f"a shared type {kind}",
            4400,
            update(section(7, 0, item(TYPE, varint(kind)))),
        )
        for kind in (7, 8, 9, 15, 200)
    ),
    stays(
        "S22",
        "a subdocument with a foreign id",
        update_of(
            update(
                section(
                    7,
                    0,
                    item(SUBDOCUMENT, string("other-room") + b"\x76\x00", root="docs"),
                )
            )
        ),
        or_closes=(4400,),
    ),
    _refused(
        "S23",
        "an embed that is no JSON",
        4400,
        update(section(7, 0, item(EMBED, string("{{{")))),
    ),
    _refused(
        "S23",
        "a format that is no JSON",
        4400,
        update(section(7, 0, item(FORMAT, string("bold") + string("{{{")))),
    ),
    _refused(
        "S23",
        "an embed of 600 KB",
        4413,
        update(section(7, 0, item(EMBED, string(f'"{BIG}"')))),
    ),
    closes(
        "S23",
        "an embed of 1 MB",
        1009,
        update_of(
            update(section(7, 0, item(EMBED, string('"' + "x" * 1_048_576 + '"'))))
        ),
    ),
    _refused(
        "S23",
        "a format key of 600 KB",
        4413,
        update(section(7, 0, item(FORMAT, string(BIG) + string("1")))),
    ),
    _refused(
        "S23",
        "a format key of 2 KB",
        (4400, 4413),
        update(section(7, 0, item(FORMAT, string("x" * 2_000) + string("1")))),
    ),
    _refused("S24", "a root name of 600 KB", 4413, insertion(7, 0, "a", root=BIG)),
    _refused(
        "S24",
        "a root name of 257 bytes",
        (4400, 4413),
        insertion(7, 0, "a", root="x" * 257),
    ),
    *(
        stays(
            "S24",
            f"a root named {name!r}",
            update_of(insertion(7, 0, "a", root=name)),
            lines=(0,),
        )
        for name in ("\0", "__proto__", "constructor", "x" * 256, "")
    ),
    many_writers,
    insertions_before_each,
    split_pair,
    repeats,
    mass_deletion,
    stays(
        "S28",
        "bytes for content",
        update_of(update(section(7, 0, item(BINARY, string(b"\0\xff"))))),
        lines=(0,),
    ),
]

ROWS = [*V_ROWS, *S_ROWS]
