"""The order of characters is kept up by whatever native code takes, and is the same as that of a snapshot."""

from __future__ import annotations

from typing import Any

from converging import Stream, deliver, shuffled
from pycrdt import Array, Doc, Text, XmlFragment

from collab.document.anchor import Id, Root, Side
from collab.document.order import Order
from collab.document.units import EMBED


def shown(doc: Doc[Any]) -> tuple[str, int, int, int]:
    """What native code says: a text, its bytes, and how long two lists are."""
    text = doc.get("text", type=Text)
    pieces = [
        piece if isinstance(piece, str) else EMBED for piece, _ in text.diff() or ()
    ]
    array: Array[Any] = doc.get("array", type=Array)
    children = doc.get("xml", type=XmlFragment).children
    return "".join(pieces), len(text), len(array), len(list(children))


def ordered(order: Order) -> tuple[str, int, int, int]:
    return (
        order.text("text"),
        order.bytes_of("text"),
        order.length("array"),
        order.length("xml"),
    )


def characters(order: Order, root: Root) -> list[Id]:
    """The id of every visible unit in order: the same however the pieces are cut."""
    return [
        Id(client, clock + unit)
        for client, clock, units, _, _ in order.spans(root)
        for unit in range(units)
    ]


def test_an_order_shows_what_native_code_shows(streams: list[Stream]) -> None:
    wrong = []

    for stream in streams:
        ready: list[bytes] = []
        doc, gate = deliver(shuffled(stream.updates, stream.seed), ready)
        order = Order()
        for update in ready:
            order.apply(update)
        if ordered(order) != shown(doc) or order.vector() != gate.known:
            wrong.append(stream.seed)

    assert wrong == []


def test_updates_of_a_document_s_own_events_keep_up_an_order(
    streams: list[Stream],
) -> None:
    for stream in streams[:100]:
        doc: Doc[Any] = Doc()
        order = Order()
        subscription = doc.observe(lambda event, order=order: order.apply(event.update))
        _, gate = deliver([])
        for update in stream.updates:
            for ready in gate.admit(update):
                doc.apply_update(ready)
        doc.unobserve(subscription)

        assert ordered(order) == shown(doc)


def test_an_order_of_a_snapshot_is_that_of_the_updates(streams: list[Stream]) -> None:
    for stream in streams:
        ready: list[bytes] = []
        doc, _ = deliver(stream.updates, ready)
        order, again = Order(), Order.of(doc.get_update())
        for update in ready:
            order.apply(update)

        assert ordered(again) == ordered(order)
        for root in ("text", "array", "xml"):
            assert characters(again, root) == characters(order, root)


def test_an_order_that_hears_things_twice_stays_the_same(streams: list[Stream]) -> None:
    for stream in streams[:100]:
        ready: list[bytes] = []
        doc, _ = deliver(stream.updates, ready)
        order = Order()
        for at, update in enumerate(ready):
            order.apply(update)
            order.apply(ready[at // 2])
        order.apply(doc.get_update())

        assert ordered(order) == shown(doc)


def test_a_character_is_where_native_code_puts_text(streams: list[Stream]) -> None:
    for stream in streams[:100]:
        ready: list[bytes] = []
        doc, _ = deliver(stream.updates, ready)
        order = Order.of(doc.get_update())
        text = doc.get("text", type=Text)
        index = stream.seed % (order.length("text") + 1)
        expected = order.text("text")[:index] + "→" + order.text("text")[index:]
        anchors = [order.anchor("text", index, side) for side in Side]

        text.insert(order.bytes_at("text", index), "→")
        order.apply(doc.get_update())

        assert order.text("text") == expected == shown(doc)[0]
        assert [order.resolve(anchor).index - index for anchor in anchors] == [0, 1]
