"""What the division of an update into parts does at its limits; that parts are the whole is shown by test_division_converges."""

from __future__ import annotations

import sys

import pytest
from pycrdt import Array, Doc, Map, Text

from collab.errors import InvalidMessage, Refused, TooLarge
from collab.protocol.division import Indivisible, divide
from collab.protocol.structs import scan
from collab.protocol.varint import encode_varint


def typed(characters: int, *, client: int = 1) -> Doc:
    """A document whose every second character stands for itself."""
    doc: Doc = Doc(client_id=client)
    text = doc.get("text", type=Text)
    for _ in range(characters):
        text.insert(0, "x")
    return doc


def test_what_is_small_enough_stays_as_it_is() -> None:
    update = typed(10).get_update()

    assert divide(update, max_bytes=len(update)) == [update]
    assert divide(b"\x00\x00", max_bytes=2, max_structs=0) == [b"\x00\x00"]


def test_no_part_has_more_structs_and_deleted_ranges_than_it_may() -> None:
    doc = typed(100)
    text = doc.get("text", type=Text)
    for at in range(0, 50, 2):
        del text[at : at + 1]

    parts = divide(doc.get_update(), max_bytes=1 << 20, max_structs=10, max_ranges=10)

    found = [scan(part) for part in parts]
    assert sum(run.last - run.first for each in found for run in each.runs) == 100
    assert all(len(each.deletes) <= 10 for each in found)
    assert [bool(each.deletes) for each in found] == [False] * 10 + [True] * 3


def test_a_value_that_cannot_be_cut_is_named_with_the_limit() -> None:
    doc: Doc = Doc()
    doc.get("map", type=Map)["key"] = "x" * 2000

    with pytest.raises(Indivisible, match="1000 bytes"):
        divide(doc.get_update(), max_bytes=1000)


def test_a_long_value_among_short_ones_is_named_too() -> None:
    doc: Doc = Doc()
    doc.get("list", type=Array).extend(["short", b"x" * 2000, "short"])

    with pytest.raises(Indivisible):
        divide(doc.get_update(), max_bytes=1000)


def test_parts_without_room_for_anything_are_refused() -> None:
    with pytest.raises(TooLarge):
        divide(typed(20).get_update(), max_bytes=10)


def test_structs_that_wait_for_each_other_are_refused() -> None:
    def after(client: int) -> bytes:
        return b"\x84" + encode_varint(client) + b"\x00\x01x"

    circle = b"\x02" + b"\x01\x01\x00" + after(2) + b"\x01\x02\x00" + after(1) + b"\x00"

    with pytest.raises(Refused, match="circle"):
        divide(circle, max_bytes=1 << 20, max_structs=1)


def test_what_is_no_update_is_refused() -> None:
    update = typed(20).get_update()

    for end in range(len(update)):
        with pytest.raises(InvalidMessage):
            divide(update[:end], max_bytes=30)


def test_a_client_goes_before_whoever_builds_on_it() -> None:
    """Two people type in turn, each behind the other's last character."""
    one, two = typed(0, client=1), typed(0, client=2)
    for _ in range(50):
        for mine, other in ((one, two), (two, one)):
            mine.get("text", type=Text).__iadd__("x")
            other.apply_update(mine.get_update(other.get_state()))

    parts = divide(one.get_update(), max_bytes=1 << 20, max_structs=1)

    clients = [scan(part).runs[0].client for part in parts]
    assert sorted(clients[::2]) == [1] * 50
    assert clients[1::2] == [2] * 50


def test_twice_as_much_takes_no_more_than_twice_as_long() -> None:
    """Counted in steps of the interpreter, not in time."""

    def steps(characters: int) -> float:
        update = typed(characters).get_update()
        count = 0

        def note(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(note)
        try:
            divide(update, max_bytes=500)
        finally:
            sys.setprofile(None)
        return count

    assert steps(8000) < 2.2 * steps(4000)
