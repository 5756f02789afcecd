"""What waits for a socket."""

from __future__ import annotations

from typing import Any

import pytest
from members import text
from pycrdt import Doc, Map

from collab.protocol.varint import Reader
from collab.sdk import outgoing
from collab.sdk.errors import TooLarge
from collab.sdk.outgoing import Answer, Outgoing, Stretch


def updates(count: int) -> list[bytes]:
    doc: Doc[Any] = Doc()
    found: list[bytes] = []
    doc.observe(lambda event: found.append(event.update))
    for number in range(count):
        text(doc).insert(number, "x")
    return found[-count:]


def test_updates_in_a_row_leave_as_one() -> None:
    queue = Outgoing()
    for number, update in enumerate(updates(3), start=1):
        queue.update(update, number)

    item = queue.take()

    assert isinstance(item, Stretch)
    assert item.changes == 3
    other: Doc[Any] = Doc()
    other.apply_update(Reader(item.frame(), 2).read_bytes())
    assert str(text(other)) == "xxx"
    assert queue.take() is None


def test_a_message_keeps_its_place_among_the_updates() -> None:
    queue = Outgoing()
    one, two = updates(2)
    queue.update(one, 1)
    queue.message(b"turn")
    queue.update(two, 2)

    items = [queue.take() for _ in range(3)]

    assert [type(item) for item in items] == [Stretch, bytes, Stretch]


def test_a_long_answer_leaves_in_parts_of_which_the_last_brings_all_changes() -> None:
    doc: Doc[Any] = Doc()
    text(doc).insert(0, "x" * 5000)
    queue = Outgoing()
    queue.max_update_bytes = 2048

    queue.answer(doc.get_update(), 7)

    found = [queue.take() for _ in range(4)]
    answers = [item for item in found if isinstance(item, Answer)]
    assert [item.changes for item in answers] == [0, 0, 7]
    other: Doc[Any] = Doc()
    for item in answers:
        assert item.size <= 2048
        other.apply_update(item.update)
    assert str(text(other)) == "x" * 5000


def test_a_long_change_leaves_in_parts_too_and_a_short_one_not_with_them() -> None:
    queue = Outgoing()
    queue.max_update_bytes = 2048
    doc: Doc[Any] = Doc()
    made: list[bytes] = []
    doc.observe(lambda event: made.append(event.update))
    text(doc).insert(0, "x" * 4000)
    text(doc).insert(0, "y")

    for number, update in enumerate(made[-2:], start=1):
        queue.update(update, number)

    found = [queue.take() for _ in range(4)]
    changes = [item.changes for item in found if isinstance(item, Stretch)]
    assert changes == [0, 1, 2]


def test_a_change_of_too_many_pieces_is_divided_however_short_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    doc: Doc[Any] = Doc()
    made: list[bytes] = []
    doc.observe(lambda event: made.append(event.update))
    with doc.transaction():
        for number in range(200):
            doc.get("map", type=Map)[str(number)] = number
    monkeypatch.setattr(outgoing, "MAX_STRUCTS", 100)
    queue = Outgoing()

    queue.update(made[-1], 1)

    items = list(iter(queue.take, None))
    assert len(items) > 1
    assert [item.changes for item in items if isinstance(item, Stretch)][-1] == 1
    other: Doc[Any] = Doc()
    for item in items:
        assert isinstance(item, Stretch)
        other.apply_update(Reader(item.frame(), 2).read_bytes())
    assert len(other.get("map", type=Map)) == 200


def test_behind_a_value_that_cannot_be_divided_nothing_leaves() -> None:
    queue = Outgoing()
    queue.max_update_bytes = 2048
    doc: Doc[Any] = Doc()
    doc.get("map", type=Map)["a"] = "x" * 3000

    queue.update(doc.get_update(), 1)

    assert isinstance(queue.take(), TooLarge)
    with pytest.raises(TooLarge):
        queue.answer(doc.get_update(), 1)
    assert queue.take() is None


def test_the_latest_of_a_kind_waits_only_once() -> None:
    queue = Outgoing()

    def encode() -> bytes:
        return b"now"

    queue.latest(encode)
    queue.latest(encode)

    assert queue.take() == encode
    assert queue.take() is None


def test_dropped_updates_leave_the_messages() -> None:
    queue = Outgoing()
    queue.update(updates(1)[0], 1)
    queue.message(b"turn")
    queue.answer(b"\x00\x00", 1)

    queue.drop_updates()

    assert queue.take() == b"turn"
    assert queue.take() is None
    assert not queue.is_full


def test_an_answer_says_how_much_it_brings() -> None:
    queue = Outgoing()
    queue.answer(b"\x00\x00", 7)

    item = queue.take()

    assert isinstance(item, Answer)
    assert (item.changes, item.frame()) == (7, b"\x00\x01\x02\x00\x00")


def test_no_more_leaves_together_than_is_merged_quickly() -> None:
    queue = Outgoing()
    for number, update in enumerate(updates(outgoing.MAX_TOGETHER + 1)):
        queue.update(update, number)

    items = [queue.take(), queue.take()]

    assert [len(item.updates) for item in items if isinstance(item, Stretch)] == [
        outgoing.MAX_TOGETHER,
        1,
    ]


@pytest.mark.parametrize("limit", ["MAX_WAITING", "MAX_WAITING_BYTES"])
def test_too_much_is_said_to_be_too_much(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(outgoing, limit, 10)
    queue = Outgoing()
    found = updates(10)

    queue.update(found[0][:5], 1)
    assert not queue.is_full
    for update in found:
        queue.update(update, 2)

    assert queue.is_full
    while queue.take() is not None:
        pass
    assert not queue.is_full
