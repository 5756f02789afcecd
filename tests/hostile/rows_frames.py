"""W: frames that RFC 6455 forbids, and frames that cost too much."""

from __future__ import annotations

import time
import zlib

from catalogue import Field, Row, closes, counted, flood, raw, shout, stays, story
from peer import HOCUSPOCUS, PATIENCE, WEBSOCKET, YSWEET, Peer
from wire import (
    BINARY_FRAME,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    awareness,
    close_frame,
    frame,
    insertion,
    read_awareness,
    update_of,
)


def _broken(name: str, *frames: bytes) -> Row:
    return closes("W1", name, 1002, raw(*frames))


def _close(name: str, content: bytes, codes: tuple[int, ...] = (1002,)) -> Row:
    return closes("W10", name, codes, raw(frame(content, CLOSE)))


@story(
    "W7",
    "a deflate bomb though nobody offered to inflate",
    lines=(1,),
    counter=counted(1002),
)
async def deflate_bomb(field: Field) -> None:
    peer = await field.open(
        None, ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")
    )

    peer.write(frame(zlib.compress(b"\0" * 1_000_000)[2:-4], rsv=4))

    assert await peer.closed() == 1002


async def _deflate_noise(peer: Peer) -> None:
    peer.write(frame(b"\xff" * 100, rsv=4))


@story("W11", "messages after the close frame", lines=(0,))
async def after_close(field: Field) -> None:
    peer, witness = await field.join(), await field.join()

    peer.write(close_frame(1000))
    peer.say(update_of(insertion(7, 0, "late")))

    assert await peer.closed() == 1000
    assert b"late" not in await witness.document()


async def _until_gone(field: Field, sockets: float) -> None:
    """The server has forgotten the connection; asked again and again for as long as any answer may take."""
    deadline = time.monotonic() + PATIENCE
    while (await field.house.counters())["collab_sockets"] > sockets:
        assert time.monotonic() < deadline, "the socket is still counted"


@story("W11", "half closed", lines=(0,))
async def half_closed(field: Field) -> None:
    before = (await field.house.counters())["collab_sockets"]
    peer = await field.join()

    peer.writer.write_eof()

    await peer.closed()
    await _until_gone(field, before)


@story("W11", "reset inside a frame", lines=(0,))
async def reset_inside(field: Field) -> None:
    before = (await field.house.counters())["collab_sockets"]
    peer = await field.join()
    peer.write(frame(b"x" * 10, length=1000))
    await peer.writer.drain()

    peer.reset()

    await _until_gone(field, before)


@story("W11", "reset by a member that others see", lines=(0,))
async def reset_seen(field: Field) -> None:
    peer, witness = await field.join(), await field.join()
    peer.say(awareness((70, 1, "{}")))
    await witness.until(lambda: (70, b"{}") in _states(witness))

    peer.reset()

    await witness.until(lambda: (70, b"null") in _states(witness), 1)


def _states(peer: Peer) -> set[tuple[int, bytes]]:
    return {
        (client, json)
        for message in peer.answers(b"\x01")
        for client, _, json in read_awareness(message)
    }


ROWS = [
    _broken("without a mask", frame(b"\x03", mask=None)),
    *(
        _broken(f"reserved bits {rsv:03b}", frame(b"\x03", rsv=rsv))
        for rsv in range(1, 8)
    ),
    *(
        _broken(f"reserved opcode {code}", frame(b"\x03", code))
        for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    ),
    _broken("a ping of 126 bytes", frame(b"x" * 126, PING)),
    _broken("a close of 126 bytes", frame(b"\x03\xe8" + b"x" * 124, CLOSE)),
    _broken("a ping in parts", frame(b"x", PING, fin=False)),
    _broken("a continuation of nothing", frame(b"x", CONTINUATION)),
    _broken("a message inside another", frame(b"x", fin=False), frame(b"x")),
    closes("W2", "text", 1003, raw(frame(b"hello", TEXT))),
    closes("W2", "empty text", 1003, raw(frame(b"", TEXT))),
    closes(
        "W2",
        "text in parts",
        1003,
        raw(frame(b"a", TEXT, fin=False), frame(b"b", CONTINUATION)),
    ),
    closes("W3", "text that is not UTF-8", (1003, 1007), raw(frame(b"\xff\xfe", TEXT))),
    closes(
        "W4", "a claimed length of 2^63-1", 1009, raw(frame(b"x", length=2**63 - 1))
    ),
    closes(
        "W4", "a claimed length of 2^63", (1002, 1009), raw(frame(b"x", length=2**63))
    ),
    closes(
        "W4", "a claimed length of 17 MB", 1009, raw(frame(b"x", length=17_000_000))
    ),
    closes("W4", "17 MB", 1009, flood(lambda: frame(b"x" * 17_000_000))),
    closes("W4", "one byte too many", 1009, flood(lambda: frame(b"x" * 1_048_577))),
    closes(
        "W5",
        "4 MB in parts of 64 bytes",
        1009,
        flood(lambda: frame(b"x" * 64, fin=False)),
        flood(lambda: frame(b"x" * 64, CONTINUATION, fin=False) * 65_536),
    ),
    closes(
        "W6",
        "a million empty parts",
        (1002, 1009, 4429),
        raw(frame(b"", fin=False)),
        flood(lambda: frame(b"", CONTINUATION, fin=False) * 100_000, 10),
        counter="collab_closes_total",
    ),
    deflate_bomb,
    closes("W8", "a compressed frame that is none", 1002, _deflate_noise),
    closes("W9", "pings", 4429, flood(lambda: frame(b"", PING) * 10_000, 10)),
    closes(
        "W9", "full pings", 4429, flood(lambda: frame(b"x" * 125, PING) * 10_000, 10)
    ),
    closes("W9", "pongs", 4429, flood(lambda: frame(b"", PONG) * 10_000, 10)),
    stays("W9", "a pong that nobody asked for", raw(frame(b"hello", PONG)), lines=(0,)),
    stays(
        "W9",
        "a ping between two parts",
        raw(
            frame(b"\x03", BINARY_FRAME, fin=False),
            frame(b"", PING),
            frame(b"", CONTINUATION),
        ),
        lines=(0,),
        dialects=(WEBSOCKET, YSWEET),
    ),
    *(
        _close(f"close code {code}", code.to_bytes(2, "big"))
        for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65_535)
    ),
    _close("a close of one byte", b"\x03"),
    _close(
        "a close with a reason that is not UTF-8", b"\x03\xe8\xff\xfe", (1002, 1007)
    ),
    after_close,
    half_closed,
    reset_inside,
    reset_seen,
    closes("W12", "an empty message", 4400, shout(b"")),
    closes(
        "W13",
        "100,000 messages of one byte",
        4429,
        flood(lambda: frame(b"\x03") * 10_000, 10),
        dialects=(WEBSOCKET, YSWEET),
    ),
    closes(
        "W13",
        "100,000 messages of one byte",
        4429,
        flood(lambda: frame(b"\x0a") * 10_000, 10),
        dialects=(HOCUSPOCUS,),
    ),
]
