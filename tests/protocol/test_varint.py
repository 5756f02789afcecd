"""lib0's numbers, bytes and strings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import InvalidMessage
from collab.protocol.varint import (
    MAX_NUMBER,
    Reader,
    encode_bytes,
    encode_signed,
    encode_string,
    encode_varint,
)


@given(st.integers(0, MAX_NUMBER))
def test_a_number_comes_back(number: int) -> None:
    reader = Reader(encode_varint(number))

    assert reader.read_varint() == number
    assert reader.at_end


@given(st.binary(max_size=300))
def test_bytes_come_back(content: bytes) -> None:
    reader = Reader(b"before" + encode_bytes(content), 6)

    assert reader.read_bytes() == content
    assert reader.at_end


@given(st.text(max_size=300))
def test_a_string_comes_back(text: str) -> None:
    reader = Reader(encode_string(text))

    assert reader.read_string(1200) == text


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16383, "ff7f"),
        (16384, "808001"),
        (2**32 - 1, "ffffffff0f"),
        (MAX_NUMBER, "ffffffffffffff0f"),
    ],
)
def test_a_number_has_the_bytes_that_lib0_gives_it(number: int, encoded: str) -> None:
    assert encode_varint(number).hex() == encoded


@given(st.integers(-MAX_NUMBER, MAX_NUMBER))
def test_a_signed_number_comes_back(number: int) -> None:
    reader = Reader(encode_signed(number))

    assert reader.read_signed() == number
    assert reader.at_end


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (-1, "41"),
        (63, "3f"),
        (64, "8001"),
        (-64, "c001"),
        (8192, "808001"),
        (-MAX_NUMBER, "ffffffffffffff1f"),
    ],
)
def test_a_signed_number_has_the_bytes_that_lib0_gives_it(
    number: int, encoded: str
) -> None:
    assert encode_signed(number).hex() == encoded


@pytest.mark.parametrize("hostile", [b"", b"\x80", b"\x80\x00", b"\xff" * 20])
def test_a_misspelt_signed_number_is_invalid(hostile: bytes) -> None:
    with pytest.raises(InvalidMessage):
        Reader(hostile).read_signed()


def test_what_was_read_is_not_read_again() -> None:
    reader = Reader(encode_varint(300) + encode_string("é") + encode_bytes(b"\0"))

    read = (reader.read_varint(), reader.read_string(2), reader.read_bytes())
    reader.expect_end()

    assert read == (300, "é", b"\0")


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"\x80",
        b"\xff" * 20,
        b"\x80\x80\x00",  # zero, padded
        b"\xff\x00",
        b"\xff\xff\xff\xff\xff\xff\xff\x10",  # 2^53
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    ],
)
def test_a_misspelt_number_is_invalid(hostile: bytes) -> None:
    with pytest.raises(InvalidMessage):
        Reader(hostile).read_varint()


@pytest.mark.parametrize("hostile", [b"", b"\x01", b"\x05abcd", b"\xff\xff\xff\x7f"])
def test_a_length_beyond_the_frame_is_invalid(hostile: bytes) -> None:
    with pytest.raises(InvalidMessage):
        Reader(hostile).read_bytes()


@pytest.mark.parametrize(
    "hostile",
    [b"\x01\xff", b"\x03\xed\xa0\xbd", b"\x02\xc0\x80", b"\x06abcdef"],
    ids=["not UTF-8", "half a surrogate pair", "overlong", "over the limit"],
)
def test_a_bad_string_is_invalid(hostile: bytes) -> None:
    with pytest.raises(InvalidMessage):
        Reader(hostile).read_string(5)


def test_an_unpaired_surrogate_is_sent_as_the_replacement_character() -> None:
    assert encode_string("a\ud83db😀") == encode_string("a\ufffdb😀")


def test_bytes_after_the_message_are_invalid() -> None:
    reader = Reader(b"\x01\x02")

    reader.read_varint()

    with pytest.raises(InvalidMessage):
        reader.expect_end()


@given(
    st.binary(max_size=40),
    st.lists(st.sampled_from(["varint", "signed", "bytes", "string"])),
)
def test_random_bytes_raise_nothing_but_invalid_message(
    frame: bytes, kinds: list[str]
) -> None:
    reader = Reader(frame)
    read = {
        "varint": reader.read_varint,
        "signed": reader.read_signed,
        "bytes": reader.read_bytes,
        "string": lambda: reader.read_string(20),
    }

    try:
        for kind in kinds:
            read[kind]()
            assert reader.at <= len(frame)
    except InvalidMessage:
        pass
