"""What replicas say to each other comes back as it was said, and nothing else gets through."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import InvalidMessage
from collab.protocol import envelope
from collab.protocol.envelope import (
    Alive,
    Attending,
    Cancelled,
    Difference,
    Digest,
    Disconnected,
    Distrusted,
    Ended,
    Message,
    Presence,
    RightsChanged,
    Updates,
    WhoAttends,
    WhoIsHere,
    decode,
    encode,
)
from collab.protocol.varint import MAX_NUMBER, encode_bytes, encode_varint

KEY = b"k" * 32

names = st.text(
    st.characters(exclude_categories=("Cs",)), max_size=60
)  # at most 240 bytes
numbers = st.integers(0, MAX_NUMBER)
blobs = st.binary(max_size=80)
owned = st.lists(st.tuples(names, blobs), max_size=5)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        lambda sender, sequence, epoch, last, pairs: Updates(
            sender,
            sequence,
            epoch,
            last,
            [owner for owner, _ in pairs],
            [update for _, update in pairs],
        ),
        *(names, numbers, names, numbers, owned),
    ),
    st.builds(
        Presence,
        names,
        st.lists(st.tuples(numbers, numbers, blobs, names), max_size=5),
    ),
    st.builds(WhoIsHere, names),
    st.builds(Digest, names, names, blobs, blobs),
    st.builds(Difference, names, names, names, st.none() | blobs),
    st.builds(Ended, names),
    st.builds(RightsChanged, names),
    st.builds(Distrusted, names, names, names),
    st.builds(Alive, names, blobs),
    st.builds(WhoAttends, names, numbers, names),
    st.builds(Attending, names, names, numbers, blobs),
    st.builds(Disconnected, names, names),
    st.builds(
        Cancelled, names, st.from_regex(r"[A-Za-z0-9._~-]{1,64}", fullmatch=True), names
    ),
)
keys = st.none() | st.binary(min_size=32, max_size=64)

# As the first version wrote them. Replicas of two versions meet in every rolling restart, so these do not change.
WRITTEN: list[tuple[Message, str]] = [
    (
        Updates("a", 300, "e1", 7, ["ann", ""], [b"\x01\x02", b""]),
        "0100010101610302ac02020265310401070503616e6e0602010205000600",
    ),
    (
        Presence("a", [(5, 1, b"{}", "ann")]),
        "01000201016107010508010109027b7d0503616e6e",
    ),
    (WhoIsHere("a"), "010003010161"),
    (
        Digest("a", "e1", b"\x01", b"\xff"),
        "010004010161020265310a01010b01ff",
    ),
    (
        Difference("a", "b", "e1", b"\x00"),
        "0100050101610c016202026531060100",
    ),
    (Difference("a", "b", "e1", None), "0100050101610c016202026531"),
    (Ended("a"), "010006010161"),
    (RightsChanged("a"), "010007010161"),
    (Distrusted("a", "acme", "ann"), "0100080101610d0461636d650e03616e6e"),
    (Alive("a", b"{}"), "0100090101610f027b7d"),
    (WhoAttends("a", 300, "r"), "01000b0101611102ac02120172"),
    (Attending("a", "b", 1, b"{}"), "01000c0101610c016211010113027b7d"),
    (Disconnected("a", "c"), "01000d010161140163"),
]


def plain(kind: int, *fields: tuple[int, bytes]) -> bytes:
    """An unsigned body, written by hand."""
    return (
        b"\x01\x00"
        + encode_varint(kind)
        + b"".join(encode_varint(tag) + encode_bytes(value) for tag, value in fields)
    )


@given(messages, names, keys)
def test_every_message_comes_back(
    message: Message, channel: str, key: bytes | None
) -> None:
    assert decode(encode(message, channel, key), channel, key) == message


@pytest.mark.parametrize(("message", "written"), WRITTEN)
def test_the_bytes_of_the_first_version_do_not_change(
    message: Message, written: str
) -> None:
    assert encode(message, "room", None).hex() == written
    assert decode(bytes.fromhex(written), "room", None) == message


def test_the_signature_is_over_the_room_and_all_that_is_said() -> None:
    body = encode(WhoIsHere("a"), "room", KEY)

    content = bytes.fromhex("03010161")
    mac = hmac.digest(KEY, b"\x04room" + content, "sha256")[:16]
    assert body == b"\x01\x01" + mac + content


# What a newer replica may say


def test_unknown_fields_are_passed_over() -> None:
    body = plain(3, (99, b"new"), (1, b"a"), (MAX_NUMBER, b""))

    assert decode(body, "room", None) == WhoIsHere("a")


@pytest.mark.parametrize("kind", [0, 99, 127, 128, MAX_NUMBER])
def test_an_unknown_kind_is_no_message(kind: int) -> None:
    assert decode(plain(kind, (1, b"a")), "room", None) is None
    assert decode(plain(kind), "room", None) is None


@given(messages, names)
def test_unknown_flags_are_passed_over(message: Message, channel: str) -> None:
    body = bytearray(encode(message, channel, None))
    body[1] |= 0b1000_0000

    assert decode(bytes(body), channel, None) == message


def test_without_a_key_a_signed_message_is_read_too() -> None:
    """While a key is being introduced, one replica after the other."""
    assert decode(encode(Ended("a"), "room", KEY), "room", None) == Ended("a")


# What nobody of us has said


@given(messages, names, st.data())
def test_with_a_key_no_altered_message_is_read(
    message: Message, channel: str, data: st.DataObject
) -> None:
    body = bytearray(encode(message, channel, KEY))
    at = data.draw(st.integers(2, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))

    with pytest.raises(InvalidMessage):
        decode(bytes(body), channel, KEY)


@given(messages, names, names)
def test_with_a_key_no_message_is_read_in_another_room(
    message: Message, channel: str, other: str
) -> None:
    if channel == other:
        return
    body = encode(message, channel, KEY)

    with pytest.raises(InvalidMessage):
        decode(body, other, KEY)


@given(messages, st.binary(min_size=32, max_size=64))
def test_with_a_key_nothing_is_read_that_has_another_or_none(
    message: Message, other: bytes
) -> None:
    unsigned = encode(message, "room", None)
    bodies = [unsigned, b"\x01\x01" + bytes(16) + unsigned[2:]]
    if other != KEY:
        bodies.append(encode(message, "room", other))

    for body in bodies:
        with pytest.raises(InvalidMessage, match="signed"):
            decode(body, "room", KEY)


def test_where_a_room_ends_and_its_message_begins_cannot_be_shifted() -> None:
    """`ro` with `om…` is not `room` with the rest."""
    body = encode(WhoIsHere("a"), "room", KEY)

    with pytest.raises(InvalidMessage):
        decode(body[:18] + b"om" + body[18:], "ro", KEY)


@given(messages, st.data())
def test_what_is_cut_short_is_no_whole_message(
    message: Message, data: st.DataObject
) -> None:
    body = encode(message, "room", None)
    cut = body[: data.draw(st.integers(0, len(body) - 1))]

    try:
        found = decode(cut, "room", None)
    except InvalidMessage:
        return
    # It ended with a field, so some optional ones are missing.
    assert found is not None
    assert encode(found, "room", None) == cut


@given(st.binary(max_size=200), st.sampled_from([None, KEY]))
def test_random_bytes_are_refused_or_read_and_nothing_else(
    body: bytes, key: bytes | None
) -> None:
    read(body, key)


@given(st.integers(0, 10), st.lists(st.tuples(st.integers(0, 14), blobs), max_size=10))
def test_random_fields_are_refused_or_read_and_nothing_else(
    kind: int, fields: list[tuple[int, bytes]]
) -> None:
    read(plain(kind, *fields), None)


@given(messages, st.data())
def test_altered_messages_are_refused_or_read_and_nothing_else(
    message: Message, data: st.DataObject
) -> None:
    body = bytearray(encode(message, "room", None))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 2))] = data.draw(blobs)
        body = body or bytearray(b"\0")

    read(bytes(body), None)


def read(body: bytes, key: bytes | None) -> None:
    """Raises nothing but InvalidMessage; what comes out can be said again."""
    try:
        found = decode(body, "room", key)
    except InvalidMessage:
        return
    if found is not None:
        assert decode(encode(found, "room", key), "room", key) == found


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x01",
        b"\x01\x00",
        b"\x00\x00\x03\x01\x01a",
        b"\x02\x00\x03\x01\x01a",
        b"\x01\x01",
        b"\x01\x01" + bytes(16),
        plain(3),
        plain(3, (1, b"\xff")),
        plain(3, (1, b"n" * (envelope._MAX_NAME_BYTES + 1))),
        plain(3, (1, b"a")) + b"\x01",
        plain(3, (1, b"a")) + b"\x01\xff\xff\xff\xff\x7f",
        plain(1, (1, b"a"), (3, b"\x01"), (2, b"e"), (4, b"\x01"), (5, b"ann")),
        plain(1, (1, b"a"), (3, b"\x01"), (2, b"e"), (4, b"\x01"), (6, b"u")),
        plain(1, (1, b"a"), (3, b"\x01\x00"), (2, b"e"), (4, b"\x01")),
        plain(1, (1, b"a"), (3, b""), (2, b"e"), (4, b"\x01")),
        plain(2, (1, b"a"), (7, b"\x01"), (8, b"\x01"), (9, b"{}")),
        plain(4, (1, b"a"), (2, b"e"), (10, b"")),
        plain(5, (1, b"a"), (2, b"e")),
    ],
)
def test_what_breaks_the_form_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidMessage):
        decode(body, "room", None)


def test_an_update_and_its_owner_belong_together_when_written() -> None:
    with pytest.raises(ValueError, match="zip"):
        encode(Updates("a", 1, "e", 1, ["ann"], []), "room", None)


def test_a_message_of_very_many_fields_is_refused_before_they_are_read() -> None:
    body = bytes((1, 0, 3)) + encode_bytes(b"x") + b"\x63\x00" * (1 << 21)

    with pytest.raises(InvalidMessage):
        decode(body, "r", None)
