"""P: many documents on one socket, and addresses that should not be."""

from __future__ import annotations

from catalogue import ONLY_HOCUSPOCUS, Field, Row, closes, counted, shout, stays, story
from peer import Peer, authentication
from wire import QUERY_AWARENESS, frame, insertion, step_1, step_2, string, update_of

HELLO = insertion(9, 0, "hello")
AUTHENTICATION = authentication()


def _address(name: str, address: bytes) -> Row:
    return closes(
        "P2",
        name,
        4400,
        shout(string(address) + AUTHENTICATION),
        dialects=ONLY_HOCUSPOCUS,
    )


def _denied(name: str, address: bytes) -> Row:
    """A room that cannot be: that document is denied, and the socket stays for the others."""

    async def act(field: Field) -> None:
        peer = await field.join()

        peer.shout(string(address) + AUTHENTICATION)

        denial = string(address) + b"\x02\x01"
        await peer.until(
            lambda: any(heard.startswith(denial) for heard in peer.messages)
        )
        await peer.document()

    return Row(
        id="P2",
        name=name,
        act=act,
        dialects=ONLY_HOCUSPOCUS,
        lines=(1,),
        counter="closes",
    )


@story(
    "P1", "an update for a document that was not asked for", dialects=ONLY_HOCUSPOCUS
)
async def other_document(field: Field) -> None:
    peer = await field.join()
    other = field.room + "-other"

    peer.shout(string(other) + update_of(HELLO))

    assert b"hello" not in await peer.document()
    witness = await field.join(room=other)
    assert b"hello" not in await witness.document()


async def _names(peer: Peer) -> None:
    await peer.flood(
        b"".join(
            frame(string(f"{peer.room}-{at}") + AUTHENTICATION + b"")
            for at in range(10_000)
        )
    )


async def _pending_names(peer: Peer) -> None:
    await peer.flood(
        b"".join(frame(string(f"{peer.room}-{at}") + step_1()) for at in range(10_000))
    )


@story(
    "P4",
    "messages before the authentication, as many as may be",
    dialects=ONLY_HOCUSPOCUS,
)
async def early_messages(field: Field) -> None:
    peer = await field.open()

    peer.say(step_1())
    peer.say(update_of(HELLO))
    peer.say(AUTHENTICATION)

    await peer.until(lambda: bool(peer.answers(b"\x00\x01")))
    assert peer.answers(b"\x02\x02")
    await peer.until(lambda: bool(peer.answers(b"\x08")))
    assert peer.answers(b"\x08") == [b"\x08\x01"]
    assert b"hello" in await peer.document()


@story(
    "P8", "closing a document that was not opened", dialects=ONLY_HOCUSPOCUS, lines=(0,)
)
async def stray_close(field: Field) -> None:
    peer = await field.join()

    peer.shout(string(field.room + "-other") + b"\x07")

    await peer.document()


@story(
    "P2",
    "documents that cannot be, without end",
    dialects=ONLY_HOCUSPOCUS,
    lines=range(2, 15),
    counter=counted(4429),
)
async def many_denials(field: Field) -> None:
    peer = await field.join()

    await peer.flood(frame(string("bad\n") + AUTHENTICATION) * 1_000, 10)

    assert await peer.closed() == 4429


@story("P8", "closing and opening without end", dialects=ONLY_HOCUSPOCUS, lines=(0, 1))
async def open_and_close(field: Field) -> None:
    peer = await field.join()
    once = frame(string(field.room) + b"\x07") + frame(
        string(field.room) + AUTHENTICATION
    )

    await field.slowed_or_refused(peer, once * 100)


@story(
    "P8",
    "closing what is not open, without end",
    dialects=ONLY_HOCUSPOCUS,
    lines=(1,),
    counter=counted(4429),
)
async def many_stray_closes(field: Field) -> None:
    peer = await field.join()

    await peer.flood(frame(string(field.room + "-other") + b"\x07") * 1_000, 100)

    assert await peer.closed() == 4429


@story(
    "P9",
    "a stateless message as long as it may be",
    dialects=ONLY_HOCUSPOCUS,
    lines=(0,),
)
async def long_stateless(field: Field) -> None:
    peer, witness = await field.join(), await field.join()

    peer.say(b"\x05" + string("x" * 65_536))

    await witness.until(lambda: bool(witness.answers(b"\x05")))
    await peer.document()


ROWS = [
    other_document,
    many_denials,
    _denied("no address", b""),
    _denied("a blank address", b"   "),
    _address("an empty session", b"room\0"),
    _denied("an empty name", b"\0session"),
    _address("two sessions", b"room\0a\0b"),
    _address("an address of 1 KB", b"x" * 1_000),
    _denied("an address with a line break", b"room\nfake"),
    closes(
        "P3",
        "10,000 documents",
        4205,
        _names,
        is_joined=False,
        dialects=ONLY_HOCUSPOCUS,
    ),
    closes(
        "P3",
        "10,000 documents, none authenticated",
        4205,
        _pending_names,
        is_joined=False,
        dialects=ONLY_HOCUSPOCUS,
    ),
    early_messages,
    closes(
        "P4",
        "101 messages before the authentication",
        4205,
        *[QUERY_AWARENESS] * 101,
        is_joined=False,
        dialects=ONLY_HOCUSPOCUS,
    ),
    closes(
        "P4",
        "70 KB before the authentication",
        4205,
        step_2(insertion(9, 0, "x" * 70_000)),
        is_joined=False,
        dialects=ONLY_HOCUSPOCUS,
    ),
    closes(
        "P5",
        "a message for all servers",
        4403,
        b"\x06" + string("hi"),
        dialects=ONLY_HOCUSPOCUS,
    ),
    stays(
        "P5",
        "an answer between servers",
        b"\x04" + step_1()[1:],
        dialects=ONLY_HOCUSPOCUS,
    ),
    stays("P5", "a status", b"\x08\x01", dialects=ONLY_HOCUSPOCUS),
    closes(
        "P5", "eleven statuses", 4400, *[b"\x08\x01"] * 11, dialects=ONLY_HOCUSPOCUS
    ),
    stays(
        "P6",
        "authenticated twice",
        AUTHENTICATION,
        authentication(version=None),
        dialects=ONLY_HOCUSPOCUS,
        lines=(0,),
    ),
    closes(
        "P6",
        "an authentication message of the server",
        (4400, 4403),
        b"\x02\x02" + string("read-write"),
        dialects=ONLY_HOCUSPOCUS,
    ),
    closes(
        "P7",
        "a token of 20 KB",
        (4400, 4401),
        authentication("x" * 20_000),
        is_joined=False,
        dialects=ONLY_HOCUSPOCUS,
    ),
    closes(
        "P7",
        "a token of 1 MB",
        (1009,),
        authentication("x" * 1_048_576),
        is_joined=False,
        dialects=ONLY_HOCUSPOCUS,
    ),
    closes(
        "P7",
        "a version of 1 KB",
        4400,
        authentication("", "9" * 1_000),
        is_joined=False,
        dialects=ONLY_HOCUSPOCUS,
    ),
    stray_close,
    open_and_close,
    many_stray_closes,
    long_stateless,
    closes(
        "P9",
        "a stateless message of 64 KB and one byte",
        4413,
        b"\x05" + string("x" * 65_537),
        dialects=ONLY_HOCUSPOCUS,
    ),
    closes(
        "P9",
        "a stateless message of 1 MB",
        (1009, 4413),
        b"\x05" + string("x" * 1_000_000),
        dialects=ONLY_HOCUSPOCUS,
    ),
]
