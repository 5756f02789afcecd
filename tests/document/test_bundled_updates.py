"""Several updates as one: the same document, and nothing where that is not certain."""

from __future__ import annotations

from typing import Any

from pycrdt import Doc, Text

from collab.document.bundle import MAX_BYTES, bundled


def typed(*words: str) -> list[bytes]:
    """What is sent by who puts some words at the beginning, one after the other, and deletes the last character."""
    doc: Doc[Any] = Doc(client_id=7)
    text = doc.get("text", type=Text)
    updates: list[bytes] = []
    subscription = doc.observe(lambda event: updates.append(event.update))
    for word in words:
        text.insert(0, word)
    del text[len(text) - 1 : len(text)]
    doc.unobserve(subscription)
    return updates


def shown(*updates: bytes) -> str:
    doc: Doc[Any] = Doc()
    for update in updates:
        doc.apply_update(update)
    return str(doc.get("text", type=Text))


def test_one_update_says_what_several_did() -> None:
    updates = typed("😀a", "中 ", "b")

    one = bundled(updates)

    assert one is not None
    assert len(one) < sum(map(len, updates))
    assert shown(one) == shown(*updates) != ""


def test_what_repeats_a_part_stays_as_it_came() -> None:
    first, second, _ = typed("😀a", "b")

    assert bundled([first, second, first]) is None


def test_long_updates_stay_as_they_came() -> None:
    assert bundled(typed("x" * MAX_BYTES, "y")) is None


def test_what_is_no_update_stays_as_it_came() -> None:
    assert bundled([*typed("a"), b"\x01\x01"]) is None
