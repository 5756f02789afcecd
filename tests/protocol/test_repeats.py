"""Structs at ids that are used already: the same once more, or a copy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, merge_updates

from collab.protocol.repeats import MOST_WALKED, copied
from collab.protocol.statevector import encode_state_vector, state_vector
from collab.protocol.structs import scan

CLIENT = 77
Edit = Callable[[Doc[Any]], None]


def made(*edits: Edit) -> Doc[Any]:
    doc: Doc[Any] = Doc(client_id=CLIENT)
    for edit in edits:
        edit(doc)
    return doc


def text(words: str, at: int | None = None) -> Edit:
    def edit(doc: Doc[Any]) -> None:
        found = doc.get("text", type=Text)
        found.insert(len(str(found).encode()) if at is None else at, words)

    return edit


def erase(start: int, stop: int) -> Edit:
    def edit(doc: Doc[Any]) -> None:
        del doc.get("text", type=Text)[start:stop]

    return edit


def embed(value: Any) -> Edit:
    return lambda doc: doc.get("text", type=Text).insert_embed(0, value)


def bold(value: Any) -> Edit:
    def edit(doc: Doc[Any]) -> None:
        doc.get("text", type=Text).insert(0, "x", attrs={"bold": value})

    return edit


def put(key: str, value: Any) -> Edit:
    def edit(doc: Doc[Any]) -> None:
        doc.get("map", type=Map)[key] = value

    return edit


def push(*values: Any) -> Edit:
    def edit(doc: Doc[Any]) -> None:
        doc.get("array", type=Array).extend(list(values))

    return edit


def element(tag: str) -> Edit:
    def edit(doc: Doc[Any]) -> None:
        doc.get("xml", type=XmlFragment).children.append(XmlElement(tag))

    return edit


def compared(one: Doc[Any], other: Doc[Any]) -> int | None:
    """What is said of one document's update where the other is there already."""
    update, stored = one.get_update(), other.get_update()
    known = state_vector(other.get_state())
    return copied(update, scan(update).runs, stored, known)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([text("mine")], [text("yours")]),
        ([text("é")], [text("e")]),
        ([text("the same")], [put("key", "the same")]),
        ([text("ab"), text("c", 0)], [text("ab"), text("c", 1)]),
        ([text("abc")], [text("abd"), text("long tail")]),
        ([text("abcd"), text("!")], [text("abc"), text("?")]),
        ([put("key", 1)], [put("key", 2)]),
        ([put("key", 1)], [put("other", 1)]),
        ([put("key", {"a": [1, None]})], [put("key", {"a": [1, True]})]),
        ([push(1, 2, 3)], [push(1, 2, 4)]),
        ([push(b"a")], [push(b"b")]),
        ([push("a")], [push(b"a")]),
        ([push(1.5)], [push(1.25)]),
        ([embed({"image": "a"})], [embed({"image": "b"})]),
        ([bold(True)], [bold("very")]),
        ([element("p")], [element("h1")]),
        ([push(Map({}))], [push(Array([]))]),
    ],
)
def test_a_copy_is_told_from_a_repeat(one: list[Edit], other: list[Edit]) -> None:
    assert compared(made(*one), made(*other)) == CLIENT
    assert compared(made(*other), made(*one)) == CLIENT


@pytest.mark.parametrize(
    "edits",
    [
        [text("mine"), text("!", 2), erase(0, 2), text("more")],
        [text("日本語 é ß"), text("x", 3)],
        [text("😀👩‍👩‍👧"), text("x", 4), erase(0, 4)],
        [put("key", {"b": 2**40, "a": [1.5, None, True, {"c": "d"}]})],
        [push(1, -1, 0.1, 2**31, b"bytes", "text", [], {}, float("nan"))],
        [embed({"b": 1, "a": 1e21}), embed({"a": [None, "é"]})],
        [bold(True), bold(None), bold({"size": 2})],
        [element("p"), element("h1"), push(Map({"a": 1}), Array([1]))],
    ],
)
def test_whatever_a_client_sends_again_is_a_repeat(edits: list[Edit]) -> None:
    steps = [made(*edits[:number]) for number in range(len(edits) + 1)]
    whole = steps[-1]

    assert [compared(step, whole) for step in steps] == [None] * len(steps)
    assert [compared(whole, step) for step in steps] == [None] * len(steps)


def test_what_was_deleted_on_either_side_is_compared_by_its_place_alone() -> None:
    gone = made(text("ab"), text("xyz", 1), erase(1, 4))

    assert compared(made(text("ab"), text("uvw", 1)), gone) is None
    assert compared(gone, made(text("ab"), text("uvw", 1))) is None


def test_each_client_of_an_update_is_compared() -> None:
    first: Doc[Any] = Doc(client_id=CLIENT + 1)
    first.get("text", type=Text).insert(0, "of another client")
    second: Doc[Any] = Doc(client_id=CLIENT - 1)
    second.get("text", type=Text).insert(0, "of a third")
    one, other = made(text("mine")), made(text("yours"))
    for doc in (one, other):
        doc.apply_update(first.get_update())
        doc.apply_update(second.get_update())

    assert compared(one, other) == CLIENT
    assert compared(one, one) is None


def test_no_more_is_looked_through_than_is_in_proportion() -> None:
    one, other = made(text("a")), made(text("a"))
    for doc, last in ((one, "mine"), (other, "yours")):
        for _ in range(MOST_WALKED + 100):
            text("x", 0)(doc)
        text(last, 0)(doc)
    reached = state_vector(one.get_state())[CLIENT]
    end = one.get_update(encode_state_vector({CLIENT: reached - 4}))
    both = merge_updates(made(text("a")).get_update(), end)
    known = state_vector(other.get_state())

    def said(update: bytes, since: int) -> int | None:
        stored = other.get_update(encode_state_vector({CLIENT: since}))
        return copied(update, scan(update).runs, stored, known)

    assert said(end, reached - 4) == CLIENT
    assert said(one.get_update(), 0) == CLIENT
    assert said(both, 0) is None


def test_what_is_new_is_not_compared() -> None:
    assert compared(made(text("mine")), Doc(client_id=CLIENT)) is None
