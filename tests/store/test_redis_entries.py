"""What lies in the stream of a room is believed only as it was written."""

from __future__ import annotations

import random
from struct import pack
from zlib import crc32

import pytest

from collab.errors import RoomUnavailable
from collab.store.base import Author, Entry, Remembered
from collab.store.records import Damaged
from collab.store.redis.entries import (
    pack_abouts,
    pack_answer,
    pack_entry,
    seal,
    unpack_answer,
    unpack_entry,
    unseal,
)

ALICE, BOB = Author("alice", "c1"), Author("bob", "c2", "turn-7")
UPDATES = [b"a", b"", b"ccc"]
ENTRY = Entry("notes", "e1", 9, 5, UPDATES, [ALICE, BOB, ALICE], "o1")
RECORD = pack_entry(ENTRY)


def unpack(record: bytes, **fields: bytes) -> object:
    found = {b"m": b"5", b"e": record}
    found |= {name.encode(): value for name, value in fields.items()}
    return unpack_entry("notes", "e1", b"12-0", found)


def signed(body: bytes) -> bytes:
    """By somebody who knows how."""
    return pack("<I", crc32(body, crc32(b"notes\0e1\0" + b"5"))) + body


def test_an_entry_comes_back_with_the_positions_that_it_was_given() -> None:
    piece = unpack_entry("notes", "e1", b"12-0", {b"m": b"5", b"e": RECORD})

    assert (piece.position, piece.last, piece.milliseconds) == (10, 12, 5)
    assert (piece.updates, piece.authors) == (UPDATES, [ALICE, BOB, ALICE])


def test_an_entry_may_have_many_authors() -> None:
    authors = [Author(f"p{n}" * 60, f"c{n}") for n in range(2000)]
    entry = Entry("notes", "e1", 1, 5, [b"x"] * 2000, authors)

    piece = unpack_entry(
        "notes", "e1", b"2000-0", {b"m": b"5", b"e": pack_entry(entry)}
    )

    assert piece.authors == authors


ABOUT = ENTRY._replace(authors=[ALICE, BOB._replace(about="{}"), ALICE])


def test_what_is_known_of_authors_stands_where_the_version_before_does_not_look() -> (
    None
):
    record = pack_entry(ABOUT)

    piece = unpack_entry(
        "notes",
        "e1",
        b"12-0",
        {b"m": b"5", b"e": record, b"a": pack_abouts(ABOUT, record)},
    )

    assert piece.authors == ABOUT.authors
    assert record == RECORD
    assert pack_abouts(ENTRY, RECORD) == b""


def test_any_turned_bit_of_what_is_known_of_authors_is_found() -> None:
    abouts = pack_abouts(ABOUT, RECORD)
    for at in range(8 * len(abouts)):
        turned = bytearray(abouts)
        turned[at // 8] ^= 1 << at % 8

        with pytest.raises(Damaged):
            unpack(RECORD, a=bytes(turned))


@pytest.mark.parametrize("junk", [b"", b"1", b"[]", b"{}", b'["a"]', b"[1,2]", b"[[]"])
def test_junk_about_authors_that_is_signed_is_found(junk: bytes) -> None:
    with pytest.raises(Damaged):
        unpack(RECORD, a=pack("<I", crc32(junk, crc32(RECORD[:4]))) + junk)


def test_of_an_entry_that_was_there_in_part_the_rest_counts() -> None:
    piece = unpack_entry("notes", "e1", b"12-0", {b"m": b"5", b"e": RECORD, b"s": b"2"})

    assert (piece.position, piece.updates, piece.authors) == (12, [b"ccc"], [ALICE])


@pytest.mark.parametrize(
    "place", [("other", "e1", b"12-0", b"5"), ("notes", "e2", b"12-0", b"5")]
)
def test_an_entry_of_another_room_or_history_is_damaged(
    place: tuple[str, str, bytes, bytes],
) -> None:
    room, epoch, id, milliseconds = place

    with pytest.raises(Damaged):
        unpack_entry(room, epoch, id, {b"m": milliseconds, b"e": RECORD})


def test_any_turned_bit_is_found() -> None:
    for at in range(8 * len(RECORD)):
        turned = bytearray(RECORD)
        turned[at // 8] ^= 1 << at % 8

        with pytest.raises(Damaged):
            unpack(bytes(turned))


@pytest.mark.parametrize("field", ["m", "s"])
@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"3", b"9" * 99, b"\xff"])
def test_other_fields_that_are_not_as_written_are_found(
    field: str, value: bytes
) -> None:
    with pytest.raises(Damaged):
        unpack(RECORD, **{field: value})


def test_what_is_cut_short_or_too_long_is_found() -> None:
    for length in range(len(RECORD)):
        with pytest.raises(Damaged):
            unpack(RECORD[:length])
    for body in (RECORD[4:] + b"x", RECORD[4:-1], b""):
        with pytest.raises(Damaged):
            unpack(signed(body))


@pytest.mark.parametrize(
    "names",
    [b"", b"1", b"{}", b"[]", b"[1]", b"[[]]", b'[["a"]]', b'[["a",1,null]]', b"\xff"],
)
@pytest.mark.parametrize("count", [0, 1, 2**32 - 1])
def test_junk_that_is_signed_is_found(names: bytes, count: int) -> None:
    body = pack("<BII", 1, len(names), count) + names + pack("<II", 0, 0)

    with pytest.raises(Damaged):
        unpack(signed(body))


def test_random_bytes_that_are_signed_are_never_more_than_damaged() -> None:
    chance = random.Random(1)
    for _ in range(3000):
        body = b"\1" + chance.randbytes(chance.randrange(60))
        with pytest.raises(Damaged):
            unpack(signed(body))


def test_an_entry_of_a_newer_version_is_not_damaged_but_left_alone() -> None:
    with pytest.raises(RoomUnavailable):
        unpack(signed(b"\x02" + RECORD[5:]))


def test_small_records_and_answers_are_believed_only_as_written() -> None:
    sealed = seal("notes", "7", "alice").encode()
    answer = pack_answer("key", 5, Remembered(b"digest", b"answer"))

    assert unseal("notes", "7", sealed) == "alice"
    assert unpack_answer("key", answer) == (5, Remembered(b"digest", b"answer"))
    for wrong in (b"", sealed[:-1], sealed + b"x", b"\xff" * 20):
        with pytest.raises(Damaged):
            unseal("notes", "7", wrong)
    for other in (b"", answer[:-1], answer + b"x", answer[:9]):
        with pytest.raises(Damaged):
            unpack_answer("key", other)
    with pytest.raises(Damaged):
        unseal("notes", "8", sealed)
    with pytest.raises(Damaged):
        unpack_answer("other", answer)
