"""Characters inside a shared list, wherever they hide."""

from __future__ import annotations

from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment

from collab.protocol.lists import has_characters_in_list


def forged(**roots: Any) -> bytes:
    """An update in which every text inside something else is said to be a list."""
    doc: Doc[Any] = Doc(client_id=5)
    for name, root in roots.items():
        doc[name] = root
    update = doc.get_update()
    for key in (b"\x01k", b"\x01j"):
        at = update.find(key)
        if at >= 0:
            assert update[at + 2] == 2
            update = update[: at + 2] + b"\x00" + update[at + 3 :]
    return update


@pytest.mark.parametrize("text", ["é", "世界", "a😀", "\x80"])
def test_characters_in_a_list_are_found(text: str) -> None:
    assert has_characters_in_list(forged(map=Map({"k": Text(text)})))


def test_they_are_found_behind_others_and_at_any_depth() -> None:
    doc: Doc[Any] = Doc(client_id=5)
    text = Text("ascii")
    doc["map"] = Map({"a": Map({"k": text})})
    for place in (5, 0, 3):
        text.insert(place, "plain")
    text.insert(8, "ü")
    update = doc.get_update()
    at = update.index(b"\x01k") + 2

    hostile = update[:at] + b"\x00" + update[at + 1 :]

    assert not has_characters_in_list(update)
    assert has_characters_in_list(hostile)


def test_what_stock_clients_make_is_no_such_thing() -> None:
    doc: Doc[Any] = Doc(client_id=5)
    doc["text"] = Text("äöü😀")
    doc["list"] = Array(["äöü😀", Array(["ü"]), Map({"k": Text("é"), "ü": Array()})])
    doc["map"] = Map({"k": Text("é"), "list": Array([Text("ü")])})
    doc["xml"] = XmlFragment([XmlElement("p", {"ä": "ö"}, ["ünï"])])

    assert not has_characters_in_list(doc.get_update())


def test_ascii_does_no_harm() -> None:
    assert not has_characters_in_list(forged(map=Map({"k": Text("abc")})))


def test_an_empty_document_has_none() -> None:
    assert not has_characters_in_list(b"\0\0")
