"""Taking back what some rows of a log did, in every kind of shared type; who wrote what; what changed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from collab.document import past
from collab.document.past import (
    document_at,
    take_back,
)
from collab.store.base import Author, Row

KINDS = {"text": Text, "items": Array, "map": Map, "xml": XmlFragment}


class Author_:
    """Somebody with a copy of the document; each edit is one row of a common log."""


class Log:
    """Rows of several authors, each with a copy of the document that hears of all others at once."""

    def __init__(self, *names: str, clients: int = 100) -> None:
        self.rows: list[Row] = []
        self.docs: dict[str, Doc[Any]] = {}
        for number, name in enumerate(names):
            self.docs[name] = Doc(client_id=clients + number)

    def text(self, name: str) -> Text:
        found: Text = self.docs[name].get("text", type=Text)
        return found

    def edit(
        self,
        name: str,
        change: Callable[[Doc[Any]], None],
        *,
        turn: str | None = None,
        at: int = 0,
    ) -> None:
        doc = self.docs[name]
        made: list[bytes] = []
        subscription = doc.observe(lambda event: made.append(event.update))
        with doc.transaction():
            change(doc)
        doc.unobserve(subscription)
        for update in made:
            self.log(name, update, turn=turn, at=at)

    def log(
        self, name: str, update: bytes, *, turn: str | None = None, at: int = 0
    ) -> None:
        position = len(self.rows) + 1
        author = Author(name, "c", turn)
        self.rows.append(Row(position, at or position * 1000, author, update))
        for doc in self.docs.values():
            doc.apply_update(update)

    @property
    def updates(self) -> list[bytes]:
        return [row.update for row in self.rows]

    @property
    def snapshot(self) -> bytes:
        return document_at(None, self.updates)

    def undo(
        self, turns: set[str], client: int, *, name: str = "undoer", turn: str = "undo"
    ) -> bool:
        """Take turns back as the server does, from a checkpoint before them."""
        chosen = [at for at, row in enumerate(self.rows) if row.author.turn in turns]
        if not chosen:
            return False
        first, last = chosen[0], chosen[-1]
        checkpoint = document_at(None, self.updates[:first]) if first else None
        update = take_back(
            checkpoint,
            self.updates[first : last + 1],
            [at - first for at in chosen],
            self.snapshot,
            client,
        )
        if update is not None:
            self.log(name, update, turn=turn)
        return update is not None

    def said(self) -> str:
        doc: Doc[Any] = Doc()
        doc.apply_update(self.snapshot)
        return str(doc.get("text", type=Text))


def everything(snapshot: bytes) -> dict[str, Any]:
    doc: Doc[Any] = Doc()
    doc.apply_update(snapshot)
    text: Text = doc.get("text", type=Text)
    xml: XmlFragment = doc.get("xml", type=XmlFragment)
    items: Array[Any] = doc.get("items", type=Array)
    shared: Map[Any] = doc.get("map", type=Map)
    return {
        "text": text.diff(),
        "items": items.to_py(),
        "map": shared.to_py(),
        "xml": str(xml),
    }


def insert(place: int, words: str) -> Callable[[Doc[Any]], None]:
    return lambda doc: doc.get("text", type=Text).insert(place, words)


def delete(place: int, count: int) -> Callable[[Doc[Any]], None]:
    def change(doc: Doc[Any]) -> None:
        text = doc.get("text", type=Text)
        del text[place : place + count]

    return change


# Taking back


def test_what_a_turn_deleted_comes_back_and_what_it_inserted_goes() -> None:
    log = Log("ada", "bot")
    log.edit("ada", insert(0, "one two three"))
    log.edit("bot", delete(4, 3), turn="t")
    log.edit("bot", insert(4, "2"), turn="t")

    log.undo({"t"}, 900)

    assert log.said() == "one two three"


def test_a_long_log_is_taken_in_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log("ada")
    for word in ("one ", "two ", "three ", "four ", "five "):
        log.edit("ada", lambda doc, word=word: log.text("ada").insert(0, word))
    updates = [row.update for row in log.rows]
    monkeypatch.setattr(past, "MAX_TRANSACTION", 2)

    found = past.document_at(None, updates)

    doc: Doc[Any] = Doc()
    doc.apply_update(found)
    assert str(doc.get("text", type=Text)) == "five four three two one "


def test_an_older_turn_is_taken_back_under_later_edits() -> None:
    log = Log("ada", "bot")
    log.edit("ada", insert(0, "start. "))
    log.edit("bot", insert(7, "AGENT "), turn="t")
    log.edit("ada", insert(13, "end."))
    log.edit("ada", insert(9, "-ada-"))
    log.edit("bot", delete(0, 5), turn="later")

    log.undo({"t"}, 900)

    assert log.said() == ". -ada-end."


def test_text_that_two_deleted_comes_back_once() -> None:
    log = Log("ada", "bot")
    log.edit("ada", insert(0, "abcdef"))
    both = document_at(None, log.updates)
    alone: Doc[Any] = Doc(client_id=300)
    alone.apply_update(both)
    made: list[bytes] = []
    alone.observe(lambda event: made.append(event.update))
    del alone.get("text", type=Text)[2:4]
    log.edit("bot", delete(2, 2), turn="t1")
    log.log("cyd", made[0], turn="t2")

    log.undo({"t1"}, 900)
    once = log.said()
    log.undo({"t1", "undo"}, 901, turn="again")

    assert once == "abcdef"
    assert log.said() == "abcdef"


@pytest.mark.parametrize("seed", range(40))
def test_of_every_kind_all_is_as_it_was_before(seed: int) -> None:
    chance = random.Random(seed)
    log = Log("ada")
    for _ in range(15):
        log.edit("ada", lambda doc: scribble(doc, chance))
    before = everything(log.snapshot)
    for _ in range(chance.randrange(1, 8)):
        log.edit("ada", lambda doc: scribble(doc, chance), turn="t")
    after = everything(log.snapshot)

    log.undo({"t"}, 900)
    undone = everything(log.snapshot)
    log.undo({"undo"}, 901, turn="redo")

    assert undone == before
    assert everything(log.snapshot) == after


def test_what_was_changed_in_a_map_that_then_went_comes_back_with_it() -> None:
    log = Log("ada", "bot")

    def make(doc: Doc[Any]) -> None:
        shared = doc.get("map", type=Map)
        shared["m"] = Map({"plain": "old", "text": Text(), "deep": Map({"k": [None]})})
        shared["m"]["text"].insert(0, "bold", {"bold": True})
        doc.get("xml", type=XmlFragment).children.append(XmlElement("p", {"id": "1"}))

    def change(doc: Doc[Any]) -> None:
        for key in ("plain", "text", "deep"):
            doc.get("map", type=Map)["m"][key] = "new"
        doc.get("xml", type=XmlFragment).children[0].attributes["id"] = "2"

    def erase(doc: Doc[Any]) -> None:
        del doc.get("map", type=Map)["m"]
        del doc.get("xml", type=XmlFragment).children[0]

    log.edit("ada", make)
    before = everything(log.snapshot)
    log.edit("bot", change, turn="t")
    log.edit("bot", erase, turn="t")
    after = everything(log.snapshot)

    log.undo({"t"}, 900)
    undone, copy = everything(log.snapshot), Doc[Any]()
    copy.apply_update(log.snapshot)
    log.undo({"undo"}, 901, turn="redo")

    assert undone == before
    assert copy.get("map", type=Map)["m"]["text"].diff() == [("bold", {"bold": True})]
    assert everything(log.snapshot) == after


def scribble(doc: Doc[Any], chance: random.Random) -> None:
    """One edit of some kind."""
    text, items = doc.get("text", type=Text), doc.get("items", type=Array)
    shared, xml = doc.get("map", type=Map), doc.get("xml", type=XmlFragment)
    match chance.randrange(13):
        case 0 | 1 if len(text):
            at = chance.randrange(len(text))
            del text[at : min(len(text), at + chance.randrange(1, 5))]
        case 2 if len(text):
            at = chance.randrange(len(text))
            end = min(len(text), at + 4)
            text.format(at, end, {"bold": chance.choice((True, None))})
        case 3:
            value = chance.choice((1, "s", {"a": [1]}, Map({"x": 1})))
            items.insert(chance.randrange(len(items) + 1), value)
        case 4:
            value = chance.choice((Map({"x": 1}), 1, Array([1, 2]), Text("in")))
            shared[chance.choice("abc")] = value
        case 5:
            xml.children.insert(0, XmlElement("p", {"id": "1"}))
            xml.children[0].children.append(XmlText("text"))
        case 6 if len(items):
            del items[chance.randrange(len(items))]
        case 7 if len(xml.children):
            del xml.children[chance.randrange(len(xml.children))]
        case 8 if len(shared):
            del shared[chance.choice([*shared.keys()])]
        case 9 | 10:  # what is inside of something
            maps = [
                each for each in (*shared.values(), *items) if isinstance(each, Map)
            ]
            for each in maps:
                value = chance.choice((2, "v", Map({"y": 1}), Text("deep")))
                each[chance.choice("xy")] = value
        case 11:
            for child in xml.children:
                child.attributes["id"] = str(chance.randrange(9))
        case _:
            at = chance.randrange(len(text) + 1)
            text.insert(at, chance.choice(("xyz", "abcd ")))
