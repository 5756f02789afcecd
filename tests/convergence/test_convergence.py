"""Whatever the order, a document ends as Yjs ends it, without asking anybody for what is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from converging import Stream, content, deliver, deliver_bare, end_of, shuffled

Order = Callable[[Sequence[bytes], int], list[bytes]]

ORDERS = {
    "as recorded": lambda updates, seed: list(updates),
    "shuffled": lambda updates, seed: shuffled(updates, seed),
    "shuffled, a third twice": lambda updates, seed: shuffled(
        updates, seed, repeated=True
    ),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_every_stream_ends_as_in_yjs(streams: list[Stream], order: Order) -> None:
    wrong = []

    for stream in streams:
        doc, gate = deliver(order(stream.updates, stream.seed))
        if end_of(doc) != stream.end or len(gate) or gate.known != stream.end.vector:
            wrong.append(stream.seed)

    assert len(streams) == 400
    assert wrong == []


def test_the_gate_knows_what_the_document_knows_all_along(
    streams: list[Stream],
) -> None:
    for stream in streams[:40]:
        doc, gate = deliver([])

        for update in shuffled(stream.updates, stream.seed):
            for ready in gate.admit(update):
                doc.apply_update(ready)

            assert gate.known == end_of(doc).vector


def test_without_the_gate_some_streams_end_wrong(streams: list[Stream]) -> None:
    """Else the tests above could not fail."""
    wrong = [
        stream.seed
        for stream in streams
        if content(deliver_bare(shuffled(stream.updates, stream.seed)))
        != stream.end.content
    ]

    assert wrong


def test_the_streams_hold_what_is_hard(streams: list[Stream]) -> None:
    updates = [update for stream in streams for update in stream.updates]

    contents = [stream.end.content for stream in streams]

    assert len(updates) > 10_000
    assert any(deliver(stream.updates[1:])[1] for stream in streams)
    assert all(any(content[root] for content in contents) for root in contents[0])
