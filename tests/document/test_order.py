"""The order of characters: places in nested types, what is refused, and bytes that nobody wrote."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text, merge_updates

from collab.document.anchor import Anchor, Id, Orphaned, Place, Side
from collab.document.order import BLOCK, Ahead, Order, Span
from collab.document.pieces import MAX_PIECE, Piece
from collab.errors import AnchorNotFound, InvalidMessage, InvalidRequest, Refused

EMOJI = "a😀中"


def updates_of(*edits: Callable[[Doc[Any]], None], client: int = 1) -> list[bytes]:
    """What each edit sends."""
    doc: Doc[Any] = Doc(client_id=client)
    updates: list[bytes] = []
    subscription = doc.observe(lambda event: updates.append(event.update))
    for edit in edits:
        with doc.transaction():
            edit(doc)
    doc.unobserve(subscription)
    return updates


def insert(index: int, text: str) -> Callable[[Doc[Any]], None]:
    return lambda doc: doc.get("text", type=Text).insert(index, text)


def delete(start: int, end: int) -> Callable[[Doc[Any]], None]:
    def edit(doc: Doc[Any]) -> None:
        del doc.get("text", type=Text)[start:end]

    return edit


def order_of(*edits: Callable[[Doc[Any]], None]) -> Order:
    order = Order()
    for update in updates_of(*edits):
        order.apply(update)
    return order


def test_an_anchor_moves_with_its_character() -> None:
    first, second = updates_of(insert(0, "one two"), insert(0, "zero "))
    order = Order.of(first)
    before, behind = order.anchor("text", 4), order.anchor("text", 3, Side.LEFT)

    order.apply(second)

    assert order.resolve(before) == Place("text", 9)
    assert order.resolve(behind) == Place("text", 8)


def test_text_at_an_anchor_goes_to_the_side_that_is_not_held() -> None:
    first, second = updates_of(insert(0, "ab"), insert(1, "!!"))
    order = Order.of(first)
    anchors = [order.anchor("text", 1, side) for side in Side]

    order.apply(second)

    assert [order.resolve(anchor) for anchor in anchors] == [
        Place("text", 1),
        Place("text", 3),
    ]


def test_an_anchor_of_what_is_deleted_says_where_the_nearest_survivor_ends() -> None:
    first, second = updates_of(insert(0, "one two three"), delete(2, 9))
    order = Order.of(first)
    anchors = [order.anchor("text", 5, side) for side in Side]

    order.apply(second)

    assert [order.resolve(anchor) for anchor in anchors] == [Orphaned("text", 2)] * 2


def test_beginning_and_end_are_places_also_of_a_root_that_holds_nothing() -> None:
    order = Order()
    start, end = order.anchor("text", 0, Side.LEFT), order.anchor("text", 0)

    order.apply(updates_of(insert(0, "abc"))[0])

    assert start == Anchor(None, "text", Side.LEFT)
    assert end == Anchor(None, "text", Side.RIGHT)
    assert order.resolve(start) == Place("text", 0)
    assert order.resolve(end) == Place("text", 3)


def test_an_anchor_never_lies_inside_a_surrogate_pair() -> None:
    order = order_of(insert(0, EMOJI))

    before = [order.anchor("text", index) for index in range(3)]
    behind = [order.anchor("text", index, Side.LEFT) for index in range(1, 4)]

    assert [anchor.item for anchor in before] == [Id(1, 0), Id(1, 1), Id(1, 3)]
    assert [anchor.item for anchor in behind] == [Id(1, 0), Id(1, 2), Id(1, 3)]


@pytest.mark.parametrize(("side", "index"), [(Side.RIGHT, 1), (Side.LEFT, 2)])
def test_an_anchor_to_half_a_character_leads_where_the_whole_one_would(
    side: Side, index: int
) -> None:
    order = order_of(insert(0, EMOJI))

    found = [order.resolve(Anchor(Id(1, clock), None, side)) for clock in (1, 2)]

    assert found == [Place("text", index)] * 2


def test_spans_name_the_ids_of_what_is_visible_in_order() -> None:
    order = order_of(insert(0, "abcd"), insert(2, EMOJI), delete(1, 2))

    assert order.text("text") == "aa😀中cd"
    assert order.spans("text") == [
        Span(1, 0, 1, 0, 1),
        Span(1, 4, 1, 1, 1),
        Span(1, 5, 2, 2, 1),
        Span(1, 7, 1, 3, 1),
        Span(1, 2, 2, 4, 2),
    ]
    assert order.spans("text", 2, 5) == [
        Span(1, 5, 2, 2, 1),
        Span(1, 7, 1, 3, 1),
        Span(1, 2, 1, 4, 1),
    ]
    assert order.spans("text", 3, 3) == []


def test_bytes_are_counted_as_native_code_counts_them() -> None:
    def embed(doc: Doc[Any]) -> None:
        doc.get("text", type=Text).insert_embed(1, {"image": "x"})

    order = order_of(insert(0, EMOJI), embed)

    assert order.text("text") == "a\ufffc😀中"
    assert [order.bytes_at("text", index) for index in range(5)] == [0, 1, 2, 6, 9]
    assert order.bytes_of("text") == 9


@pytest.mark.parametrize("index", [-1, 4, 1 << 40])
def test_a_place_beyond_the_end_is_refused(index: int) -> None:
    order = order_of(insert(0, "abc"))

    for ask in (
        lambda: order.anchor("text", index),
        lambda: order.anchor("text", index, Side.LEFT),
        lambda: order.bytes_at("text", index),
        lambda: order.spans("text", 0, index),
        lambda: order.spans("text", index),
        lambda: order.anchor("nothing here", index),
    ):
        with pytest.raises(InvalidRequest):
            ask()


def nest(doc: Doc[Any]) -> None:
    doc.get("list", type=Array).append(Map({"note": Text("deep")}))


def test_a_text_inside_others_is_known_by_the_id_that_inserted_it() -> None:
    order = order_of(insert(0, "up here"), nest)
    note = next(
        Id(1, clock)
        for clock in range(7, order.vector()[1])
        if order.text(Id(1, clock)) == "deep"
    )
    anchor = order.anchor(note, 2)

    assert order.resolve(anchor) == Place(note, 2)
    assert order.resolve(Anchor(None, note, Side.RIGHT)) == Place(note, 4)
    assert anchor.to_json()["type"] == note._asdict()
    assert order.root_of(note) == "list"
    assert order.length("list") == 1
    assert order.roots() == ["text", "list"]


def test_what_hung_in_a_deleted_type_is_orphaned() -> None:
    def clear(doc: Doc[Any]) -> None:
        doc.get("list", type=Array).clear()

    first, second = updates_of(nest, clear)
    order = Order.of(first)
    anchor = Anchor(Id(1, order.vector()[1] - 1))
    place = order.resolve(anchor)
    assert isinstance(place, Place)

    order.apply(second)

    assert order.resolve(anchor) == Orphaned(place.root, 0)
    assert order.resolve(Anchor(None, place.root)) == Orphaned(place.root, 0)
    assert order.text(place.root) == ""


@pytest.mark.parametrize(
    "anchor",
    [
        Anchor(Id(2, 0)),
        Anchor(Id(1, 3)),
        Anchor(None, Id(9, 9)),
        Anchor(None, Id(1, 0)),  # a character
        Anchor(),
    ],
)
def test_an_anchor_to_what_was_never_there_is_an_error(anchor: Anchor) -> None:
    order = order_of(insert(0, "abc"))

    with pytest.raises(AnchorNotFound):
        order.resolve(anchor)


def test_an_entry_of_a_map_is_no_place() -> None:
    def enter(doc: Doc[Any]) -> None:
        doc.get("map", type=Map)["key"] = "value"

    order = order_of(enter)

    with pytest.raises(AnchorNotFound):
        order.resolve(Anchor(Id(1, 0)))
    assert order.vector() == {1: 1}


def test_a_writer_goes_on_behind_its_own_last_character() -> None:
    order = order_of(insert(0, "typed"))

    last = order.vector()[1] - 1

    assert last == 4
    assert order.resolve(Anchor(Id(1, last), None, Side.LEFT)) == Place("text", 5)


def test_an_update_that_is_ahead_is_refused_and_changes_nothing() -> None:
    first, second, third, fourth = updates_of(
        insert(0, "ab"), insert(2, "cd"), insert(1, "e"), delete(2, 4)
    )
    order = Order.of(first)

    for update in (third, fourth):
        with pytest.raises(Ahead):
            order.apply(update)
        assert (order.text("text"), order.vector()) == ("ab", {1: 2})

    for update in (second, third, fourth):
        order.apply(update)
    assert order.text("text") == "aed"


def test_two_who_wait_for_each_other_are_ahead() -> None:
    """Structs that refer to each other in a circle, as nobody can have made them."""
    circle = bytes.fromhex("0201010084020001610102008401000162" + "00")

    with pytest.raises(Ahead):
        Order().apply(circle)


def test_a_pasted_text_is_kept_in_pieces() -> None:
    pasted = "😀中a" * MAX_PIECE
    order = order_of(insert(0, pasted), insert(4, "!"))

    assert order.text("text") == "😀!" + pasted[1:]
    assert order.length("text") == len(pasted) + 1
    anchor = order.anchor("text", len(pasted) - 5)
    assert order.resolve(anchor) == Place("text", len(pasted) - 5)


def test_blocks_are_divided_as_a_text_grows() -> None:
    text, order, doc = "", Order(), Doc(client_id=7)
    doc.observe(lambda event: order.apply(event.update))
    shared = doc.get("text", type=Text)
    for index in range(3 * BLOCK):
        at = index * 31 % (len(text) + 1)
        letter = chr(97 + index % 26)
        shared.insert(at, letter)
        text = text[:at] + letter + text[at:]
        order.length("text")

    assert order.text("text") == text
    places = range(0, len(text), 17)
    anchors = [order.anchor("text", index) for index in places]
    assert [order.resolve(anchor).index for anchor in anchors] == [*places]


# Hostile bytes


def edited() -> list[bytes]:
    """A little of everything."""

    def enter(doc: Doc[Any]) -> None:
        doc.get("map", type=Map)["key"] = Text("nested")
        doc.get("map", type=Map)["other"] = [1, None, {"a": "b"}]

    def bold(doc: Doc[Any]) -> None:
        doc.get("text", type=Text).format(0, 1, {"bold": True})
        doc.get("text", type=Text).insert_embed(1, {"image": "x"})

    return updates_of(
        insert(0, EMOJI), enter, nest, bold, insert(1, "bcd"), delete(2, 3), enter
    )


UPDATES = edited()
SNAPSHOT = merge_updates(*UPDATES)


def assert_whole(order: Order) -> None:
    """What its blocks count is what its pieces hold."""
    for root in order.roots():
        text = order.text(root)
        assert order.length(root) == len(text)
        assert sum(span.size for span in order.spans(root)) == len(text)
        for index in range(0, len(text) + 1, 5):
            assert order.resolve(order.anchor(root, index)).index == index


@given(st.binary(max_size=60))
def test_any_bytes_are_an_update_or_refused(update: bytes) -> None:
    order = Order()

    try:
        order.apply(update)
    except Refused:
        assert order.vector() == {}

    assert_whole(order)


@given(
    st.sampled_from([*UPDATES, SNAPSHOT]),
    st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4
    ),
    st.integers(0, 12),
    st.integers(0, len(UPDATES)),
)
def test_an_update_with_other_bytes_in_it_is_taken_or_refused_whole(
    update: bytes, changes: list[tuple[int, int]], cut: int, known: int
) -> None:
    order = Order()
    for each in UPDATES[:known]:
        order.apply(each)
    before = order.vector(), order.text("text")
    mutant = bytearray(update[: max(1, len(update) - cut)])
    for at, byte in changes:
        mutant[at % len(mutant)] = byte

    try:
        order.apply(bytes(mutant))
    except InvalidMessage:
        assert (order.vector(), order.text("text")) == before

    assert_whole(order)


def test_the_pieces_of_an_order_that_has_ended_go_without_a_sweep() -> None:
    updates = updates_of(insert(0, "one"), insert(0, "two"), delete(2, 4))
    sweeps = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        before = _pieces()
        order = Order.of(merge_updates(*updates))
        made = _pieces() - before

        order.end()

        left = _pieces() - before
    finally:
        if sweeps:
            gc.enable()
    assert (made > 0, left) == (True, 0)


def _pieces() -> int:
    return sum(isinstance(each, Piece) for each in gc.get_objects())
