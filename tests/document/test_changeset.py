"""What changed between two positions of a log, and who did it, where it is not as one would think."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from collab.document.past import changeset
from collab.errors import InvalidRequest, NothingHere, RootNotFound
from collab.store.base import Author, Row

Change = Callable[[Doc[Any]], None]


class Writer:
    """Somebody with a copy of the document."""

    def __init__(self, name: str, client: int) -> None:
        self.name = name
        self.doc: Doc[Any] = Doc(client_id=client)

    def hears(self, *updates: bytes) -> None:
        for update in updates:
            self.doc.apply_update(update)

    def edits(self, change: Change) -> bytes:
        made: list[bytes] = []
        subscription = self.doc.observe(lambda event: made.append(event.update))
        with self.doc.transaction():
            change(self.doc)
        self.doc.unobserve(subscription)
        return made[0]


def rows(*brought: tuple[str, bytes]) -> list[Row]:
    return [
        Row(at, at * 1000, Author(name, "c"), update)
        for at, (name, update) in enumerate(brought, 1)
    ]


def told(
    log: list[Row], after: int = 0, root: str = "", path: str = ""
) -> list[tuple[Any, ...]]:
    found = changeset(None, log[:after], log[after:], {}, root, path)
    return [
        (
            each["path"] + (f" {each['key']}" if "key" in each else ""),
            each["old"],
            each["new"],
            found["authors"][each["author"]]["principal"],
        )
        for each in found["changes"]
    ]


def note(words: str) -> Change:
    def change(doc: Doc[Any]) -> None:
        doc.get("board", type=Map)["note"] = Text(words)

    return change


def put(key: str, value: Any) -> Change:
    def change(doc: Doc[Any]) -> None:
        doc.get("board", type=Map)[key] = value

    return change


def test_what_waited_for_what_it_builds_on_is_credited_to_who_brought_it() -> None:
    ada, eve = Writer("ada", 1), Writer("eve", 2)
    first = ada.edits(lambda doc: doc.get("text", type=Text).insert(0, "one"))
    eve.hears(first)
    second = eve.edits(lambda doc: doc.get("text", type=Text).insert(3, " two"))

    found = told(rows(("eve", second), ("ada", first)), after=1)

    assert found == [("", "", "one", "ada"), ("", "", " two", "eve")]


def test_of_two_values_at_once_the_one_that_holds_is_told() -> None:
    ada, eve = Writer("ada", 1), Writer("eve", 2)
    before = ada.edits(put("k", "old"))
    eve.hears(before)
    both = ada.edits(put("k", "ada's")), eve.edits(put("k", "eve's"))

    found = told(rows(("ada", before), ("ada", both[0]), ("eve", both[1])), after=1)

    assert found == [(" k", ["old"], ["eve's"], "eve")]


def test_a_key_that_came_and_went_is_not_told() -> None:
    ada = Writer("ada", 1)
    came = ada.edits(put("k", 1))
    went = ada.edits(lambda doc: doc.get("board", type=Map).pop("k"))

    assert told(rows(("ada", came), ("ada", went))) == []


def test_what_goes_with_what_it_is_in_is_told_once() -> None:
    ada, eve = Writer("ada", 1), Writer("eve", 2)
    made = ada.edits(note("mine"))
    eve.hears(made)
    typed = eve.edits(lambda doc: doc.get("board", type=Map)["note"].insert(4, "!"))
    ada.hears(typed)
    gone = ada.edits(lambda doc: doc.get("board", type=Map).pop("note"))
    log = rows(("ada", made), ("eve", typed), ("ada", gone))

    assert told(log, after=2) == [(" note", ["mine!"], [], "ada")]
    assert told(log, after=1) == [(" note", ["mine"], [], "ada")]


def test_what_others_put_into_something_new_is_told_behind_it() -> None:
    ada, eve = Writer("ada", 1), Writer("eve", 2)

    def page(doc: Doc[Any]) -> None:
        children = doc.get("page", type=XmlFragment).children
        children.append(XmlElement("paragraph", {"level": "1"}))
        children[0].children.append(XmlText("onetwo"))

    def between(doc: Doc[Any]) -> None:
        paragraph = doc.get("page", type=XmlFragment).children[0]
        paragraph.children[0].insert(3, " and ")
        paragraph.attributes["level"] = "2"
        paragraph.children.append(XmlElement("image"))

    made = ada.edits(page)
    eve.hears(made)

    found = told(rows(("ada", made), ("eve", eve.edits(between))))

    paragraph = {"tag": "paragraph", "attributes": {}, "children": ["onetwo"]}
    image = {"tag": "image", "attributes": {}, "children": []}
    assert found == [
        ("", [], [paragraph], "ada"),
        ("/0", [], [image], "eve"),
        ("/0 level", [], ["2"], "eve"),
        ("/0/0", "", " and ", "eve"),
    ]


def test_a_root_that_was_emptied_is_told_as_what_it_was() -> None:
    ada = Writer("ada", 1)
    made = ada.edits(lambda doc: doc.get("list", type=Array).extend([1, "two"]))
    gone = ada.edits(lambda doc: doc.get("list", type=Array).clear())

    assert told(rows(("ada", made), ("ada", gone)), after=1) == [
        ("", [1, "two"], [], "ada")
    ]


def test_only_what_is_at_a_path_is_told() -> None:
    ada = Writer("ada", 1)
    made = ada.edits(note("one"))
    typed = ada.edits(lambda doc: doc.get("board", type=Map)["note"].insert(3, "!"))
    other = ada.edits(put("notes", 2))
    gone = ada.edits(lambda doc: doc.get("board", type=Map).pop("notes"))
    every = rows(*(("ada", update) for update in (made, typed, other, gone)))
    log = every[:3]

    assert told(log, 1, "board", "/note") == [("/note", "", "!", "ada")]
    assert told(log, 1, "board", "/notes") == [(" notes", [], [2], "ada")]
    assert told(log, 2, "board", "/note") == []
    assert told(every, 3, "board", "/notes") == [(" notes", [2], [], "ada")]


@pytest.mark.parametrize(
    ("root", "path", "error"),
    [
        ("nowhere", "", RootNotFound),
        ("board", "/nothing", NothingHere),
        ("board", "/note/deeper", NothingHere),
        ("board", "note", InvalidRequest),
    ],
)
def test_what_has_never_been_there_is_an_error(
    root: str, path: str, error: type[Exception]
) -> None:
    log = rows(("ada", Writer("ada", 1).edits(note("one"))))

    with pytest.raises(error):
        told(log, 1, root, path)
