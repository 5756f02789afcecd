"""What is no text, read from the bytes of updates: the same JSON as an export has."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pycrdt import Array, Doc, Text

from collab.document.content import VALUES, values_of
from collab.document.export import to_json
from collab.document.order import Order

VALUES_OF_ALL_KINDS: list[Any] = [
    *(None, True, False, 0, -1, 63, 64, -65, 2**31, -(2**40), 2**53 - 1),
    *(1.5, -0.25, 1e300, 2.0, "", "text", "語😀"),
    *([], [1, [2, {"three": 3}]], {"k": {"l": [None]}, "é": ""}, b"\x00\xff"),
]


def values(order: Order, root: str) -> list[Any]:
    found: list[Any] = []
    for piece in order.children(root):
        assert piece.content is not None
        found += values_of(piece.content, 0, piece.units)
    return found


def test_values_are_read_as_an_export_reads_them() -> None:
    doc: Doc[Any] = Doc()
    doc.get("list", type=Array).extend(VALUES_OF_ALL_KINDS)

    found = values(Order.of(doc.get_update()), "list")

    assert found == to_json(doc.get_update())["list"]
    assert [type(each) for each in found[:3]] == [type(None), bool, bool]


def test_a_piece_that_was_cut_holds_its_part() -> None:
    chance = random.Random(1)
    doc: Doc[Any] = Doc()
    array = doc.get("list", type=Array)
    array.extend(list(range(100)))
    order = Order.of(doc.get_update())
    updates: list[bytes] = []
    subscription = doc.observe(lambda event: updates.append(event.update))
    for number in range(40):
        array.insert(chance.randrange(len(array)), f"new {number}")
        del array[chance.randrange(len(array))]
    doc.unobserve(subscription)

    for update in updates:
        order.apply(update)

    assert values(order, "list") == to_json(doc.get_update())["list"]


def test_what_stands_in_a_text_is_read() -> None:
    doc: Doc[Any] = Doc()
    doc.get("text", type=Text).insert_embed(0, {"image": "x"})

    assert values(Order.of(doc.get_update()), "text") == [{"image": "x"}]


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (b"\x7d\x80\x00", 0),  # longer than need be, as the guard lets in
        (b"\x7d\xbf\xff\xff\xff\xff\xff\xff\x7f", (1 << 55) - 1),
        (b"\x7d\x41", -1),
        (b"\x7f", None),  # undefined
        (b"\x7a\x80\x00\x00\x00\x00\x00\x00\x00", -(1 << 63)),
        (b"\x7c\x3f\x80\x00\x00", 1),
    ],
)
def test_numbers_are_read_however_they_are_spelt(encoded: bytes, expected: Any) -> None:
    (found,) = values_of((VALUES, encoded, 0), 0, 1)

    assert found == expected
