"""Whatever the order, a document ends as Yjs ends it, without asking anybody for what is missing."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from converging import (
    Stream,
    content,
    deliver,
    deliver_bare,
    end_of,
    load,
    record,
    shown_by_yjs,
    shuffled,
)

from collab.protocol.statevector import state_vector

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


def test_readers_of_any_kind_agree_where_surrogate_pairs_were_cut(
    tmp_path: Path,
) -> None:
    """Yjs shows such halves, native code cannot: so the gate deletes what is cut, for everybody."""
    record(tmp_path / "cut.jsonl", first_seed=1, streams=60, cut=True)
    streams = load(tmp_path / "cut.jsonl")
    readers, ours, known = [], [], []

    for stream in streams:
        forwarded: list[bytes] = []
        doc, gate = deliver(shuffled(stream.updates, stream.seed), forwarded)
        ours += [end_of(doc)] * 3
        known += [gate.known] * 3
        readers += [[*stream.updates, *forwarded], forwarded, [doc.get_update()]]

    theirs = shown_by_yjs(readers, tmp_path)
    assert [each["content"] for each in theirs] == [end.content for end in ours]
    assert [state_vector(b64decode(each["vector"])) for each in theirs] == known
    assert not any(each["waits"] for each in theirs)
    assert any(end.content != stream.end.content for end, stream in zip(ours[::3], streams, strict=True))  # fmt: skip


def test_the_streams_hold_what_is_hard(streams: list[Stream]) -> None:
    updates = [update for stream in streams for update in stream.updates]

    contents = [stream.end.content for stream in streams]

    assert len(updates) > 10_000
    assert any(deliver(stream.updates[1:])[1] for stream in streams)
    assert all(any(content[root] for content in contents) for root in contents[0])
