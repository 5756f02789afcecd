"""Frames as a server sends them, and the one that it must know again."""

from __future__ import annotations

import pytest

from collab.protocol.frames import close_frame, frame, is_farewell


def masked(opcode: int, content: bytes) -> bytes:
    """A short frame of a client."""
    return bytes((0x80 | opcode, 0x80 | len(content))) + b"mask" + content


@pytest.mark.parametrize("length", [0, 2, 3, 50, 125])
@pytest.mark.parametrize("before", [b"", b"x", masked(2, b"message") * 9])
def test_a_close_frame_at_the_end_is_a_farewell(length: int, before: bytes) -> None:
    assert is_farewell(before + masked(8, b"r" * length))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x88",
        b"\x88\x80mas",
        masked(2, b"message"),
        masked(9, b""),
        masked(8, b"\x03\xe8") + b"x",
        masked(8, b"\x03\xe8")[:-1],
        bytes(10_000),
    ],
)
def test_anything_else_is_none(data: bytes) -> None:
    assert not is_farewell(data)


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536])
def test_a_message_is_one_frame_with_its_length(length: int) -> None:
    made = frame(b"m" * length)

    head = 2 if length < 126 else 4 if length < 65_536 else 10
    assert made[0] == 0x82
    assert len(made) == head + length


def test_a_reason_is_cut_between_characters() -> None:
    made = close_frame(4400, "ä" * 100)

    assert made[1] == len(made) - 2 <= 125
    assert made[4:].decode() == "ä" * 61
